"""Makes one run of a test for each of its start methods."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.selection import fixtures, marker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from pytest_startmethod.selection.table import Selection

PARAMETRIZED_TWICE = (
    "parametrizes {} itself, but the plugin does that for its fixtures and marker: name the "
    "start methods by @pytest.mark.start_methods instead"
)


class Collection:
    """The hooks that make the runs; `prepare` gets all tests, if any runs under a start method."""

    def __init__(
        self, selection: Selection, prepare: Callable[[pytest.Config, list[pytest.Item]], None]
    ) -> None:
        self._prepare = prepare
        self._has_runs = selection.by_user

    @pytest.hookimpl(trylast=True)  # so that a test's id ends with the start method
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one run of a test for each of its start methods."""
        test, names = metafunc.definition, metafunc.fixturenames
        marked = marker.is_marked(test)
        if not marked and "start_method" not in names:  # the other fixtures ask for it
            return
        parametrized = _parametrized(metafunc).intersection(fixtures.NAMES)
        if "start_method" in parametrized:
            if marked or any(_is_ours(metafunc, name) for name in fixtures.NAMES):
                marker.fail_collection(test, PARAMETRIZED_TWICE.format("start_method"))
        elif marked or _is_ours(metafunc, "start_method"):
            for name in parametrized:
                if _is_ours(metafunc, name):
                    marker.fail_collection(test, PARAMETRIZED_TWICE.format(name))
            if "start_method" not in names:
                names[:0] = marker.INJECTED
            params = marker.runs(test, needs_default="default_start_method" in names)
            scope = test.config.getini("start_method_scope")
            metafunc.parametrize("start_method", params, indirect=True, scope=scope)
            self._has_runs = True

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Make the runs of a marked `unittest.TestCase`: pytest doesn't parametrize its tests."""
        report = yield
        unittest = sys.modules.get("unittest")  # no TestCase without it
        if unittest is None or not isinstance(collector, pytest.Class):
            return report
        if not issubclass(collector.obj, unittest.TestCase):
            return report
        made: list[pytest.Item | pytest.Collector] = []
        try:
            for test in report.result:
                if isinstance(test, pytest.Function) and marker.is_marked(test):
                    made += marker.runs_of_unittest(test)
                    self._has_runs = True
                else:
                    made.append(test)
        except pytest.fail.Exception as error:
            report.outcome, report.longrepr, report.result = "failed", str(error), []
        else:
            report.result = made
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Prepare the collected tests."""
        if self._has_runs:
            self._prepare(config, items)


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    """Return the names that the suite parametrizes itself, and drop the fixtures of such names.

    pytest drops these fixtures too, but only after its hook. Neither is possible by public API
    (pytest 8.0 to 9.2). If the attributes go missing, the plugin doesn't see what the suite's own
    pytest_generate_tests parametrizes, and pytest refuses to parametrize a name twice.
    """
    calls = getattr(metafunc, "_calls", ())
    info = getattr(metafunc.definition, "_fixtureinfo", None)
    if calls and info is not None:
        info.prune_dependency_tree()
    return {name for call in calls for name in call.params}


def _is_ours(metafunc: pytest.Metafunc, name: str) -> bool:
    """Return whether a test's fixture of this name is the plugin's, not one of the suite.

    The plugin leaves the suite's fixtures alone. No public API tells them apart (pytest 8.0 to
    9.2). If the attribute goes missing, a fixture of the suite counts as the plugin's.
    """
    if name not in metafunc.fixturenames:
        return False
    known = getattr(metafunc, "_arg2fixturedefs", None)
    if known is None:
        return True
    for fixture in reversed(known.get(name, ())):  # a parameter has none
        if fixture.func.__module__ == fixtures.__name__:
            return True
        if name not in fixture.argnames:  # it overrides ours and doesn't ask for it
            return False
    return False
