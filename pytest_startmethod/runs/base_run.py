"""Runs each test with its start method in pytest's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.record import ASKS, Run
from pytest_startmethod.registration import register
from pytest_startmethod.report import collector
from pytest_startmethod.selection import contexts, marker
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.system import System
from pytest_startmethod.watch.watcher import Watch

if TYPE_CHECKING:
    from collections.abc import Generator


def prepare(config: pytest.Config, tests: list[pytest.Item]) -> None:
    """Deselect runs that a marker names and the user didn't select, and prepare the others."""
    chosen = config.stash[SETTINGS].selection
    default, no_default = chosen.process_default, chosen.unmarked_skip_reason
    properties = {name: ("start_method", name) for name in chosen.methods.known}
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    asked = False
    for item in tests:
        if marker.is_marked(item):
            marker.complete(item)
        method = marker.start_method(item)
        is_deselected = method is not None and method not in chosen.not_deselected
        (deselected if is_deselected else kept).append(item)
        if method is not None:
            asked = True
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
        # The running test, if it asks for no start method.
        self._untouched: pytest.Item | None = None
        self._is_concerned = False

    # No wrapper: it would slow down all tests, of which few start a process.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Set the process-wide default of a test, whatever changed it before."""
        own = marker.start_method(item)
        self._test.parameter = own
        self._untouched, self._is_concerned = (item if own is None else None), False
        method = own or self._unasked
        if method is None:
            self._leave()
            return None
        sets_default = own is not None and marker.asks_for_default(item)
        default = self._defaults.get(method) if sets_default else self._default
        if self._before is None:
            self._before = contexts.Default.current()
        (default or self._before).restore()
        # An unsupported start method starts by none: the test is skipped.
        self._watch.begin(item, nextitem, method, self._starts_by.get(method, ""))
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record whether a test that asks for no start method depends on the process-wide default.

        It does if it used a process of that start method, or pinned the default by asking for it.
        """
        item = self._untouched
        if item is None or self._unasked is None:
            return
        if not self._is_concerned:
            pinned = System.get_start_method(allow_none=True)
            self._is_concerned = self._watch.used_default or pinned is not None
        if self._is_concerned:
            run = Run.told_by(report) or Run(self._unasked, report.nodeid, report.nodeid)
            run._replace(asked=False, concerned=True, path=str(item.path)).tell(report)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Prepare before the first test sets up a fixture, and put back all after the last one."""
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
