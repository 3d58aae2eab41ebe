"""Watches the processes of each test that runs under a start method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import registration
from pytest_startmethod.explain import findings, severity, stacks
from pytest_startmethod.guard import Guard
from pytest_startmethod.launch import launcher
from pytest_startmethod.load_hooks import LoadHooks
from pytest_startmethod.processes import owners, places
from pytest_startmethod.selection import contexts, marker
from pytest_startmethod.stall import stall
from pytest_startmethod.watch import owner_ends, report_sections
from pytest_startmethod.watch.installation import Installation
from pytest_startmethod.watch.recorder import Recorder
from pytest_startmethod.watch.watched_test import WatchedTest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.processes.owners import Owner

NAME = "startmethod-watch"


class Watch:
    """Watches tests; a plugin that is registered with the first process that one of them makes.

    So a test that makes none costs next to nothing. What goes wrong here is noted by `guard`, and
    reaches no test.
    """

    def __init__(self, config: pytest.Config, known: Iterable[Any], stall_timeout: float) -> None:
        self.guard = Guard()
        self._config = config
        self._contexts = known
        self._stall_timeout = stall_timeout
        self._load_hooks = LoadHooks(self.guard)
        self._launcher = launcher.Launcher(
            config.getini("start_method_preload"),
            lambda: self._test.modules if self._test else (),
            self.guard,
            self._load_hooks,
            signum=int(stacks.SIGNAL) if stacks.AVAILABLE else 0,
        )
        self._stall: stall.StallWatch | None = None
        self._interrupted: list[str] = []
        """What is to be said of the test that Ctrl-C ended."""
        self._recorder: Recorder | None = None
        self._finder = owners.OwnerFinder(self._owner_of_test)
        self._item: pytest.Item | None = None
        self._nextitem: pytest.Item | None = None
        self._method = self._expected = ""
        self._test: WatchedTest | None = None

    @property
    def used_default(self) -> bool:
        """Whether the test used processes that were started by the method that it runs under.

        It started one, or was served by one.
        """
        test, recorder = self._test, self._recorder
        if recorder is None:
            return False
        if recorder.served or test is None:
            return recorder.served
        with self.guard:  # `proven` is of an earlier phase: a fixture may have ended since
            return test.run.proven or test.uses_expected(recorder.children)
        return True  # what can't be told is run again

    def begin(
        self, item: pytest.Item, nextitem: pytest.Item | None, method: str, expected: str
    ) -> None:
        """Watch a test that runs under `method`, and whose context starts by the `expected` one."""
        self._item, self._nextitem, self._method, self._expected = item, nextitem, method, expected
        self._drop_test()
        self.install()
        self.pytest_runtest_logstart()

    def install(self) -> None:
        """Make ready for a test; nothing is patched before the first one."""
        with self.guard:
            if self._recorder is None:
                self._install()
            if self._stall is not None:
                self._stall.prepare()

    def uninstall(self) -> None:
        """Watch no more tests, but end at the end of the session what they have left."""
        self.end()
        with self.guard:
            if self._stall is not None:
                self._stall.end()

    def _install(self) -> None:
        self._launcher.prepare()
        self._stall = stall.StallWatch(
            self._stall_timeout,
            self.guard,
            children=self._relevant,
            bystanders=self._bystanders,
            helpers=self._launcher.helpers,
            plugins=lambda: places.plugin_modules(self._config),
            on_stall=self._on_stall,
        )
        find = self._finder.find
        self._recorder = Recorder(find, self.guard, is_expected=self._is_expected)
        installation = Installation(self._recorder, self._launcher, self._stall, self._load_hooks)
        self._config.add_cleanup(installation.uninstall)
        installation.install(self._contexts, find)

    def end(self) -> None:
        """Watch no longer."""
        self.pytest_runtest_logfinish()
        self._item = None
        self._finder.test_changes()

    def pytest_runtest_logstart(self) -> None:
        """Watch a test from its start that may use older processes, or is to tell of its run."""
        item = self._item
        if item is None or self._test is not None or self._recorder is None:
            return
        recorder = self._recorder
        if recorder.children or recorder.marked.new or marker.METHOD in item.stash:
            with self.guard:
                self._begin(item, self._recorder)

    def _begin(self, item: pytest.Item, recorder: Recorder) -> WatchedTest:
        """Watch a test that makes processes, or that may use those of a wider fixture."""
        if not self._config.pluginmanager.has_plugin(NAME):
            registration.register(self._config, self, NAME)
            self._config.add_cleanup(self._launcher.uninstall)
            self._launcher.install()
        self._test = WatchedTest(item, self._method, self._expected, self._finder)
        recorder.started = self._test.children
        if self._stall is not None:
            self._stall.enter(begin=bool(recorder.children))
        return self._test

    def _owner_of_test(self) -> Owner | None:
        item = self._item  # in this thread: others may make processes between tests
        if item is None or self._recorder is None:
            return None
        return (self._test or self._begin(item, self._recorder)).owner

    def _is_expected(self, context: object) -> bool:
        """Tell whether a context starts processes by the test's start method; None counts, too."""
        return context is None or contexts.starts_by(context) == self._expected

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Record the fixture: it owns what other threads start meanwhile."""
        self._finder.set_up_begins(fixturedef)
        try:
            return (yield)
        finally:
            self._finder.set_up_ends()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Record that the test's own code runs from now on."""
        self._finder.code_runs(True)

    pytest_runtest_call = pytest_runtest_teardown = pytest_runtest_setup

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Warn of what is wrong, and tell of the children in the report.

        Of all of them to the summary, in a failure also to the reader.
        """
        self._finder.code_runs(False)
        test, recorder = self._test, self._recorder
        if test is None or recorder is None:
            return (yield)
        problem = None
        with self.guard:
            found = self._found(test, recorder, call)
            problem = severity.warn(item, found, untouched=not test.run.asked)
        if problem is not None and call.excinfo is None:  # the first failure counts
            call.excinfo = problem
        report = yield
        with self.guard:
            self._tell(test, recorder, call, report)
        return report

    def _tell(
        self,
        test: WatchedTest,
        recorder: Recorder,
        call: pytest.CallInfo[None],
        report: pytest.TestReport,
    ) -> None:
        """Let the report of a phase tell of the test's children."""
        if recorder.children or test.children or report.failed:
            test.passed = report.when == "call" and report.passed
            test.stderr = report.capstderr if test.children or recorder.children else ""
            if report.when != "teardown":  # whose end they didn't outlive
                report_sections.count(test, recorder, served=recorder.served)
            if report.failed and call.excinfo:
                report_sections.explain(
                    test, recorder, report, call.excinfo.value, self._relevant()
                )
        if test.run.asked or test.run.processes or test.run.used or test.run.hint:
            test.run.tell(report)

    def pytest_runtest_logfinish(self) -> None:
        """Watch no longer, as the test is over: it may begin anew, by pytest-rerunfailures."""
        with self.guard:
            if self._stall is not None:
                self._stall.leave()
            if self._test is not None:
                self._test.owner.ended = True
                if self._recorder is not None:
                    self._recorder.test_ended(self._test.owner)
        self._drop_test()

    def _drop_test(self) -> None:
        self._test = None
        if self._recorder is not None:
            self._recorder.test_changes()
        self._finder.test_changes()

    def pytest_keyboard_interrupt(self) -> None:
        """Ask the children of the test that is interrupted where they are."""
        with self.guard:
            if self._test is not None and self._recorder is not None:
                self._interrupted = report_sections.living(self._recorder, self._relevant())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the children of an interrupted test were: it has no report of its own."""
        if self._interrupted:
            terminalreporter.section(f"processes under {self._expected}")
            for line in self._interrupted:
                terminalreporter.write_line(line)

    @pytest.hookimpl(wrapper=True, trylast=True)  # within pytest's own, which records warnings
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """Warn of what would keep Python from exiting, and of what went wrong in the plugin."""
        result = yield
        with self.guard:
            if self._recorder is not None:
                found = owner_ends.end_session(self._recorder, self._config.add_cleanup)
                for warning in found:
                    severity.warn_of_run(warning)
        own = self.guard.warning()
        if own is not None:
            severity.warn_of_run(own)
        return result

    def _found(
        self, test: WatchedTest, recorder: Recorder, call: pytest.CallInfo[None]
    ) -> list[Warning]:
        """Return what is wrong with the children at the end of a phase of the test."""
        if call.when == "call" and call.excinfo is None and test.run.asked:
            return list(findings.mismatch(test.unjudged(), test.expected))
        if call.when == "teardown":
            test.owner.ended = test.run.asked
            found = owner_ends.end(recorder, test)
            self._launcher.test_ended()
            return found
        return []

    def _relevant(self) -> list[Child]:
        """Return the children that a stall may be about."""
        if self._test is None or self._recorder is None:
            return []
        return self._test.relevant(self._recorder.children)

    def _bystanders(self) -> list[int]:
        """Return the children of earlier tests, but for those of fixtures that this one uses."""
        if self._recorder is None:
            return []
        relevant = set(map(id, self._relevant()))
        return [child.pid for child in self._recorder.children if id(child) not in relevant]

    def _on_stall(self, found: stall.Stall) -> None:
        """Fail the test that waits for what nobody can give: in the main thread, in its wait."""
        __tracebackhide__ = True
        test = self._test
        if test is None:
            return
        children = list(found.lost) or self._relevant()
        with self.guard:
            for child in children:
                child.ask()
            stacks.ask(children)
        pytest.fail(findings.stall(children, self._stall_timeout))
