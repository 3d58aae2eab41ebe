"""Reads the marker ``start_methods``, and gives marked tests their runs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NoReturn

import pytest

from pytest_startmethod.record import with_method
from pytest_startmethod.selection import table
from pytest_startmethod.settings import SETTINGS

MARKER = "start_methods"
MARKER_HELP = (
    "start_methods(*names, reason=''): run the test only under these multiprocessing start methods "
    "(no names: all). A name may be a pytest.param(name, marks=...). A test that uses none of the "
    "fixtures mp_context, start_method and default_start_method gets the last of them."
)

INJECTED = ("start_method", "default_start_method")

# The start method of an item of a `unittest.TestCase`.
METHOD: pytest.StashKey[str] = pytest.StashKey()

ParameterSet = type(pytest.param())


class StartMethod(str):
    """A start method as a parameter that the plugin, not the suite, gave a test."""

    __slots__ = ()


# One object for each: pytest 8.0 compares the parameters of wider fixtures by identity.
_parameter = lru_cache(StartMethod)


def is_marked(item: pytest.Item) -> bool:
    """Return whether a test, its class or its module has the marker."""
    # To look at the keywords first, which have the names of all markers, saves most of the time.
    return MARKER in item.keywords and item.get_closest_marker(MARKER) is not None


def start_method(item: pytest.Item) -> str | None:
    """Return the start method of the run, if the plugin made it."""
    callspec = getattr(item, "callspec", None)  # only where the test is parametrized
    if callspec is not None:
        method = callspec.params.get("start_method")
        return str(method) if isinstance(method, StartMethod) else None
    return item.stash[METHOD] if METHOD in item.stash else None  # noqa: SIM401 (get() takes longer)


def asks_for_default(item: pytest.Item) -> bool:
    """Return whether the test's start method becomes the process-wide default."""
    if METHOD in item.stash:
        return True
    return "default_start_method" in fixtures(item) and start_method(item) is not None


def runs_of_unittest(test: pytest.Function) -> list[pytest.Function]:
    """Return an item for each run of a marked method of a `unittest.TestCase`."""
    assert test.parent is not None  # every item has one
    made = []
    for param in runs(test, needs_default=True):
        method = param.values[0]
        name = with_method(test.name, method)
        # Given as an argument, pytest 9.2 would make `originalname` the node id.
        run = type(test).from_parent(test.parent, name=name, callobj=test.obj)
        run.originalname = test.originalname
        _split_id(run)
        run.stash[METHOD] = str(method)
        for mark in param.marks:
            run.add_marker(getattr(pytest.mark, mark.name)(*mark.args, **mark.kwargs))
        made.append(run)
    return made


def _split_id(run: pytest.Item) -> None:
    """Make the start method the part of the node id that holds parameters.

    Since pytest 9.2 node ids have parts, which --lf and --sw compare. They are private: before 9.2
    there are none, and ids are text; if they are renamed, --lf doesn't find these items.
    """
    parts = getattr(run, "_id", None)
    if parts is not None and hasattr(parts, "parse"):
        run._id = parts.parse(run.nodeid)  # noqa: SLF001 (see above)


def complete(item: pytest.Item) -> None:
    """Prepare a test that has a start method.

    A marked test that uses none of the fixtures gets them again: pytest (8.0 to 9.2) drops names of
    fixtures that only ``pytest_generate_tests`` added. An item of a `unittest.TestCase` gets the
    name of its method, by which pytest looks for it.
    """
    if METHOD in item.stash and isinstance(item, pytest.Function):
        _ = item.location  # pytest keeps it from now on, with the start method in it
        item.name = item.originalname
    elif "start_method" not in fixtures(item):
        fixtures(item)[:0] = INJECTED


def fixtures(item: pytest.Item) -> list[str]:
    """Return the names of a test's fixtures; doctests and items of plugins may have none."""
    return getattr(item, "fixturenames", [])


def runs(test: pytest.Function, *, needs_default: bool) -> list[Any]:
    """Return the parameters of start_method; a bad marker fails the collection."""
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
    """Fail the collection of the test's file with one line, and let other files run."""
    test.config.option.continue_on_collection_errors = True
    pytest.fail(f"{test.nodeid}: {problem}", pytrace=False)
