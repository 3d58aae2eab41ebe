"""Finds the test or fixture that owns a new process."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# The hooks in which a test's own code runs, by names that pytest's documentation gives them.
PHASES = ("pytest_runtest_setup", "pytest_runtest_call", "pytest_runtest_teardown")


class Owner:
    """A test, a fixture or the session: its processes are to end with it."""

    def __init__(self, name: str, *, lasts: bool = False, untouched: bool = False) -> None:
        self.name = name
        self.lasts = lasts
        """Whether it outlives the test that runs."""
        self.untouched = untouched
        """Whether it belongs to a test that asks for no start method: nothing ends with it."""
        self.ended = False


class OwnerFinder:
    """Finds the owner by the hook that pytest is in.

    To be made in the thread that tests run in. `test` returns the test that runs, if one does.
    """

    def __init__(self, test: Callable[[], Owner | None]) -> None:
        self._test = test
        self._thread = System.get_ident()
        self._lock = threading.RLock()  # the thread of a pool may make a process at any time
        self._fixtures: dict[pytest.FixtureDef[Any], Owner] = {}

    def find(self) -> Owner | None:
        """Return the fixture that is being set up, or the test that runs, or None."""
        with self._lock:
            frame = System.frames().get(self._thread)
            while frame is not None and frame.f_code.co_name not in PHASES:
                if frame.f_code.co_name == "pytest_fixture_setup":
                    break
                frame = frame.f_back
            test = None if frame is None else self._test()
            if frame is None or test is None:
                return None
            fixture = frame.f_locals.get("fixturedef")
            if not isinstance(fixture, pytest.FixtureDef):
                return test
            return self._of_fixture(fixture, untouched=test.untouched)

    def of_fixtures(self, names: Collection[str]) -> set[Owner]:
        """Return the fixtures of these names that live, as far as they own something."""
        return {self._fixtures[f] for f in tuple(self._fixtures) if f.argname in names}

    def _of_fixture(self, fixture: pytest.FixtureDef[Any], *, untouched: bool) -> Owner:
        if fixture not in self._fixtures:
            lasts, name = fixture.scope != "function", f"the fixture {fixture.argname!r}"
            self._fixtures[fixture] = Owner(name, lasts=lasts, untouched=untouched)
            fixture.addfinalizer(partial(self._fixture_ended, fixture))
        return self._fixtures[fixture]

    def _fixture_ended(self, fixture: pytest.FixtureDef[Any]) -> None:
        owner = self._fixtures.pop(fixture, None)
        if owner is not None:
            owner.ended = True
