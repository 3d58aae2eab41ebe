"""Asks the kernel whether a child can't go on by itself."""

from __future__ import annotations

import signal

from pytest_startmethod.kernel import waits
from pytest_startmethod.stall import lookout
from pytest_startmethod.system import System

PRIVATE = 0x80
"""The flag of a futex operation that no other process can have a part in."""

HARMLESS = frozenset(
    int(getattr(signal, name, 0))
    for name in (
        "SIGINT",
        "SIGALRM",
        "SIGWINCH",
        "SIGSEGV",
        "SIGFPE",
        "SIGABRT",
        "SIGBUS",
        "SIGILL",
    )
) | {int(lookout.SIGNAL)}
"""Signals that pytest, readline, faulthandler and pytest-timeout handle, in forked children too."""


def waits_without_end(pid: int) -> bool:
    """Tell whether each thread of a process waits without end, for whatever it is."""
    threads = waits.threads_of(pid) if waits.AVAILABLE else []
    return bool(threads) and None not in threads


def holds_itself(pid: int) -> bool:
    """Tell whether each thread of a process waits for a lock that only the process can release."""
    threads = waits.threads_of(pid) if waits.AVAILABLE else []
    return bool(threads) and all(thread and _is_own_lock(thread) for thread in threads)


def is_deadlocked(pid: int) -> bool:
    """Tell whether a process can't go on, and handles no signal that could change that."""
    if not holds_itself(pid):
        return False
    try:
        status = System.read_file(f"/proc/{pid}/status")
    except OSError:  # it has ended
        return False
    _, _, after = status.partition(b"\nSigCgt:\t")
    caught = int(after[:16] or b"0", 16)
    # The two that the C library keeps for itself are from 32 on.
    return not any(caught >> n - 1 & 1 for n in range(1, 32) if n not in HARMLESS)


def _is_own_lock(thread: waits.Thread) -> bool:
    wait = thread.wait
    return wait.call.kind == "lock" and bool(wait.arguments[1] & PRIVATE)
