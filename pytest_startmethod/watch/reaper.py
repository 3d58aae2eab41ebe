"""How does a child end that outlives its owner?"""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.pool import Pool
from operator import methodcaller
from typing import TYPE_CHECKING

from pytest_startmethod.watch.recorder import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_startmethod.watch.recorder import Child, Maker

GRACE = 1.0
"""Seconds that a child may take to end by itself, and then again to obey a signal."""


def stop(ended: Callable[[], list[Child]]) -> list[Child]:
    """End what outlives its owner, and return it; `ended` tells the children whose owner has ended.

    A child that ends by itself within `GRACE` seconds is none. The others get a SIGTERM, and a
    SIGKILL after as long again; when this returns, none of them is alive.
    """
    alive = _wait(ended(), GRACE)
    leaked = list(alive)
    stop_makers(alive)
    # None can disobey the second, but on a busy machine it may take its time.
    for end, seconds in ((methodcaller("terminate"), GRACE), (methodcaller("kill"), PATIENCE)):
        if leaked:
            alive = [child for child in ended() if not child.is_gone()]
            for child in alive:
                end(child.popen)
            _wait(alive, seconds)
    return leaked


def stop_makers(children: Iterable[Child]) -> None:
    """Ask what started children to end them, so that it doesn't replace those who end."""
    for maker in {child.maker for child in children if child.maker is not None}:
        _stop_maker(maker)


def settle(children: Iterable[Child]) -> None:
    """Take note of the exit codes of children that have ended, whoever asks for them.

    Pools and executors get `GRACE` seconds to ask first: they do so in threads of their own.
    """
    began = time.monotonic()
    for child in children:
        passed = 0.0
        while child.popen is not None and passed < PATIENCE:
            passed = time.monotonic() - began
            child.settle(ask=not child.is_asked_for or passed > GRACE)
            if child.popen is not None:
                time.sleep(0.001)


def _wait(children: Iterable[Child], seconds: float) -> list[Child]:
    """Wait until all have ended, so long at most, and return those who have not."""
    deadline = time.monotonic() + seconds
    alive = [child for child in children if not child.is_gone()]
    while alive and (left := deadline - time.monotonic()) > 0:
        if any(child.has_ended() for child in alive):  # its sentinel says so
            time.sleep(0.001)
        else:
            wait([child.popen.sentinel for child in alive if child.popen], left)
        alive = [child for child in alive if not child.is_gone()]
    return alive


def _stop_maker(maker: Maker) -> None:
    stop: Callable[[], object]
    if isinstance(maker, ProcessPoolExecutor):
        stop = functools.partial(maker.shutdown, wait=False, cancel_futures=True)
    elif isinstance(maker, Pool):
        stop = maker.terminate
    else:
        stop = maker.shutdown
    # In a thread, as Pool.terminate() waits for ever where a killed worker holds the pool's lock.
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    thread.join(GRACE)
