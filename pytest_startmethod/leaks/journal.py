"""Records the shared memory that a child makes, each segment in a file of its name.

Forked children inherit this; to others its code is sent, and runs with the first segment that they
make (see `segments`): so it imports nothing of the plugin. Linux only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # to import typing takes a child longer than all the rest
if TYPE_CHECKING:
    from types import FrameType

FOLDER = "/dev/shm"
"""Where the system has shared memory and named semaphores."""

MEMORY = "shared_memory"
"""What the resource tracker calls it."""


class Journal:
    """A folder with a file for each segment that children have made, and nobody has unlinked."""

    # Taken before a test may replace them.
    _open = staticmethod(os.open)
    _read = staticmethod(os.read)
    _write = staticmethod(os.write)
    _close = staticmethod(os.close)
    _stat = staticmethod(os.stat)
    _unlink = staticmethod(os.unlink)
    _getpid = staticmethod(os.getpid)
    _NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def note(self, name: str, frame: FrameType | None) -> None:
        """Record a segment, if this process makes it in this frame."""
        if not makes(frame):
            return
        import resource  # not before it is needed, as above

        # The mark of the process (see `marks`), by which pytest knows whose child made it.
        mark, _ = resource.getrlimit(resource.RLIMIT_RTTIME)
        inode = self._stat(FOLDER + name).st_ino
        text = f"{mark}\n{inode}\n{int(self._has_own_tracker())}\n{line(frame)}"
        descriptor = self._open(self._file(name), self._NEW, 0o600)
        try:
            self._write(descriptor, text.encode(errors="surrogateescape"))
        finally:
            self._close(descriptor)

    def drop(self, name: str, _: FrameType | None = None) -> None:
        """Forget a segment, whoever made it."""
        try:
            self._unlink(self._file(name))
        except FileNotFoundError:
            return

    def _file(self, name: str) -> str:
        return f"{self.folder}/{name.strip('/')}"

    def _has_own_tracker(self) -> bool:
        """Tell whether this process started its resource tracker, which then ends after it.

        So does a forked one whose parent has none, until Python 3.15. The tracker's pid is private,
        since Python 3.4; where it goes missing the answer is no.
        """
        from multiprocessing import resource_tracker  # which has called `note`

        pid = getattr(resource_tracker._resource_tracker, "_pid", None)  # noqa: SLF001 (see above)
        if pid is None:
            return False
        try:
            descriptor = self._open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            stat = self._read(descriptor, 4096)
        finally:
            self._close(descriptor)
        return int(stat[stat.rfind(b")") + 1 :].split()[1]) == self._getpid()


def makes(frame: FrameType | None) -> bool:
    """Tell whether a frame of `SharedMemory` makes a segment: until Python 3.13 all register one.

    The name of the argument is documented.
    """
    return frame is not None and bool(frame.f_locals.get("create"))


def line(frame: FrameType | None) -> str:
    """Return the innermost line that isn't of multiprocessing."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in ("multiprocessing", "pytest_startmethod"):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown line"
