"""The record of one run of a test under a start method, and its node id."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pytest

OUTCOMES = ("passed", "failed", "skipped", "xfailed")

ASKS = "asks for its start method"
"""Among the keywords of tests, and so of their reports, whose id ends with their start method."""


class Run(NamedTuple):
    """What a report tells of the run that it belongs to; it travels as a tuple of plain values."""

    start_method: str
    test: str
    """The test's node id, without the start method."""
    nodeid: str
    """The node id that the run is shown by."""
    asked: bool = True
    """Whether the test asked for its start method; others count where they are concerned."""
    concerned: bool = False
    """Whether a test that asked for none depends on the process-wide default."""
    path: str = ""
    """The file of a concerned test."""
    processes: int = 0
    other_processes: int = 0
    """How many processes the test started by another start method than the default."""
    proven: bool = False
    """Whether a process ran that was started by this method."""
    used: bool = False
    """Whether a process of a wider fixture served the test."""
    hint: str = ""
    made_under: str = ""
    """The start method at the time when the object was made that the run failed by."""

    @classmethod
    def told_by(cls, report: pytest.TestReport) -> Run | None:
        """Return the run that a report tells of in full, if it does."""
        told = vars(report).get("start_method")
        return None if told is None else cls(*told)

    def tell(self, report: pytest.TestReport) -> None:
        """Let a report tell of the run, by what gets to the controller of pytest-xdist."""
        vars(report)["start_method"] = tuple(self)  # its own type may not

    @classmethod
    def of(cls, report: pytest.TestReport) -> Run | None:
        """Return the run of a test that asks for its start method, by its id and properties alone.

        So tell the reports of tests that started no process.
        """
        if ASKS not in report.keywords:
            return None
        nodeid = report.nodeid
        own = next(str(value) for name, value in report.user_properties if name == "start_method")
        return cls(own, without_method(nodeid, own), nodeid)


def with_method(nodeid: str, method: str) -> str:
    """Return the node id of a test's run: ``test_x[spawn]``, ``test_y[1-spawn]``."""
    test, group = _without_group(nodeid)
    if test.endswith("]"):
        return f"{test[:-1]}-{method}]{group}"
    return f"{test}[{method}]{group}"


def without_method(nodeid: str, method: str) -> str:
    """Return the node id of a run's test."""
    run, group = _without_group(nodeid)
    if run.endswith(f"[{method}]"):
        return run.removesuffix(f"[{method}]") + group
    return run.removesuffix(f"-{method}]") + "]" + group


def without_group(nodeid: str) -> str:
    """Return a node id without the group that ``--dist=loadgroup`` of pytest-xdist adds."""
    return _without_group(nodeid)[0]


def _without_group(nodeid: str) -> tuple[str, str]:
    """Split off the group that ``--dist=loadgroup`` of pytest-xdist ends a node id with."""
    test, at, group = nodeid.rpartition("@")
    # Not one in a parameter or a folder's name.
    return (test, at + group) if at and not set(group) & set("]/:") else (nodeid, "")


class NotRun(NamedTuple):
    """Tests that have no run under a start method."""

    start_method: str
    reason: str
    tests: tuple[str, ...]
    command: str = ""
    """What runs them by hand."""


class Notes:
    """What the sessions of further start methods found that no report of a test says."""

    def __init__(self) -> None:
        self.not_run: list[NotRun] = []
        self.control: dict[str, str] = {}
        """How tests ended under the first start method, without the tests that aren't concerned."""
        self.failed: list[tuple[Run, str]] = []
        """The runs that a collection error stands for, each with its last line."""
        self.other_failures: dict[str, str] = {}
        """The last line of each test that failed and isn't concerned, by its node id."""
