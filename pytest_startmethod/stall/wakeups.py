"""Ends a wait of the main thread on Windows, where no signal ends one by itself.

There a signal only sets a flag that the interpreter looks at once the wait is over. So the wait is
ended, too: that for a lock of threading by a notification, that for the system by the event that
Ctrl-C sets there.
"""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from typing import TYPE_CHECKING

from pytest_startmethod.load_hooks import loaded
from pytest_startmethod.processes import makers
from pytest_startmethod.stall.lost_tasks import fail_lost_tasks

if TYPE_CHECKING:
    from multiprocessing.pool import Pool
    from types import FrameType

SIGNAL: signal.Signals | None = getattr(signal, "SIGBREAK", None)
"""What may carry a handler of ours on Windows, as SIGURG does elsewhere: that of Ctrl-Break."""

PATIENCE = 1.0
"""Seconds to wait for the lock of a condition: who waits for the condition has released it."""


class MainThreadWokenError(Exception):
    """The result of a task that the main thread waited for, while it ends by a signal's handler."""


def wake_main_thread(signum: signal.Signals) -> None:
    """Let the main thread run the handler of a signal now, whatever it waits for.

    To be called in another thread, where the handler is to raise: a wait that it lets go on returns
    too early, or raises InterruptedError. Out of reach is the ``lock.acquire()`` of threading, and
    so ``Thread.join()``, other than ``Pool.join()``.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 (documented, for debuggers)
    _thread.interrupt_main(signum)
    condition, pool = _awaited(frame)
    if condition is not None:
        if condition.acquire(timeout=PATIENCE):
            condition.notify_all()
            condition.release()
    elif pool is not None:
        fail_lost_tasks(pool, MainThreadWokenError())
    else:
        _set_event_of_ctrl_c()


def _awaited(frame: FrameType | None) -> tuple[threading.Condition | None, Pool | None]:
    """Return the condition that a thread waits for, or the Pool that it joins."""
    join = getattr(loaded(*makers.POOL), "join", None)
    while frame is not None:
        this = frame.f_locals.get("self")
        if frame.f_code is threading.Condition.wait.__code__:
            return this, None
        if frame.f_code is getattr(join, "__code__", None):
            return None, this
        frame = frame.f_back
    return None, None


def _set_event_of_ctrl_c() -> None:
    """Set the event that each wait of multiprocessing's on Windows ends by.

    Private, exported by every Python since 3.3: where it goes missing, such a wait goes on.
    """
    if sys.platform != "win32":
        return
    try:
        import ctypes  # may be missing from a Python that was built without it

        event = ctypes.pythonapi._PyOS_SigintEvent  # noqa: SLF001 (see above)
    except (ImportError, AttributeError):
        return
    event.restype = ctypes.c_void_p
    set_event = ctypes.WinDLL("kernel32").SetEvent  # one of our own, as argtypes are kept
    set_event.argtypes = [ctypes.c_void_p]
    set_event(event())
