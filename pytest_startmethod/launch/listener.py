"""Lets a child tell where its threads are, when pytest asks it by a signal.

A spawn or forkserver child runs this as source, before it looks for its target: so it imports
nothing of the plugin. Linux only: elsewhere nobody could read what is held in memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in typeshed
import faulthandler
import os

TYPE_CHECKING = False  # to import typing takes a child some milliseconds
if TYPE_CHECKING:
    from typing import Any

NAME = "pytest-startmethod-stacks"
"""The name of the memory file that a child's stacks are written to."""

NUMBERS = range(250, 240, -1)
"""Where its descriptor is: out of the way of what the child opens, and of most loops that close."""


class Own:
    """The functions of a child in which nobody has replaced any."""

    memfd_create = getattr(os, "memfd_create", None)
    fstat = staticmethod(os.fstat)
    dup2 = staticmethod(os.dup2)
    close = staticmethod(os.close)
    get_handler = staticmethod(_signal.getsignal)
    register_dump = getattr(faulthandler, "register", None)
    unregister_dump = getattr(faulthandler, "unregister", None)


class Listener:
    """Writes the stacks of this process to a memory file, at each signal `signum`.

    In C, so that a thread may wait for whatever it likes, or hold the interpreter's lock. Not where
    the signal has another handler than one of `free`, and no more once it is given one.
    """

    def __init__(self, system: Any, signum: int, free: tuple[object, ...] = (0,)) -> None:  # noqa: ANN401 (`Own`, or `System`)
        self._system = system
        self._signum = signum
        self._free = free
        self._file: tuple[int, int] | None = None
        self._descriptor = -1
        self._watches = False

    def listen(self) -> None:
        """Begin: in a child, and anew in a child of it that was forked."""
        if self._system.get_handler(self._signum) not in self._free:
            return
        inherited = self._descriptor if self._is_open() else -1
        self._descriptor = self._open(inherited)
        self._file = self._identity()
        self._system.register_dump(self._signum, file=self._descriptor)
        if not self._watches:
            self._watches = True
            self._watch_handler()

    def leave(self) -> None:
        """End, and give back the signal and the descriptor."""
        self._system.unregister_dump(self._signum)
        if self._is_open():
            self._system.close(self._descriptor)
        self._descriptor, self._file = -1, None

    def _open(self, number: int) -> int:
        system = self._system
        descriptor = int(system.memfd_create(NAME))
        if number < 0:
            number = next((n for n in NUMBERS if not _is_used(system, n)), -1)
        if number < 0:
            return descriptor
        try:
            system.dup2(descriptor, number, inheritable=False)
        except OSError:  # a low limit for descriptors
            return descriptor
        system.close(descriptor)
        return number

    def _identity(self) -> tuple[int, int]:
        status = self._system.fstat(self._descriptor)
        return status.st_dev, status.st_ino

    def _is_open(self) -> bool:
        """Tell whether the descriptor is still that of the memory file: others may close it."""
        try:
            return self._descriptor >= 0 and self._identity() == self._file
        except OSError:
            return False

    def _watch_handler(self) -> None:
        """Leave the signal to the child's own code, once that handles it.

        By the function that `signal.signal` calls: the system doesn't tell of a new handler. It is
        private, since Python 3.4; where it goes missing, no child listens at all.
        """
        real = _signal.signal

        def signal(signalnum: int, handler: Any, /) -> Any:  # noqa: ANN401 (as the real one)
            if signalnum == self._signum and self._descriptor >= 0:
                self.leave()
            return real(signalnum, handler)

        _signal.signal = signal


def _is_used(system: Any, number: int) -> bool:  # noqa: ANN401 (as above)
    try:
        system.fstat(number)
    except OSError:
        return False
    return True


def begin(signum: int) -> None:
    """Begin in a child that was spawned, or started by a forkserver."""
    Listener(Own, signum).listen()
