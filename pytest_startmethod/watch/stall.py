"""Fails a test that waits for what no process or thread can give any more."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.pool import Pool
from multiprocessing.synchronize import SemLock
from selectors import BaseSelector
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import System
from pytest_startmethod.watch import lookout, waits
from pytest_startmethod.watch.places import package

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import FrameType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.watch.children import Child

PROCESSES = ("multiprocessing", "concurrent")
WAITS = (*PROCESSES, "threading", "selectors", "queue")
"""The standard library's packages and modules whose frames are part of a wait."""

SIGNAL = lookout.SIGNAL

AGAIN = 0.2
"""Seconds between two looks at threads that seem stuck: one may have moved during the first."""


class Stall(NamedTuple):
    """Why a wait can't end."""

    lost: tuple[Child, ...] = ()
    """Workers of the pool that the wait is on: they ended, and their tasks are lost."""
    stuck: tuple[waits.Thread, ...] = ()
    """The threads that wait without end; none of the process tree can move."""


class StallWatch:
    """Lets the main thread look at its own wait, when the lookout finds it blocked for too long.

    `children` returns the test's children, `bystanders` the pids of those of earlier tests,
    `helpers` the pids of processes that serve multiprocessing itself, and `plugins` the names of
    modules whose threads aren't the test's;
    `on_stall` is called in the main thread, inside of the wait, which goes on where it returns.
    """

    def __init__(
        self,
        seconds: float,
        guard: Guard,
        *,
        children: Callable[[], Collection[Child]],
        bystanders: Callable[[], Collection[int]],
        helpers: Callable[[], Collection[int]],
        plugins: Callable[[], Collection[str]],
        on_stall: Callable[[Stall], None],
    ) -> None:
        self._seconds = seconds
        self._guard = guard
        self._children = children
        self._bystanders = bystanders
        self._helpers = helpers
        self._plugins = plugins
        self._on_stall = on_stall
        self._pid = System.getpid()
        self._lock = threading.RLock()  # not held while others' code runs
        self._lookout: lookout.Lookout | None = None
        self._on = False
        self._starting = 0
        # How the signal was handled: taken over with the first process that a test starts.
        self._handled_before: Any = None
        # Threads that were there before the first test.
        self._older = frozenset(System.threads())
        self._older_ids = _thread_ids()

    def enter(self, *, begin: bool) -> None:
        """Watch from the next start of a child on; `begin` if there are some already."""
        self._on = bool(SIGNAL) and self._seconds > 0
        if begin:
            self._begin()

    def leave(self) -> None:
        """Watch no longer, and handle the signal as before."""
        with self._lock:
            self._on = False
            if self._lookout is not None:
                self._lookout.pause()
            if self._handled_before is not None:
                if System.get_handler(SIGNAL) == self._handle:
                    System.set_handler(SIGNAL, self._handled_before)
                else:  # the test's own, which may stay
                    self._end_lookout()
                self._handled_before = None

    def end(self) -> None:
        """End the lookout."""
        self.leave()
        self._end_lookout()

    def _end_lookout(self) -> None:
        if self._lookout is not None:
            self._lookout.end()
            self._lookout = None

    @contextmanager
    def around_start(self, forks: bool) -> Iterator[None]:
        """Don't look while a process starts; have no thread alive if that `forks`."""
        if not self._on:
            yield
            return
        with self._guard, self._lock:
            self._starting += 1
            if forks and self._lookout is not None:
                self._lookout.make_way()
        try:
            yield
        finally:
            with self._guard, self._lock:
                self._starting -= 1
                self._begin()

    def _begin(self) -> None:
        with self._guard, self._lock:  # a pool's own thread may start a process at any time
            if not self._on or self._starting:
                return
            if self._handled_before is None:
                if System.get_ident() != System.main_thread().ident:
                    return
                if System.get_handler(SIGNAL) in (signal.SIG_DFL, signal.SIG_IGN):
                    self._handled_before = System.set_handler(SIGNAL, self._handle)
            if System.get_handler(SIGNAL) != self._handle:  # the test's own is to hear of no more
                self._end_lookout()
                return
            if self._lookout is None:
                self._lookout = lookout.lookout(self._seconds)
            self._lookout.begin()

    def _handle(self, _signum: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if self._starting or not self._on or System.getpid() != self._pid:
            return
        stall = None
        with self._guard:
            stall = self._find(frame)
        if stall is not None:
            self._on_stall(stall)

    def _find(self, frame: FrameType | None) -> Stall | None:
        """Return why the wait that a frame is in can't end, or None where it may."""
        frames = waiting_frames(frame)
        if not any(package(frame) in PROCESSES for frame in frames):
            return None
        lost = lost_workers(frames, self._children())
        if lost:
            return Stall(lost=tuple(lost))
        if not waits.AVAILABLE:
            return Stall() if self._all_are_dead() else None
        descriptor = _awaited(frames)
        first = self._stuck(descriptor)
        if first is None:
            return None
        System.sleep(AGAIN)
        if self._stuck(descriptor) != first or is_answered(frames):
            return None
        return Stall(stuck=tuple(first))

    def _stuck(self, descriptor: int | None) -> list[waits.Thread] | None:
        threads = {System.main_thread().native_id or 0, *self._older_ids}
        threads |= {thread.native_id or 0 for thread in self._of_others()}
        if self._lookout is not None:
            threads.add(self._lookout.thread)
        silent: set[int] = set()
        if descriptor is not None:
            # An earlier test's process that has nothing of what this one waits for.
            silent |= set(self._bystanders()) - waits.holders(descriptor)
        return waits.stuck_threads(waits.process_tree(silent, threads, self._helpers()))

    def _of_others(self) -> list[threading.Thread]:
        """Return the threads that aren't the test's: older ones, and those of pytest's plugins."""
        frames, plugins = System.frames(), self._plugins()
        return [
            thread
            for thread in System.threads()
            if thread in self._older or _runs(plugins, thread, frames.get(thread.ident or 0))
        ]

    def _all_are_dead(self) -> bool:
        """Tell whether each child has ended, and no thread of the test's is there to answer.

        Where the kernel can't be asked what others wait for, any other thread may answer, but for
        those in which the standard library alone is at work.
        """
        frames, others = System.frames(), self._of_others()
        answering = [
            thread
            for thread in System.threads()
            if thread.ident != System.get_ident() and thread not in others
            if not _serves(frames.get(thread.ident or 0))
        ]
        children = self._children()
        return bool(children) and not answering and all(c.has_ended() for c in children)


def waiting_frames(frame: FrameType | None) -> list[FrameType]:
    """Return the innermost frames, as far as they belong to the standard library's waits."""
    frames = []
    while frame is not None and package(frame) in WAITS:
        frames.append(frame)
        frame = frame.f_back
    return frames


def _awaited(frames: list[FrameType]) -> int | None:
    """Return the descriptor that a wait is on: of a connection, or of a process that is joined.

    None where it is on a lock, which anybody may hold.
    """
    for frame in frames:
        this = frame.f_locals.get("self")
        if isinstance(this, Connection):
            return this.fileno()
        sentinel = getattr(this, "sentinel", None)
        if isinstance(sentinel, int):
            return sentinel
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
        if isinstance(this, Connection):
            descriptors = [this.fileno()] if frame.f_code.co_name == "_recv" else []
        elif isinstance(this, BaseSelector):
            descriptors = [key.fd for key in this.get_map().values()]
        elif isinstance(sentinel := getattr(this, "sentinel", None), int):
            descriptors = [sentinel]
        lock = this if isinstance(this, SemLock) else getattr(this, "_wait_semaphore", None)
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
        this = frame.f_locals.get("self")
        for pool in (this, getattr(this, "_pool", None)):
            if isinstance(pool, Pool):
                return pool
    return None


def _runs(plugins: Collection[str], thread: threading.Thread, frame: FrameType | None) -> bool:
    """Tell whether a thread runs the code of a plugin of pytest's, or is to: pytest-timeout's."""
    timer = getattr(thread, "function", None)  # of a threading.Timer, which may wait for its time
    if timer is not None:
        return getattr(timer, "__module__", "") in plugins
    while frame is not None and package(frame) in WAITS:
        frame = frame.f_back
    return frame is not None and str(frame.f_globals.get("__name__", "")) in plugins


def _serves(frame: FrameType | None) -> bool:
    """Tell whether a thread runs the standard library's own code alone, and no task of a user."""
    packages = []
    while frame is not None:
        if _runs_a_task(frame):
            return False
        packages.append(package(frame))
        frame = frame.f_back
    return any(name in PROCESSES for name in packages) and all(name in WAITS for name in packages)


def _runs_a_task(frame: FrameType) -> bool:
    """Tell whether a thread pool is at a task here, which has no frame if it is a built-in one.

    By names that are the same from Python 3.10 to 3.15.
    """
    function = (str(frame.f_globals.get("__name__", "")), frame.f_code.co_name)
    if function == ("multiprocessing.pool", "worker"):
        return frame.f_locals.get("func") is not None
    return function == ("concurrent.futures.thread", "run")


def _thread_ids() -> frozenset[int]:
    """Return the system's ids of all threads, native ones too; none but on Linux."""
    if not waits.AVAILABLE or sys.platform == "win32":
        return frozenset()
    return frozenset(int(name) for name in System.listdir("/proc/self/task"))
