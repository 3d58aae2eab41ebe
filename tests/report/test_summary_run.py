"""The terminal summary of whole runs, the same with pytest-xdist."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("fork", "forkserver")

ALL = "--start-method=fork,spawn,forkserver"
TWO_WORKERS = ("-n", "2")

with_and_without_xdist = pytest.mark.parametrize(
    ("workers", "plugins"),
    [
        pytest.param((), (), id="alone"),
        pytest.param(
            TWO_WORKERS,
            ("xdist",),
            id="xdist",
            marks=pytest.mark.skipif(not find_spec("xdist"), reason="this run has no pytest-xdist"),
        ),
    ],
)

# It has never heard of the plugin.
SUITE = """
import multiprocessing
import sys
import unittest
from concurrent.futures import ProcessPoolExecutor

import child
import pytest

LOCK = multiprocessing.Lock()
GREETING = "unset"

def take(lock):
    with lock:
        pass

def greeting(_):
    return GREETING

def random_hashes():
    return bool(sys.flags.hash_randomization)

@pytest.fixture(scope="module")
def pool():
    with multiprocessing.Pool(1) as pool:
        yield pool

def test_adds():
    assert 1 + 1 == 2

def test_process():
    assert child.by_process()

def test_pickling():
    process = multiprocessing.Process(target=lambda: None)
    process.start()
    process.join()
    assert process.exitcode == 0

@pytest.mark.parametrize("number", [1, 2])
def test_number(number):
    assert number

def test_lock():
    process = multiprocessing.Process(target=take, args=[LOCK])
    process.start()
    process.join()
    assert process.exitcode == 0

def test_inherited_global(monkeypatch):
    monkeypatch.setitem(globals(), "GREETING", "hello")
    with multiprocessing.Pool(1) as pool:
        assert pool.map(greeting, [1]) == ["hello"]

def test_pool():
    assert child.by_pool()

def test_pool_of_the_module(pool):
    assert pool.apply(child.method)

def test_environment(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    with ProcessPoolExecutor(1) as executor:
        assert not executor.submit(random_hashes).result()

@pytest.mark.parametrize("number", [1, 2])
def test_executor(number):
    assert child.by_executor()

class TestCase(unittest.TestCase):
    def test_quiet(self):
        pass

    def test_process(self):
        self.assertTrue(child.by_process())
"""


def summary(result: pytest.RunResult) -> list[str]:
    """Return what the terminal tells of start methods, but for the time."""
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in result.outlines]
    titles = [n for n, line in enumerate(lines) if line.strip("= ") == "start methods"]
    if not titles:
        return []
    [begin] = titles
    end, *_ = [n for n, line in enumerate(lines) if n > begin and line.startswith("==")]
    return [re.sub(r" +\d+\.\d\ds$", "", line) for line in lines[begin:end]]


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    pytester.makepyfile(test_suite=SUITE)


@pytest.mark.usefixtures("suite", "child_module")
@with_and_without_xdist
def test_it_lists_the_three_differences_of_a_suite(
    run_watched: Callable[..., pytest.RunResult],
    workers: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    result = run_watched(*workers, ALL, "--tb=no", plugins=plugins)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # 14 under the first, of which 10 depend on the default.
    result.assert_outcomes(passed=29, failed=5)
    table = [
        "================================ start methods =================================",
        "             passed   failed  skipped  processes     time",
        "fork              9        1                  10",
        "spawn             8        2                   9",
        "forkserver        8        2                   9",
    ]
    told = summary(result)
    assert told[: len(table)] == table
    assert [line for line in told[len(table) :] if not line.startswith("    ")] == [
        "--------------------- outcome depends on the start method ----------------------",
        "test_suite.py::test_pickling    passed: fork    failed: spawn, forkserver",
        "test_suite.py::test_inherited_global",
        "test_suite.py::test_environment    failed: fork    passed: spawn, forkserver",
    ]
    pickling, hint, outcomes, inherited, environment = (
        line.strip() for line in told[len(table) :] if line.startswith("    ")
    )
    assert "Error: Can't" in pickling
    assert hint.startswith("what goes to a child is pickled")
    assert outcomes == "passed: fork    failed: spawn, forkserver"
    assert inherited == "AssertionError: assert ['unset'] == ['hello']"
    assert environment == "assert not True"


@with_and_without_xdist
def test_a_lock_made_under_another_method_is_listed_apart(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    workers: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 gives a lock to a process of another context, which dies of it")
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            LOCK = multiprocessing.get_context("fork").Lock()

            def take(lock):
                with lock:
                    pass

            def test_lock(mp_context):
                process = mp_context.Process(target=take, args=[LOCK])
                process.start()
                process.join()
        """
    )
    told = summary(run_watched(*workers, "--tb=no", "-v", plugins=plugins))
    assert told[5:] == [
        "lock or queue made under fork: run --start-method=spawn alone (1 run)",
        "    test_it.py::test_lock[spawn]",
        "lock or queue made under fork: run --start-method=forkserver alone (1 run)",
        "    test_it.py::test_lock[forkserver]",
    ]


