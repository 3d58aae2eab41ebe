"""Sessions beside pytest's own options and other plugins: no run is lost, none counts twice."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Runs = Callable[[pytest.RunResult], list[str]]

pytestmark = pytest.mark.needs("fork")

BOTH = "--start-method=fork,spawn"

# Under spawn one fails in the middle of its class, one as the last of the module.
SUITE = """
import multiprocessing
import os
import unittest

import child
import pytest

HEALED = "HEALED" in os.environ

def fails_under(method):
    child.by_process()
    assert HEALED or multiprocessing.get_start_method() != method

def test_quiet():
    pass

class TestClass:
    def test_fails(self):
        fails_under("spawn")

    def test_passes(self):
        fails_under("no method")

@pytest.mark.start_methods("fork", "spawn")
class TestCase(unittest.TestCase):
    def test_marked(self):
        fails_under("fork")

def test_end():
    fails_under("spawn")
"""
CLASS, CASE, END = "TestClass::test_fails", "TestCase::test_marked", "test_end"
# First what runs in pytest's own process, then the session under spawn.
ORDER = [
    "test_quiet PASSED",
    *(f"{CLASS} PASSED", "TestClass::test_passes PASSED"),
    *(f"{CASE}[fork] FAILED", f"{CASE}[spawn] PASSED"),
    f"{END} PASSED",
    *(f"{CLASS}[spawn] FAILED", "TestClass::test_passes[spawn] PASSED", f"{END}[spawn] FAILED"),
]


def of(*tests: str) -> list[str]:
    """Return the runs of these tests, in their order."""
    return [run for run in ORDER if run.startswith(tests)]


def plugin(module: str, name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(find_spec(module) is None, reason=f"this run has no {name}")


def shown_progress(result: pytest.RunResult) -> list[int]:
    return [int(percent) for line in result.outlines for percent in re.findall(r"(\d+)%\]", line)]


@pytest.fixture
def suite(pytester: pytest.Pytester, child_module: None) -> None:  # noqa: ARG001 (its file)
    pytester.makepyfile(test_it=SUITE)


@pytest.mark.usefixtures("suite")
def test_stopping_early_loses_no_teardown_and_starts_no_further_run(
    run_watched: Run, runs: Runs
) -> None:
    for args, number in ((["-x"], 4), (["--maxfail=2"], 7)):
        result = run_watched("-v", BOTH, *args)
        assert runs(result) == ORDER[:number]
        assert result.ret == pytest.ExitCode.TESTS_FAILED
    result = run_watched("-v", BOTH, "-x", "-k", "not marked")
    assert runs(result) == [
        *of("test_quiet", CLASS + " ", "TestClass::test_passes ", END + " "),
        f"{CLASS}[spawn] FAILED",
    ]
    assert "stopping after 1 failures" in result.stdout.str()


@pytest.mark.usefixtures("suite")
def test_last_failed_remembers_ids_that_pytest_collects(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, run_watched: Run, runs: Runs
) -> None:
    def remembered() -> list[str]:
        path = Path(pytester.path, ".pytest_cache/v/cache/lastfailed")
        return sorted(test.partition("::")[2] for test in json.loads(path.read_text("utf-8")))

    failed = sorted([CLASS, f"{CASE}[fork]", END])
    assert runs(run_watched("-v", BOTH)) == ORDER
    assert remembered() == failed
    of_failed = of(CLASS, f"{CASE}[fork]", END)
    for _ in range(2):  # --lf again tests what fails again
        assert runs(run_watched("-v", BOTH, "--lf")) == of_failed
        assert remembered() == failed
    again = runs(run_watched("-v", BOTH, "--ff"))
    assert Counter(again) == Counter(ORDER)
    assert again[0] == f"{CLASS} PASSED"
    monkeypatch.setenv("HEALED", "1")
    healed = [run.replace("FAILED", "PASSED") for run in of_failed]
    assert runs(run_watched("-v", BOTH, "--lf")) == healed
    assert remembered() == []


@pytest.mark.usefixtures("suite")
def test_stepwise_continues_at_the_test_that_failed(
    monkeypatch: pytest.MonkeyPatch, run_watched: Run, runs: Runs
) -> None:
    assert runs(run_watched("-v", BOTH, "--sw")) == ORDER[:4]
    assert runs(run_watched("-v", BOTH, "--sw")) == ORDER[3:4]
    assert runs(run_watched("-v", BOTH, "--sw", "--sw-skip")) == [
        *ORDER[3:6],
        f"{END}[spawn] FAILED",
    ]
    assert runs(run_watched("-v", BOTH, "--sw")) == of(END)
    monkeypatch.setenv("HEALED", "1")
    healed = [run.replace("FAILED", "PASSED") for run in ORDER]
    assert runs(run_watched("-v", BOTH, "--sw")) == [
        run.replace("FAILED", "PASSED") for run in of(END)
    ]
    assert runs(run_watched("-v", BOTH, "--sw")) == healed


@pytest.mark.usefixtures("suite")
def test_what_is_selected_has_all_its_runs_and_the_rest_none(run_watched: Run, runs: Runs) -> None:
    result = run_watched("-v", BOTH, "-k", "TestClass")
    assert runs(result) == of("TestClass")
    result.assert_outcomes(passed=3, failed=1, deselected=4)
    result = run_watched("-v", BOTH, "--deselect", f"test_it.py::{CLASS}")
    assert runs(result) == [run for run in ORDER if CLASS not in run]
    assert runs(run_watched("-v", BOTH, f"test_it.py::{END}")) == of(END)


@pytest.mark.usefixtures("suite")
def test_each_run_has_a_name_of_its_own_in_every_report(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    result = run_watched(BOTH, "-rA", "--durations=0", "-vv", "--junitxml=junit.xml")
    ids = Counter(f"test_it.py::{run.partition(' ')[0]}" for run in ORDER)
    words = [line.split() for line in result.outlines]
    called = Counter(word[2] for word in words if word[1:2] == ["call"] and len(word) == 3)
    assert called == ids
    ended = Counter(word[1] for word in words if word and word[0] in ("PASSED", "FAILED"))
    assert ended == ids
    cases = ET.parse(pytester.path / "junit.xml").findall(".//testcase")
    assert [case.attrib["name"] for case in cases] == [
        run.partition(" ")[0].rpartition("::")[2] for run in ORDER
    ]
    for case, run in zip(cases, ORDER, strict=True):
        [method] = [p.attrib["value"] for p in case.iterfind(".//property[@name='start_method']")]
        assert method == (re.findall(r"\[(\w+)\]", run) or ["fork"])[0]
        assert bool(case.findall("failure")) is run.endswith("FAILED")


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize("verbosity", ["-q", "-v", ""])
def test_the_progress_ends_at_a_hundred(run_watched: Run, verbosity: str) -> None:
    result = run_watched(BOTH, *filter(None, [verbosity]))
    assert max(shown_progress(result)) == 100
    assert shown_progress(result)[-1] == 100
    result.assert_outcomes(passed=6, failed=3)


@pytest.mark.usefixtures("suite")
@plugin("xdist", "pytest-xdist")
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "worksteal", "loadgroup"])
def test_with_xdist_each_run_is_reported_once(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs, dist: str
) -> None:
    args = ("-v", BOTH, "-n", "2", "--dist", dist, "--junitxml=junit.xml")
    result = run_watched(*args, plugins=("xdist",))
    assert Counter(runs(result)) == Counter(ORDER)
    result.assert_outcomes(passed=6, failed=3)
    assert shown_progress(result)[-1] == 100
    assert max(shown_progress(result)) == 100
    properties = ET.parse(pytester.path / "junit.xml").findall(".//property")
    methods = Counter(p.attrib["value"] for p in properties if p.attrib["name"] == "start_method")
    assert methods == Counter(fork=5, spawn=4)


@pytest.mark.usefixtures("child_module")
@plugin("xdist", "pytest-xdist")
def test_a_group_of_xdist_is_part_of_the_test(pytester: pytest.Pytester, run_watched: Run) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import child
            import pytest

            @pytest.mark.xdist_group("one")
            @pytest.mark.parametrize("number", [1])
            def test_it(number):
                child.by_process()
                assert multiprocessing.get_start_method() == "fork"
        """
    )
    result = run_watched(BOTH, "-n", "2", "--dist=loadgroup", plugins=("xdist",))
    result.assert_outcomes(passed=1, failed=1)
    # With some versions of pytest and pytest-xdist the group is in the reports, too.
    outcomes = r"test_it\.py::test_it\[1\](@one)?    passed: fork    failed: spawn"
    assert any(re.fullmatch(outcomes, line) for line in result.outlines)
    assert any(line.startswith("FAILED test_it.py::test_it[1-spawn]") for line in result.outlines)


