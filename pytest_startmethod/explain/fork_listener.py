"""Lets forked children tell where their threads are.

A child's first steps are slow, as the system copies each page that they write. So the child has
nothing to do: pytest's process listens while it forks, and the child inherits that.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pytest_startmethod.launch.listener import Listener
from pytest_startmethod.stall.lookout import SIGNAL
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable


class ForkListener:
    """Lets children forked between `begin` and `end` listen, unless the test handles the signal.

    `handler` is pytest's own handler of the signal.
    """

    def __init__(self, handler: Callable[..., object]) -> None:
        self._handler = handler
        self._listener = Listener(System, int(SIGNAL))
        self._lock = threading.RLock()  # a pool's own thread may start a process at any time
        self._open = 0
        self._main = System.main_thread().ident
        self._is_replaced = False

    def begin(self) -> None:
        """Start to listen."""
        with self._lock:
            self._open += 1
            if self._open > 1:
                return
            handler = System.get_handler(SIGNAL)
            if handler == self._handler:
                # A child has no handler, as without the plugin. Other threads may set none: a
                # child of theirs keeps the one that it inherits, which is never called.
                self._is_replaced = System.get_ident() == self._main
                if self._is_replaced:
                    System.set_handler(SIGNAL, System.DEFAULT_HANDLER)
            elif handler != System.DEFAULT_HANDLER:
                return
            self._listener.listen()

    def end(self) -> None:
        """Stop listening, unless another thread is still starting a process.

        May be called again after a signal handler has interrupted it.
        """
        with self._lock:
            more = self._open > 1
            puts_back = self._is_replaced and System.get_ident() == self._main
            if not more or puts_back:
                self._listener.stop()
                if puts_back:
                    System.set_handler(SIGNAL, self._handler)
                    self._is_replaced = False
                if more:
                    self._listener.listen()
            self._open = max(self._open - 1, 0)
