"""Reruns the concerned tests in a session for each further start method."""

from __future__ import annotations

import shlex
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_startmethod import importer, registration
from pytest_startmethod.record import Notes, NotRun, Run, without_group
from pytest_startmethod.report import collector
from pytest_startmethod.runs import at_import
from pytest_startmethod.runs.receiver import PHASES, Outcomes, Receiver
from pytest_startmethod.runs.replay import Shown
from pytest_startmethod.session.relay import Warned

if TYPE_CHECKING:
    import warnings
    from collections.abc import Generator, Iterable, Sequence

    from pytest_startmethod.runs.session_run import SessionRun


def register(config: pytest.Config, methods: Sequence[str]) -> None:
    """Register the hooks in the process that shows the results."""
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist
        return
    sessions = Sessions(config, methods, Notes())
    collector.register(config, sessions.notes, sessions.take)
    registration.register(config, sessions, "startmethod-sessions")


class Concerned(NamedTuple):
    """A concerned test: the id by which a session collects it, and its file."""

    nodeid: str
    path: str


class Sessions:
    """The hooks that find the concerned tests and rerun them."""

    def __init__(self, config: pytest.Config, methods: Sequence[str], notes: Notes) -> None:
        self._config = config
        self._first, *self._further = methods
        self.notes = notes
        self._outcomes = Outcomes()
        self._concerned: dict[str, Concerned] = {}
        # The files that may have other tests under another start method: their paths by node id.
        self._files: dict[str, str] = {}
        # Not where this run has only some of the tests: those that failed before.
        chosen = vars(config.option)
        self._takes_files = not (chosen.get("lf") or chosen.get("stepwise"))
        self._places: dict[str, int] = {}
        self._warned: set[Warned] = set()
        self._begun = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """Record the order of the tests: workers send their reports in any order."""
        self._places = self._places or {nodeid: place for place, nodeid in enumerate(ids)}

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Record a warning, so that sessions don't show it again."""
        if not self._begun:
            self._warned.add(Warned.of(warning_message))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that was skipped at import, maybe because of the process-wide default."""
        if report.skipped and self._takes_files and not self._begun:
            file = self._config.rootpath / report.nodeid
            if at_import.may_decide(file):
                self._files[report.nodeid] = str(file)

    def take(self, report: pytest.TestReport) -> None:
        """Record the outcome of a report, and its test, if that is concerned."""
        if self._begun:
            return
        self._outcomes.add(report.nodeid, report)
        if report.when not in PHASES:
            self._tell_of_crash(report)
        run = Run.told_by(report)
        if run is not None and run.concerned and report.nodeid not in self._concerned:
            self._add(report.nodeid, run)

    @pytest.hookimpl(
        wrapper=True, trylast=True
    )  # inside pytest-cov's, which writes its report afterwards
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """Rerun the concerned tests under the further start methods, after all tests."""
        result = yield
        self._begun = True
        if self._concerned or self._files:
            self._run(session)
        return result

    def _tell_of_crash(self, report: pytest.TestReport) -> None:
        """Count a test as concerned if its worker crashed before it could tell."""
        path = self._config.rootpath / report.nodeid.partition("::")[0]
        if path.exists():
            run = Run.told_by(report) or Run(self._first, report.nodeid, report.nodeid)
            run._replace(asked=False, concerned=True, path=str(path)).tell(report)

    def _add(self, nodeid: str, run: Run) -> None:
        grouped = getattr(self._config.option, "dist", "no") == "loadgroup"
        name = without_group(nodeid) if grouped else nodeid
        self._concerned[nodeid] = Concerned(name, run.path)
        if run.whole_file and self._takes_files:
            self._files[nodeid.partition("::")[0]] = run.path
        session: Any = self._config.pluginmanager.get_plugin("session")
        session.testscollected += len(self._further)  # the total of the progress

    def _run(self, session: pytest.Session) -> None:
        with importer.own_modules():
            from pytest_startmethod.runs import session_run

        concerned = sorted(self._concerned, key=lambda nodeid: self._places.get(nodeid, 0))
        tests = {self._concerned[n].nodeid: self._concerned[n].path for n in concerned}
        reason = why_not(self._config)
        if reason:
            of_tests = {test.partition("::")[0] for test in tests}
            unrun = (*tests, *(file for file in self._files if file not in of_tests))
            for method in self._further:
                by_hand = command(self._config, method)
                self.notes.not_run.append(NotRun(method, reason, unrun, by_hand))
            session.testscollected -= len(self._further) * len(tests)
            return
        names = {known.nodeid: nodeid for nodeid, known in self._concerned.items()}
        runs = []
        for number, method in enumerate(self._further):
            shown = Shown(session, method, tests, names, self.notes, self._warned)
            shown.files = dict(self._files)
            runs.append(session_run.SessionRun(shown, method, number))
        session_run.run(runs, session)
        self._check(session, tests, names, runs)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)

    def _check(
        self,
        session: pytest.Session,
        tests: dict[str, str],
        names: dict[str, str],
        runs: Iterable[SessionRun],
    ) -> None:
        """Rerun the tests that ended differently in a session under the first start method.

        A test that ends differently there too doesn't depend on the start method. It may need a
        test that isn't concerned, or something else that a session doesn't have.
        """
        from pytest_startmethod.runs import session_run

        differing = {
            test
            for run in runs
            for test, outcome in run.shown.outcomes.not_passed.items()
            if outcome in ("failed", "skipped")
            and test in tests
            and self._outcomes.of(names[test]) != outcome
        }
        if differing:
            order = list(tests)
            end = 1 + max(order.index(test) for test in differing)
            control = Receiver(session.config, {test: tests[test] for test in order[:end]})
            session_run.run([session_run.SessionRun(control, self._first, 0)])
            ended = {names[test]: control.outcomes.of(test) for test in differing}
            self.notes.control.update(ended)


def why_not(config: pytest.Config) -> str:
    """Return why this run can have no sessions; "" if it can."""
    objects = [p for p in config.invocation_params.plugins or () if not _is_named(p)]
    if objects:
        kinds = ", ".join(sorted({type(plugin).__name__ for plugin in objects}))
        return f"pytest.main() was given plugin objects ({kinds})"
    for option in ("usepdb", "trace"):
        if config.getoption(option):
            return f"--{option.removeprefix('use')} needs the terminal"
    return ""


def command(config: pytest.Config, method: str) -> str:
    """Return the command that a user can type instead of a session."""
    given = map(str, config.invocation_params.args)
    kept = [arg for arg in given if not arg.startswith("--start-method=")]
    return shlex.join(["pytest", f"--start-method={method}", *kept])


def _is_named(plugin: object) -> bool:
    return isinstance(plugin, (str, ModuleType))
