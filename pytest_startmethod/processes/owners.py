"""Finds the test or fixture that owns a new process."""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

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

    To be made in the thread that tests run in. `test` returns the test that runs, if one does. A
    fork must find no frame objects of other threads: those of Python 3.11 and later point to memory
    that is freed in the child, which then dies in its garbage collector. So only this thread's
    frames are looked at.
    """

    def __init__(self, test: Callable[[], Owner | None]) -> None:
        self._test = test
        self._thread = System.get_ident()
        self._lock = threading.RLock()  # the thread of a pool may make a process at any time
        self._fixtures: dict[pytest.FixtureDef[Any], Owner] = {}
        # Whether a test's own code runs; None where no hook has said so yet.
        self._runs: bool | None = None
        # The fixtures that are being set up, the innermost last.
        self._set_up: list[pytest.FixtureDef[Any]] = []
        # What was found last, until a hook is called: it is asked for with each process.
        self._found: list[Owner | None] = []

    def find(self) -> Owner | None:
        """Return the fixture that is being set up, or the test that runs, or None."""
        for found in self._found:
            return found
        with self._lock:
            runs, fixture = self._runs, self._set_up[-1] if self._set_up else None
            if runs is None and System.get_ident() == self._thread:
                runs, fixture = _find_hook(sys._getframe(1))  # noqa: SLF001 (no other way, on CPython)
            owner = self._test() if runs is not False else None
            if owner is not None and fixture is not None:
                owner = self._of_fixture(fixture, untouched=owner.untouched)
            elif owner is not None and runs:
                self._runs = True  # from its first process on the hooks say when its code ends
            self._found = [owner] if self._runs is not None else []
            return owner

    def test_changes(self) -> None:
        """Find the owner anew, as a test begins or ends."""
        self._found = []

    def code_runs(self, runs: bool) -> None:
        """Learn from a hook whether a test's own code runs from now on."""
        self._runs, self._found = runs, []

    def set_up_begins(self, fixture: pytest.FixtureDef[Any]) -> None:
        """Learn which fixture is set up from now on."""
        self._set_up.append(fixture)
        self._found = []

    def set_up_ends(self) -> None:
        """Learn that the innermost fixture is set up."""
        self._set_up.pop()
        self._found = []

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


def _find_hook(frame: FrameType | None) -> tuple[bool, pytest.FixtureDef[Any] | None]:
    """Tell whether this thread runs a test, and which fixture it sets up."""
    while frame is not None:
        name = frame.f_code.co_name
        if name == "pytest_fixture_setup":
            fixture = frame.f_locals.get("fixturedef")
            if isinstance(fixture, pytest.FixtureDef):
                return True, fixture
        if name in PHASES:
            return True, None
        frame = frame.f_back
    return False, None
