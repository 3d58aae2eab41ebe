"""How does a test come to run under its start method?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.record import ASKS
from pytest_startmethod.registration import register
from pytest_startmethod.report import collector
from pytest_startmethod.runs.reruns import PLAN, RUN, Again
from pytest_startmethod.selection import contexts, marker
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.watch.watcher import Watch

if TYPE_CHECKING:
    from pytest_startmethod.selection.table import Selection


def prepare(config: pytest.Config, tests: list[pytest.Item]) -> None:
    """Deselect what a marker names and the user didn't select, and prepare the other runs."""
    chosen = config.stash[SETTINGS].selection
    default, no_default = chosen.process_default, chosen.unmarked_skip_reason
    properties = {name: ("start_method", name) for name in chosen.methods.known}
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    asked = planned = False
    for item in tests:
        method, plan, number = _own(item, chosen)
        asked, planned = asked or method is not None, planned or bool(plan)
        deselected.extend([item] * number)
        if not number or plan:
            kept.append(item)
        if method is not None:
            item.keywords[ASKS] = True
        elif plan is not None:
            item.stash[PLAN] = plan
        else:
            method = default
            if no_default:
                item.add_marker(pytest.mark.skip(reason=no_default))
        if method is not None:
            item.user_properties.append(properties[method])
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        tests[:] = kept
    if asked:
        collector.register(config)
    if asked or planned or default:
        running = Running(config)
        register(config, running, "startmethod-running")
        if planned or len(chosen.process_defaults) > 1:
            register(config, Again(running, chosen.process_defaults), "startmethod-again")


def _own(item: pytest.Item, chosen: Selection) -> tuple[str | None, list[Any] | None, int]:
    """Return an item's start method or runs, where it has its own, and how many are deselected."""
    marked = marker.is_marked(item)
    if marked:
        marker.inject(item)
    method = marker.start_method(item)
    if method is not None:
        return method, None, int(method not in chosen.not_deselected)
    if not marked or not isinstance(item, pytest.Function):
        return None, None, 0
    runs = marker.runs(item, needs_default=True)
    selected = [run for run in runs if run.values[0] in chosen.not_deselected]
    return None, selected, len(runs) - len(selected)


class Running:
    """The hooks around a test's run: a plugin of its own, where a test may run under a method."""

    def __init__(self, config: pytest.Config) -> None:
        settings = config.stash[SETTINGS]
        made, chosen = settings.contexts, settings.selection
        self._starts_by = {name: contexts.starts_by(made[name]) for name in made}
        self._defaults = {name: contexts.Default.of(name) for name in chosen.methods.standard}
        self._unasked = chosen.process_default
        self._default = self._defaults.get(self._unasked or "")
        self._test = settings.test
        # What the process-wide default was before the tests under a start method that run now.
        self._before: contexts.Default | None = None
        self._watch = Watch(config, settings.contexts.values(), settings.stall_timeout)
        self.done: pytest.Item | None = None
        """An item whose runs are all over."""

    def starts_processes(self) -> bool:
        """Tell whether the test that runs started one through the process-wide default."""
        return self._watch.used_default

    # No wrapper, and nothing after the test: all tests pay for it, and few start a process.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Let a test run with its process-wide default, whatever was done to it before."""
        if item is self.done:
            return True
        own = marker.start_method(item)
        run = item.stash[RUN] if RUN in item.stash else None  # noqa: SIM401 (get() takes longer)
        # A marked unittest.TestCase isn't parametrized, and its fixtures may ask all the same.
        self._test.parameter = run.start_method if run and PLAN in item.stash else own
        method = run.start_method if run else own or self._unasked
        if method is None:
            self._leave()
            return None
        sets_default = run or (own and marker.asks_for_default(item))
        default = self._defaults.get(method) if sets_default else self._default
        if self._before is None:
            self._before = contexts.Default.current()
        (default or self._before).restore()
        # None is expected of a method that isn't supported: the test is skipped.
        self._watch.begin(item, nextitem, method, self._starts_by.get(method, ""))
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Put the process-wide default back, for others who look at it."""
        self._leave()

    def _leave(self) -> None:
        self._watch.end()
        if self._before is not None:
            self._before.restore()
            self._before = None
