"""What interrupts the main thread from time to time, whatever it waits for?"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from typing import Protocol


class Ticks(Protocol):
    """Sends a signal to the main thread, again and again, from `start` to `stop`."""

    def start(self) -> None:
        """Begin, where it hasn't begun."""

    def stop(self) -> None:
        """End, where it has begun."""

    def make_way(self) -> None:
        """Let the process fork now; `start` is called afterwards."""


def every(seconds: float, signum: int) -> Ticks:
    """Return what sends a signal to the main thread that often."""
    try:
        return TimerTicks(seconds, signum)
    except (ImportError, AttributeError):  # macOS has none, and a Python may have no ctypes
        return ThreadTicks(seconds, signum)


class TimerTicks:
    """Ticks of a timer of the kernel's: a child of a fork has none of it.

    Raises `ImportError` or `AttributeError` where there is no such timer: only 64-bit Linux has it.
    """

    def __init__(self, seconds: float, signum: int) -> None:
        if not sys.platform.startswith("linux") or sys.maxsize <= 2**32:
            raise ImportError(sys.platform)
        import ctypes  # may be missing from a Python that was built without it

        library = ctypes.CDLL(None)
        self._create, self._set = library.timer_create, library.timer_settime
        self._delete = library.timer_delete
        self._delete.argtypes = [ctypes.c_void_p]
        self._set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        # struct sigevent: a value of 8 bytes, the signal, SIGEV_THREAD_ID, the thread.
        self._event = (ctypes.c_int * 16)(0, 0, signum, 4, threading.main_thread().native_id or 0)
        whole, rest = int(seconds), int(seconds % 1 * 1e9)
        self._times = (ctypes.c_long * 4)(whole, rest, whole, rest)
        self._timer = ctypes.c_void_p()
        self._reference = ctypes.byref(self._timer)
        self._running = False

    def start(self) -> None:
        """Begin, where it hasn't begun."""
        if not self._running and not self._create(
            time.CLOCK_MONOTONIC, self._event, self._reference
        ):
            self._running = True
            self._set(self._timer, 0, self._times, None)

    def stop(self) -> None:
        """End, where it has begun."""
        if self._running:
            self._running = False
            self._delete(self._timer)

    def make_way(self) -> None:
        """Let the process fork now: it may at any time."""


class ThreadTicks:
    """Ticks of a thread, which is never alive at a fork: Python 3.12 and later warn of one."""

    def __init__(self, seconds: float, signum: int) -> None:
        self._seconds = seconds
        self._signum = signum
        self._next = 0.0  # outlives a thread: a Pool may start workers without end
        self._running = False
        self._native_id = 0
        # Held but by a thread that is to end, and by one that is there.
        self._to_end = threading.Lock()
        self._to_end.acquire()
        self._ended = threading.Lock()

    def start(self) -> None:
        """Begin, where it hasn't begun."""
        if not self._running:
            self._running = self._ended.acquire()
            # Not threading.Thread, whose start() waits for the thread: half of what it takes to
            # start a process.
            _thread.start_new_thread(self._run, ())

    def stop(self) -> None:
        """End, where it has begun."""
        if self._running:
            self._to_end.release()
            with self._ended:
                self._running = False
            # The system's thread ends a little later, and os.fork() warns of that one, too. None
            # of it to be seen but on Linux.
            task = f"/proc/self/task/{self._native_id}"
            while os.path.exists(task):  # noqa: PTH110 (a Path takes as long as the rest)
                time.sleep(0)

    def make_way(self) -> None:
        """Let the process fork now."""
        self.stop()

    def _run(self) -> None:
        self._native_id = threading.get_native_id()
        main = threading.main_thread().ident or 0
        try:
            while not self._to_end.acquire(timeout=max(self._next - time.monotonic(), 0)):
                self._next = time.monotonic() + self._seconds
                signal.pthread_kill(main, self._signum)
        finally:
            self._ended.release()
