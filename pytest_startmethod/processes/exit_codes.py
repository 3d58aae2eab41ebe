"""Names the exit codes of processes, and says which of them are faults."""

from __future__ import annotations

import signal
from contextlib import suppress

FAULTS = frozenset(
    -getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
)
"""Exit codes of processes that a signal of the system's own ended."""

# Windows: the NTSTATUS value, or the number of the exception, that ended a process.
NAMES = {
    0x80000003: "breakpoint",
    0xC0000005: "access violation",
    0xC0000006: "in-page error",
    0xC0000017: "no memory",
    0xC000001D: "illegal instruction",
    0xC0000094: "integer division by zero",
    0xC0000096: "privileged instruction",
    0xC00000FD: "stack overflow",
    0xC0000135: "DLL not found",
    0xC0000139: "entry point of a DLL not found",
    0xC000013A: "Ctrl-C",
    0xC0000142: "DLL initialization failed",
    0xC0000374: "heap corruption",
    0xC0000409: "fail-fast",
    0xC0000420: "assertion failure",
    0xE0434352: ".NET exception",
    0xE06D7363: "C++ exception",
}
CTRL_C = 0xC000013A

# From there on an exit code is a small negative number: sys.exit(-1) ends with 0xFFFFFFFF.
NEGATIVE = 0xF0000000


def is_fault(code: int) -> bool:
    """Return whether a process with this exit code ended by a fault, on POSIX or on Windows."""
    return code in FAULTS or (0xC0000000 <= code < NEGATIVE and code != CTRL_C)


def describe(code: int) -> str:
    """Return the name of the signal that ended a process, or its exit code."""
    if code < 0:
        with suppress(ValueError):  # a number that is no signal here
            return signal.Signals(-code).name
    if 0x80000000 <= code < NEGATIVE:  # what Windows' documentation writes in hexadecimal
        name = NAMES.get(code)
        return f"exit code 0x{code:08X}" + (f" ({name})" if name else "")
    return f"exit code {code}"
