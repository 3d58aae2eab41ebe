"""The record of a test's run under a start method, and node ids of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pytest

OUTCOMES = ("passed", "failed", "skipped", "xfailed")

ASKS = "asks for its start method"
"""A keyword of tests, and so of their reports, that ask for their start method."""


class Run(NamedTuple):
    """What a report says about its run; sent between processes as a tuple of plain values."""

    start_method: str
    test: str
    """The test's node id, without the start method."""
    nodeid: str
    """The node id that the run is shown by."""
    asked: bool = True
    """Whether the test asked for its start method. Other tests count if they are concerned."""
    concerned: bool = False
    """Whether a test that asked for no start method depends on the process-wide default."""
    path: str = ""
    """The file of a concerned test."""
    whole_file: bool = False
    """Whether all tests of that file rerun: it may have others under another start method."""
    processes: int = 0
    other_processes: int = 0
    """How many processes the test started by another start method than the default."""
    proven: bool = False
    """Whether the test used a process that was started by this start method."""
    used: bool = False
    """Whether the test used a process of a wider fixture."""
    hint: str = ""
    made_under: str = ""
    """The start method under which the lock was made that the run failed by, if an earlier one."""

    @classmethod
    def told_by(cls, report: pytest.TestReport) -> Run | None:
        """Return the run that was attached to a report by `tell`, if any."""
        told = vars(report).get("start_method")
        return None if told is None else cls(*told)

    def tell(self, report: pytest.TestReport) -> None:
        """Attach the run to a report, in a form that pytest-xdist sends to its controller."""
        vars(report)["start_method"] = tuple(self)  # xdist can't send this class

    @classmethod
    def of(cls, report: pytest.TestReport) -> Run | None:
        """Return the run of a report without an attached one, if its test asks for a start method.

        The reports of tests that started no process are such: id and properties say enough.
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
    # An "@" in a parameter or a folder's name begins no group.
    return (test, at + group) if at and not set(group) & set("]/:") else (nodeid, "")


class NotRun(NamedTuple):
    """Tests that have no run under a start method."""

    start_method: str
    reason: str
    tests: tuple[str, ...]
    command: str = ""
    """The command that runs them by hand."""


class Notes:
    """What the sessions found out that no report of a test says."""

    def __init__(self) -> None:
        self.not_run: list[NotRun] = []
        self.control: dict[str, str] = {}
        """How tests ended in the control session."""
        self.failed: list[tuple[Run, str]] = []
        """The runs that a collection error replaces, each with the last line of the error."""
        self.other_failures: dict[str, str] = {}
        """The last line of each test that failed and isn't concerned, by node id."""
