"""Looks at the main thread on Windows, from a thread: no process is ever forked there."""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

from pytest_startmethod.kernel import syscalls
from pytest_startmethod.stall import wakeups
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class WindowsLookout:
    """Wakes the main thread where `is_stalled` says of its frame that it waits in vain.

    It looks twice, the second time soon after the first: a wait that is interrupted can't go on.
    """

    is_thread = False  # none that forks
    thread = 0

    def __init__(self, seconds: float, is_stalled: Callable[[FrameType | None], bool]) -> None:
        self._seconds = seconds
        self._is_stalled = is_stalled
        self._to_end = _thread.allocate_lock()
        self._on = False

    def begin(self) -> None:
        """Look from now on, where it doesn't yet."""
        if not self._on:
            self._on = True
            self._to_end = _thread.allocate_lock()
            self._to_end.acquire()
            _thread.start_new_thread(self._run, (self._to_end,))

    def pause(self) -> None:
        """Look no more, until it is to begin again."""
        if self._on:
            self._on = False
            self._to_end.release()

    def make_way(self) -> None:
        """Do nothing: no process is forked."""

    end = pause

    def _run(self, to_end: _thread.LockType) -> None:
        main = System.main_thread().ident or 0
        soon = False
        while not to_end.acquire(timeout=syscalls.SECONDS if soon else self._seconds):
            # Documented, for debuggers; a frame object of another thread harms where one forks.
            frame = sys._current_frames().get(main)  # noqa: SLF001
            soon = not soon
            if self._is_stalled(frame) and wakeups.SIGNAL is not None:
                wakeups.wake_main_thread(wakeups.SIGNAL)
            del frame