@plugin("xdist", "pytest-xdist")
def test_a_test_that_crashes_its_worker_of_xdist_reruns(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing
            import os

            METHOD = multiprocessing.get_start_method()

            def test_crashes():
                if METHOD == "fork":
                    os._exit(3)

            def test_asks(start_method):
                if start_method == "fork":
                    os._exit(3)
        """
    )
    result = run_watched(BOTH, "-n", "1", plugins=("xdist",))
    result.assert_outcomes(passed=2, failed=2)
    assert "test_it.py::test_crashes    failed: fork    passed: spawn" in result.outlines
    assert "test_it.py::test_asks    failed: fork    passed: spawn" in result.outlines


@pytest.mark.usefixtures("suite")
@plugin("xdist", "pytest-xdist")
def test_with_xdist_stopping_and_last_failed_work_and_each_worker_may_run_all(
    run_watched: Run, runs: Runs
) -> None:
    def run(*args: str) -> pytest.RunResult:
        return run_watched("-v", BOTH, *args, plugins=("xdist",))

    result = run("-n", "2")
    assert Counter(runs(run("-n", "2", "--lf"))) == Counter(of(CLASS, f"{CASE}[fork]", END))
    result = run("-n", "1", "-x", "-k", "not marked")
    assert f"{CLASS}[spawn] FAILED" in runs(result)
    assert f"{END}[spawn] FAILED" not in runs(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result = run("--dist", "each", "--tx", "2*popen")
    assert Counter(runs(result)) == Counter(ORDER[:6] * 2 + ORDER[6:])


@pytest.mark.usefixtures("child_module")
@plugin("pytest_rerunfailures", "pytest-rerunfailures")
def test_rerunfailures_repeats_each_run_that_fails(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing
            from collections import Counter

            import child
            import pytest

            attempts = Counter()

            @pytest.fixture(scope="module")
            def made():
                yield

            def test_flaky(made):
                child.by_process()
                method = multiprocessing.get_start_method()
                attempts[method] += 1
                assert attempts[method] == 2

            def test_broken(made):
                child.by_process()
                assert multiprocessing.get_start_method() != "spawn"
        """
    )
    result = run_watched("-v", BOTH, "--reruns=1", plugins=("rerunfailures",))
    assert runs(result) == [
        *("test_flaky RERUN", "test_flaky PASSED", "test_broken PASSED"),
        *("test_flaky[spawn] RERUN", "test_flaky[spawn] PASSED"),
        *("test_broken[spawn] RERUN", "test_broken[spawn] FAILED"),
    ]
    result.assert_outcomes(passed=3, failed=1)
    table = [line.split()[:3] for line in result.outlines if line.startswith(("fork", "spawn"))]
    assert table == [["fork", "2", "2"], ["spawn", "1", "1"]]
    assert "test_it.py::test_broken    passed: fork    failed: spawn" in result.outlines


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    ("args", "each"),
    [
        pytest.param(
            ("-p", "randomly", "-p", "no:cacheprovider"),
            1,
            marks=plugin("pytest_randomly", "pytest-randomly"),
        ),
        pytest.param(
            ("-p", "pytest_repeat", "--count=2", "-k", "test_end"),
            2,
            marks=plugin("pytest_repeat", "pytest-repeat"),
        ),
    ],
    ids=["randomly", "repeat"],
)
def test_randomly_and_repeat_have_all_runs(
    run_watched: Run, runs: Runs, args: tuple[str, ...], each: int
) -> None:
    result = run_watched("-v", BOTH, *args)
    if each == 1:
        assert Counter(runs(result)) == Counter(ORDER)
    else:
        assert runs(result) == [
            f"test_end[{number}-2{method}] {outcome}"
            for method, outcome in (("", "PASSED"), ("-spawn", "FAILED"))
            for number in (1, 2)
        ]


