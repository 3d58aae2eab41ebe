"""Suites that use another plugin too have the right counts, and none of this plugin's warnings."""

from __future__ import annotations

import json
import re
import sys
import venv
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("fork", "spawn", "forkserver")
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

# One test asks for a context, the others use nothing of ours.
SUITE = """
import multiprocessing

import child
import pytest

def test_context(mp_context, start_method):
    assert child.by_process(mp_context) == start_method

@pytest.mark.parametrize("number", [1, 2])
def test_default(number):
    assert child.by_process() == multiprocessing.get_start_method()

def test_fails_under_spawn():
    assert child.by_process() != "spawn"

def test_quiet():
    pass
"""
ENDED = {
    **{f"test_context[{method}]": "passed" for method in METHODS},
    **{f"test_default[{n}]": "passed" for n in (1, 2)},
    **{f"test_default[{n}-{method}]": "passed" for n in (1, 2) for method in METHODS[1:]},
    "test_fails_under_spawn": "passed",
    "test_fails_under_spawn[spawn]": "failed",
    "test_fails_under_spawn[forkserver]": "passed",
    "test_quiet": "passed",
}


def table(result: pytest.RunResult) -> dict[str, list[int]]:
    """Return the numbers of our summary by start method: its ends, then its processes."""
    rows = (line.split() for line in result.outlines)
    return {row[0]: [int(n) for n in row[1:-1]] for row in rows if row and row[0] in METHODS}


def passed(number: int, *, processes: int) -> dict[str, list[int]]:
    return {method: [number, processes] for method in METHODS}


@pytest.fixture
def run_with(
    run_watched: Callable[..., pytest.RunResult],
    child_module: None,  # noqa: ARG001 (its file)
) -> Callable[..., pytest.RunResult]:
    """Run a suite with these plugins, in which nothing is to be found by ours."""

    def run(*args: str, plugins: tuple[str, ...]) -> pytest.RunResult:
        result = run_watched(*args, plugins=plugins)
        output = result.stdout.str() + result.stderr.str()
        for finding in ("CrashWarning", "LeakWarning", "MismatchWarning", "blocked for"):
            assert finding not in output
        return result

    return run


def test_benchmark_times_children_under_each_start_method(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run_with: Callable[..., pytest.RunResult],
) -> None:
    pytest.importorskip("pytest_benchmark", reason="it is about pytest-benchmark")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # in workers it times nothing
    pytester.makepyfile("""
        import multiprocessing

        import child

        def test_context(benchmark, mp_context, start_method):
            answer = benchmark.pedantic(child.by_process, (mp_context,), rounds=3)
            assert answer == start_method

        def test_default(benchmark):
            answer = benchmark.pedantic(child.by_process, rounds=2)
            assert answer == multiprocessing.get_start_method()
    """)
    args = ("--start-method=all", "--benchmark-json=benchmarks.json")
    result = run_with(*args, plugins=("pytest_benchmark.plugin",))
    result.assert_outcomes(passed=6)
    assert table(result) == passed(2, processes=5)
    written = json.loads((pytester.path / "benchmarks.json").read_text(encoding="utf-8"))
    # A session of a further start method times nothing, as a worker of pytest-xdist.
    assert [(of["name"], of["stats"]["rounds"]) for of in written["benchmarks"]] == [
        *((f"test_context[{method}]", 3) for method in METHODS),
        ("test_default", 2),
    ]


def test_sugar_shows_each_run(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_sugar", reason="it is about pytest-sugar")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--force-sugar", "--color=no")
    result = run_with(*args, plugins=("pytest_sugar",))
    counts = Counter(ENDED.values())
    words = [line.split() for line in result.outlines]
    for outcome, number in counts.items():
        assert [str(number), outcome] in words
    [failed] = [line for line in words if line[:1] == ["-"]]
    assert failed[-1] == "test_fails_under_spawn[spawn]"
    assert table(result) == {"fork": [4, 4], "spawn": [3, 1, 4], "forkserver": [4, 4]}


class Report(HTMLParser):
    """Reads what pytest-html has written: its rows, by the ids of the tests."""

    def __init__(self, text: str) -> None:
        self.rows: dict[str, list[dict[str, str]]] = {}
        super().__init__()
        self.feed(text)

    def handle_starttag(self, _: str, attributes: list[tuple[str, str | None]]) -> None:
        if blob := dict(attributes).get("data-jsonblob"):
            self.rows = json.loads(blob)["tests"]


