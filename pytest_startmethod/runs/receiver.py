"""Receives the messages of a session, and records how its tests end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from pytest_startmethod.session.relay import Warned

    Location = tuple[str, int | None, str]

PHASES = ("setup", "call", "teardown")


class Outcomes:
    """The outcomes of tests that didn't pass."""

    def __init__(self) -> None:
        self.not_passed: dict[str, str] = {}

    def add(self, nodeid: str, report: pytest.TestReport) -> None:
        """Record the outcome of a phase of a test: the worst one counts."""
        if report.failed or (report.skipped and nodeid not in self.not_passed):
            is_expected = report.skipped and hasattr(report, "wasxfail")
            self.not_passed[nodeid] = "xfailed" if is_expected else str(report.outcome)

    def of(self, nodeid: str) -> str:
        """Return how a test ended."""
        return self.not_passed.get(nodeid, "passed")


class Receiver:
    """Receives the messages of a session, and records how its tests end."""

    label = "control"
    """The name of the session."""
    is_shown = False

    def __init__(self, config: pytest.Config, tests: Mapping[str, str]) -> None:
        self.config = config
        self.todo = dict(tests)
        self.files: dict[str, str] = {}
        """The files whose tests all run; empty once the session has collected them."""
        self.outcomes = Outcomes()
        self.printed = 0
        self.begun = False
        """Whether the present session has begun a test."""
        self.running: tuple[str, Location] | None = None
        self.phase = ""
        self.problem = ""
        """The error that ended the session early, if pytest reported one."""
        self.stopped = ""
        """Why a test or a plugin stopped the session."""

    @property
    def is_unfinished(self) -> bool:
        """Whether a session still has tests to run."""
        return bool(self.todo or self.files)

    def receive(self, kind: str, *values: Any) -> None:  # noqa: ANN401 (what JSON can tell)
        """Handle a message from the session."""
        handle: Callable[..., None] = getattr(self, f"on_{kind}")
        handle(*values)

    def on_start(self, nodeid: str, location: Location, printed: int = 0) -> None:
        """Begin a test; `printed` is how much the session has printed before."""
        self.begun, self.printed = True, printed
        self.running, self.phase = (nodeid, location), PHASES[0]
        self.todo.pop(nodeid, None)

    def on_report(self, data: dict[str, Any]) -> None:
        """Handle a report of a test."""
        report: pytest.TestReport = self._unserialized(data)
        self.phase = PHASES[-1] if report.when != PHASES[0] else PHASES[1]
        self.show(report)

    def on_finish(self, nodeid: str, location: Location) -> None:  # noqa: ARG002 (what is sent)
        """End a test."""
        self.running = None

    def on_collect_report(self, data: dict[str, Any]) -> None:
        """Handle a report of a file or folder whose tests can't run."""
        report: pytest.CollectReport = self._unserialized(data)
        nodeid = report.nodeid
        below = [test for test in self.todo if test.startswith((f"{nodeid}::", f"{nodeid}/"))]
        if report.failed:
            self.show_collection_error(report, below)
        for test in below:
            path = self.todo.pop(test)
            if not report.failed:  # pytest.skip() at import
                location = path, None, test.partition("::")[2]
                self.on_start(test, location)
                outcome = str(report.outcome)
                self._show_made_up(test, location, outcome, report.longrepr, PHASES[0])

    def on_collected(self, nodeids: list[str]) -> None:
        """Handle the ids of the tests that the session will run."""
        for nodeid in nodeids:
            path = self.files.get(nodeid.partition("::")[0])
            if path is not None and nodeid not in self.todo:
                self.add(nodeid, path)
        self.files.clear()
        self.drop("not collected there", set(self.todo).difference(nodeids))

    def on_warning(self, warned: Warned, when: str, nodeid: str, location: Location) -> None:
        """Handle a warning."""

    def on_problem(self, text: str) -> None:
        """Record the error that ends the session early."""
        self.problem = text

    def on_end(self, reason: str) -> None:
        """Record that the session ends, and why, if it was stopped."""
        self.stopped = reason

    def end_running(self, text: str) -> None:
        """Fail the test that was running when the session died."""
        if self.running is not None:
            nodeid, location = self.running
            self._show_made_up(nodeid, location, "failed", text, self.phase)

    def give_up(self, reason: str, error: str = "") -> None:  # noqa: ARG002 (for who shows it)
        """Drop the remaining tests: no session will run them."""
        self.files.clear()
        self.drop(reason, set(self.todo))

    def add(self, nodeid: str, path: str) -> None:
        """Add a test that the first run didn't have."""
        self.todo[nodeid] = path

    def drop(self, reason: str, tests: Collection[str]) -> None:  # noqa: ARG002 (for who shows it)
        """Remove tests that don't run."""
        for test in tests:
            del self.todo[test]

    def show(self, report: pytest.TestReport) -> None:
        """Record a phase of a test."""
        self.outcomes.add(report.nodeid, report)

    def show_collection_error(self, report: pytest.CollectReport, tests: Collection[str]) -> None:
        """Handle a file or folder that can't be imported."""

    def _show_made_up(
        self,
        nodeid: str,
        location: Location,
        outcome: str,
        longrepr: Any,  # noqa: ANN401 (as pytest has it)
        phase: str,
    ) -> None:
        """End a test that got no further than a phase."""
        self.show(self._made_up(nodeid, location, outcome, longrepr, phase))
        if phase != PHASES[-1]:  # JUnit XML takes the properties from the teardown
            self.show(self._made_up(nodeid, location, "passed", None, PHASES[-1]))
        self.on_finish(nodeid, location)

    def _made_up(self, nodeid: str, location: Location, *how: Any) -> pytest.TestReport:  # noqa: ANN401
        return pytest.TestReport(nodeid, location, {}, *how)

    def _unserialized(self, data: dict[str, Any]) -> Any:  # noqa: ANN401 (one of two types)
        """Return a report, with the tuples that JSON has turned into lists."""
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=data)
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)
        if isinstance(report, pytest.TestReport):
            path, line, name = report.location
            report.location = path, line, name
            report.user_properties = [(name, value) for name, value in report.user_properties]
        return report
