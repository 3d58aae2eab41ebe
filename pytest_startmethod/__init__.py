"""Run tests under every multiprocessing start method: fork, spawn and forkserver."""

from pytest_startmethod.warning_classes import (
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
