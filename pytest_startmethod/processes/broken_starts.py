"""Finds the child that exists though the start of it failed."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import Any

from pytest_startmethod.system import WINDOWS, System

PATIENCE = 10.0
"""Seconds that a busy machine may take for what happens in any case."""


def find_popen(error: BaseException) -> Any:  # noqa: ANN401 (a private class, another for each start method)
    """Return what had started a child when an error came in between; None where there is no child.

    A forkserver may have started it when Ctrl-C came, and is about to tell its pid. Windows starts
    the process first and pickles then: such a child could only end with a traceback of its own, so
    it is ended here. By names that are the same from Python 3.4 to 3.15; where they go missing
    nothing is found.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        popen: Any = frame.f_locals.get("self")
        method = getattr(popen, "method", "")
        if method == "forkserver" and hasattr(popen, "sentinel"):
            return _told_pid(popen)
        if WINDOWS and method == "spawn" and hasattr(popen, "sentinel"):
            popen.terminate()
            popen.wait(PATIENCE)
            return None
    return None


def _told_pid(popen: Any) -> Any:  # noqa: ANN401 (as above)
    from multiprocessing.forkserver import read_signed

    # Within some seconds, as the forkserver may have just begun to import what it preloads.
    if not hasattr(popen, "pid") and System.ready([popen.sentinel], PATIENCE):
        with suppress(EOFError):  # the forkserver has ended before
            popen.pid = read_signed(popen.sentinel)
            return popen
    return None
