"""Fails a test that waits for what no process or thread can give any more."""

from __future__ import annotations

import signal
import sys
import threading
from multiprocessing.connection import Connection
from multiprocessing.pool import Pool
from multiprocessing.synchronize import SemLock
from selectors import BaseSelector
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import WINDOWS, System
from pytest_startmethod.watch import lookout, waits
from pytest_startmethod.watch.places import package

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.watch.children import Child

PROCESSES = ("multiprocessing", "concurrent")
WAITS = (*PROCESSES, "threading", "selectors", "queue")
"""The standard library's packages and modules whose frames are part of a wait."""

SIGNAL = lookout.SIGNAL

# Whose threads serve pools, executors and queues, and answer nobody by themselves.
SERVING = ("multiprocessing.queues", "concurrent.futures.process", "multiprocessing.pool")


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
        self._main = System.main_thread().ident
        self._lock = threading.RLock()  # not held while others' code runs
        self._lookout: lookout.Lookout | None = None
        self._on = False
        self._starting = 0
        # Whether the main thread starts a process: it may wait for a forkserver then.
        self._main_starts = False
        # The threads that were stuck at the last look, and where the main thread was.
        self._last: tuple[object, int, int] | None = None
        self._woken_by: Stall | None = None
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

    def before_start(self, *, forks: bool) -> None:
        """Don't look while a process starts; have no thread alive if that `forks`."""
        with self._guard, self._lock:
            self._starting += 1
            if System.get_ident() == self._main:
                self._main_starts = True
            if forks and self._lookout is not None:
                self._lookout.make_way()

    def after_start(self) -> None:
        """Look again."""
        with self._guard, self._lock:
            self._starting -= 1
            if System.get_ident() == self._main:
                self._main_starts = False
            self._begin()

    def _begin(self) -> None:
        with self._guard, self._lock:  # a pool's own thread may start a process at any time
            if not self._on or self._starting:
                return
            if self._handled_before is None:
                if System.get_ident() != self._main:
                    return
                if System.get_handler(SIGNAL) in (signal.SIG_DFL, signal.SIG_IGN):
                    self._handled_before = System.set_handler(SIGNAL, self._handle)
            if System.get_handler(SIGNAL) != self._handle:  # the test's own is to hear of no more
                self._end_lookout()
                return
            if self._lookout is None:
                self._lookout = lookout.lookout(self._seconds, self._is_stalled)
            self._lookout.begin()

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if WINDOWS:
            stall, self._woken_by = self._woken_by, None
            if stall is None:
                self._pass_on(signum, frame)
        else:
            stall = self._look(frame)
        if stall is not None:
            self._on_stall(stall)

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Do what a Ctrl-Break of the user's did before."""
        if callable(self._handled_before):
            self._handled_before(signum, frame)
        elif self._handled_before == signal.SIG_DFL:
            System.set_handler(signum, signal.SIG_DFL)
            System.raise_signal(signum)

    def _is_stalled(self, frame: FrameType | None) -> bool:
        self._woken_by = self._look(frame)
        return self._woken_by is not None

    def _look(self, frame: FrameType | None) -> Stall | None:
        """Return why the wait that a frame is in can't end, where that is so for the second time.

        Not for the first time: the wait may have come to its end just now.
        """
        stall, last = None, self._last
        self._last = None
        if self._main_starts or not self._on or System.getpid() != self._pid or frame is None:
            return None
        with self._guard:
            stall = self._find(frame)
        if stall is None:
            return None
        # A pool whose initializer fails loses one worker after the other.
        self._last = stall.stuck, id(frame), frame.f_lasti
        return stall if self._last == last else None

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
        stuck = self._stuck(_awaited(frames))
        if stuck is None or is_answered(frames):
            return None
        return Stall(stuck=tuple(stuck))

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
        plugins = self._plugins()
        return [t for t in System.threads() if t in self._older or _module(t) in plugins]

    def _all_are_dead(self) -> bool:
        """Tell whether each child has ended, and no thread of the test's is there to answer.

        Where the kernel can't be asked what others wait for, any other thread may answer, but for
        those in which the standard library alone is at work.
        """
        others = self._of_others()
        answering = [
            thread
            for thread in System.threads()
            if thread.ident != self._main and thread not in others and not _serves(thread)
        ]
        children = self._children()
        return bool(children) and not answering and all(c.has_ended() for c in children)


def _module(thread: threading.Thread) -> str:
    """Return the module of what a thread runs, without a look at its frames: see `owners`."""
    return str(getattr(_target(thread), "__module__", None) or type(thread).__module__)


def _target(thread: threading.Thread) -> object:
    """Return the function that a thread runs, or is to run when its time comes.

    `Thread._target` is private, since Python 3.0; where it goes missing, the class of the thread
    says what it runs.
    """
    return getattr(thread, "function", None) or getattr(thread, "_target", None)


def _serves(thread: threading.Thread) -> bool:
    """Tell whether a thread runs the standard library's own code alone, and no task of a user."""
    is_of_thread_pool = getattr(_target(thread), "__name__", "") == "worker"
    return _module(thread) in SERVING and not is_of_thread_pool


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


def _thread_ids() -> frozenset[int]:
    """Return the system's ids of all threads, native ones too; none but on Linux."""
    if not waits.AVAILABLE or sys.platform == "win32":
        return frozenset()
    return frozenset(int(name) for name in System.listdir("/proc/self/task"))
