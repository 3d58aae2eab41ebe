"""What is seen while a test runs under a start method?"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
import warnings
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

from pytest_startmethod import findings, hints, launch, stall
from pytest_startmethod.children import LIBRARY, SESSION, Child, Owner, Recorder
from pytest_startmethod.results import Run

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from types import FrameType


class Watch:
    """The hooks that watch tests: a plugin of its own, registered with the first of them."""

    def __init__(
        self,
        config: pytest.Config,
        items: Sequence[pytest.Item],
        contexts: Iterable[Any],
        stall_timeout: float,
    ) -> None:
        self._plugins = config.pluginmanager
        preload = config.getini("start_method_preload")
        self._launch = launch.Launch(preload, self._modules)
        self._launch.install()
        self._stall_timeout = stall_timeout
        self._stall = stall.Watch(stall_timeout, self._anyone_ended, self._on_stall)
        self._recorder = Recorder(self._stall.paused)
        self._recorder.install(contexts)
        self._pid = os.getpid()
        self._order = {item: place for place, item in enumerate(items)}
        self.started_by_default = False
        """Whether the test started a process through the process-wide default."""
        # of the test that runs:
        self._run = Run("", "", "")
        self._item: pytest.Item | None = None
        self._test: Owner | None = None
        self._expected = ""
        self._before: frozenset[Child] = frozenset()
        self._dead: frozenset[Child] = frozenset()
        self._passed = False
        self._stderr = ""
        # of fixtures, and of what ended and was not looked after yet:
        self._fixtures: WeakKeyDictionary[pytest.FixtureDef[Any], Owner] = WeakKeyDictionary()
        self._ended: list[Owner] = []
        # Threads that were there before a test, or that pytest's plugins start for it.
        self._strangers: set[threading.Thread] = set()
        self._seen: list[threading.Thread] = []

    def begin(self, item: pytest.Item, run: Run, expected: str) -> None:
        """Watch a run of a test whose context starts processes by the `expected` method."""
        self._item, self._expected = item, expected
        self._run = run._replace(order=self._order.get(item, 0))
        self._test = self._recorder.owner = Owner("the test")
        self._before = frozenset(self._recorder.children)
        self._dead = frozenset(child for child in self._before if child.has_ended())
        self.started_by_default = False
        self._stall.enter(begin=bool(self._before))

    def end(self) -> None:
        """Watch no longer."""
        self._stall.leave()
        self._recorder.owner = None
        if self._test is not None:
            self._ended.append(self._test)
        self._item = self._test = None
        self._seen = threading.enumerate()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Take note of the threads that aren't the test's."""
        now = threading.enumerate()  # not their number: one may have ended as another began
        if now != self._seen:
            self._strangers.update(set(now) - set(self._seen))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Let a fixture own what is made while it is set up."""
        before = self._recorder.owner
        if before is None:
            return (yield)
        owner = Owner(f"the fixture {fixturedef.argname!r}", lasts=fixturedef.scope != "function")
        self._fixtures[fixturedef] = self._recorder.owner = owner
        try:
            return (yield)
        finally:
            self._recorder.owner = before

    @pytest.hookimpl(wrapper=True, trylast=True)  # inside the capturing of output
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Warn of children that were started by another method."""
        result = yield
        if self._test is not None:
            started = [child for child in self._started() if not child.owner.lasts]
            _warn(item, findings.mismatch(started, self._expected))
        return result

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Note that what a fixture owns is to end with the test that runs."""
        owner = self._fixtures.pop(fixturedef, None)
        if owner is not None:
            self._ended.append(owner)

    @pytest.hookimpl(wrapper=True, trylast=True)  # right after the fixtures have ended
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """End what outlives its owner, and warn of it and of what crashed."""
        try:
            result = yield
        except BaseException:
            with suppress(pytest.fail.Exception):  # the first failure counts
                _warn(item, *self._end(session=_is_last(nextitem)))
            raise
        _warn(item, *self._end(session=_is_last(nextitem)))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Tell of the children in the report: of all to the summary, in a failure to the reader."""
        report = yield
        told = self._run.asked or self._recorder.children or report.failed
        if self._test is not None and told:
            self._passed = report.when == "call" and report.passed
            self._stderr = report.capstderr if self._recorder.children else ""
            if report.when != "teardown":  # whose end they didn't outlive
                self._look(item)
            if report.failed and call.excinfo:
                self._explain(report, call.excinfo.value)
            if self._run.asked or self._run.processes or self._run.used or self._run.hint:
                # As an attribute it gets to the controller of pytest-xdist; its type may not.
                vars(report)["start_method"] = self._run._asdict()
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        """End what is left where the run was stopped before its last test."""
        result = yield
        for warning in self._end(session=True):
            if warning is not None:
                with suppress(Warning):  # made an error by the user: too late for any test
                    warnings.warn(warning, stacklevel=1)
        return result

    def pytest_unconfigure(self) -> None:
        """Put back what was patched."""
        self._recorder.uninstall()
        self._launch.uninstall()

    def _end(self, *, session: bool) -> list[Warning | None]:
        """End what outlives the test, the fixtures that ended with it, or the session."""
        ended = {*self._ended, *filter(None, [self._test]), *([SESSION] if session else [])}
        self._ended = []
        if not self._recorder.children:
            return []
        for child in self._recorder.of(ended):
            if child.kept and not child.owner.lasts and self._is_of_library(child):
                child.owner = LIBRARY
        leaked = self._recorder.stop(ended)
        self._recorder.settle_all(self._recorder.of(ended))
        crashed = [c for c in self._started() if c.crashed and not c.reported and c not in leaked]
        for child in crashed:
            child.reported = True
        self._recorder.forget(self._recorder.of(ended))
        self._launch.test_ended()
        crash = findings.crash(crashed, self._stderr) if self._passed else None
        return [crash, findings.leak(leaked)]

    def _is_of_library(self, child: Child) -> bool:
        """Tell whether code under test started a child, in a test that asked for no start method.

        A suite nobody touched may rely on what such code keeps: without it later tests would fail.
        """
        path, _, line = child.place.rpartition(":")
        here = self._item is not None and Path(path).resolve() == self._item.path
        return not self._run.asked and line.isdigit() and not here

    def _look(self, item: pytest.Item) -> None:
        """Take note of what the test started, and what it was served by, while that is there."""
        if not self._recorder.children:
            return
        started = self._started()
        own = [child for child in started if not child.owner.lasts]
        wider = {self._fixtures[f] for f in self._fixtures if f.argname in _fixtures(item)}
        used = [c for c in self._recorder.of(wider) if c.owner.lasts]
        by_method = [c for c in (*own, *used) if c.start_method == self._expected]
        self._run = self._run._replace(
            processes=len(started),
            proven=bool(by_method),
            used=bool(used),
        )
        default = multiprocessing.get_start_method(allow_none=True)
        self.started_by_default = default == self._expected and any(c in by_method for c in own)

    def _explain(self, report: pytest.TestReport, error: BaseException) -> None:
        """Add what is known of the children of a failing test, and of the cause."""
        self._recorder.settle(ask=lambda child: not child.owner.lasts)
        hint = hints.find("".join(traceback.format_exception(error)), self._stderr)
        text = [*findings.section(self._started()), *([f"hint: {hint}"] if hint else [])]
        if text:
            report.sections.append((f"processes under {self._expected}", "\n".join(text)))
        made = hints.refused_lock(error)
        before = hint == hints.OTHER_METHOD and (made is None or self._recorder.made_before(made))
        made_under = self._run.first if before else ""
        self._run = self._run._replace(hint=hint, made_under=made_under)

    def _modules(self) -> list[ModuleType]:
        """Return the modules of the test and of all conftests, where targets of processes are."""
        plugins = self._plugins.get_plugins()
        conftests = [p for p in plugins if isinstance(p, ModuleType) and _is_conftest(p)]
        module = self._item and self._item.getparent(pytest.Module)
        return [*conftests, *([module.obj] if module else [])]

    def _started(self) -> list[Child]:
        """Return the children that were started while the test ran."""
        return [child for child in self._recorder.children if child not in self._before]

    def _anyone_ended(self) -> bool:
        return any(child.has_ended() for child in tuple(self._recorder.children))

    def _on_stall(self, frame: FrameType | None) -> None:
        """Fail the test where it waits for the dead: the main thread does so, in its wait."""
        __tracebackhide__ = True
        if self._test is None or os.getpid() != self._pid or not stall.waits_for_processes(frame):
            return
        self._recorder.settle()
        children = tuple(self._recorder.children)
        dead = stall.lost_workers(frame, [c for c in children if c not in self._dead])
        # In this order: active_children() takes exit codes away from threads that wait for them.
        if (
            not dead
            and all(child.has_ended() for child in children)
            and not stall.answering_threads(self._strangers)
            and not active_children()
        ):
            self._recorder.settle(ask=lambda _: True)
            dead = [child for child in children if child.exitcode]
        if dead:
            pytest.fail(findings.stall(dead, self._stall_timeout))


def _fixtures(item: pytest.Item) -> Sequence[str]:
    return getattr(item, "fixturenames", ())  # plugins' own items may have none


def _is_conftest(module: ModuleType) -> bool:
    return module.__name__.rpartition(".")[2] == "conftest"


def _is_last(nextitem: pytest.Item | None) -> bool:
    return nextitem is None or not nextitem.listchain()  # see `again._Keeper`


def _warn(item: pytest.Item, *found: Warning | None) -> None:
    """Warn at a test; where the user makes the warning an error, fail by its text."""
    __tracebackhide__ = True
    errors = []
    for warning in found:
        if warning is not None:
            try:
                item.warn(warning)
            except Warning as error:
                errors.append(f"{type(error).__name__}: {error}")
    if errors:
        pytest.fail("\n".join(errors), pytrace=False)
