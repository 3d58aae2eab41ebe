"""What becomes of the results?"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import registration
from pytest_startmethod.record import ASKS, OUTCOMES, Run, with_method
from pytest_startmethod.report import files, summary
from pytest_startmethod.report.results import Results
from pytest_startmethod.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

NAME = "startmethod-reporting"

# What pytest's --lf and --sw remember, by the id that a report shows.
REMEMBERED = ("cache/lastfailed", "cache/stepwise")

# The progress of older ones is counted by the items' ids, but with -v by those of reports.
COUNTS_ITEMS = pytest.version_tuple < (8, 3)

PHASES = ("setup", "call", "teardown")

# Since pytest 9.0, and by what it then fails the test itself.
SUBTEST_REPORT: type | tuple[()] = getattr(pytest, "SubtestReport", ())
BY_SUBTESTS = re.compile(r"contains \d+ failed subtests?")


def register(config: pytest.Config) -> None:
    """Register the hooks that show results, but not in a worker of pytest-xdist."""
    is_worker = hasattr(config, "workerinput")  # which pytest-xdist gives to their config
    if is_worker or config.pluginmanager.has_plugin(NAME):
        return
    written = config.getoption("start_method_report")
    # Tests may change the working directory.
    path = Path(written).expanduser().absolute() if written is not None else None
    problem = files.problem(path) if path else ""
    if problem:
        raise pytest.UsageError(f"--start-method-report: {problem}")
    selected = config.stash[SETTINGS].selection.selected
    registration.register(config, Reporting(config, selected, path), NAME)


class Reporting:
    """The hooks that show results: a plugin of its own."""

    def __init__(self, config: pytest.Config, selected: Sequence[str], path: Path | None) -> None:
        self._config = config
        self._selected = selected
        self._path = path
        self._reports: list[pytest.TestReport] = []
        self._places: dict[str, int] = {}
        self._shown_as: dict[str, str] = {}
        self._shown: set[str] = set()
        self._unfinished: dict[str, Run] = {}
        self._failed_subtests: Counter[str] = Counter()
        # The test whose further runs stay on its line, and what the terminal knows the line by.
        self._begun: tuple[str, object] = ("", None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Take note of the order of tests, whose reports come from the workers in any order."""
        self._places = self._places or {nodeid: place for place, nodeid in enumerate(ids, 1)}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Keep the terminal from beginning a line with the item's id for each of its runs."""
        begun, line = self._begun
        terminal: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        if nodeid == begun and line is not None and terminal is not None:
            terminal.currentfspath = line

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep a report, and let that of a further run be shown by an id of its own."""
        if Run.told_by(report) is None and report.when in PHASES and report.outcome in OUTCOMES:
            if ASKS in report.keywords:
                self._reports.append(report)
            return
        if report.when not in PHASES and report.nodeid in self._unfinished:
            self._unfinished[report.nodeid].tell(report)  # its worker of pytest-xdist has crashed
        self._reports.append(report)
        run = Run.told_by(report)
        self._keep_line(report, run)
        if run is None:
            return
        self._unfinished[report.nodeid] = run
        if report.when == "teardown":
            del self._unfinished[report.nodeid]
        if run.nodeid != report.nodeid:
            self._count_subtests(report, run)
            self._rename(report, run)
        elif not run.asked:
            self._shown.add(run.nodeid)

    def _keep_line(self, report: pytest.TestReport, run: Run | None) -> None:
        nodeid, terminal = report.nodeid, self._config.pluginmanager.get_plugin("terminalreporter")
        if report.outcome not in OUTCOMES:  # pytest-rerunfailures begins one for what is run anew
            if run is None or run.nodeid == nodeid:
                self._begun = nodeid, None
        elif nodeid != self._begun[0]:
            self._begun = nodeid, getattr(terminal, "currentfspath", None)

    def _rename(self, report: pytest.TestReport, run: Run) -> None:
        self._shown_as[run.nodeid] = report.nodeid
        report.nodeid = run.nodeid
        path, line, name = report.location
        report.location = path, line, with_method(name, run.start_method)
        session = self._config.pluginmanager.get_plugin("session")
        counted = not COUNTS_ITEMS or self._config.get_verbosity() > 0
        if counted and run.first and report.when == "setup" and session is not None:
            session.testscollected += 1  # what the progress counts to

    def _count_subtests(self, report: pytest.TestReport, run: Run) -> None:
        """Fail a test by the subtests of this run of it: pytest 9.2 counts those of the item.

        It does so by the id, where the terminal asks for a report's letter: without pytest-xdist it
        finds none under the id of a further run; a worker finds those of all runs so far.
        """
        if report.when != "call":
            return
        if isinstance(report, SUBTEST_REPORT):
            self._failed_subtests[run.nodeid] += report.failed
            return
        number = self._failed_subtests.pop(run.nodeid, 0)
        if number and report.passed and not hasattr(report, "node"):
            report.outcome = "failed"
            report.longrepr = f"contains {number} failed subtest{'s' if number > 1 else ''}"
        elif not number and report.failed and BY_SUBTESTS.fullmatch(str(report.longrepr)):
            report.outcome, report.longrepr = "passed", None

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Let --lf and --sw remember the tests, and write the report."""
        result = yield
        cache: Any = getattr(self._config, "cache", None)  # none under -p no:cacheprovider
        for key in REMEMBERED if cache is not None and self._shown_as else ():
            remembered = cache.get(key, None)
            if remembered:
                cache.set(key, self._as_collected(remembered))
        if self._path:
            files.write(self._path, self._results(), pytest.__version__)
        return result

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table, and the tests whose outcome depends on the start method."""
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
        """Count all reports: at the end, as that is much faster than beside the tests."""
        results = Results(self._selected)
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
            results.add(run, outcome, getattr(report, "duration", 0.0), last_line, place)
        return results

    def _as_collected(self, remembered: Any) -> Any:  # noqa: ANN401 (differs between pytest's versions)
        """Put the ids of items in the place of those that their runs are shown by.

        And drop an item that pytest still remembers, as it saw none of its runs under that id.
        """
        if isinstance(remembered, dict):
            known = {self._as_collected(key): value for key, value in remembered.items()}
            return {k: self._as_collected(value) for k, value in known.items() if k is not None}
        if not isinstance(remembered, str):
            return remembered
        unseen = set(self._shown_as.values()) - self._shown
        return None if remembered in unseen else self._shown_as.get(remembered, remembered)


def _last_line(report: pytest.TestReport) -> str:
    """Return the line of a failure that says what happened."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = getattr(crash, "message", "") or report.longreprtext
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if crash is not None else lines[-1]) if lines else ""
