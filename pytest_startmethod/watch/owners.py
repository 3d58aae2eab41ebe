"""Whose is what is made now?"""

from __future__ import annotations

import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# The hooks in which a test's own code runs, by names that pytest's documentation gives them.
PHASES = ("pytest_runtest_setup", "pytest_runtest_call", "pytest_runtest_teardown")


class Owner:
    """Whose end is the end of a child: a test, a fixture or the session.

    `lasts` tells whether it outlives the test that runs.
    """

    def __init__(self, name: str, *, lasts: bool = False) -> None:
        self.name = name
        self.lasts = lasts
        self.ended = False


class Owners:
    """Who owns each process and maker, by identity: how they are hashed is the test's business."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[object], Owner | None, str]] = {}

    def __contains__(self, made: object) -> bool:
        """Tell whether an object was made while there was this record."""
        return id(made) in self._by_id

    def add(self, made: object, owner: Owner | None, place: str = "") -> None:
        """Let `owner` own an object as long as that lives; `place` is the line that made it."""
        key = id(made)
        self._by_id[key] = weakref.ref(made, lambda _: self._by_id.pop(key)), owner, place

    def get(self, made: object, default: Owner) -> Owner | None:
        """Return the owner: `default` where the object is older than this record."""
        _, owner, _ = self._by_id.get(id(made), (None, default, ""))
        return owner

    def place(self, made: object) -> str:
        """Return the line that made an object; "" if unknown."""
        return self._by_id[id(made)][2] if made in self else ""

    def living(self) -> list[object]:
        """Return what is owned, as far as it lives."""
        return [made for ref, *_ in tuple(self._by_id.values()) if (made := ref()) is not None]


class Finder:
    """Finds the owner of what is made now: it is told by the hook that pytest is in.

    To be made in the thread that tests run in. `of_test` returns the test that runs, if one does.
    """

    def __init__(self, of_test: Callable[[], Owner | None]) -> None:
        self._of_test = of_test
        self._thread = threading.get_ident()
        self._lock = threading.RLock()  # the thread of a pool may make a process at any time
        self._fixtures: dict[pytest.FixtureDef[Any], Owner] = {}

    def find(self) -> Owner | None:
        """Return a fixture, the test or nobody."""
        with self._lock:
            frame = sys._current_frames().get(self._thread)  # noqa: SLF001 (documented, for debuggers)
            while frame is not None and frame.f_code.co_name not in PHASES:
                if frame.f_code.co_name == "pytest_fixture_setup":
                    break
                frame = frame.f_back
            test = None if frame is None else self._of_test()
            if frame is None or test is None:
                return None
            fixture = frame.f_locals.get("fixturedef")
            return self._of_fixture(fixture) if isinstance(fixture, pytest.FixtureDef) else test

    def of_fixtures(self, names: Collection[str]) -> set[Owner]:
        """Return the fixtures of these names that live, as far as they own something."""
        return {self._fixtures[f] for f in tuple(self._fixtures) if f.argname in names}

    def _of_fixture(self, fixture: pytest.FixtureDef[Any]) -> Owner:
        if fixture not in self._fixtures:
            lasts = fixture.scope != "function"
            self._fixtures[fixture] = Owner(f"the fixture {fixture.argname!r}", lasts=lasts)
            fixture.addfinalizer(partial(self._fixture_ended, fixture))
        return self._fixtures[fixture]

    def _fixture_ended(self, fixture: pytest.FixtureDef[Any]) -> None:
        self._fixtures.pop(fixture).ended = True
