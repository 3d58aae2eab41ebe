"""What does a machine read of the results?"""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pytest_startmethod.report import summary

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_startmethod.report.results import Results


def problem(path: Path) -> str:
    """Return why a report can't be written to a path; "" where it can."""
    try:
        with path.open("a"):
            return ""
    except OSError as error:
        return f"can't write {str(path)!r}: {error.strerror}"


def write(path: Path, results: Results, pytest_version: str) -> None:
    """Write the results as Markdown where the path ends in ``.md``, else as JSON."""
    if path.suffix == ".md":
        text = summary.markdown(results)
    else:
        text = json.dumps(as_dict(results, pytest_version), indent=2) + "\n"
    # A failure's text may hold what isn't Unicode.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def as_dict(results: Results, pytest_version: str) -> dict[str, Any]:
    """Return the results as plain values; durations are in seconds."""
    return {
        "platform": sys.platform,
        "python": platform.python_version(),
        "pytest": pytest_version,
        "pytest-startmethod": version("pytest-startmethod"),
        "tests": [
            {
                "test": next(iter(runs.values())).run.test,
                "start_methods": {
                    name: {
                        "outcome": result.outcome,
                        "processes": result.run.processes,
                        "proven": result.run.proven,
                        "made_under": result.run.made_under,
                        "duration": result.seconds,
                        "last_line": result.last_line,
                        "hint": result.run.hint,
                    }
                    for name, result in runs.items()
                },
            }
            for runs in results.tests()
        ],
    }
