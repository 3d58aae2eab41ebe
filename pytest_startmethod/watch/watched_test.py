"""Keeps what is known of the running test, from its first process to its end."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from pytest_startmethod.processes import places
from pytest_startmethod.processes.owners import Owner
from pytest_startmethod.record import Run, without_method
from pytest_startmethod.selection import marker

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

    import pytest

    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.processes.owners import OwnerFinder


class WatchedTest:
    """One test; made when it starts its first process, or may use an older one.

    It runs under `method`, and its context starts processes by the `expected` one.
    """

    def __init__(self, item: pytest.Item, method: str, expected: str, finder: OwnerFinder) -> None:
        self.item = item
        self.run = _run(item, method)
        self.expected = expected
        self.owner = Owner("the test", lasts=not self.run.asked, untouched=not self.run.asked)
        self.children: list[Child] = []
        """Those that were started while it ran."""
        self.judged = 0
        """How many of them were looked at for mismatches: subtests have a call each."""
        self.passed = False
        self.stderr = ""
        self._finder = finder

    @cached_property
    def modules(self) -> Sequence[ModuleType]:
        """Where the targets of its processes may be: to find them takes time, and few ask."""
        return places.test_modules(self.item)

    def unjudged(self) -> list[Child]:
        """Return the children that weren't looked at for mismatches so far."""
        new = self.children[self.judged :]
        self.judged = len(self.children)
        return [child for child in new if not child.owner.lasts]

    def fixtures(self) -> set[Owner]:
        """Return the owners among its fixtures, also those of `request.getfixturevalue()`."""
        # Private, since pytest 3.0; where it goes missing, the latter aren't known.
        request = getattr(self.item, "_request", None)
        asked_for = getattr(request, "fixturenames", ())
        return self._finder.of_fixtures({*marker.fixtures(self.item), *asked_for})

    def relevant(self, children: Iterable[Child]) -> list[Child]:
        """Return those of a run's `children` that a stall of the test may be about.

        Those started while it ran, and those of the fixtures that it uses.
        """
        own = set(map(id, self.children))
        return [*self.children, *(c for c in self._used(children) if id(c) not in own)]

    def uses_expected(self, children: Iterable[Child]) -> bool:
        """Tell whether it used one of a run's `children` that has the expected start method."""
        used = (*self.children, *self._used(children))
        return any(child.is_started_by(self.expected) for child in used)

    def _used(self, children: Iterable[Child]) -> list[Child]:
        fixtures = self.fixtures()
        return [child for child in children if child.owner in fixtures]


def _run(item: pytest.Item, method: str) -> Run:
    """Return the run of an item, by its start method."""
    own, nodeid = marker.start_method(item), item.nodeid
    if own is not None:
        return Run(own, without_method(nodeid, own), nodeid)
    return Run(method, nodeid, nodeid, asked=False)