@pytest.mark.usefixtures("child_module")
@plugin("pytest_timeout", "pytest-timeout")
def test_the_timer_of_timeout_ends_with_each_run(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    # Its thread would end the process: none of them is alive in a later test.
    pytester.makepyfile("""
        import threading

        import child

        def timers():
            return [t for t in threading.enumerate() if isinstance(t, threading.Timer)]

        def test_not_last():
            child.by_process()
            assert len(timers()) == 1

        class TestClass:
            def test_last(self):
                child.by_process()
                assert len(timers()) == 1

        def test_after():
            assert len(timers()) == 1
    """)
    pytester.makeconftest("""
        import threading

        def pytest_unconfigure():
            assert threading.enumerate() == [threading.main_thread()]
    """)
    args = ("--timeout=50", "--timeout-method=thread")
    result = run_watched(BOTH, *args, plugins=("timeout",))
    result.assert_outcomes(passed=5)
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize(
    ("name", "mark"),
    [
        pytest.param("asyncio", "asyncio", marks=plugin("pytest_asyncio", "pytest-asyncio")),
        pytest.param("anyio", "anyio", marks=plugin("anyio", "anyio")),
    ],
)
def test_an_async_test_reruns_with_its_fixtures(
    pytester: pytest.Pytester, run_watched: Run, runs: Runs, name: str, mark: str
) -> None:
    fixture = "pytest_asyncio.fixture" if name == "asyncio" else "pytest.fixture"
    pytester.makeconftest(
        ""
        if name == "asyncio"
        else 'import pytest\n@pytest.fixture\ndef anyio_backend(): return "asyncio"'
    )
    pytester.makepyfile(f"""
        import asyncio
        import multiprocessing

        import child
        import pytest
        {"import pytest_asyncio" if name == "asyncio" else ""}

        pytestmark = pytest.mark.{mark}

        @{fixture}
        async def answer():
            await asyncio.sleep(0)
            yield child.by_process()
            await asyncio.sleep(0)

        async def test_fixture(answer):
            await asyncio.sleep(0)
            assert answer == multiprocessing.get_start_method()

        class TestClass:
            async def test_body(self):
                assert not hasattr(self, "seen")
                self.seen = True
                answer = await asyncio.get_running_loop().run_in_executor(None, child.by_process)
                assert answer == multiprocessing.get_start_method()

            async def test_quiet(self):
                await asyncio.sleep(0)
    """)
    args = ("-o", "asyncio_default_fixture_loop_scope=function") if name == "asyncio" else ()
    result = run_watched("-v", BOTH, *args, plugins=(name,))
    assert runs(result) == [
        *("test_fixture PASSED", "TestClass::test_body PASSED", "TestClass::test_quiet PASSED"),
        *("test_fixture[spawn] PASSED", "TestClass::test_body[spawn] PASSED"),
    ]


@pytest.mark.usefixtures("child_module")
@pytest.mark.skipif(not hasattr(pytest, "SubtestReport"), reason="this pytest has no subtests")
@pytest.mark.parametrize(
    ("args", "plugins"),
    [
        ((), ()),
        pytest.param(("-n", "1"), ("xdist",), marks=plugin("xdist", "pytest-xdist")),
    ],
    ids=["alone", "xdist"],
)
def test_a_run_fails_by_its_own_subtests_only(
    pytester: pytest.Pytester,
    run_watched: Run,
    runs: Runs,
    args: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        @pytest.mark.parametrize("method", ["fork", "spawn"])
        def test_fails_under(subtests, method):
            child.by_process()
            for number in range(2):
                with subtests.test(number=number):
                    assert number or multiprocessing.get_start_method() != method
    """)
    result = run_watched("-v", BOTH, *args, plugins=plugins)
    assert [run for run in runs(result) if "SUB" not in run] == [
        *("test_fails_under[fork] FAILED", "test_fails_under[spawn] PASSED"),
        *("test_fails_under[fork-spawn] PASSED", "test_fails_under[spawn-spawn] FAILED"),
    ]
    result.assert_outcomes(failed=4, passed=2)


@pytest.mark.usefixtures("child_module")
@plugin("pytest_cov", "pytest-cov")
@pytest.mark.parametrize(
    ("args", "plugins"),
    [
        ((), ()),
        pytest.param(("-n", "2"), ("xdist",), marks=plugin("xdist", "pytest-xdist")),
    ],
    ids=["alone", "xdist"],
)
def test_cov_counts_the_lines_of_each_session(
    pytester: pytest.Pytester,
    run_watched: Run,
    args: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    pytester.makepyfile(
        lib="""
            def only_fork():
                return 1

            def only_spawn():
                return 2

            def only_forkserver():
                return 3

            def never():
                return 4
        """,
        test_it="""
            import multiprocessing

            import child
            import lib

            def test_it():
                child.by_process()
                getattr(lib, f"only_{multiprocessing.get_start_method()}")()
        """,
    )
    given = ("--start-method=all", "--cov=lib", "--cov-report=json", "--cov-fail-under=80", *args)
    result = run_watched(*given, plugins=("pytest_cov", *plugins))
    result.assert_outcomes(passed=3)
    assert result.ret == pytest.ExitCode.OK
    [measured] = json.loads(Path(pytester.path, "coverage.json").read_text("utf-8"))[
        "files"
    ].values()
    assert measured["missing_lines"] == [11]


@pytest.mark.usefixtures("suite")
@plugin("pytest_reportlog", "pytest-reportlog")
def test_reportlog_has_each_run_once(pytester: pytest.Pytester, run_watched: Run) -> None:
    run_watched(BOTH, "--report-log=log.jsonl", plugins=("pytest_reportlog",))
    lines = Path(pytester.path, "log.jsonl").read_text(encoding="utf-8").splitlines()
    reports = [known for line in lines if (known := json.loads(line)).get("when") == "call"]
    ended = Counter(f"{of['nodeid'].partition('::')[2]} {of['outcome'].upper()}" for of in reports)
    assert ended == Counter(ORDER)


@pytest.mark.usefixtures("suite")
@plugin("pytest_jsonreport", "pytest-json-report")
def test_json_report_has_each_run_once(pytester: pytest.Pytester, run_watched: Run) -> None:
    args = ("--json-report", "--json-report-file=report.json")
    run_watched(BOTH, *args, plugins=("metadata", "pytest_jsonreport"))
    report = json.loads(Path(pytester.path, "report.json").read_text(encoding="utf-8"))
    ended = Counter(
        f"{of['nodeid'].partition('::')[2]} {of['outcome'].upper()}" for of in report["tests"]
    )
    assert ended == Counter(ORDER)
