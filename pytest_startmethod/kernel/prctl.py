"""Asks the kernel for what only ``prctl`` gives (`man 2 prctl`).

By ctypes, which takes memory and a Python may be built without: it is imported once it is needed.
"""

from __future__ import annotations

import signal
from contextlib import suppress

# Of <linux/prctl.h>.
SET_PDEATHSIG, GET_CHILD_SUBREAPER, SET_PTRACER = 1, 37, 0x59616D61


def is_subreaper() -> bool:
    """Tell whether processes whose parent has ended become children of this one."""
    with suppress(ImportError):
        import ctypes

        answer = ctypes.c_int()
        ctypes.CDLL(None).prctl(GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
        return bool(answer.value)
    return False


def allow_ptrace(pid: int) -> None:
    """Allow a process to look at this one, even where Yama forbids that."""
    with suppress(ImportError):
        import ctypes

        ctypes.CDLL(None).prctl(SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    with suppress(ImportError):
        import ctypes

        ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
