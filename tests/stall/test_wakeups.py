"""A wait of the main thread ends by a handler that raises, also on Windows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SCRIPT = """
import faulthandler
import multiprocessing
import os
import queue
import signal
import sys
import threading
from concurrent.futures import Future
from multiprocessing.connection import wait

from pytest_startmethod.stall.wakeups import SIGNAL, wake_main_thread

SIGNAL = SIGNAL or signal.SIGURG

OF_THREADING = {
    "threading.Event": (threading.Event, lambda event: event.wait()),
    "Future": (Future, lambda future: future.result()),
    "Pool.apply": (multiprocessing.Pool, lambda pool: pool.apply(os._exit, (3,))),
    "Pool.map": (multiprocessing.Pool, lambda pool: pool.map(os._exit, [3, 3, 3])),
    "Pool.imap": (multiprocessing.Pool, lambda pool: list(pool.imap(os._exit, [3]))),
    "Pool.join": (multiprocessing.Pool, lambda pool: join(pool)),
}
OF_THE_SYSTEM = {
    "Event": (multiprocessing.Event, lambda event: event.wait()),
    "Lock": (multiprocessing.Lock, lambda lock: acquire_twice(lock)),
    "Queue": (multiprocessing.Queue, lambda queue: queue.get()),
    "SimpleQueue": (multiprocessing.SimpleQueue, lambda queue: queue.get()),
    "Pipe": (multiprocessing.Pipe, lambda pipe: pipe[0].recv()),
    "connection.wait": (multiprocessing.Pipe, lambda pipe: wait([pipe[0]])),
}


class StalledError(BaseException):
    pass


def acquire_twice(lock):
    lock.acquire()
    lock.acquire()


def join(pool):
    pool.apply_async(os._exit, (3,))
    pool.close()
    pool.join()


def handler(signum, frame):
    if waiting:
        waiting.clear()
        raise StalledError


def watch():
    while begun.get():
        while waiting:  # the wait may begin a little later
            wake_main_thread(SIGNAL)
        woken.put(True)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(40, exit=True)  # where it does hang
    signal.signal(SIGNAL, handler)
    waiting = []  # and no threading.Event: the handler may come while one is changed
    begun, woken = queue.SimpleQueue(), queue.SimpleQueue()
    threading.Thread(target=watch, daemon=True).start()
    if sys.platform == "win32":
        OF_THREADING.update(OF_THE_SYSTEM)
    for name, (make, ask) in OF_THREADING.items():
        made = make()
        try:
            waiting.append(name)
            begun.put(name)
            ask(made)
        except StalledError:
            print("ended:", name)
        else:
            print("went on:", name)
        woken.get()
        if hasattr(made, "terminate"):
            made.terminate()
    sys.stdout.flush()
    os._exit(0)  # what waits in the pools' own threads isn't asked to end
"""

OF_THREADING = ["threading.Event", "Future", "Pool.apply", "Pool.map", "Pool.imap", "Pool.join"]
# Elsewhere it takes a real signal, and needs no more.
OF_THE_SYSTEM = ["Event", "Lock", "Queue", "SimpleQueue", "Pipe", "connection.wait"]


def test_each_wait_ends_by_the_handler(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(script=SCRIPT)
    result = pytester.run(sys.executable, "-W", "ignore", script, timeout=60)
    waits = OF_THREADING + (OF_THE_SYSTEM if sys.platform == "win32" else [])
    assert result.outlines == [f"ended: {wait}" for wait in waits]
    assert result.ret == 0
