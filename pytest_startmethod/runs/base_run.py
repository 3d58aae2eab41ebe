"""Runs each test with its start method in pytest's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.record import ASKS, Run
from pytest_startmethod.registration import register
from pytest_startmethod.report import collector
from pytest_startmethod.runs import at_import
from pytest_startmethod.selection import contexts, marker
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.system import System
from pytest_startmethod.watch.watcher import Watch

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def prepare(config: pytest.Config, tests: list[pytest.Item]) -> None:
    """Deselect runs that a marker names and the user didn't select, and prepare the others."""
    chosen = config.stash[SETTINGS].selection
    default, no_default = chosen.process_default, chosen.unmarked_skip_reason
    properties = {name: ("start_method", name) for name in chosen.methods.known}
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    asked = False
    for item in tests:
        method = marker.start_method(item)
        is_deselected = method is not None and method not in chosen.not_deselected
        (deselected if is_deselected else kept).append(item)
        if method is not None:
            asked = True
            marker.complete(item)
            item.keywords[ASKS] = True
        else:
            method = default
            if no_default:
                item.add_marker(pytest.mark.skip(reason=no_default))
        if method is not None:
            item.user_properties.append(properties[method])
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        tests[:] = kept
    if asked or default:
        collector.register(config)
        register(config, BaseRun(config), "startmethod-running")


class BaseRun:
    """The hooks around a test's run, registered if a test may run under a start method."""

    def __init__(self, config: pytest.Config) -> None:
        settings = config.stash[SETTINGS]
        made, chosen = settings.contexts, settings.selection
        self._starts_by = {name: contexts.starts_by(made[name]) for name in made}
        self._defaults = {name: contexts.Default.of(name) for name in chosen.methods.standard}
        self._unasked = chosen.process_default
        self._default = self._defaults.get(self._unasked or "")
        self._test = settings.test
        # The process-wide default before the first of the tests with a start method that run now.
        self._before: contexts.Default | None = None
        self._watch = Watch(config, settings.contexts.values(), settings.stall_timeout)
        # The running test, if it asks for no start method, and whether it is skipped.
        self._untouched: pytest.Item | None = None
        self._is_skipped = False
        # Whether a conftest or a test module asked for the default when it was imported, and which
        # of the tests' files may have decided something by that.
        self._asked_at_import = System.get_start_method(allow_none=True) is not None
        self._deciding: dict[Path, bool] = {}
        # Whether it runs in this process: pytest-forked runs tests in others.
        self._runs_here = False
        # What fixtures of classes, modules and the session have set, and those that have ended.
        self._set_by: dict[pytest.FixtureDef[Any], contexts.Default] = {}
        self._ended: list[pytest.FixtureDef[Any]] = []

    # No wrapper: it would slow down all tests, of which few start a process.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Set the process-wide default of a test, whatever changed it before."""
        own = marker.start_method(item)
        self._test.parameter = own
        self._untouched, self._is_skipped = item if own is None else None, False
        while self._ended:
            self._set_by.pop(self._ended.pop(), None)
        method = own or self._unasked
        if method is None:
            self._leave()
            return None
        sets_default = own is not None and marker.asks_for_default(item)
        default = self._defaults.get(method) if sets_default else self._default
        if own is None:
            default = next(reversed(self._set_by.values()), default)
        if self._before is None:
            self._before = contexts.Default.current()
        (default or self._before).restore()
        self._runs_here = False
        # An unsupported start method starts by none: the test is skipped.
        self._watch.begin(item, nextitem, method, self._starts_by.get(method, ""))
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Record that the test runs in this process."""
        self._runs_here = True

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Keep the default that a wider fixture sets, for tests that ask for no start method."""
        result = yield
        if self._untouched is not None and fixturedef.scope != "function":
            present = contexts.Default.current()
            if present.pinned not in (None, self._unasked):
                self._set_by[fixturedef] = present
        return result

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        """Record that a fixture has ended: the default that it set ends with this test."""
        if fixturedef in self._set_by:
            self._ended.append(fixturedef)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record whether a test that asks for no start method depends on the process-wide default.

        It does if it used a process of that start method, or pinned the default by asking for it.
        The last report of a test says so for all of them.
        """
        item = self._untouched
        if report.when != "teardown" or item is None or self._unasked is None:
            self._is_skipped = self._is_skipped or report.outcome == "skipped"
            return
        # What can't be told is run again: the default may be why a test is skipped.
        may_depend = not self._runs_here or (self._is_skipped and self._asked_at_import)
        decides = self._asked_at_import and self._may_decide(item.path)
        if may_depend or decides or self._watch.used_default or self._asked_for_default():
            run = Run.told_by(report) or Run(self._unasked, report.nodeid, report.nodeid)
            run = run._replace(asked=False, concerned=True, path=str(item.path), whole_file=decides)
            run.tell(report)

    def _may_decide(self, file: Path) -> bool:
        if file not in self._deciding:
            self._deciding[file] = at_import.may_decide(file)
        return self._deciding[file]

    def _asked_for_default(self) -> bool:
        """Tell whether the test asked for the default: that pins it, and so may a wider fixture."""
        pinned = System.get_start_method(allow_none=True)
        return pinned is not None and all(pinned != one.pinned for one in self._set_by.values())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Watch from before the first fixture is set up, and put back all after the last test."""
        self._watch.install()
        result = yield
        self._end()
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Put back all for other plugins, where an interrupt has ended the loop."""
        self._end()

    def _end(self) -> None:
        self._leave()
        self._watch.uninstall()

    def _leave(self) -> None:
        self._untouched = None
        self._watch.end()
        if self._before is not None:
            self._before.restore()
            self._before = None
