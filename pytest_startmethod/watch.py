"""What is seen while a test runs under a start method?"""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

from pytest_startmethod import findings, hints, launch, stall
from pytest_startmethod.children import SESSION, Child, Owner, Recorder

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from types import FrameType


class Watch:
    """The hooks that watch tests: a plugin of its own, registered with the first of them."""

    def __init__(
        self, config: pytest.Config, contexts: Iterable[Any], stall_timeout: float
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
        # of the test that runs:
        self._module: ModuleType | None = None
        self._test: Owner | None = None
        self._expected = ""
        self._before: frozenset[Child] = frozenset()
        self._dead: frozenset[Child] = frozenset()
        self._passed = False
        self._stderr = ""
        # of fixtures, and of what ended and was not looked after yet:
        self._fixtures: WeakKeyDictionary[object, Owner] = WeakKeyDictionary()
        self._ended: list[Owner] = []
        # Threads that were there before a test, or that pytest's plugins start for it.
        self._strangers: set[threading.Thread] = set()
        self._seen: set[threading.Thread] = set()

    @contextmanager
    def test(self, item: pytest.Item, expected: str) -> Iterator[None]:
        """Watch a test whose context starts processes by the `expected` method."""
        module = item.getparent(pytest.Module)
        self._module = None if module is None else module.obj
        self._test, self._expected = Owner("the test"), expected
        self._before = frozenset(self._recorder.children)
        self._dead = frozenset(child for child in self._before if child.has_ended())
        try:
            begin = bool(self._before)
            with self._recorder.owned_by(self._test), self._stall.signal_handled(begin=begin):
                yield
        finally:
            self._ended.append(self._test)
            self._test = None
            self._seen = set(threading.enumerate())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Take note of the threads that aren't the test's."""
        self._strangers.update(set(threading.enumerate()) - self._seen)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Let a fixture own what is made while it is set up."""
        if self._test is None:
            return (yield)
        owner = Owner(f"the fixture {fixturedef.argname!r}", lasts=fixturedef.scope != "function")
        self._fixtures[fixturedef] = owner
        with self._recorder.owned_by(owner):
            return (yield)

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
                _warn(item, *self._end(session=nextitem is None))
            raise
        _warn(item, *self._end(session=nextitem is None))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Tell of the children in the report of a failure."""
        report = yield
        if self._test is not None:
            self._passed = report.when == "call" and report.passed
            self._stderr = report.capstderr
            if report.failed and call.excinfo:
                text = self._section(call.excinfo.value)
                report.sections.extend(
                    [(f"processes under {self._expected}", text)] if text else []
                )
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
        leaked = self._recorder.stop(ended)
        self._recorder.settle_all(c for c in self._recorder.of(ended) if c not in leaked)
        crashed = [c for c in self._started() if c.crashed and not c.reported and c not in leaked]
        for child in crashed:
            child.reported = True
        self._recorder.forget(self._recorder.of(ended))
        self._launch.test_ended()
        crash = findings.crash(crashed, self._stderr) if self._passed else None
        return [crash, findings.leak(leaked)]

    def _section(self, error: BaseException) -> str:
        """Return what is known of the children of a failing test, and of the cause."""
        self._recorder.settle(ask=lambda child: not child.owner.lasts)
        hint = hints.find("".join(traceback.format_exception(error)), self._stderr)
        return "\n".join([*findings.section(self._started()), *([f"hint: {hint}"] if hint else [])])

    def _modules(self) -> list[ModuleType]:
        """Return the modules of the test and of all conftests, where targets of processes are."""
        plugins = self._plugins.get_plugins()
        conftests = [p for p in plugins if isinstance(p, ModuleType) and _is_conftest(p)]
        return [*conftests, *([self._module] if self._module else [])]

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


def _is_conftest(module: ModuleType) -> bool:
    return module.__name__.rpartition(".")[2] == "conftest"


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
