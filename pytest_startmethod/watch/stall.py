"""Is the test waiting for the dead?"""

from __future__ import annotations

import signal
import sys
import threading
import time
from contextlib import contextmanager
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from pytest_startmethod.watch import ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

    from pytest_startmethod.watch.recorder import Child

# A handler of it that raises ends a wait; one that returns lets it go on. Ignored by default, and
# not on Windows, where no test is watched.
SIGNAL = getattr(signal, "SIGURG", None)

PROCESSES = ("multiprocessing.", "concurrent.futures.")
THREADS = ("threading", "selectors", "queue")


class Watch:
    """Watches the main thread while children run: a signal lets it look at where it is.

    `on_stall` is called with the frame that the main thread is blocked in, each time that it has
    been so for `timeout` seconds without anybody who `could_answer`. The wait goes on when it
    returns.
    """

    def __init__(
        self,
        timeout: float,
        could_answer: Callable[[FrameType | None], bool],
        on_stall: Callable[[FrameType | None], None],
    ) -> None:
        self._timeout = timeout
        self._could_answer = could_answer
        self._on_stall = on_stall
        self._lock = threading.RLock()  # not held while others' code runs
        self._watching = False
        self._starting = 0
        self._ticks: ticks.Ticks | None = None
        # How the signal was handled: taken over with the first process that the test starts.
        self._handled_before: Any = None
        self._place: tuple[FrameType | None, int | None] = (None, None)
        self._since = 0.0

    def enter(self, *, begin: bool) -> None:
        """Let children be watched from the next start of one on; `begin` if there are some."""
        self._watching = SIGNAL is not None and self._timeout > 0
        if begin:
            self._start()

    def leave(self) -> None:
        """Watch no longer, and handle the signal as before."""
        with self._lock:
            self._watching = False
            if self._ticks is not None:
                self._ticks.stop()
            self._place = (None, None)  # a frame keeps its variables alive
            if SIGNAL is not None and self._handled_before is not None:
                signal.signal(SIGNAL, self._handled_before)
                self._handled_before = None

    @contextmanager
    def paused(self, forks: bool) -> Iterator[None]:
        """Don't look while a process starts; have no thread alive if that `forks`."""
        if not self._watching:
            yield
            return
        with self._lock:
            self._starting += 1
            if forks and self._ticks is not None:
                self._ticks.make_way()
        try:
            yield
        finally:
            with self._lock:
                self._starting -= 1
                self._start()

    def _start(self) -> None:
        with self._lock:  # a pool's own thread may start a process at any time
            if SIGNAL is None or not self._watching or self._starting:
                return
            if self._handled_before is None:
                if threading.current_thread() is not threading.main_thread():
                    return
                self._handled_before = signal.signal(SIGNAL, self._handle)
            if self._ticks is None:
                self._ticks = ticks.every(min(self._timeout / 4, 0.5), SIGNAL)
            self._ticks.start()

    def _handle(self, _signum: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if self._starting or not self._watching:
            return
        place: tuple[FrameType | None, int | None] = (None, None)
        if frame is not None and waits_for_processes(frame) and not self._could_answer(frame):
            place = (frame, frame.f_lasti)
        # Not from when the wait began: an answer takes its time from who gave it to here.
        if place != self._place or place[0] is None:
            self._place, self._since = place, time.monotonic()
        elif time.monotonic() - self._since >= self._timeout:
            self._since = time.monotonic()
            self._on_stall(frame)


def waiting_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the innermost frames, as far as they belong to the standard library's waits."""
    frames = []
    while frame is not None and _module(frame).startswith(PROCESSES + THREADS):
        frames.append(frame)
        frame = frame.f_back
    return frames


def waits_for_processes(frame: FrameType | None) -> bool:
    """Tell whether a thread is in a wait of multiprocessing or concurrent.futures without end."""
    frames = waiting_frames(frame)
    ours = any(_module(frame).startswith(PROCESSES) for frame in frames)
    return ours and all(
        frame.f_locals.get("timeout") is None
        # A process that is joined answers by its end; to ask for it here would take it away.
        and not isinstance(frame.f_locals.get("self"), BaseProcess)
        for frame in frames
    )


def lost_workers(frame: FrameType | None, children: Collection[Child]) -> list[Child]:
    """Return the workers that ended abnormally of the Pool that a wait is on.

    A Pool loses the task of such a worker: its result never comes, whoever else is alive.
    """
    pool = _pool(waiting_frames(frame))
    return [child for child in children if child.exitcode and child.maker is pool is not None]


def _pool(frames: list[FrameType]) -> Pool | None:
    """Return the Pool that a wait is on: itself, or that of a result, which keeps it as `_pool`.

    Since Python 3.8; where it goes missing, a Pool's wait is judged as any other.
    """
    for frame in frames:
        this = frame.f_locals.get("self")
        for pool in (this, getattr(this, "_pool", None)):
            if isinstance(pool, Pool):
                return pool
    return None


def answering_threads(
    but: Collection[threading.Thread], plugins: Collection[str]
) -> list[threading.Thread]:
    """Return the threads that may still answer a wait: not this one, not those in `but`.

    Nor those that run the code of `plugins`, which are names of modules, nor those in which the
    standard library alone is at work for its pools, queues and executors.
    """
    frames = sys._current_frames()  # noqa: SLF001 (documented, for debuggers)
    own = {*but, threading.current_thread()}
    others = {thread: frames.get(thread.ident or 0) for thread in threading.enumerate()}
    return [
        thread
        for thread, frame in others.items()
        if thread not in own and not _serves(frame) and not _is_of(plugins, thread, frame)
    ]


def _is_of(plugins: Collection[str], thread: threading.Thread, frame: FrameType | None) -> bool:
    """Tell whether a thread runs the code of a plugin of pytest's, or is to: pytest-timeout's."""
    timer = getattr(thread, "function", None)  # of a threading.Timer, which may wait for its time
    if timer is not None:
        return getattr(timer, "__module__", "") in plugins
    while frame is not None and _module(frame).startswith(THREADS):
        frame = frame.f_back
    return frame is not None and _module(frame) in plugins


def _serves(frame: FrameType | None) -> bool:
    modules = []
    while frame is not None:
        if _runs_a_task(frame):
            return False
        modules.append(_module(frame))
        frame = frame.f_back
    return any(module.startswith(PROCESSES) for module in modules) and all(
        module.startswith(PROCESSES + THREADS) for module in modules
    )


def _runs_a_task(frame: FrameType) -> bool:
    """Tell whether a thread pool is at a task here, which has no frame if it is a built-in one.

    By names that are the same from Python 3.10 to 3.15.
    """
    function = (_module(frame), frame.f_code.co_name)
    if function == ("multiprocessing.pool", "worker"):
        return frame.f_locals.get("func") is not None
    return function == ("concurrent.futures.thread", "run")


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
