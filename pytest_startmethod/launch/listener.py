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


class Own:
    """The functions of a child in which nobody has replaced any."""

    memfd_create = getattr(os, "memfd_create", None)
    readlink = staticmethod(os.readlink)
    close = staticmethod(os.close)
    dup = staticmethod(os.dup)
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
        self._descriptor = -1
        real = _signal.signal

        # By the function that `signal.signal` calls, as the system doesn't tell of a new handler.
        # It is private, since Python 3.4; where it goes missing, no child listens at all.
        def signal(signalnum: int, handler: Any, /) -> Any:  # noqa: ANN401 (as the real one)
            if signalnum == signum and self._descriptor >= 0:
                self.leave()
            return real(signalnum, handler)

        self._signal = signal

    def listen(self) -> None:
        """Begin: in a child, and anew in a child of it that was forked.

        What it calls is copied for the child, page by page: so it does no more than it must.
        """
        handler = _signal.getsignal(self._signum)
        if handler not in self._free:
            return
        if handler:  # pytest's own, which a fork inherits
            _signal.signal(self._signum, 0)
        system, inherited = self._system, self._descriptor
        descriptor = system.memfd_create(NAME)
        if descriptor < 3:  # where the child is to find its own input and output
            descriptor = self._move_up(descriptor)
        system.register_dump(self._signum, descriptor)
        if inherited >= 0 and self._is_open(inherited):
            system.close(inherited)
        self._descriptor = descriptor
        _signal.signal = self._signal

    def prepare(self) -> None:
        """Call once what `listen` calls: the system looks for each function at its first call."""
        system = self._system
        descriptor = system.memfd_create(NAME)
        try:
            system.register_dump(self._signum, descriptor)
            system.unregister_dump(self._signum)
        finally:
            system.close(descriptor)

    def leave(self) -> None:
        """End, and give back the signal and the descriptor."""
        descriptor, self._descriptor = self._descriptor, -1
        self._system.unregister_dump(self._signum)
        if self._is_open(descriptor):
            self._system.close(descriptor)

    def _move_up(self, descriptor: int) -> int:
        low = []
        while descriptor < 3:
            low.append(descriptor)
            descriptor = self._system.dup(descriptor)
        for each in low:
            self._system.close(each)
        return descriptor

    def _is_open(self, descriptor: int) -> bool:
        """Tell whether a descriptor is still that of the memory file: others may close it."""
        try:
            return NAME in self._system.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            return False


def begin(signum: int) -> None:
    """Begin in a child that was spawned, or started by a forkserver."""
    Listener(Own, signum).listen()
