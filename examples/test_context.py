"""A context: the whole of multiprocessing for one start method, whatever the default is."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest
from origin import origin, origin_of_child

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

# pytest-xdist has a thread in each of its workers: nothing that these children ever wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.* is multi-threaded:DeprecationWarning")


def test_a_context_starts_children_by_its_method(
    mp_context: BaseContext, start_method: str
) -> None:
    """Code that is given a context is tested with the fixture ``mp_context``."""
    with mp_context.Pool(1) as pool:
        assert pool.apply(origin) == start_method


def test_a_context_leaves_the_default_alone(mp_context: BaseContext) -> None:
    """What a library does with a context of its own is no business of the program around it."""
    before = multiprocessing.get_start_method(allow_none=True)
    assert mp_context is multiprocessing.get_context(mp_context.get_start_method())
    assert multiprocessing.get_start_method(allow_none=True) == before


@pytest.mark.filterwarnings("ignore::pytest_startmethod.StartMethodMismatchWarning")  # on purpose
def test_one_program_uses_a_default_and_a_context_of_another_method(
    default_start_method: str,
) -> None:
    """The default is the test's method, and beside it one pool is spawned."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(origin) == "spawn"
    assert origin_of_child() == default_start_method
