"""How does a test come to run under its start method?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import contexts, items
from pytest_startmethod.again import PLAN, RUN, Again, Done, Plan
from pytest_startmethod.results import Run, without_method
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


def deselect(config: pytest.Config, tests: list[pytest.Item]) -> None:
    """Deselect what a marker names and the user didn't select."""
    chosen = config.stash[SETTINGS].selection
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in tests:
        marked, own = items.is_marked(item), items.start_method(item)
        if marked:
            items.inject(item)
            own = items.start_method(item)
        if own is not None:
            out = own not in chosen.not_deselected
        elif marked and isinstance(item, pytest.Function):
            out = not marked_runs(item)
        else:
            out = False
            if chosen.unmarked_skip_reason:
                item.add_marker(pytest.mark.skip(reason=chosen.unmarked_skip_reason))
        (deselected if out else kept).append(item)
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        tests[:] = kept


def register(config: pytest.Config, tests: Sequence[pytest.Item]) -> None:
    """Register the hooks that the tests of this run need: none where none is concerned."""
    chosen = config.stash[SETTINGS].selection
    default, defaults = chosen.process_default, chosen.process_defaults
    concerned, again = default is not None, False
    unmarked = Plan([pytest.param(name) for name in defaults if len(defaults) > 1], all_count=False)
    for item in tests:
        own = items.start_method(item)
        concerned = concerned or own is not None or items.asks_for_default(item)
        plan = _plan(item, unmarked)
        if plan.params:
            item.stash[PLAN] = plan
            again = True
        method = own or default
        if method is not None and not plan.params:  # whose runs have one each
            item.user_properties.append(("start_method", method))
    if concerned or again:
        running = Running(config, tests)
        config.pluginmanager.register(running, "startmethod-running")
        if again:
            hooks = Again(running.starts_processes)
            config.pluginmanager.register(hooks, "startmethod-again")
            config.pluginmanager.register(Done(hooks), "startmethod-done")


class Running:
    """The hook around a test's run: a plugin of its own, where a test may run under a method."""

    def __init__(self, config: pytest.Config, tests: Sequence[pytest.Item]) -> None:
        self._config = config
        self._settings = config.stash[SETTINGS]
        self._tests = tests
        self._watch: Watch | None = None
        made = self._settings.contexts
        self._starts_by = {name: contexts.starts_by(made[name]) for name in made}
        self._default = self._settings.selection.process_default
        self._standard = self._settings.selection.methods.standard

    def starts_processes(self) -> bool:
        """Tell whether the test that runs started one through the process-wide default."""
        return self._watch is not None and self._watch.started_by_default

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Let a test run with its process-wide default, whatever was done to it before."""
        run, default = self._run(item), self._default
        sets_default = RUN in item.stash or items.asks_for_default(item)
        if run is None and not sets_default:
            return (yield)
        run = run or Run("", item.nodeid, item.nodeid, asked=False)
        if run.start_method in self._standard and sets_default:
            default = run.start_method
        # None is expected of a method that isn't supported: the test is skipped.
        expected = self._starts_by.get(run.start_method, "")
        watch = self._watch = self._watch or self._begin()
        before = contexts.Default.current()
        watch.begin(item, run, expected)
        try:
            if default is not None:
                contexts.set_default(default)
            return (yield)
        finally:
            watch.end()
            before.restore()

    def _begin(self) -> Watch:
        """Return what watches the tests, made with the first: till then nothing is patched."""
        watch = Watch(
            self._config,
            self._tests,
            self._settings.contexts.values(),
            self._settings.stall_timeout,
        )
        self._config.pluginmanager.register(watch, "startmethod-watch")
        return watch

    def _run(self, item: pytest.Item) -> Run | None:
        """Return the run of an item that begins now, where it runs under a start method."""
        own, default = items.start_method(item), self._default
        if own is not None:
            return Run(own, without_method(item.nodeid, own), item.nodeid)
        if RUN in item.stash:
            return item.stash[RUN]
        return Run(default, item.nodeid, item.nodeid, asked=False) if default else None


def _plan(item: pytest.Item, unmarked: Plan) -> Plan:
    """Return the runs of an item that `Again` is to run, if it is."""
    if not isinstance(item, pytest.Function) or items.start_method(item):
        return Plan([], all_count=False)
    if items.is_marked(item):
        return Plan(marked_runs(item), all_count=True)
    return unmarked


def marked_runs(item: pytest.Function) -> list[Any]:
    """Return the runs that a marker asks for and the user selects, of a test without parameters."""
    chosen = item.config.stash[SETTINGS].selection
    params = items.runs(item, needs_default=True)
    return [param for param in params if param.values[0] in chosen.not_deselected]
