"""The warnings that the plugin gives; users filter them by these classes."""


class StartMethodMismatchWarning(UserWarning):
    """A process was started by another method than the one that the test runs under."""


class ChildProcessCrashWarning(UserWarning):
    """A test passed though a process that it started ended by an uncaught exception or a fault."""


class ChildProcessLeakWarning(UserWarning):
    """A process outlived the test or fixture that started it, or whose child did, and was ended."""


class SharedMemoryLeakWarning(UserWarning):
    """Shared memory was there at the end of the test or fixture that made it, and was unlinked."""
