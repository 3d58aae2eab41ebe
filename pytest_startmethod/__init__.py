"""Run tests under every multiprocessing start method: fork, spawn and forkserver."""

from pytest_startmethod.watch.findings import (
    ChildProcessCrashWarning,
    ChildProcessLeakWarning,
    SharedMemoryLeakWarning,
    StartMethodMismatchWarning,
)

__all__ = [
    "ChildProcessCrashWarning",
    "ChildProcessLeakWarning",
    "SharedMemoryLeakWarning",
    "StartMethodMismatchWarning",
]
