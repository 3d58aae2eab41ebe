"""Joins the JSON reports of separate runs."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_startmethod.record import Notes, Run
from pytest_startmethod.report import files, summary
from pytest_startmethod.report.results import Results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_startmethod.report.files import Report

HELP = (
    "Join the JSON reports of separate runs, such as a job for each start method, platform or "
    "Python version: print the summary, and the tests whose outcomes differ."
)

WHERE = ("platform", "python")


def main(arguments: Sequence[str]) -> int:
    """Run ``python -m pytest_startmethod`` and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pytest_startmethod")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("combine", help=HELP, description=HELP)
    command.add_argument("reports", nargs="+", type=Path, metavar="REPORT.json")
    command.add_argument(
        "--report",
        type=Path,
        metavar="PATH",
        help="write the joined report: Markdown if its name ends in .md, else JSON",
    )
    given = parser.parse_args(arguments)
    try:
        reports = [files.read(path) for path in given.reports]
    except files.ReportError as error:
        parser.error(str(error))
    problem = files.problem(given.report) if given.report else ""
    if problem:
        parser.error(f"--report: {problem}")
    results = combine(reports)
    if given.report:
        joined = [{"platform": r.platform, "python": r.python} for r in reports]
        files.write(given.report, results, {"combined": joined})
    sys.stdout.write(text(results, shutil.get_terminal_size().columns))
    return 0


def combine(reports: Sequence[Report]) -> Results:
    """Return the results of all reports, with a distinct label for each start method of each."""
    labels = [_labels(report, reports) for report in reports]
    results = Results(list(dict.fromkeys(name for of in labels for name in of.values())), Notes())
    if any(getattr(one, name) != getattr(reports[0], name) for one in reports for name in WHERE):
        results.depends_on = "the start method, the platform or the Python version"
    for report, label in zip(reports, labels, strict=True):
        for test, methods in report.tests.items():
            for method, told in methods.items():
                name = label.setdefault(method, method)
                run = files.make_run(test, name, told)
                results.add(run, told["outcome"], told["duration"], told["last_line"])
                if not told["runs_alone"]:
                    results.not_by_method.add((test, name))
    for report, label in zip(reports, labels, strict=True):
        # The test may have failed before it did what makes it concerned.
        for test, last_line in report.other_failures.items():
            if test in results.by_test and report.start_methods:
                run = Run(label[report.start_methods[0]], test, test, asked=False, concerned=True)
                results.add(run, "failed", 0.0, last_line)
    return results


def _labels(report: Report, reports: Sequence[Report]) -> dict[str, str]:
    """Return the labels of a report's start methods: ``spawn``, ``spawn on linux, 3.14.1``."""
    of_report = [
        getattr(report, name) for name in WHERE if len({getattr(one, name) for one in reports}) > 1
    ]
    where = f" on {', '.join(of_report)}" if of_report else ""
    return {method: f"{method}{where}" for method in report.start_methods}


def text(results: Results, width: int) -> str:
    """Return the summary as it is printed."""
    shown = []
    for line in summary.lines(results, verbosity=1, width=width):
        if line.separator:
            shown.append(f" {line.text} ".center(width, line.separator))
        else:
            shown.append(line.text)
    return "".join(f"{line}\n" for line in shown or ["no test ran under a start method"])
