"""``python -m pytest_startmethod combine`` joins the reports of separate runs."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.report import combine, files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SUITE = """
import multiprocessing

import child

METHOD = multiprocessing.get_start_method()

def test_passes():
    child.by_process()

def test_differs():
    child.by_process()
    assert METHOD != "spawn", "planted"

def test_fails_before_it_starts_one():
    assert METHOD != "forkserver", "early"
    child.by_process()

def test_fails_everywhere():
    child.by_process()
    raise AssertionError

def test_context(mp_context, start_method):
    assert child.by_process(mp_context) == start_method != "spawn"

def test_quiet():
    pass
"""
METHODS = ("fork", "spawn", "forkserver")


def summary(lines: list[str]) -> list[str]:
    """Return the summary without times and separators."""
    begin = next(n for n, line in enumerate(lines) if line.strip("= ") == "start methods")
    shown = [re.sub(r" +\d+\.\d\ds$", "", line).strip("-= ") for line in lines[begin:]]
    end = next((n for n, line in enumerate(shown) if n and line.startswith("short test")), None)
    return [line for line in shown[:end] if line and "failed, " not in line]


@pytest.fixture
def run_combine(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    def run(*args: str) -> pytest.RunResult:
        return pytester.run(sys.executable, "-m", "pytest_startmethod", "combine", *args)

    return run


@pytest.mark.usefixtures("child_module")
def test_a_report_for_each_start_method_says_what_one_run_of_all_says(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    run_watched: Callable[..., pytest.RunResult],
    run_combine: Callable[..., pytest.RunResult],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makepyfile(test_it=SUITE)
    for method in METHODS:
        run_watched(f"--start-method={method}", f"--start-method-report={method}.json")
    together = run_watched("--start-method=all", "--tb=no", "-v", "--start-method-report=all.json")
    assert together.ret == pytest.ExitCode.TESTS_FAILED
    result = run_combine(*(f"{method}.json" for method in METHODS), "--report=joined.md")
    assert result.ret == 0
    told = summary(result.outlines)
    assert told == summary(together.outlines)
    assert "outcome depends on the start method" in told
    names = [line for line in told if line.startswith("test_it.py::")]
    assert [name.partition(" ")[0].partition("::")[2] for name in names] == [
        *("test_differs", "test_fails_before_it_starts_one", "test_context"),
    ]
    markdown = (pytester.path / "joined.md").read_text(encoding="utf-8")
    assert "| `test_it.py::test_differs` | passed: fork, forkserver<br>failed: spawn |" in markdown
    assert summary(run_combine("all.json").outlines) == told


@pytest.mark.usefixtures("child_module")
def test_platforms_and_python_versions_are_told_apart(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    run_combine: Callable[..., pytest.RunResult],
) -> None:
    pytester.makepyfile(test_it="import child\ndef test_it():\n    child.by_process()")
    run_watched("--start-method=spawn", "--start-method-report=linux.json")
    path = pytester.path / "linux.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    known["platform"], known["python"] = "darwin", "3.99.1"
    told = known["tests"][0]["start_methods"]["spawn"]
    told["outcome"], told["last_line"] = "failed", "OSError: planted"
    (pytester.path / "mac.json").write_text(json.dumps(known), encoding="utf-8")
    result = run_combine("linux.json", "mac.json", "--report=joined.json")
    version = ".".join(map(str, sys.version_info[:3]))
    here, there = f"spawn on {sys.platform}, {version}", "spawn on darwin, 3.99.1"
    assert "outcome depends on the start method, the platform or the Python" in result.stdout.str()
    assert f"    passed: {here}    failed: {there}" in result.outlines
    assert "    OSError: planted" in result.outlines
    joined = json.loads((pytester.path / "joined.json").read_text(encoding="utf-8"))
    assert [*joined["tests"][0]["start_methods"]] == [here, there]
    assert joined["combined"][1] == {"platform": "darwin", "python": "3.99.1"}
    result = run_combine("joined.json")
    assert "'joined.json' is a combined report: name those it was made of" in result.stderr.str()


def test_an_unreadable_or_unwritable_file_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, text = (tmp_path / name for name in ("good.json", "bad.json", "text.json"))
    known = {"platform": "x", "python": "3", "start_methods": ["spawn"], "tests": []}
    good.write_text(json.dumps({**known, "other_failures": {}}), encoding="utf-8")
    tests = [{"test": "x", "start_methods": {"spawn": {"outcome": "passed"}}}]
    bad.write_text(json.dumps({**known, "tests": tests, "other_failures": {}}), encoding="utf-8")
    text.write_text("no JSON", encoding="utf-8")
    reason = "is no JSON report of pytest --start-method-report=PATH"
    for args, message in (
        ([str(tmp_path / "none.json")], f"can't read {str(tmp_path / 'none.json')!r}: No such"),
        ([str(bad)], f"{str(bad)!r} {reason}"),
        ([str(text)], f"{str(text)!r} {reason}"),
        ([str(good), "--report", str(tmp_path)], f"--report: can't write {str(tmp_path)!r}"),
    ):
        with pytest.raises(SystemExit) as ended:
            combine.main(["combine", *args])
        assert ended.value.code == 2
        assert f"error: {message}" in capsys.readouterr().err
    assert combine.main(["combine", str(good)]) == 0
    assert capsys.readouterr().out == "no test ran under a start method\n"
    assert files.read(good).start_methods == ("spawn",)
