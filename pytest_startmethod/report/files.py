"""Writes the results to a JSON or Markdown file, and reads JSON files."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.record import Run
from pytest_startmethod.report import summary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_startmethod.report.results import Result, Results

RUN_FIELDS = ("nodeid", "asked", "concerned", "processes", "other_processes", "proven")
RESULT_FIELDS = (
    *("outcome", "duration", "last_line", "runs_alone", "hint", "made_under"),
    *RUN_FIELDS,
)


class Report(NamedTuple):
    """The parts of a JSON report that `combine` needs."""

    platform: str
    python: str
    start_methods: tuple[str, ...]
    tests: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """By test and start method."""
    other_failures: Mapping[str, str]


class ReportError(Exception):
    """A file can't be read as a report; the text is the whole message."""


def problem(path: Path) -> str:
    """Return why a report can't be written to a path; "" if it can."""
    try:
        with path.open("a"):
            return ""
    except OSError as error:
        return f"can't write {str(path)!r}: {error.strerror}"


def write(path: Path, results: Results, known: Mapping[str, Any]) -> None:
    """Write the results as Markdown if the path ends in ``.md``, else as JSON.

    `known` are further items of the JSON report.
    """
    if path.suffix == ".md":
        text = summary.markdown(results)
    else:
        text = json.dumps({**known, "tests": tests(results)}, indent=2) + "\n"
    # The text of a failure may not be valid Unicode.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def describe_process(results: Results, pytest_version: str) -> dict[str, Any]:
    """Return the items of a JSON report that describe this pytest run."""
    return {
        "platform": sys.platform,
        "python": platform.python_version(),
        "pytest": pytest_version,
        "pytest-startmethod": version("pytest-startmethod"),
        "start_methods": list(results.selected),
        "other_failures": results.notes.other_failures,
    }


def tests(results: Results) -> list[dict[str, Any]]:
    """Return the tests as plain values; durations are in seconds."""
    return [
        {
            "test": next(iter(runs.values())).run.test,
            "start_methods": {name: _plain(results, result) for name, result in runs.items()},
        }
        for runs in results.tests()
    ]


def _plain(results: Results, result: Result) -> dict[str, Any]:
    run = result.run
    return {
        "outcome": result.outcome,
        **{name: getattr(run, name) for name in RUN_FIELDS},
        "made_under": run.made_under,
        "runs_alone": not results.ends_so_anyway(result),
        "duration": result.seconds,
        "last_line": result.last_line,
        "hint": run.hint,
    }


def read(path: Path) -> Report:
    """Read a JSON report. Raises `ReportError`."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if "combined" in known:
            raise ReportError(f"{str(path)!r} is a combined report: name those it was made of")
        for of in known["tests"]:
            for told in of["start_methods"].values():
                _ = [told[name] for name in RESULT_FIELDS]
        return Report(
            known["platform"],
            known["python"],
            tuple(known["start_methods"]),
            {of["test"]: of["start_methods"] for of in known["tests"]},
            known["other_failures"],
        )
    except OSError as error:
        raise ReportError(f"can't read {str(path)!r}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ReportError(
            f"{str(path)!r} is no JSON report of pytest --start-method-report=PATH"
        ) from None


def make_run(test: str, label: str, told: Mapping[str, Any]) -> Run:
    """Return the record of a run that a JSON report describes."""
    known = {name: told[name] for name in RUN_FIELDS}
    return Run(label, test, hint=told["hint"], made_under=told["made_under"], **known)
