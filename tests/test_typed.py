"""The fixtures, marker and hooks as a suite under a type checker uses them; it runs, too."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext, SpawnContext
from typing import TYPE_CHECKING

import pytest

import pytest_startmethod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from multiprocessing.pool import Pool
    from multiprocessing.queues import Queue

# pytest-xdist has a thread in each of its workers: nothing that these children ever wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.* is multi-threaded:DeprecationWarning")

WARNINGS: list[type[Warning]] = [
    pytest_startmethod.StartMethodMismatchWarning,
    pytest_startmethod.ChildProcessCrashWarning,
    pytest_startmethod.ChildProcessLeakWarning,
    pytest_startmethod.SharedMemoryLeakWarning,
]


class Plugin:
    """What a plugin or conftest may implement."""

    @pytest.hookimpl
    def pytest_startmethod_contexts(self, config: pytest.Config) -> Mapping[str, BaseContext]:
        assert not config.getoption("start_method")
        return {"mine": SpawnContext()}

    @pytest.hookimpl
    def pytest_startmethod_unavailable(
        self, config: pytest.Config, start_method: str
    ) -> str | None:
        assert config
        return "not here" if start_method == "fork" else None


@pytest.fixture
def pool(mp_context: BaseContext) -> Iterator[Pool]:
    with mp_context.Pool(1) as pool:
        yield pool


def test_a_context(mp_context: BaseContext, start_method: str, pool: Pool) -> None:
    assert mp_context.get_start_method() == start_method
    assert pool.apply(abs, [-1]) == 1
    with mp_context.Lock(), ProcessPoolExecutor(1, mp_context=mp_context) as executor:
        assert executor.submit(abs, -2).result() == 2


def test_what_a_context_makes(mp_context: BaseContext, start_method: str) -> None:
    assert mp_context.get_context(start_method) is mp_context
    assert not mp_context.Event().is_set()
    queue: Queue[int] = mp_context.Queue()
    queue.put(1)
    assert queue.get() == 1
    with mp_context.Manager() as manager:
        assert list(manager.list([2])) == [2]


# BaseContext has no Process in typeshed; SpawnContext has all, on every platform.
def test_a_process_of_a_context(mp_context: SpawnContext) -> None:
    receiver, sender = mp_context.Pipe(duplex=False)
    process = mp_context.Process(target=sender.send, args=("done",))
    process.start()
    assert receiver.recv() == "done"
    process.join()
    assert process.exitcode == 0


def test_the_default(default_start_method: str) -> None:
    assert multiprocessing.get_start_method() == default_start_method


@pytest.mark.start_methods(
    "spawn", pytest.param("forkserver", marks=pytest.mark.filterwarnings("default")), reason="#7"
)
def test_a_marker(start_method: str) -> None:
    assert start_method != "fork"


def test_hooks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(start_method): pass")
    result = pytester.runpytest_inprocess("-v", plugins=[Plugin()])
    unavailable = "forkserver" in multiprocessing.get_all_start_methods()
    passed = len(multiprocessing.get_all_start_methods()) + 1 - unavailable
    result.assert_outcomes(passed=passed, skipped=int(unavailable))
    result.stdout.fnmatch_lines(["*test_it?mine? PASSED*"])