def test_html_has_a_row_for_each_run(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_html", reason="it is about pytest-html")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--html=report.html", "--self-contained-html")
    result = run_with(*args, plugins=("metadata", "html"))
    result.assert_outcomes(**Counter(ENDED.values()))
    rows = Report((pytester.path / "report.html").read_text(encoding="utf-8")).rows
    assert {
        test.partition("::")[2]: [(row["testId"], row["result"].lower()) for row in of_test]
        for test, of_test in rows.items()
    } == {test: [(f"test_it.py::{test}", outcome)] for test, outcome in ENDED.items()}
    [row] = rows["test_it.py::test_fails_under_spawn[spawn]"]
    assert "processes under spawn" in row["log"]


def test_run_parallel_runs_each_in_threads_at_once(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_run_parallel", reason="it is about pytest-run-parallel")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--parallel-threads=2")
    result = run_with(*args, plugins=("pytest_run_parallel.plugin",))
    result.assert_outcomes(**Counter(ENDED.values()))
    assert table(result) == {"fork": [4, 8], "spawn": [3, 1, 8], "forkserver": [4, 8]}


def test_run_parallel_and_a_dead_child_that_nobody_waits_for_are_no_stall(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_run_parallel", reason="it is about pytest-run-parallel")
    pytester.makepyfile("""
        import os
        import time

        import child

        def test_goes_on(mp_context, start_method):
            dead = mp_context.Process(target=os._exit, args=(3,))
            dead.start()
            dead.join()
            time.sleep(0.5)  # longer than the stall timeout, while pytest waits for the threads
            assert child.by_process(mp_context) == start_method
    """)
    args = ("--parallel-threads=2", "-o", "start_method_stall_timeout=0.1")
    result = run_with(*args, plugins=("pytest_run_parallel.plugin",))
    result.assert_outcomes(passed=3)
    assert table(result) == passed(1, processes=4)


PROPERTIES = """
import multiprocessing

import child
from hypothesis import given, settings, strategies

few = settings(max_examples=3, deadline=None, database=None)

@few
@given(strategies.integers())
def test_context(mp_context, start_method, number):
    with mp_context.Pool(1) as pool:
        assert pool.apply(abs, [number]) == abs(number)
        assert pool.apply(child.method) == start_method

@few
@given(strategies.integers())
def test_default(number):
    with multiprocessing.Pool(1) as pool:
        assert pool.apply(abs, [number]) == abs(number)
        assert pool.apply(child.method) == multiprocessing.get_start_method()
"""


def test_hypothesis_gives_examples_under_each_start_method_in_a_wider_scope(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("hypothesis", reason="it is about hypothesis")
    pytester.makeini("[pytest]\nstart_method_scope = module")
    pytester.makepyfile(test_it=PROPERTIES)
    result = run_with("--start-method=all", plugins=("_hypothesis_pytestplugin",))
    result.assert_outcomes(passed=6)
    assert table(result) == passed(2, processes=6)


def test_hypothesis_refuses_the_context_of_a_single_test(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("hypothesis", reason="it is about hypothesis")
    pytester.makepyfile(test_it=PROPERTIES)
    result = run_with("--start-method=all", plugins=("_hypothesis_pytestplugin",))
    result.assert_outcomes(failed=3, passed=3)
    for method in METHODS:
        result.stdout.re_match_lines(
            [rf"E .*FailedHealthCheck: .*test_context\[{method}\].* uses a function-scoped fixture"]
        )


def test_asyncio_awaits_children_under_each_start_method(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_asyncio", reason="it is about pytest-asyncio")
    pytester.makepyfile("""
        import asyncio
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        import child
        import pytest
        import pytest_asyncio

        @pytest_asyncio.fixture
        async def executor(mp_context):
            with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                yield executor
                await asyncio.sleep(0)

        @pytest.mark.asyncio
        async def test_context(executor, start_method):
            loop = asyncio.get_running_loop()
            assert await loop.run_in_executor(executor, child.method) == start_method

        @pytest.mark.asyncio
        async def test_default():
            loop = asyncio.get_running_loop()
            with ProcessPoolExecutor(1) as executor:
                answer = await loop.run_in_executor(executor, child.method)
            assert answer == multiprocessing.get_start_method()
    """)
    # Its versions that want the scope named warn where it isn't.
    args = ("--start-method=all", "-o", "asyncio_default_fixture_loop_scope=function")
    result = run_with(*args, plugins=("asyncio",))
    result.assert_outcomes(passed=6)
    assert table(result) == passed(2, processes=2)


def test_anyio_awaits_children_under_each_start_method(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("anyio", reason="it is about anyio")
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest
        from anyio import to_thread

        pytestmark = pytest.mark.anyio

        @pytest.fixture(params=["asyncio"])
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def answer(mp_context):
            yield await to_thread.run_sync(child.by_process, mp_context)

        async def test_context(answer, start_method):
            assert answer == start_method

        async def test_default():
            answer = await to_thread.run_sync(child.by_process)
            assert answer == multiprocessing.get_start_method()
    """)
    result = run_with("-v", "--start-method=all", plugins=("anyio",))
    result.assert_outcomes(passed=6)
    assert table(result) == passed(2, processes=2)
    for method in METHODS:
        assert f"test_context[asyncio-{method}] PASSED" in result.stdout.str()


def test_randomly_shuffles_and_each_run_is_reported_once(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_randomly", reason="it is about pytest-randomly")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--junitxml=junit.xml")
    orders = set()
    for seed in (1, 2):
        result = run_with(*args, f"--randomly-seed={seed}", plugins=("randomly",))
        result.assert_outcomes(**Counter(ENDED.values()))
        order = [name for name, _ in junit(pytester)]
        assert dict(junit(pytester)) == ENDED
        assert len(order) == len(ENDED)
        orders.add(tuple(order))
    assert len(orders) == 2


def test_repeat_repeats_each_run(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_repeat", reason="it is about pytest-repeat")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--count=2", "--junitxml=junit.xml")
    result = run_with(*args, plugins=("pytest_repeat",))
    result.assert_outcomes(**{how: 2 * number for how, number in Counter(ENDED.values()).items()})
    assert table(result) == {"fork": [8, 8], "spawn": [6, 2, 8], "forkserver": [8, 8]}
    assert len(dict(junit(pytester))) == 2 * len(ENDED)


def test_rerunfailures_runs_again_in_workers_of_xdist(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_rerunfailures", reason="it is about pytest-rerunfailures")
    pytest.importorskip("xdist", reason="it is about pytest-xdist")
    pytester.makepyfile(test_it=SUITE)
    args = ("--start-method=all", "--reruns=1", "-n", "2")
    result = run_with(*args, plugins=("xdist", "rerunfailures"))
    outcomes = result.parseoutcomes()
    assert outcomes == {**Counter(ENDED.values()), "rerun": 1}
    assert table(result) == {"fork": [4, 4], "spawn": [3, 1, 4], "forkserver": [4, 4]}


def junit(pytester: pytest.Pytester) -> list[tuple[str, str]]:
    """Return how each run ended, in the order in which they did."""
    cases = ET.parse(pytester.path / "junit.xml").findall(".//testcase")
    return [
        (of.attrib["name"], "passed" if of.find("failure") is None else "failed") for of in cases
    ]


CLASSES = """
import multiprocessing

import child
import pytest

pytestmark = pytest.mark.xdist_group(__name__)

class TestContext:
    def test_process(self, mp_context, start_method):
        assert child.by_process(mp_context) == start_method

    def test_pool(self, mp_context, start_method):
        assert child.by_pool(mp_context) == start_method

class TestDefault:
    def test_process(self):
        assert child.by_process() == multiprocessing.get_start_method()

    def test_executor(self):
        assert child.by_executor() == multiprocessing.get_start_method()

def test_quiet():
    pass
"""


@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_xdist_distributes_two_files(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult], dist: str
) -> None:
    pytest.importorskip("xdist", reason="it is about pytest-xdist")
    pytester.makepyfile(test_one=CLASSES, test_two=CLASSES)
    args = ("-v", "--start-method=all", "-n", "2", f"--dist={dist}")
    result = run_with(*args, plugins=("xdist",))
    result.assert_outcomes(passed=26)
    assert table(result) == passed(8, processes=8)
    lines = [line.split() for line in result.outlines if line.startswith("[gw")]
    shown = [line[-1] for line in lines]
    shown += [line.split()[0] for line in result.outlines if re.match(r"test_\w+\.py::.*%\]", line)]
    # Which says a test's group, too.
    ended = Counter(re.sub(r"@\w+", "", test) for test in shown)
    default = ("TestDefault::test_process", "TestDefault::test_executor")
    assert ended == Counter(
        f"{file}.py::{test}"
        for file in ("test_one", "test_two")
        for test in (
            *(f"TestContext::test_{by}[{of}]" for by in ("process", "pool") for of in METHODS),
            *default,
            *(f"{test}[{of}]" for test in default for of in METHODS[1:]),
            "test_quiet",
        )
    )
    if dist == "loadfile":
        workers = {(line[0], line[-1].partition(".")[0]) for line in lines}
        assert len(workers) == 2


def test_xdist_runs_all_in_each_of_two_interpreters(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("xdist", reason="it is about pytest-xdist")
    other = pytester.mkdir("other")
    venv.create(other, symlinks=True)
    [packages] = other.glob("lib/python*/site-packages")
    installed = Path(pytest.__file__).parents[1]
    (packages / "installed.pth").write_text(f"{installed}\n", encoding="utf-8")
    pytester.makepyfile(
        where="""
            import sys

            import child

            def prefix_and_method():
                return sys.prefix, child.method()
        """,
        test_it="""
            import multiprocessing
            import sys

            import where

            def test_context(mp_context, start_method, record_property):
                with mp_context.Pool(1) as pool:
                    assert pool.apply(where.prefix_and_method) == (sys.prefix, start_method)
                record_property("prefix", sys.prefix)

            def test_default(record_property):
                method = multiprocessing.get_start_method()
                with multiprocessing.Pool(1) as pool:
                    assert pool.apply(where.prefix_and_method) == (sys.prefix, method)
                record_property("prefix", sys.prefix)
        """,
    )
    pytester.makeconftest("""
        import json
        from pathlib import Path

        ENDED = []

        def pytest_runtest_logreport(report):
            if report.when == "call":
                ENDED.append(dict(report.user_properties))

        def pytest_sessionfinish(session):
            if not hasattr(session.config, "workerinput"):
                Path("ended.json").write_text(json.dumps(ENDED))
    """)
    gateways = [f"--tx=popen//python={python}" for python in (sys.executable, other / "bin/python")]
    result = run_with("--start-method=all", "--dist=each", *gateways, plugins=("xdist",))
    result.assert_outcomes(passed=10)
    ended = json.loads((pytester.path / "ended.json").read_text(encoding="utf-8"))
    found = Counter((of["prefix"], of["start_method"]) for of in ended)
    # The sessions run by the interpreter of pytest itself.
    assert found == Counter(
        {(sys.prefix, method): 2 for method in METHODS}
        | {(str(other), method): 1 + (method == "fork") for method in METHODS}
    )


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_cov_counts_lines_that_run_in_children_alone(
    pytester: pytest.Pytester, run_with: Callable[..., pytest.RunResult], args: tuple[str, ...]
) -> None:
    pytest.importorskip("pytest_cov", reason="it is about pytest-cov")
    pytest.importorskip("coverage", minversion="7.10", reason="it is about coverage's patches")
    if args:
        pytest.importorskip("xdist", reason="it is about pytest-xdist")
    [settings] = re.findall(r"```toml\n(\[tool\.coverage.*?)```", README, re.DOTALL)
    pytester.makefile(".toml", pyproject=settings)
    kinds = ("process", "pool", "executor")
    functions = [f"{kind}_{method}" for kind in kinds for method in METHODS]
    pytester.makepyfile(
        helper="".join(f"def {name}():\n    return '{name}'\n" for name in functions),
        test_it="""
            from concurrent.futures import ProcessPoolExecutor

            import helper

            def test_process(mp_context, start_method):
                target = getattr(helper, f"process_{start_method}")
                process = mp_context.Process(target=target)
                process.start()
                process.join()
                assert process.exitcode == 0

            def test_pool(mp_context, start_method):
                with mp_context.Pool(1) as pool:
                    answer = pool.apply(getattr(helper, f"pool_{start_method}"))
                    pool.close()
                    pool.join()
                assert answer == f"pool_{start_method}"

            def test_executor(mp_context, start_method):
                with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                    future = executor.submit(getattr(helper, f"executor_{start_method}"))
                assert future.result() == f"executor_{start_method}"
        """,
    )
    plugins = ("pytest_cov", "xdist") if args else ("pytest_cov",)
    result = run_with("--cov=helper", "--cov-report=json:lines.json", *args, plugins=plugins)
    result.assert_outcomes(passed=9)
    of_file = json.loads((pytester.path / "lines.json").read_text(encoding="utf-8"))["files"]
    lines = of_file["helper.py"]["executed_lines"]
    assert [name for at, name in enumerate(functions, 1) if 2 * at not in lines] == []
