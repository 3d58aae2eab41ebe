"""Tells what the threads of this process run, without a look at their frames: see `owners`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_startmethod.system import System
from pytest_startmethod.watch import waits

if TYPE_CHECKING:
    import threading

# Whose threads serve pools, executors and queues, and answer nobody by themselves.
SERVING = ("multiprocessing.queues", "concurrent.futures.process", "multiprocessing.pool")


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


def thread_ids() -> frozenset[int]:
    """Return the system's ids of all threads, native ones too; none but on Linux."""
    if not waits.AVAILABLE or sys.platform == "win32":
        return frozenset()
    return frozenset(int(name) for name in System.listdir("/proc/self/task"))


def are_others() -> bool:
    """Tell whether there are threads of Python's beside the main one."""
    return System.count_threads is None or System.count_threads() > 0


def other_threads() -> tuple[str, ...]:
    """Return the names of the other threads of Python's that run now."""
    threads, here = System.threads(), System.get_ident()
    return tuple(thread.name for thread in threads if thread.ident != here)
