"""What does a test say of its start methods?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

import pytest

from pytest_startmethod.selection import table
from pytest_startmethod.settings import SETTINGS

MARKER = "start_methods"
MARKER_HELP = (
    "start_methods(*names, reason=''): run the test under these multiprocessing start methods "
    "only; no names: under all. A name may be a pytest.param(name, marks=...). A test that asks "
    "for none of the fixtures mp_context, start_method, default_start_method gets the last of them."
)

INJECTED = ("start_method", "default_start_method")

ParameterSet = type(pytest.param())


class StartMethod(str):
    """A start method that the plugin gave a test as its parameter, not the suite itself."""

    __slots__ = ()


# One object for each: pytest 8.0 compares the parameters of wider fixtures by identity.
_parameter = lru_cache(StartMethod)


def is_marked(item: pytest.Item) -> bool:
    """Tell whether a test carries the marker, itself or by its class or module."""
    # The keywords have all names of markers: to look there first saves most of the time.
    return MARKER in item.keywords and item.get_closest_marker(MARKER) is not None


def start_method(item: pytest.Item) -> str | None:
    """Return the start method that the plugin parametrized a test with."""
    callspec = getattr(item, "callspec", None)  # only where the test is parametrized
    method = callspec.params.get("start_method") if callspec else None
    return str(method) if isinstance(method, StartMethod) else None


def asks_for_default(item: pytest.Item) -> bool:
    """Tell whether a test's start method is to be the process-wide default."""
    return "default_start_method" in fixtures(item) and start_method(item) is not None


def inject(item: pytest.Item) -> None:
    """Give a marked test that asks for none of the fixtures what it was parametrized with.

    pytest drops a name that only ``pytest_generate_tests`` added (seen on pytest 8.0 to 9.2).
    """
    if start_method(item) is not None and "start_method" not in fixtures(item):
        fixtures(item)[:0] = INJECTED


def fixtures(item: pytest.Item) -> list[str]:
    """Return the names of a test's fixtures; doctests and plugins' own items may have none."""
    return getattr(item, "fixturenames", [])


def runs(test: pytest.Function, *, needs_default: bool) -> list[Any]:
    """Return what start_method is parametrized with; a bad marker fails the collection."""
    chosen = test.config.stash[SETTINGS].selection
    mark = test.get_closest_marker(MARKER)
    args = mark.args if mark else ()
    params = [arg if isinstance(arg, ParameterSet) else pytest.param(arg) for arg in args]
    try:
        marker = mark and table.start_methods(
            *(p.values[0] if len(p.values) == 1 else p.values for p in params),
            known=chosen.methods.known,
            **mark.kwargs,
        )
        planned = chosen.runs(marker, needs_default=needs_default)
    except (table.SelectionError, TypeError) as error:
        problem = str(error)
    else:
        marks = {p.values[0]: p.marks for p in params}
        return [
            pytest.param(_parameter(name), id=name, marks=[*marks.get(name, ()), *_skip(reason)])
            for name, reason in planned
        ]
    fail_collection(test, f"@pytest.mark.start_methods {problem}")


def _skip(reason: str | None) -> list[pytest.MarkDecorator]:
    return [] if reason is None else [pytest.mark.skip(reason=reason)]


def fail_collection(test: pytest.Function, problem: str) -> NoReturn:
    """End the collection of the test's file with one line, and let other files run."""
    test.config.option.continue_on_collection_errors = True
    pytest.fail(f"{test.nodeid}: {problem}", pytrace=False)
