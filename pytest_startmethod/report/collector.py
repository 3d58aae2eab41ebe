"""Collects the reports of runs, shows the summary and writes the report file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import registration
from pytest_startmethod.record import ASKS, Notes, Run
from pytest_startmethod.report import files, summary
from pytest_startmethod.report.results import Results
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    Listener = Callable[[pytest.TestReport], None]

NAME = "startmethod-reporting"

# What pytest's --lf and --sw remember, by the ids of reports.
REMEMBERED = ("cache/lastfailed", "cache/stepwise")

PHASES = ("setup", "call", "teardown")


def register(
    config: pytest.Config, notes: Notes | None = None, listener: Listener | None = None
) -> None:
    """Register the hooks that show results, but not in a worker of pytest-xdist.

    `notes` grow while tests run. `listener` is called with reports of tests that ask for no start
    method: those with a run attached, and those that didn't pass.
    """
    is_worker = hasattr(config, "workerinput")
    if is_worker or config.pluginmanager.has_plugin(NAME):
        return
    written = config.getoption("start_method_report")
    # Tests may change the working directory.
    path = Path(written).expanduser().absolute() if written is not None else None
    problem = files.problem(path) if path else ""
    if problem:
        raise pytest.UsageError(f"--start-method-report: {problem}")
    reporter = Reporter(config, path, notes or Notes(), listener)
    registration.register(config, reporter, NAME)


class Reporter:
    """The hooks that collect reports and show results."""

    def __init__(
        self,
        config: pytest.Config,
        path: Path | None,
        notes: Notes,
        listener: Listener | None,
    ) -> None:
        self._began = System.monotonic()
        self._config = config
        self._listener = listener
        self._path = path
        self._notes = notes
        self._selection = config.stash[SETTINGS].selection
        self._by_default = self._selection.process_default is not None
        self._reports: list[pytest.TestReport] = []
        # The reports of tests that may prove to be concerned when they end.
        self._undecided: dict[str, list[pytest.TestReport]] = {}
        self._unfinished: dict[str, Run] = {}
        self._places: dict[str, int] = {}
        self._collected_as: dict[str, str] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Record the order of the tests: workers send their reports in any order."""
        self._places = self._places or {nodeid: place for place, nodeid in enumerate(ids, 1)}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record the id of a file that a session couldn't import."""
        if hasattr(report, "collected_as"):
            self._collected_as[report.nodeid] = report.collected_as

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the reports of runs under a start method."""
        # One hook for everything: most tests ask for no start method, and need little time here.
        nodeid, when, run = report.nodeid, report.when, Run.told_by(report)
        if ASKS in report.keywords:
            self._reports.append(report)
        elif when not in PHASES:
            self._take_crash(report)
        else:
            if self._listener is not None and (run is not None or report.outcome != "passed"):
                self._listener(report)
            if run is not None and run.nodeid != run.test:
                self._reports.append(report)
                self._collected_as[run.nodeid] = run.test
            elif self._by_default and when == "teardown":
                self._decide(run, [*self._undecided.pop(nodeid, ()), report])
            elif self._by_default:
                self._undecided.setdefault(nodeid, []).append(report)
        if run is not None:
            self._unfinished[nodeid] = run
            if report.when == "teardown":
                del self._unfinished[nodeid]

    def _take_crash(self, report: pytest.TestReport) -> None:
        """Keep the report of a test whose worker of pytest-xdist has crashed."""
        nodeid = report.nodeid
        if nodeid in self._unfinished:
            self._unfinished.pop(nodeid).tell(report)
        asks = any(nodeid == kept.nodeid and ASKS in kept.keywords for kept in self._reports)
        if self._listener is not None and not asks:
            self._listener(report)
        self._reports += [*self._undecided.pop(nodeid, ()), report]

    def _decide(self, run: Run | None, reports: list[pytest.TestReport]) -> None:
        """Keep the reports of a test that asks for no start method, if it is concerned."""
        if run is None or not (run.concerned or run.other_processes):
            for report in reports if self._path is not None else ():
                if report.failed:
                    self._notes.other_failures[report.nodeid] = _last_line(report)
            return
        for report in reports:
            (Run.told_by(report) or run).tell(report)
        self._reports += reports

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Make --lf and --sw remember ids that pytest collects, and write the report file."""
        result = yield
        cache: Any = getattr(self._config, "cache", None)  # none under -p no:cacheprovider
        for key in REMEMBERED if cache is not None and self._collected_as else ():
            remembered = cache.get(key, None)
            if remembered:
                cache.set(key, self._as_collected(remembered))
        if self._path:
            results = self._results()
            files.write(self._path, results, files.describe_process(results, pytest.__version__))
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the summary."""
        if self._config.getoption("no_summary"):
            return
        width = self._config.get_terminal_writer().fullwidth
        verbosity = self._config.get_verbosity()
        for line in summary.lines(self._results(), verbosity, width):
            if line.separator:
                terminalreporter.write_sep(line.separator, line.text, **line.markup)
            else:
                terminalreporter.write_line(line.text, **line.markup)

    def _results(self) -> Results:
        """Count the reports: at the end, which is much faster than while tests run."""
        results = Results(self._selection.selected, self._notes)
        longest = System.monotonic() - self._began
        unfinished: dict[str, Run] = {}
        for report in self._reports:
            nodeid = report.nodeid
            run = Run.told_by(report) or (
                Run.of(report) if report.when == "setup" else unfinished.get(nodeid)
            )
            if run is None:
                continue
            unfinished[nodeid] = run
            outcome = str(report.outcome)
            if outcome == "skipped" and hasattr(report, "wasxfail"):
                outcome = "xfailed"
            last_line = _last_line(report) if outcome == "failed" else ""
            place = self._places.get(nodeid) or self._places.get(run.test, 0)
            seconds = getattr(report, "duration", 0.0)
            if not 0 <= seconds <= longest:  # a fixture has stopped or set pytest's clock
                seconds = 0.0
            results.add(run, outcome, seconds, last_line, place)
        for run, last_line in self._notes.failed:
            results.add(run, "failed", 0.0, last_line)
        return results

    def _as_collected(self, remembered: Any) -> Any:  # noqa: ANN401 (differs between pytest's versions)
        """Replace the ids of runs by those of the collected tests."""
        if isinstance(remembered, dict):
            known = {self._as_collected(key): value for key, value in remembered.items()}
            return {key: self._as_collected(value) for key, value in known.items() if key != ""}
        if not isinstance(remembered, str):
            return remembered
        return self._collected_as.get(remembered, remembered)


def _last_line(report: pytest.TestReport) -> str:
    """Return the line of a failure that says what happened."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = report.longrepr if isinstance(report.longrepr, str) else getattr(crash, "message", "")
    lines = [line.strip() for line in (message or report.longreprtext).splitlines() if line.strip()]
    return next(iter(lines if message else reversed(lines)), "")
