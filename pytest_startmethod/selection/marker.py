"""What does a test say of its start methods?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

import pytest

from pytest_startmethod.record import with_method
from pytest_startmethod.selection import table
from pytest_startmethod.settings import SETTINGS

MARKER = "start_methods"
MARKER_HELP = (
    "start_methods(*names, reason=''): run the test under these multiprocessing start methods "
    "only; no names: under all. A name may be a pytest.param(name, marks=...). A test that asks "
    "for none of the fixtures mp_context, start_method, default_start_method gets the last of them."
)

INJECTED = ("start_method", "default_start_method")

# The start method that an item of a `unittest.TestCase` was made for.
METHOD: pytest.StashKey[str] = pytest.StashKey()

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
    """Return the start method that the plugin made a test's run for."""
    callspec = getattr(item, "callspec", None)  # only where the test is parametrized
    if callspec is not None:
        method = callspec.params.get("start_method")
        return str(method) if isinstance(method, StartMethod) else None
    return item.stash[METHOD] if METHOD in item.stash else None  # noqa: SIM401 (get() takes longer)


def asks_for_default(item: pytest.Item) -> bool:
    """Tell whether a test's start method is to be the process-wide default."""
    if METHOD in item.stash:
        return True
    return "default_start_method" in fixtures(item) and start_method(item) is not None


def runs_of_unittest(test: pytest.Function) -> list[pytest.Function]:
    """Return an item for each run of a marked method of a `unittest.TestCase`.

    pytest doesn't parametrize those.
    """
    assert test.parent is not None  # as every item has one
    made = []
    for param in runs(test, needs_default=True):
        method = param.values[0]
        name = with_method(test.name, method)
        # Not by its argument `originalname`: pytest 9.2 then makes that the node id.
        run = type(test).from_parent(test.parent, name=name, callobj=test.obj)
        run.originalname = test.originalname
        _split_id(run)
        run.stash[METHOD] = str(method)
        for mark in param.marks:
            run.add_marker(getattr(pytest.mark, mark.name)(*mark.args, **mark.kwargs))
        made.append(run)
    return made


def _split_id(run: pytest.Item) -> None:
    """Let the start method be the part of a node id that holds parameters.

    pytest 9.2 has node ids in parts, and --lf and --sw compare those. Private, since 9.2; where it
    is missing, as before, ids are text; where it is renamed, --lf doesn't find these items.
    """
    parts = getattr(run, "_id", None)
    if parts is not None and hasattr(parts, "parse"):
        run._id = parts.parse(run.nodeid)  # noqa: SLF001 (see above)


def complete(item: pytest.Item) -> None:
    """Make a marked test ready to run.

    One that asks for none of the fixtures gets what it was parametrized with: pytest drops a name
    that only ``pytest_generate_tests`` added (seen on pytest 8.0 to 9.2). And pytest looks for a
    method of a `unittest.TestCase` by the name of the item.
    """
    if METHOD in item.stash and isinstance(item, pytest.Function):
        _ = item.location  # which pytest keeps from here on: it has the start method in it
        item.name = item.originalname
    elif start_method(item) is not None and "start_method" not in fixtures(item):
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
    fail_collection(test, f"@pytest.mark.start_methods: {problem}")


def _skip(reason: str | None) -> list[pytest.MarkDecorator]:
    return [] if reason is None else [pytest.mark.skip(reason=reason)]


def fail_collection(test: pytest.Function, problem: str) -> NoReturn:
    """End the collection of the test's file with one line, and let other files run."""
    test.config.option.continue_on_collection_errors = True
    pytest.fail(f"{test.nodeid}: {problem}", pytrace=False)
