"""Asks the kernel for what only ``prctl`` gives (`man 2 prctl`)."""

from __future__ import annotations

import signal

try:
    import ctypes
except ImportError:  # a Python that was built without it
    ctypes = None  # type: ignore[assignment]

# Of <linux/prctl.h>.
SET_PDEATHSIG, GET_CHILD_SUBREAPER, SET_PTRACER = 1, 37, 0x59616D61


def is_subreaper() -> bool:
    """Tell whether processes whose parent has ended become children of this one."""
    if ctypes is None:
        return False
    answer = ctypes.c_int()
    ctypes.CDLL(None).prctl(GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def allow_ptrace(pid: int) -> None:
    """Allow a process to look at this one, even where Yama forbids that."""
    if ctypes is not None:
        ctypes.CDLL(None).prctl(SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    if ctypes is not None:
        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
