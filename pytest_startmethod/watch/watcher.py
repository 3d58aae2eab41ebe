"""What is seen while a test runs under a start method?"""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import registration
from pytest_startmethod.launch import launcher
from pytest_startmethod.record import Run, without_method
from pytest_startmethod.report import collector
from pytest_startmethod.selection import marker
from pytest_startmethod.watch import findings, hints, owners, reaper, stall
from pytest_startmethod.watch.owners import Owner
from pytest_startmethod.watch.recorder import Child, Recorder

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Sequence
    from types import FrameType

NAME = "startmethod-watch"


class Watch:
    """Watches tests; a plugin that is registered with the first process that one of them makes.

    So a test that makes none costs next to nothing.
    """

    def __init__(
        self, config: pytest.Config, contexts: Iterable[Any], stall_timeout: float
    ) -> None:
        self._config = config
        self._contexts = contexts
        self._launch = launcher.Launch(config.getini("start_method_preload"), lambda: self._modules)
        self._stall_timeout = stall_timeout
        self._stall = stall.Watch(stall_timeout, self._could_answer, self._on_stall)
        self._finder = owners.Finder(self._owner_of_test)
        self._recorder = Recorder(self._finder.find, self._stall.paused)
        self._pid = os.getpid()
        self._installed = False
        # Threads that were there before the first test.
        self._strangers: frozenset[threading.Thread] = frozenset()
        # Of what code under test keeps for later: pools, executors, managers, daemon processes.
        self._library = Owner("the library", lasts=True)
        self.used_default = False
        """Whether the running test started a process by the default, or was served by one."""
        # of the test that runs:
        self._item: pytest.Item | None = None
        self._nextitem: pytest.Item | None = None
        self._method = self._expected = ""
        # of the test, from its first process on:
        self._test: Owner | None = None
        self._run = Run("", "", "")
        self._modules: Sequence[ModuleType] = ()
        self._before: Collection[Child] = ()
        self._dead: Collection[Child] = ()
        self._judged = 0
        self._passed = False
        self._stderr = ""

    def begin(
        self, item: pytest.Item, nextitem: pytest.Item | None, method: str, expected: str
    ) -> None:
        """Watch a test under a start method, whose context starts processes by the `expected` one.

        Nothing is patched before the first one.
        """
        if not self._installed:
            self._installed = True
            self._strangers = frozenset(threading.enumerate())
            self._config.add_cleanup(self._recorder.uninstall)
            self._recorder.install(self._contexts)
        self._item, self._nextitem, self._method, self._expected = item, nextitem, method, expected
        self._test = None
        self.used_default = False
        self.pytest_runtest_logstart()

    def end(self) -> None:
        """Watch no longer."""
        self.pytest_runtest_logfinish()
        self._item = None

    def pytest_runtest_logstart(self) -> None:
        """Watch a test from its start that may use older processes, or is to tell of its run."""
        item = self._item
        if item is None or self._test is not None:
            return
        if self._recorder.children or marker.METHOD in item.stash:
            self._begin(item)

    def _begin(self, item: pytest.Item) -> Owner:
        """Watch a test that makes processes, or that may use those of a wider fixture."""
        if not self._config.pluginmanager.has_plugin(NAME):
            registration.register(self._config, self, NAME)
            self._config.add_cleanup(self._launch.uninstall)
            self._launch.install()
            collector.register(self._config)
        self._run = _run(item, self._method)
        self._modules = self._find_modules(item)
        self._test = Owner("the test")
        self._before = frozenset(self._recorder.children)
        self._dead = [child for child in self._before if child.has_ended()]
        self._judged = 0
        self._passed, self._stderr = False, ""
        self._stall.enter(begin=bool(self._before))
        return self._test

    def _owner_of_test(self) -> Owner | None:
        item = self._item  # in this thread: others may make processes between tests
        return None if item is None else self._test or self._begin(item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Warn of what is wrong, and tell of the children in the report.

        Of all of them to the summary, in a failure also to the reader.
        """
        if self._test is None:
            return (yield)
        problem = _warn(item, self._found(call))
        if problem is not None and call.excinfo is None:  # the first failure counts
            call.excinfo = problem
        report = yield
        if self._recorder.children or report.failed:
            self._passed = report.when == "call" and report.passed
            self._stderr = report.capstderr if self._recorder.children else ""
            if report.when != "teardown":  # whose end they didn't outlive
                self._look(item)
            if report.failed and call.excinfo:
                self._explain(report, call.excinfo.value)
        if self._run.asked or self._run.processes or self._run.used or self._run.hint:
            self._run.tell(report)
        return report

    def pytest_runtest_logfinish(self) -> None:
        """Watch no longer, as the test is over: it may begin anew, by pytest-rerunfailures."""
        if self._test is not None:
            self._stall.leave()
            self._test.ended = True
        self._test = None

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """End what is left where the run was stopped before its last test."""
        result = yield
        # They would end with Python, and till then replace workers whose forkserver has ended.
        reaper.stop_makers(c for c in self._recorder.children if c.owner is self._library)
        for warning in self._end(session=True):
            with suppress(Warning):  # made an error by the user: too late for any test
                warnings.warn(warning, stacklevel=1)
        return result

    def _found(self, call: pytest.CallInfo[None]) -> Sequence[Warning]:
        """Return what is wrong with the children at the end of a phase of the test."""
        if call.when == "call" and call.excinfo is None:
            started = [child for child in self._started() if not child.owner.lasts]
            new, self._judged = started[self._judged :], len(started)  # subtests have a call each
            # What another library starts by its own method is no business of an untouched test.
            judged = [child for child in new if self._run.asked or child.is_standard]
            return findings.mismatch(judged, self._expected)
        if call.when == "teardown":
            if self._test is not None:
                self._test.ended = True
            return self._end(session=self._nextitem is None)
        return []

    def _end(self, *, session: bool) -> list[Warning]:
        """End what outlives the test, the fixtures that ended with it, or the session."""
        self._recorder.session.ended = session
        for child in self._recorder.ended():
            if child.kept and not child.owner.lasts and self._is_of_library(child):
                self._recorder.give(child, self._library)
        leaked = reaper.stop(self._recorder.ended)
        reaper.settle(self._recorder.ended())
        crashed = [c for c in self._started() if c.crashed and not c.reported and c not in leaked]
        for child in crashed:
            child.reported = True
        self._recorder.forget(self._recorder.ended())
        self._launch.test_ended()
        crash = findings.crash(crashed, self._stderr) if self._passed else []
        return [*crash, *findings.leak(leaked)]

    def _is_of_library(self, child: Child) -> bool:
        """Tell whether code under test started a child by a method that the test didn't ask for.

        A suite nobody touched may rely on what such code keeps: without it later tests would fail.
        """
        path, _, line = child.made_at.rpartition(":")
        here = self._item is not None and Path(path).resolve() == self._item.path
        # Nor does a test ask for what another library starts by a method of its own.
        asked = self._run.asked and (child.is_standard or child.is_started_by(self._expected))
        return not asked and line.isdigit() and not here

    def _look(self, item: pytest.Item) -> None:
        """Take note of what the test started, and what it was served by, while that is there."""
        if not self._recorder.children:
            return
        started = self._started()
        own = [child for child in started if not child.owner.lasts]
        wider = self._finder.of_fixtures(marker.fixtures(item))
        used = [c for c in self._recorder.children if c.owner.lasts and c.owner in wider]
        by_method = [c for c in (*own, *used) if c.is_started_by(self._expected)]
        self._run = self._run._replace(
            processes=len(started),
            proven=bool(by_method),
            used=bool(used),
        )
        self.used_default = any(c.is_started_by(self._expected) for c in (*started, *used))

    def _explain(self, report: pytest.TestReport, error: BaseException) -> None:
        """Add what is known of the children of a failing test, and of the cause."""
        self._recorder.settle(ask=lambda child: not child.owner.lasts)
        hint = hints.find("".join(traceback.format_exception(error)), self._stderr)
        text = [*findings.section(self._started()), *([f"hint: {hint}"] if hint else [])]
        if text:
            report.sections.append((f"processes under {self._expected}", "\n".join(text)))
        made = hints.refused_lock(error)
        before = made is not None and self._recorder.made_before(made)
        # Only a lock of a fork context refuses to go to another process.
        made_under = "fork" if before and self._run.asked else ""
        self._run = self._run._replace(hint=hint, made_under=made_under)

    def _find_modules(self, item: pytest.Item) -> list[ModuleType]:
        """Return the modules of the test and of all conftests, where targets of processes are."""
        plugins = self._config.pluginmanager.get_plugins()
        conftests = [p for p in plugins if isinstance(p, ModuleType) and _is_conftest(p)]
        module = item.getparent(pytest.Module)
        return [*conftests, *([module.obj] if module else [])]

    def _plugins(self) -> set[str]:
        """Return the modules of pytest's plugins, whose threads aren't the test's."""
        plugins = self._config.pluginmanager.get_plugins()
        named = {p.__name__ if isinstance(p, ModuleType) else type(p).__module__ for p in plugins}
        return {name for name in named if name.rpartition(".")[2] != "conftest"}

    def _started(self) -> list[Child]:
        """Return the children that were started while the test ran."""
        return [child for child in self._recorder.children if child not in self._before]

    def _could_answer(self, frame: FrameType | None) -> bool:
        """Tell whether somebody may end the wait of the main thread, without asking anybody."""
        children = tuple(self._recorder.children)
        ended = [child for child in children if child.has_ended()]
        if not ended or self._lost_workers(frame):
            return not ended
        return len(ended) < len(children) or bool(
            stall.answering_threads(self._strangers, self._plugins())
        )

    def _lost_workers(self, frame: FrameType | None) -> list[Child]:
        self._recorder.settle()
        new = [child for child in self._recorder.children if child not in self._dead]
        return stall.lost_workers(frame, new)

    def _on_stall(self, frame: FrameType | None) -> None:
        """Fail the test where it waits for the dead: the main thread does so, in its wait."""
        __tracebackhide__ = True
        if self._test is None or os.getpid() != self._pid:
            return
        dead = self._lost_workers(frame)
        # Others' processes may answer, too. Asked last, as it takes exit codes away from threads
        # that wait for them.
        if not dead and not active_children():
            self._recorder.settle(ask=lambda _: True)
            dead = [child for child in self._recorder.children if child.exitcode]
        if dead:
            pytest.fail(findings.stall(dead, self._stall_timeout))


def _run(item: pytest.Item, method: str) -> Run:
    """Return the run of an item, by its start method."""
    own, nodeid = marker.start_method(item), item.nodeid
    if own is not None:
        return Run(own, without_method(nodeid, own), nodeid)
    return Run(method, nodeid, nodeid, asked=False)


def _is_conftest(module: ModuleType) -> bool:
    return module.__name__.rpartition(".")[2] == "conftest"


def _warn(item: pytest.Item, found: Iterable[Warning]) -> pytest.ExceptionInfo[Any] | None:
    """Warn at a test; return the failure of those that the user makes errors."""
    errors = [error for error in (_raised(item, warning) for warning in found) if error]
    if not errors:
        return None
    try:
        pytest.fail("\n".join(errors), pytrace=False)
    except pytest.fail.Exception as failure:
        return pytest.ExceptionInfo.from_exception(failure)


def _raised(item: pytest.Item, warning: Warning) -> str:
    try:
        item.warn(warning)
    except Warning as error:
        return f"{type(error).__name__}: {error}"
    return ""
