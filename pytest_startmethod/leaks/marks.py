"""Marks child processes by a limit that the kernel hands down to all that they start.

A process inherits its limits from the one that starts it, through fork and exec, and keeps them
when its parent ends, when it leaves by ``setsid()``, and with an empty environment. The limit of
the time that a real-time process may take (``RLIMIT_RTTIME``, `man 2 getrlimit`) has no effect on
others, nor on any while it is that large: so it can hold a number. Linux only.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# A mark is this, a number of the run and one of the start. No limit of anybody's is 146,000 years.
FIRST = 1 << 62
RUN_BYTES, START_BITS = 5, 22

SEMAPHORE_PREFIX = "/mp-%x"
"""The prefix of the names of a marked child's semaphores."""


class Marks:
    """Marks what is started from `begin` to `end`.

    `helpers` returns the pids of the forkserver and of the resource tracker: one hands the mark
    down, and both may be started between `begin` and `end` and are to have none of their own.
    """

    def __init__(self, helpers: Callable[[], Iterable[int]]) -> None:
        self._helpers = helpers
        self._lock = threading.RLock()  # a pool's own thread may start a process at any time
        self._run = FIRST + (int.from_bytes(System.urandom(RUN_BYTES), "big") << START_BITS)
        self._starts = 0
        self.last = 0
        """The mark of the latest start."""
        self._open = 0
        self._before = (0, 0)
        self._helpers_are_marked = False
        self._available = System.prlimit is not None and System.RTTIME >= 0

    def begin(self, *, forks: bool) -> int:
        """Mark what is started from now on; return its mark, 0 where none can be set.

        Helpers have no part in a start that `forks` this process.
        """
        if not self._available:
            return 0
        with self._lock:
            mark = self._run + (self._starts + 1) % (1 << START_BITS)
            try:
                if not self._open:
                    self._before = soft, hard = System.prlimit(0, System.RTTIME)
                    # A limit of the user's stays; the mark of another run, whose child this one
                    # is, makes way.
                    if hard != System.INFINITY or not (soft == System.INFINITY or _is_mark(soft)):
                        return 0
                self._open += 1
                System.prlimit(0, System.RTTIME, (mark, System.INFINITY))
            except (OSError, ValueError):  # a sandbox that allows it to nobody
                self._available, self._open = False, 0
                return 0
            self._starts += 1
            self.last = mark
            if not forks:
                self._helpers_are_marked = True
                self._set_helpers((mark, System.INFINITY))
            return mark

    def end(self) -> None:
        """Stop marking, unless another thread is still starting a process.

        May be called again after a signal handler has interrupted it.
        """
        with self._lock:
            if self._open == 1:
                System.prlimit(0, System.RTTIME, self._before)
                if self._helpers_are_marked:
                    self._set_helpers(self._before)
                    self._helpers_are_marked = False
            self._open = max(self._open - 1, 0)

    def confirm(self, mark: int, pid: int) -> None:
        """Make sure of the mark of a child that was started.

        Another thread may have begun meanwhile, and other libraries have forkservers of their own.
        What holds it may be a mock, and its pid anybody's.
        """
        if not mark or mark_of(pid) == mark:
            return
        if System.waitid_alive(pid) or System.is_grandchild(pid):
            with suppress(OSError):  # it has ended
                System.prlimit(pid, System.RTTIME, (mark, System.INFINITY))

    def _set_helpers(self, limits: tuple[int, int]) -> None:
        for pid in self._helpers():
            with suppress(OSError):  # it has ended
                System.prlimit(pid, System.RTTIME, limits)


@contextmanager
def unmarked() -> Iterator[None]:
    """Start something that has no mark, where this process has that of another run."""
    before = System.prlimit(0, System.RTTIME) if System.RTTIME >= 0 else (0, 0)
    if not _is_mark(before[0]):
        yield
        return
    System.prlimit(0, System.RTTIME, (System.INFINITY, before[1]))
    try:
        yield
    finally:
        System.prlimit(0, System.RTTIME, before)


def mark_of(pid: int) -> int:
    """Return the mark of a process, 0 where there is none."""
    try:
        soft, _ = System.prlimit(pid, System.RTTIME)
    except OSError:  # no such process, or another user's
        return 0
    return int(soft) if _is_mark(soft) else 0


def _is_mark(limit: int) -> bool:
    return FIRST <= limit < 2 * FIRST
