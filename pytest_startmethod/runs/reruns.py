"""How does a test that wasn't parametrized run under further start methods?"""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.record import Run, with_method, without_method
from pytest_startmethod.selection import contexts, marker

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from pytest_startmethod.runs.base_run import Running

# The run of an item that goes on now, where the item isn't parametrized with its start method.
RUN: pytest.StashKey[Run] = pytest.StashKey()

# The runs that an item has in any case, each a ``pytest.param``: those of a marked method of a
# `unittest.TestCase`, which pytest can't parametrize.
PLAN: pytest.StashKey[list[Any]] = pytest.StashKey()


class Again:
    """The hooks that run a test once more: a plugin of its own, where there may be such a test.

    A test that started a process through the process-wide default, as `running` tells from the call
    of a run on, is run again under the others of `defaults`.
    """

    def __init__(self, running: Running, defaults: Sequence[str]) -> None:
        self._running = running
        self._defaults = [pytest.param(name) for name in defaults if len(defaults) > 1]
        self._nested = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, Any, Any]:
        """Run a test under each of its start methods, outside of all that other plugins do."""
        if self._nested or not isinstance(item, pytest.Function) or marker.start_method(item):
            return (yield)
        # Not stash.get(), which raises and catches an error where there is none.
        plan = item.stash[PLAN] if PLAN in item.stash else None  # noqa: SIM401
        params = plan or self._defaults
        if not params:
            return (yield)
        runs = _Runs(item, params, plan is not None, self._running.starts_processes)
        if nextitem is not None and nextitem.parent is item.parent:
            # What the parent's fixtures made lasts till the next item anyway.
            runs.begin_next()
            try:
                result = yield
            finally:
                runs.end()
            while runs.more():
                self._run(runs, nextitem)
            return result
        while runs.more():
            self._run(runs, _Keeper.standing_for(nextitem, item, runs))
        self._running.done = item
        try:
            return (yield)
        finally:
            self._running.done = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        """Overlook what a wider fixture's set-up does with the process-wide default."""
        if fixturedef.scope == "function":
            return (yield)
        before = contexts.Default.current()
        try:
            return (yield)
        finally:
            before.restore()

    def _run(self, runs: _Runs, nextitem: pytest.Item | None) -> None:
        item = runs.item
        self._nested = True
        runs.begin_next()
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        finally:
            runs.end()
            self._nested = False


def run(item: pytest.Item, method: str) -> Run:
    """Return the run of an item that goes on now, by its start method."""
    own, nodeid = marker.start_method(item), item.nodeid
    if own is not None:
        return Run(own, without_method(nodeid, own), nodeid)
    return item.stash.get(RUN, None) or Run(method, nodeid, nodeid, asked=False)


class _Runs:
    """The runs of one item, one after the other."""

    def __init__(
        self,
        item: pytest.Item,
        params: Sequence[Any],
        asked: bool,
        starts_processes: Callable[[], bool],
    ) -> None:
        self.item = item
        self._params = params
        # Whether all are run, whatever the first one does.
        self._all_count = self._asked = asked
        self._starts_processes = starts_processes
        self._begun = 0
        self._markers = list(item.own_markers)
        self._properties = list(item.user_properties)
        self._attributes = dict(_attributes(item))

    def more(self) -> bool:
        """Tell whether a further run is to follow."""
        if self._begun == 1:  # asked of the first run: a further one may fail to start what it did
            self._all_count = self._all_count or self._starts_processes()
        if self._begun == 0 or not self._all_count or self._begun == len(self._params):
            return self._begun == 0
        session = self.item.session
        return not (session.shouldfail or session.shouldstop)

    def begin_next(self) -> None:
        """Give the item what belongs to its next run: nothing if it runs as it was collected."""
        self._begun += 1
        if self._begun > 1 or self._asked:
            self._change(self._params[self._begun - 1], again=self._begun > 1)

    def end(self) -> None:
        """Take from the item what belonged to the run that is over."""
        if RUN in self.item.stash:
            del self.item.stash[RUN]

    def _change(self, param: Any, *, again: bool) -> None:  # noqa: ANN401 (a pytest.param's type is private)
        item, method = self.item, str(param.values[0])
        item.own_markers[:] = self._markers
        item.stash[RUN] = Run(
            method,
            item.nodeid,
            with_method(item.nodeid, method),
            first=str(self._params[0].values[0]) if again else "",
        )
        properties = [known for known in self._properties if known[0] != "start_method"]
        item.user_properties[:] = [*properties, ("start_method", method)]
        if again:
            # What earlier runs printed: private, since pytest 2.8; where it goes missing the report
            # of a further run shows it once more.
            getattr(item, "_report_sections", []).clear()
            _attributes(item).clear()
            _attributes(item).update(self._attributes)
        for mark in param.marks:
            item.add_marker(getattr(pytest.mark, mark.name)(*mark.args, **mark.kwargs))


def _attributes(item: pytest.Item) -> dict[str, Any]:
    """Return what a test's object of its class holds: pytest makes one for all runs of the item.

    But not for those of a `unittest.TestCase`.
    """
    instance = getattr(item, "instance", None)
    alive = instance is not None and not isinstance(instance, unittest.TestCase)
    return getattr(instance, "__dict__", {}) if alive else {}


class _Keeper(pytest.Item):
    """Stands for the next item while further runs may follow, and keeps the parent's fixtures."""

    _runs: _Runs
    _next: pytest.Item | None

    @classmethod
    def standing_for(
        cls, nextitem: pytest.Item | None, item: pytest.Item, runs: _Runs
    ) -> pytest.Item:
        assert item.parent is not None  # as every item has one
        keeper: _Keeper = cls.from_parent(item.parent, name=item.name)
        keeper._runs, keeper._next = runs, nextitem
        return keeper

    def listchain(self) -> list[Any]:
        """Return what the fixtures that stay belong to; asked when the test's call is over."""
        if self._runs.more():
            return super().listchain()
        return [] if self._next is None else self._next.listchain()

    def runtest(self) -> None:
        raise NotImplementedError
