"""Tells what the threads of this process run, without a look at their frames: see `owners`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.kernel import waits
from pytest_startmethod.processes import dumps
from pytest_startmethod.system import System

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Iterable

# Whose threads serve pools, executors and queues, and answer nobody by themselves.
SERVING = ("multiprocessing.queues", "concurrent.futures.process", "multiprocessing.pool")

THREAD_POOL = "concurrent.futures.thread"

TASKS = "/proc/self/task" if waits.AVAILABLE else ""
"""The folder of this process's threads, native ones too; "" but on Linux."""

FEW = 10
"""As many threads at most are named in a sentence."""


def module(thread: threading.Thread) -> str:
    """Return the module of what a thread runs, without a look at its frames: see `owners`."""
    return str(getattr(_target(thread), "__module__", None) or type(thread).__module__)


def _target(thread: threading.Thread) -> object:
    """Return the function that a thread runs, or is to run when its time comes.

    `Thread._target` is private, since Python 3.0; where it goes missing, the class of the thread
    says what it runs.
    """
    return getattr(thread, "function", None) or getattr(thread, "_target", None)


def serves(thread: threading.Thread) -> bool:
    """Tell whether a thread runs the standard library's own code alone, and no task of a user."""
    is_of_thread_pool = getattr(_target(thread), "__name__", "") == "worker"
    return module(thread) in SERVING and not is_of_thread_pool


def any_is_joined_at_exit() -> bool:
    """Tell whether Python will join a thread as it exits that may be waiting for a process.

    The threads of a thread pool don't count while they have no task; only Linux tells that.
    """
    others = [
        thread
        for thread in System.threads()
        if not (thread.daemon or thread is System.main_thread() or serves(thread))
    ]
    found = _find() if others else {}
    return any(
        module(t) != THREAD_POOL or t.ident not in found or found[t.ident].task for t in others
    )


def thread_ids() -> frozenset[int]:
    """Return the system's ids of all threads, native ones too; none but on Linux."""
    return frozenset(int(name) for name in System.listdir(TASKS)) if TASKS else frozenset()


class Beside(NamedTuple):
    """The other threads that ran in a process when it forked."""

    threads: tuple[str, ...] = ()
    """Those of Python's: names, and where each was."""
    native: int = 0
    """How many there were that Python doesn't know; 0 but on Linux."""
    running: frozenset[tuple[int, str]] = frozenset()
    """The system's ids of those in the user's code, and what each does: its outermost function."""

    def __str__(self) -> str:
        """Return which threads ran."""
        count = len(self.threads) + self.native
        few, more = self.threads[:FEW], len(self.threads) - FEW
        native = f"{self.native} that Python doesn't know" if self.native else ""
        names = [*few, *([f"{more} more"] if more > 0 else []), *([native] if native else [])]
        return f"{count} other thread{'s' * (count != 1)} ran: {', '.join(names)}"


NONE = Beside()


def other_threads(older: Collection[int]) -> Beside:
    """Return the threads that run now besides this one: where they are, but for `older` ones.

    By faulthandler, as no frame object of another thread may exist at a fork: see `owners`.
    """
    # Most forks have none.
    if System.count_threads is not None and not System.count_threads() and _count() == 1:
        return NONE
    here = System.get_ident()
    others = [thread for thread in System.threads() if thread.ident != here]
    native = max(_count() - 1 - len(others), 0)
    if not others and not native:
        return NONE
    names, found = [], {}
    if any(thread.ident not in older for thread in others):
        found = _find()
    for thread in others:
        place = found[thread.ident].place if thread.ident in found else ""
        names.append(f"{thread.name} at {place}" if place else thread.name)
    return Beside(tuple(names), native, _tasks(others, found))


def still_running(beside: Beside) -> frozenset[int]:
    """Return the system's ids of those that do what they did at the fork."""
    now = _tasks(System.threads(), _find()) if beside.running else frozenset()
    return frozenset(thread for thread, _ in beside.running & now)


def _tasks(
    threads: Iterable[threading.Thread], found: dict[int | None, dumps.Thread]
) -> frozenset[tuple[int, str]]:
    known = ((t.native_id or 0, found[t.ident].task) for t in threads if t.ident in found)
    return frozenset((thread, task) for thread, task in known if task)


def _find() -> dict[int | None, dumps.Thread]:
    """Return where each thread is, by its ident."""
    return {thread.ident: thread for thread in dumps.parse(_dump())}


def _count() -> int:
    """Return how many threads this process has, native ones too; 1 but on Linux."""
    return System.stat(TASKS).st_nlink - 2 if TASKS else 1


def _dump() -> str:
    """Return where all threads are; "" but on Linux."""
    if System.memfd_create is None:
        return ""
    descriptor = System.memfd_create("pytest-startmethod-threads")
    try:
        System.dump_traceback(file=descriptor, all_threads=True)
        return str(System.pread(descriptor, System.fstat(descriptor).st_size, 0), errors="replace")
    finally:
        System.close(descriptor)
