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
    first: str = ""
    """The start method of the item's first run, where this is a further one."""
    asked: bool = True
    """Whether the test asked for its start method; others count where they start a process."""
    processes: int = 0
    proven: bool = False
    """Whether a process ran that was started by this method."""
    used: bool = False
    """Whether a process of a wider fixture served the test."""
    hint: str = ""
    made_under: str = ""
    """Under which other method that was made by which the run failed, where it was made before."""

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


def _without_group(nodeid: str) -> tuple[str, str]:
    """Split off the group that ``--dist=loadgroup`` of pytest-xdist ends a node id with."""
    test, at, group = nodeid.rpartition("@")
    # Not one in a parameter or a folder's name.
    return (test, at + group) if at and not set(group) & set("]/:") else (nodeid, "")
