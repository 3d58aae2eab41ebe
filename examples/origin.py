"""How was this process started? Each start method leaves its own trace in a child.

What a child runs stands in a module of its own, next to the tests: a child that doesn't have its
parent's memory imports it.
"""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

IMPORTED_BY = os.getpid()


def origin() -> str:
    """Return the start method that brought about the process that asks."""
    starter = multiprocessing.parent_process()
    if starter is None:
        return "not started by multiprocessing"
    if os.getppid() != starter.pid:
        return "forkserver"  # it was forked by the server, on its starter's behalf
    if os.getpid() != IMPORTED_BY:
        return "fork"  # it found this module in the memory it has from its starter
    return "spawn"


def origin_of_child() -> str:
    """Start a child by the process-wide default, and return what it says of its origin."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver:
        child = multiprocessing.Process(target=_send_origin, args=(sender,))
        child.start()
        sender.close()  # so that recv() ends with EOFError where the child dies without a word
        said = str(receiver.recv())
        child.join()
    return said


def _send_origin(sender: Connection) -> None:
    sender.send(origin())
