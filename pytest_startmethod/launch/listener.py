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

    In C, so that a thread may wait for whatever it likes, or hold the interpreter's lock. No more
    once the signal is given another handler.
    """

    def __init__(self, system: Any, signum: int) -> None:  # noqa: ANN401 (`Own`, or `System`)
        self._system = system
        self._signum = signum
        self._descriptor = -1
        self._real = _signal.signal

        # By the function that `signal.signal` calls, as the system doesn't tell of a new handler.
        # It is private, since Python 3.4; where it goes missing, no child listens at all.
        def signal(signalnum: int, handler: Any, /) -> Any:  # noqa: ANN401 (as the real one)
            if signalnum == signum and self._descriptor >= 0:
                self.leave()
            return self._real(signalnum, handler)

        self._signal = signal

    def listen(self) -> None:
        """Start to listen; processes that are forked later do so, too."""
        descriptor = self._system.memfd_create(NAME)
        if descriptor < 3:  # where a child is to find its own input and output
            descriptor = self._move_up(descriptor)
        self._system.register_dump(self._signum, descriptor)
        self._descriptor = descriptor
        if _signal.signal is not self._signal:  # as after a `stop` that a signal interrupted
            self._real, _signal.signal = _signal.signal, self._signal

    def stop(self) -> None:
        """Stop listening, in the process that called `listen`."""
        if _signal.signal is self._signal:
            _signal.signal = self._real
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            self._system.unregister_dump(self._signum)
            self._system.close(descriptor)

    def leave(self) -> None:
        """Stop listening because the signal gets another handler."""
        descriptor, self._descriptor, _signal.signal = self._descriptor, -1, self._real
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
    if _signal.getsignal(signum) == 0:
        Listener(Own, signum).listen()
