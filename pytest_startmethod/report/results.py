"""Counts how each test ended under each start method, and finds what differs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_startmethod.record import OUTCOMES, Notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pytest_startmethod.record import Run

# Plain classes: a dataclass takes as long to make as its module takes to import.


class Result:
    """The outcome of one run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.outcome = "passed"
        self.seconds = 0.0
        self.last_line = ""

    @property
    def made_before(self) -> bool:
        """Whether it failed because of a lock that was made under another start method."""
        return self.outcome == "failed" and bool(self.run.made_under)


class Results:
    """The outcomes of all runs, by test and start method."""

    def __init__(self, selected: Sequence[str], notes: Notes | None = None) -> None:
        self.selected = tuple(selected)
        self.notes = notes or Notes()
        self.by_test: dict[str, dict[str, Result]] = {}
        self.places: dict[str, int] = {}
        """The place of each test in the order of collection, if tests end in another order."""
        self.depends_on = "the start method"
        self.not_by_method: set[tuple[str, str]] = set()
        """Tests and start methods whose outcome, says a report, doesn't depend on the method."""

    def add(
        self, run: Run, outcome: str, seconds: float, last_line: str = "", place: int = 0
    ) -> None:
        """Count one phase of a run; the worst phase is its outcome."""
        runs = self.by_test.get(run.test)
        if runs is None:
            runs = self.by_test[run.test] = {}
        if place:
            self.places[run.test] = min(place, self.places.get(run.test, place))
        if outcome not in OUTCOMES:  # "rerun" of pytest-rerunfailures: the test begins again
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
        """Return the results by start method of each test that counts, in order of collection."""
        tests = sorted(self.by_test, key=lambda test: self.places.get(test, 0))
        by_method = [dict(sorted(self.by_test[test].items(), key=self._column)) for test in tests]
        return [runs for runs in by_method if any(_counts(result) for result in runs.values())]

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
        tests = [
            {name: r for name, r in runs.items() if not (r.made_before or self.ends_so_anyway(r))}
            for runs in self.tests()
        ]
        return [runs for runs in tests if _differs(runs.values())]

    def made_before(self) -> list[Result]:
        """Return the runs that failed because of a lock made under another start method."""
        return [result for result in self._results() if result.made_before]

    def not_alone(self) -> list[Result]:
        """Return the runs that ended differently because not all tests of the suite ran."""
        return [result for result in self._results() if self.ends_so_anyway(result)]

    def unproven(self) -> list[Result]:
        """Return the runs that passed without a process of their start method.

        Runs of tests that only asked for the default don't count.
        """
        passed = [result for result in self._results() if result.outcome == "passed"]
        return [r for r in passed if not r.run.proven and self._starts_processes(r.run)]

    def others(self) -> list[Result]:
        """Return the runs that started processes by another start method than the default."""
        results = (result for runs in self.by_test.values() for result in runs.values())
        return [result for result in results if result.run.other_processes]

    def _starts_processes(self, run: Run) -> bool:
        first = self._first(run)
        return run.asked or (first is not None and first.run.proven)

    def ends_so_anyway(self, result: Result) -> bool:
        """Return whether a rerun ended as the test did in the control session."""
        run, first = result.run, self._first(result.run)
        if (run.test, run.start_method) in self.not_by_method:
            return True
        if run.asked or first is result or result.outcome not in ("failed", "skipped"):
            return False
        is_as_first = first is not None and first.outcome == result.outcome
        return not is_as_first and self.notes.control.get(run.test) == result.outcome

    def _first(self, run: Run) -> Result | None:
        """Return the result of a test's run in pytest's own process."""
        runs = self.by_test[run.test].values()
        return next((result for result in runs if result.run.nodeid == run.test), None)

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


def _counts(result: Result) -> bool:
    return result.run.asked or result.run.concerned


def _differs(results: Iterable[Result]) -> bool:
    outcomes = {result.outcome for result in results}
    return "failed" in outcomes and not outcomes.isdisjoint({"passed", "xfailed"})
