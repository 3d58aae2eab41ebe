"""The report for machines: JSON, or Markdown for the summary of a job."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.record import Run
from pytest_startmethod.report import files
from pytest_startmethod.report.results import Results

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = "--start-method=fork,spawn,forkserver"

SUITE = """
import multiprocessing
import os

import child

def test_differs():
    os.chdir(os.path.dirname(os.__file__))  # and it doesn't go back
    child.by_process()
    assert multiprocessing.get_start_method() != "spawn"

def test_pool(mp_context):
    child.by_pool(mp_context)

def test_quiet():
    pass
"""


@pytest.mark.needs("fork", "forkserver")
@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize(
    ("workers", "plugins"),
    [
        pytest.param((), (), id="alone"),
        pytest.param(
            ("-n", "2"),
            ("xdist",),
            id="xdist",
            marks=pytest.mark.skipif(not find_spec("xdist"), reason="this run has no pytest-xdist"),
        ),
    ],
)
def test_json_tells_of_each_test_and_method(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    workers: tuple[str, ...],
    plugins: tuple[str, ...],
) -> None:
    pytester.makepyfile(test_it=SUITE)
    run_watched(*workers, ALL, "--start-method-report=report.json", plugins=plugins)
    report = json.loads(Path(pytester.path, "report.json").read_text(encoding="utf-8"))
    assert {name: value for name, value in report.items() if name != "tests"} == {
        "platform": sys.platform,
        "python": platform.python_version(),
        "pytest": pytest.__version__,
        "pytest-startmethod": version("pytest-startmethod"),
        "start_methods": ["fork", "spawn", "forkserver"],
        "other_failures": {},
    }
    tests = {told["test"]: told["start_methods"] for told in report["tests"]}
    assert [*tests] == ["test_it.py::test_differs", "test_it.py::test_pool"]
    for methods in tests.values():
        assert [*methods] == ["fork", "spawn", "forkserver"]
        for told in methods.values():
            assert (told["processes"], told["proven"]) == (1, True)
            assert told["duration"] > 0
    outcomes = [told["outcome"] for told in tests["test_it.py::test_differs"].values()]
    assert outcomes == ["passed", "failed", "passed"]
    last_line = tests["test_it.py::test_differs"]["spawn"]["last_line"]
    assert last_line == "AssertionError: assert 'spawn' != 'spawn'"


@pytest.mark.needs("fork", "forkserver")
@pytest.mark.usefixtures("child_module")
def test_markdown_has_the_tables(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(test_it=SUITE)
    run_watched(ALL, "-q", "--start-method-report=report.md")
    lines = Path(pytester.path, "report.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| fork |")]
    assert (
        "| `test_it.py::test_differs` | passed: fork, forkserver<br>failed: spawn "
        "| `AssertionError: assert 'spawn' != 'spawn'` |"
    ) in lines


def test_a_run_without_tests_or_without_processes_writes_it_too(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    run_watched(ALL, "--start-method-report=none.json")
    pytester.makepyfile("def test_quiet(): pass")
    run_watched("--start-method-report=quiet.json").assert_outcomes(passed=1)
    for name in ("none.json", "quiet.json"):
        text = Path(pytester.path, name).read_text(encoding="utf-8")
        assert json.loads(text)["tests"] == []


def test_a_path_that_cannot_be_written_is_a_usage_error_before_anything_runs(
    pytester: pytest.Pytester, assert_usage_error: Callable[[pytest.RunResult, str], None]
) -> None:
    pytester.makepyfile("def test_it(): open('ran.txt', 'w').close()")
    pytester.mkdir("folder")
    of_a_folder = "Permission denied" if sys.platform == "win32" else "Is a directory"
    for path, why in (
        ("missing/report.json", "No such file or directory"),
        ("folder", of_a_folder),
        ("", of_a_folder),
    ):
        result = pytester.runpytest_subprocess(f"--start-method-report={path}", timeout=60)
        absolute = str(pytester.path / path)
        assert_usage_error(result, f"--start-method-report: can't write {absolute!r}: {why}")
    assert not Path(pytester.path, "ran.txt").exists()


def test_text_that_is_not_valid_unicode_is_written(tmp_path: Path) -> None:
    results = Results(("fork", "spawn"))
    for method, outcome in (("fork", "passed"), ("spawn", "failed")):
        results.add(Run(method, "x", f"x[{method}]"), outcome, 1, "\udcff é")
    for name in ("report.json", "report.md"):
        assert files.problem(tmp_path / name) == ""
        files.write(tmp_path / name, results, files.describe_process(results, "9"))
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "\\udcff" in text
