"""Shows the tests of a session, by the hooks that pytest calls for its own tests."""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.record import NotRun, Run, with_method
from pytest_startmethod.runs.receiver import Receiver
from pytest_startmethod.session.relay import Warned

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pytest_startmethod.record import Notes
    from pytest_startmethod.runs.receiver import Location


class Shown(Receiver):
    """Shows the tests of a session as ``test_x[spawn]``."""

    is_shown = True

    def __init__(
        self,
        session: pytest.Session,
        method: str,
        tests: Mapping[str, str],
        names: dict[str, str],
        notes: Notes,
        warned: Collection[Warned],
    ) -> None:
        super().__init__(session.config, tests)
        self._session = session
        self._hook = session.config.hook
        self._method = self.label = method
        # Ids of the first run by those of the session: pytest-xdist may have added a group.
        self._names = names
        self._notes = notes
        self._warned = warned
        self._announced = False

    def on_start(self, nodeid: str, location: Location, printed: int = 0) -> None:
        """Begin a line of the terminal."""
        if not self._announced:
            self._announced = True
            announce(self.config, f"under {self._method}")
        super().on_start(nodeid, location, printed)
        self._hook.pytest_runtest_logstart(**self._named(nodeid, location))

    def on_finish(self, nodeid: str, location: Location) -> None:
        """End a line of the terminal."""
        super().on_finish(nodeid, location)
        self._hook.pytest_runtest_logfinish(**self._named(nodeid, location))

    def on_warning(self, warned: Warned, when: str, nodeid: str, location: Location) -> None:
        """Show a warning, unless it is one of collection that the first pytest has shown."""
        known = Warned(*warned)
        if when != "runtest" and known in self._warned:
            return
        warning = _warning(known)
        message = warnings.WarningMessage(warning, type(warning), known.filename, known.lineno)
        self._hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "when": when,
                "nodeid": self._shown(nodeid) if nodeid else "",
                "location": location and tuple(location),
            }
        )

    def give_up(self, reason: str, error: str = "") -> None:
        """Show an error, if there is one, and drop the remaining tests."""
        if error:
            name = f"session under {self._method}"
            report = pytest.CollectReport(name, "failed", error, [])
            vars(report)["collected_as"] = ""
            self._hook.pytest_collectreport(report=report)
        super().give_up(reason)

    def add(self, nodeid: str, path: str) -> None:
        """Add a test that the first run didn't have, also to the total of the progress."""
        super().add(nodeid, path)
        self._names[nodeid] = nodeid
        self._session.testscollected += 1

    def drop(self, reason: str, tests: Collection[str]) -> None:
        """Record which tests don't run."""
        if tests:
            dropped = tuple(self._names[test] for test in self.todo if test in tests)
            self._notes.not_run.append(NotRun(self._method, reason, dropped))
            self._session.testscollected -= len(tests)
        super().drop(reason, tests)

    def show(self, report: pytest.TestReport) -> None:
        """Show a report under the id of its run."""
        super().show(report)
        nodeid, (path, line, name) = report.nodeid, report.location
        test, shown = self._names[nodeid], self._shown(nodeid)
        run = Run.told_by(report) or Run(self._method, test, shown)
        run._replace(test=test, nodeid=shown, asked=False, concerned=True).tell(report)
        report.nodeid = shown
        report.location = path, line, with_method(name, self._method)
        self._hook.pytest_runtest_logreport(report=report)

    def show_collection_error(self, report: pytest.CollectReport, tests: Collection[str]) -> None:
        """Show a file that can't be imported under this start method."""
        lines = report.longreprtext.strip().splitlines() or [""]
        errors = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")]
        vars(report)["collected_as"] = report.nodeid
        report.nodeid = f"{report.nodeid}[{self._method}]"
        self._hook.pytest_collectreport(report=report)
        self._session.testscollected -= len(tests)
        for test in tests:
            run = Run(self._method, self._names[test], self._shown(test), asked=False)
            self._notes.failed.append((run, next(iter(errors), lines[-1])))

    def _made_up(self, nodeid: str, location: Location, *how: Any) -> pytest.TestReport:  # noqa: ANN401
        report = super()._made_up(nodeid, location, *how)
        report.user_properties.append(("start_method", self._method))
        return report

    def _shown(self, nodeid: str) -> str:
        return with_method(self._names.get(nodeid, nodeid), self._method)

    def _named(self, nodeid: str, location: Location) -> dict[str, Any]:
        path, line, name = location
        return {
            "nodeid": self._shown(nodeid),
            "location": (path, line, with_method(name, self._method)),
        }


def _warning(warned: Warned) -> Warning:
    category = getattr(sys.modules.get(warned.module), warned.category, None)
    if isinstance(category, type) and issubclass(category, Warning):
        with suppress(Exception):  # it may take other arguments
            return category(warned.message)
    return Warning(warned.message)  # only the session has imported its module


def announce(config: pytest.Config, text: str) -> None:
    """Write a line between the lines of tests."""
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or config.get_verbosity() < 0:
        return
    if type(terminal).__name__ != "TerminalReporter":  # pytest-sugar's, for example
        terminal.write_line(text)
    elif config.get_verbosity() > 0:
        terminal.ensure_newline()
        terminal.write(text)
    else:  # like the path of a file: this completes the line before with the progress
        terminal.write_fspath_result(str(config.invocation_params.dir / text), "")
    terminal.currentfspath = None  # what follows begins a new line
