"""How did each test end under each start method?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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


# Plain classes: a dataclass takes as long to make as its module takes to import.


class Result:
    """How one run ended."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcome = "passed"
        self.seconds = 0.0
        self.last_line = ""

    @property
    def made_before(self) -> bool:
        """Whether it failed by what was made before, under another start method."""
        return self.outcome == "failed" and bool(self.run.made_under)


class Results:
    """All that ended so far, by test and start method."""

    def __init__(self, selected: Sequence[str]) -> None:
        self.selected = tuple(selected)
        self.by_test: dict[str, dict[str, Result]] = {}
        self.places: dict[str, int] = {}
        """Of each test in the order of collection, where tests end in another order."""

    def add(
        self, run: Run, outcome: str, seconds: float, last_line: str = "", place: int = 0
    ) -> None:
        """Count one phase of a run; the worst phase is its outcome."""
        runs = self.by_test.get(run.test)
        if runs is None:
            runs = self.by_test[run.test] = {}
        if place:
            self.places[run.test] = min(place, self.places.get(run.test, place))
        if outcome not in OUTCOMES:  # pytest-rerunfailures' "rerun": the test is run anew
            runs.pop(run.start_method, None)
            return
        result = runs.get(run.start_method)
        if result is None:
            result = runs[run.start_method] = Result(run)
        result.run = run
        result.seconds += seconds
        if outcome == "failed" or result.outcome == "passed":
            result.outcome = outcome
            result.last_line = result.last_line or last_line

    def tests(self) -> list[dict[str, Result]]:
        """Return the results by start method of each test that ran under one, as collected."""
        tests = sorted(self.by_test, key=lambda test: self.places.get(test, 0))
        by_method = [dict(sorted(self.by_test[test].items(), key=self._column)) for test in tests]
        return list(filter(None, by_method))

    def table(self) -> list[Row]:
        """Return a row for each start method, in run order."""
        rows = {name: Row(name) for name in self.selected}
        for runs in self.tests():
            for name, result in runs.items():
                row = rows.setdefault(name, Row(name))
                row.outcomes[result.outcome] += 1
                row.processes += result.run.processes
                row.seconds += result.seconds
        return [row for row in rows.values() if row.outcomes]

    def differing(self) -> list[dict[str, Result]]:
        """Return the tests whose outcome depends on the start method."""
        tests = [{n: r for n, r in runs.items() if not r.made_before} for runs in self.tests()]
        return [runs for runs in tests if _differs(runs.values())]

    def made_before(self) -> list[Result]:
        """Return the runs that failed by what was made before, under another start method."""
        return [result for result in self._results() if result.made_before]

    def unproven(self) -> list[Result]:
        """Return the runs that passed without a process started by their method.

        And the tests that ran once only, by the processes of a wider fixture: those of one method.
        """
        passed = [result for result in self._results() if result.outcome == "passed"]
        return [r for r in passed if not r.run.proven or self._ran_once(r.run)]

    def _ran_once(self, run: Run) -> bool:
        several = len(self.selected) > 1
        return several and run.used and not run.asked and len(self.by_test[run.test]) == 1

    def _column(self, named: tuple[str, Result]) -> int:
        name, _ = named
        return self.selected.index(name) if name in self.selected else len(self.selected)

    def _results(self) -> Iterator[Result]:
        return (result for runs in self.tests() for result in runs.values())


class Row:
    """A row of the table."""

    def __init__(self, start_method: str) -> None:
        self.start_method = start_method
        self.outcomes: Counter[str] = Counter()
        self.processes = 0
        self.seconds = 0.0


def _differs(results: Iterable[Result]) -> bool:
    outcomes = {result.outcome for result in results}
    return "failed" in outcomes and not outcomes.isdisjoint({"passed", "xfailed"})


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
