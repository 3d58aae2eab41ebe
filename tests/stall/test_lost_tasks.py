"""A task that a Pool lost with its worker ends with an error, so that nobody waits for it."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.stall.lost_tasks import fail_lost_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.pool import Pool
    from multiprocessing.process import BaseProcess

WAITS: dict[str, Callable[[Pool], object]] = {
    "apply": lambda pool: pool.apply(os._exit, (3,)),
    "get": lambda pool: pool.apply_async(os._exit, (3,)).get(),
    "map": lambda pool: pool.map(os._exit, [3, 3, 3, 3], chunksize=1),
    "starmap": lambda pool: pool.starmap(os._exit, [(3,)]),
    "imap": lambda pool: list(pool.imap(os._exit, [3, 3])),
    "imap in chunks": lambda pool: list(pool.imap(os._exit, [3, 3], chunksize=2)),
    "imap_unordered": lambda pool: list(pool.imap_unordered(os._exit, [3, 3])),
}

# Beside a thread, as pytest-xdist has one, Python warns of a fork.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class Lost(BaseException):
    """As pytest.fail() raises: no Exception."""


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    with multiprocessing.get_context(request.param).Pool(1) as pool:
        yield pool


@pytest.fixture
def worker(pool: Pool) -> BaseProcess:
    """Return the Pool's first worker."""
    assert pool.apply(abs, (-1,)) == 1
    [process] = multiprocessing.active_children()
    return process


# Pools fork from a thread of their own, of which Python 3.12 and later warns.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS.keys())
def test_who_waits_for_a_lost_task_gets_the_error(
    pool: Pool, worker: BaseProcess, waits: Callable[[Pool], object]
) -> None:
    def end_the_wait() -> None:
        wait([worker.sentinel])
        while not over.is_set():  # the wait may begin a little later
            fail_lost_tasks(pool, Lost("its worker has died"))

    over = threading.Event()
    thread = threading.Thread(target=end_the_wait)
    thread.start()
    try:
        with pytest.raises(Lost, match="its worker has died"):
            waits(pool)
    finally:
        over.set()
        thread.join()
    assert pool.apply(abs, (-2,)) == 2  # the Pool still works


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_join_returns_once_its_lost_tasks_have_ended_and_no_callback_is_called(
    pool: Pool, worker: BaseProcess
) -> None:
    called: list[object] = []
    result = pool.apply_async(os._exit, (3,), callback=called.append, error_callback=called.append)
    pool.close()
    wait([worker.sentinel])
    assert fail_lost_tasks(pool, Lost()) == 1
    pool.join()
    with pytest.raises(Lost):
        result.get()
    assert called == []
    assert fail_lost_tasks(pool, Lost()) == 0


def test_what_has_its_result_keeps_it(pool: Pool) -> None:
    result = pool.map_async(abs, [-1, -2])
    iterator = pool.imap(abs, [-3])
    assert result.get() == [1, 2]
    assert list(iterator) == [3]
    assert fail_lost_tasks(pool, Lost()) == 0
    assert result.get() == [1, 2]
