"""Tells what a wait of the standard library's is on, by the frames that it consists of."""

from __future__ import annotations

from multiprocessing.process import BaseProcess
from selectors import BaseSelector
from typing import TYPE_CHECKING, Any

from pytest_startmethod.load_hooks import loaded_classes
from pytest_startmethod.processes import makers
from pytest_startmethod.processes.places import package
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Collection
    from multiprocessing.pool import Pool
    from types import FrameType

    from pytest_startmethod.processes.children import Child

CONNECTION = ("multiprocessing.connection", "Connection")

PROCESSES = ("multiprocessing", "concurrent")


WAITS = (*PROCESSES, "threading", "selectors", "queue")
"""The standard library's packages and modules whose frames are part of a wait."""


def waiting_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the innermost frames, as far as they belong to the standard library's waits."""
    frames = []
    while frame is not None and package(frame) in WAITS:
        frames.append(frame)
        frame = frame.f_back
    return frames


def is_start(frames: list[FrameType]) -> bool:
    """Tell whether a process is being started, which may take long."""
    return any(
        frame.f_code.co_name == "start" and isinstance(frame.f_locals.get("self"), BaseProcess)
        for frame in frames
    )


def awaited_descriptor(frames: list[FrameType]) -> int | None:
    """Return the descriptor that a wait is on: of a connection, or of a process that is joined.

    None where it is on a lock, which anybody may hold.
    """
    for frame in frames:
        this: Any = frame.f_locals.get("self")
        if isinstance(this, loaded_classes([CONNECTION])):
            descriptor: int = this.fileno()
            return descriptor
        sentinel = getattr(this, "sentinel", None)
        if isinstance(sentinel, int):
            return sentinel
    return None


def joined(frames: list[FrameType]) -> int | None:
    """Return the pid of the process that a wait is for, if it is for the end of one.

    By the object that holds the process, and has its pid, since Python 2.6.
    """
    for frame in frames:
        this = frame.f_locals.get("self")
        if frame.f_code.co_name in ("wait", "poll") and hasattr(this, "returncode"):
            pid = getattr(this, "pid", None)
            return pid if isinstance(pid, int) else None
    return None


def is_answered(frames: list[FrameType]) -> bool:
    """Tell whether a wait is about to end: the answer came while the signal was handled.

    By names that are the same from Python 3.4 to 3.15; where they go missing such a wait isn't
    looked at.
    """
    for frame in frames:
        this: Any = frame.f_locals.get("self")
        waiter: Any = frame.f_locals.get("waiter")
        descriptors: list[int] = []
        if isinstance(this, loaded_classes([CONNECTION])):
            descriptors = [this.fileno()] if frame.f_code.co_name == "_recv" else []
        elif isinstance(this, BaseSelector):
            descriptors = [key.fd for key in this.get_map().values()]
        elif isinstance(sentinel := getattr(this, "sentinel", None), int):
            descriptors = [sentinel]
        is_lock = isinstance(this, loaded_classes([makers.LOCK]))
        lock = this if is_lock else getattr(this, "_wait_semaphore", None)
        is_zero = getattr(getattr(lock, "_semlock", None), "_is_zero", None)
        if is_zero is not None and not is_zero():
            return True
        if (descriptors and System.ready(descriptors)) or (
            hasattr(waiter, "locked") and not waiter.locked()
        ):
            return True
    return False


def lost_workers(frames: list[FrameType], children: Collection[Child]) -> list[Child]:
    """Return the workers that ended abnormally of the Pool that a wait is on.

    A Pool loses the task of such a worker: its result never comes, whoever else is alive.
    """
    pool = _pool(frames)
    return [child for child in children if child.exit_code and child.maker is pool is not None]


def _pool(frames: list[FrameType]) -> Pool | None:
    """Return the Pool that a wait is on: itself, or that of a result, which keeps it as `_pool`.

    Since Python 3.8; where it goes missing, a Pool's wait is judged as any other.
    """
    for frame in frames:
        this: Any = frame.f_locals.get("self")
        for pool in (this, getattr(this, "_pool", None)):
            if isinstance(pool, loaded_classes([makers.POOL])):
                found: Pool = pool
                return found
    return None
