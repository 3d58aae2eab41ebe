"""What does a test say of its start methods?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_startmethod import selection, settings
from pytest_startmethod.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

MARKER = "start_methods"
MARKER_HELP = (
    "start_methods(*names, reason=''): run the test under these multiprocessing start methods "
    "only; no names: under all. A name may be a pytest.param(name, marks=...). A test that asks "
    "for none of the fixtures mp_context, start_method, default_start_method gets the last of them."
)

# Among a test's fixtures where its start_method, or what follows from it, is the plugin's own, and
# not a fixture or parameter of the suite's by that name: with those the plugin has no business.
OURS = "_startmethod"
FOLLOWS = "_startmethod_follows"
INJECTED = (OURS, "start_method", "default_start_method")

PARAMETRIZED_TWICE = (
    "parametrizes start_method itself, which the plugin does for its fixtures and marker: name the "
    "start methods by @pytest.mark.start_methods instead"
)

ParameterSet = type(pytest.param())


def is_concerned(item: pytest.Item) -> bool:
    """Tell, fast, whether a test may have to do with the plugin, whatever the user selects."""
    names = fixtures(item)
    return OURS in names or FOLLOWS in names or MARKER in item.keywords


def is_marked(item: pytest.Item) -> bool:
    """Tell whether a test carries the marker, itself or by its class or module."""
    # The keywords have all names of markers: to look there first saves most of the time.
    return MARKER in item.keywords and item.get_closest_marker(MARKER) is not None


def start_method(item: pytest.Item) -> str | None:
    """Return the start method that the plugin parametrized a test with."""
    return _params(item).get("start_method") if OURS in fixtures(item) else None


def asks_for_default(item: pytest.Item) -> bool:
    """Tell whether a test's start method is to be the process-wide default."""
    names = fixtures(item)
    return "default_start_method" in names and (FOLLOWS in names or OURS in names)


def inject(item: pytest.Item) -> None:
    """Give a marked test that asks for none of the fixtures what it was parametrized with.

    pytest drops a name that only ``pytest_generate_tests`` added (seen on pytest 8.0 to 9.2).
    """
    if "start_method" in _params(item) and OURS not in fixtures(item):
        fixtures(item)[:0] = INJECTED


def fixtures(item: pytest.Item) -> list[str]:
    """Return the names of a test's fixtures; doctests and plugins' own items may have none."""
    return getattr(item, "fixturenames", [])


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Make one run of a test for each of its start methods."""
    test, names = metafunc.definition, metafunc.fixturenames
    marked = is_marked(test)
    if not marked and OURS not in names and FOLLOWS not in names:
        return
    by_suite = _parametrized(metafunc)
    if "start_method" in by_suite:
        if marked or OURS in names or FOLLOWS in names:
            _fail_collection(test, PARAMETRIZED_TWICE)
    elif marked or OURS in names:
        if OURS not in names:
            names[:0] = INJECTED
        params = runs(test, needs_default="default_start_method" in names)
        scope = settings.scope("start_method", test.config)
        metafunc.parametrize("start_method", params, indirect=True, scope=scope)


def runs(test: pytest.Function, *, needs_default: bool) -> list[Any]:
    """Return what start_method is parametrized with; a bad marker fails the collection."""
    chosen = test.config.stash[SETTINGS].selection
    mark = test.get_closest_marker(MARKER)
    args = mark.args if mark else ()
    params = [arg if isinstance(arg, ParameterSet) else pytest.param(arg) for arg in args]
    try:
        marker = mark and selection.start_methods(
            *(p.values[0] if len(p.values) == 1 else p.values for p in params),
            known=chosen.methods.known,
            **mark.kwargs,
        )
        planned = chosen.runs(marker, needs_default=needs_default)
    except (selection.SelectionError, TypeError) as error:
        problem = str(error)
    else:
        marks = {p.values[0]: p.marks for p in params}
        return [
            pytest.param(name, id=name, marks=[*marks.get(name, ()), *_skip(reason)])
            for name, reason in planned
        ]
    _fail_collection(test, f"@pytest.mark.start_methods {problem}")


def _skip(reason: str | None) -> list[pytest.MarkDecorator]:
    return [] if reason is None else [pytest.mark.skip(reason=reason)]


def _fail_collection(test: pytest.Function, problem: str) -> NoReturn:
    """End the collection of the test's file with one line, and let other files run."""
    test.config.option.continue_on_collection_errors = True
    pytest.fail(f"{test.nodeid}: {problem}", pytrace=False)


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    """Return the names that the suite itself gives parameters, and drop what those replace.

    pytest drops the fixtures behind such a name too, but only after its hook. There is no public
    way to either (pytest 8.0 to 9.2): where the attributes go missing, what a pytest_generate_tests
    of the suite's parametrizes isn't seen, and pytest refuses to do so twice.
    """
    calls = getattr(metafunc, "_calls", ())
    info = getattr(metafunc.definition, "_fixtureinfo", None)
    if calls and info is not None:
        info.prune_dependency_tree()
    return {name for call in calls for name in call.params}


def _params(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)  # only where the test is parametrized
    return callspec.params if callspec else {}
