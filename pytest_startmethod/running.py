"""How does a test come to run under its start method?"""

from __future__ import annotations

import pytest

from pytest_startmethod import contexts, items, reporting
from pytest_startmethod.again import NONE, PLAN, RUN, Again, Done, Plan
from pytest_startmethod.results import ASKS
from pytest_startmethod.settings import SETTINGS
from pytest_startmethod.watch import Watch


def prepare(config: pytest.Config, tests: list[pytest.Item]) -> None:
    """Deselect what a marker names and the user didn't select, and prepare the other runs."""
    chosen = config.stash[SETTINGS].selection
    defaults, no_default = chosen.process_defaults, chosen.unmarked_skip_reason
    unmarked = Plan([pytest.param(name) for name in defaults if len(defaults) > 1], all_count=False)
    properties = {name: ("start_method", name) for name in chosen.methods.known}
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    asked, again = False, bool(unmarked.params)
    for item in tests:
        marked = items.is_marked(item)
        if marked:
            items.inject(item)
        method, plan = items.start_method(item), NONE
        if method is not None:
            asked, out = True, int(method not in chosen.not_deselected)
            item.keywords[ASKS] = True
        elif marked and isinstance(item, pytest.Function):
            named = items.runs(item, needs_default=True)
            params = [param for param in named if param.values[0] in chosen.not_deselected]
            plan = Plan(params, all_count=True)
            again, out = True, len(named) - len(params)
        else:
            method, plan, out = next(iter(defaults), None), unmarked, 0
            if no_default:
                item.add_marker(pytest.mark.skip(reason=no_default))
        deselected.extend([item] * out)  # once for each of its runs that is
        if not out or plan.params:
            kept.append(item)
        if plan is not unmarked:
            item.stash[PLAN] = plan
        if method is not None:
            item.user_properties.append(properties[method])
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        tests[:] = kept
    if asked or again or defaults:
        if asked:
            reporting.register(config)
        running = Running(config)
        config.pluginmanager.register(running, "startmethod-running")
        if again:
            hooks = Again(running.starts_processes, unmarked)
            config.pluginmanager.register(hooks, "startmethod-again")
            config.pluginmanager.register(Done(hooks), "startmethod-done")


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

    def starts_processes(self) -> bool:
        """Tell whether the test that runs started one through the process-wide default."""
        return self._watch.started_by_default

    @pytest.hookimpl(
        tryfirst=True
    )  # and no wrapper: many tests pay for it, and few start a process
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> None:
        """Let a test run with its process-wide default, whatever was done to it before."""
        own = self._test.parameter = items.start_method(item)
        method, sets_default = own or self._unasked, items.asks_for_default(item)
        if RUN in item.stash:
            method, sets_default = item.stash[RUN].start_method, True
        if method is None:
            self._leave()
            return
        default = self._defaults.get(method) if sets_default else self._default
        now = contexts.Default.current()
        self._before = self._before or now
        wanted = default or self._before
        if wanted != now:
            wanted.restore()
        # None is expected of a method that isn't supported: the test is skipped.
        self._watch.begin(item, nextitem, method, self._starts_by.get(method, ""))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Put the process-wide default back, for others who look at it."""
        self._leave()

    def _leave(self) -> None:
        self._watch.end()
        if self._before is not None:
            self._before.restore()
            self._before = None