@with_and_without_xdist
def test_it_prints_nothing_if_there_is_nothing_to_report(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    workers: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    pytester.makepyfile(
        test_quiet="def test_quiet(): pass", test_asks="def test_asks(start_method): pass"
    )
    assert summary(run_watched(*workers, ALL, "test_quiet.py", plugins=plugins)) == []
    for arg in ("-q", "--no-summary"):
        assert summary(run_watched(*workers, arg, "test_asks.py", plugins=plugins)) == []
    told = summary(run_watched(*workers, plugins=plugins))
    assert "passed, and used no process of the start method (3 runs, -v names them)" in told


@with_and_without_xdist
def test_each_run_is_reported_with_its_outcome(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    workers: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    pytester.makepyfile(
        test_t="""
        import pytest

        only = pytest.mark.start_methods

        @pytest.fixture
        def broken_under_spawn(start_method):
            assert start_method != "spawn", "before"
            yield
            assert start_method != "forkserver", "after"

        @only("fork", "spawn", "forkserver")
        def test_fixture(broken_under_spawn):
            pass

        @only("fork", pytest.param("spawn", marks=pytest.mark.skip(reason="planted")))
        def test_skipped(start_method):
            pass

        @only("fork", pytest.param("spawn", marks=pytest.mark.xfail(reason="planted")))
        def test_expected(start_method):
            assert start_method == "fork"

        @pytest.mark.xfail(reason="planted", strict=True)
        def test_passes_under_fork(start_method):
            assert start_method == "fork"
        """
    )
    result = run_watched(*workers, ALL, "--color=yes", plugins=plugins)
    assert "\x1b[33mpassed, and used no process" in result.stdout.str()
    assert summary(result)[1:] == [
        "             passed   failed  skipped  xfailed  processes     time",
        "fork              3        1                            0",
        "spawn                      1        1        2          0",
        "forkserver                 1                 1          0",
        "passed, and used no process of the start method (3 runs, -v names them)",
        "--------------------- outcome depends on the start method ----------------------",
        "test_t.py::test_fixture    passed: fork    failed: spawn, forkserver",
        "    AssertionError: before",
        "test_t.py::test_passes_under_fork    failed: fork    xfailed: spawn, forkserver",
        "    [XPASS(strict)] planted",
    ]


@pytest.mark.usefixtures("child_module")
def test_no_line_is_wider_than_the_terminal(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run_watched: Callable[..., pytest.RunResult],
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        @pytest.mark.parametrize("text", ["long" * 20])
        def test_it(text):
            child.by_process()
            assert multiprocessing.get_start_method() == "fork", "because " * 20
    """)
    told = summary(run_watched("--start-method=fork,spawn"))
    assert "    passed: fork    failed: spawn" in told
    assert max(map(len, told)) <= 70


def test_a_crash_of_a_worker_is_reported_with_its_run(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("xdist", reason="this run has no pytest-xdist")
    pytester.makepyfile("""
        import os

        def test_crashes(mp_context):
            if mp_context.get_start_method() == "spawn":
                os._exit(3)
    """)
    result = run_watched("-n", "1", plugins=("xdist",))
    result.assert_outcomes(passed=2, failed=1)
    assert summary(result)[7].endswith("::test_crashes")
    assert summary(result)[8] == "    passed: fork, forkserver    failed: spawn"


@pytest.mark.parametrize("seconds", [-5.0, 3.9e9])
def test_no_time_is_one_that_was_not_taken_where_a_test_changes_the_clock(
    run_watched: Callable[..., pytest.RunResult], pytester: pytest.Pytester, seconds: float
) -> None:
    pytester.makeconftest(f"""
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_logreport(report):
            report.duration = {seconds}
    """)
    pytester.makepyfile("def test_it(mp_context):\n    pass")
    lines = run_watched("--start-method=fork").outlines
    [row] = [line.split() for line in lines if line.startswith("fork  ")]
    assert row[-1] == "0.00s"
