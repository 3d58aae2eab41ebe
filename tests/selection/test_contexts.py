"""The contexts by start method, tested by plain calls."""

from __future__ import annotations

import multiprocessing

import pytest

from pytest_startmethod.selection.contexts import ContextError, Offer, in_run_order, merge, platform

SPAWN = multiprocessing.get_context("spawn")


def test_run_order_is_fork_spawn_forkserver_and_then_the_others_as_they_come() -> None:
    names = ["torch", "spawn", "loky", "forkserver", "fork", "spawn"]
    assert in_run_order(names) == ["fork", "spawn", "forkserver", "torch", "loky"]


def test_the_platforms_contexts_are_the_standard_librarys_own() -> None:
    contexts = platform().contexts()
    assert set(contexts) == set(multiprocessing.get_all_start_methods())
    for name, context in contexts.items():
        assert context is multiprocessing.get_context(name)


def test_plugins_contexts_come_last_or_in_place_of_the_standard_one() -> None:
    mine = multiprocessing.context.SpawnContext()
    merged = merge({"spawn": SPAWN}, [Offer("a", {"torch": mine}), Offer("b", {"spawn": mine})])
    assert list(merged.items()) == [("spawn", mine), ("torch", mine)]


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        (["torch"], "a.py returned ['torch'], not a dict of contexts by start method"),
        ({3: SPAWN}, "a.py names a context 3: use letters, digits and underscores"),
        ({"": SPAWN}, "a.py names a context '': use letters, digits and underscores"),
        ({"a,b": SPAWN}, "a.py names a context 'a,b': use letters, digits and underscores"),
        ({"all": SPAWN}, "a.py names a context 'all', which has another meaning: rename it"),
        ({"torch": None}, "a.py offers None as 'torch', which is no multiprocessing context"),
    ],
)
def test_an_offer_that_cannot_be_used_is_an_error_that_names_the_plugin(
    offered: object, message: str
) -> None:
    with pytest.raises(ContextError) as error:
        merge({"spawn": SPAWN}, [Offer("a.py", offered)])
    assert str(error.value) == message


def test_two_offers_of_one_name_are_an_error_that_names_both_plugins() -> None:
    with pytest.raises(ContextError) as error:
        merge({}, [Offer("a.py", {"torch": SPAWN}), Offer("b.py", {"torch": SPAWN})])
    assert str(error.value) == (
        "a.py and b.py both offer a context named 'torch': rename one of them"
    )
