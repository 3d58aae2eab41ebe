"""The process-wide default: which methods there are, which is in use, and how one is set, once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import pytest
from origin import origin_of_child

# pytest-xdist has a thread in each of its workers: nothing that these children ever wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.* is multi-threaded:DeprecationWarning")


def test_every_platform_supports_spawn() -> None:
    """What the platform supports are one to three methods, and spawn is always among them."""
    supported = multiprocessing.get_all_start_methods()
    assert "spawn" in supported
    assert {"fork", "spawn", "forkserver"}.issuperset(supported)


def test_a_program_that_sets_none_uses_a_supported_one() -> None:
    """A program's own default depends on the platform and on the version of Python."""
    program = "import multiprocessing; print(multiprocessing.get_start_method())"
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() in multiprocessing.get_all_start_methods()


def test_a_child_starts_by_the_method_in_use(default_start_method: str) -> None:
    """Code that names no method is tested with the fixture ``default_start_method``."""
    assert multiprocessing.get_start_method() == default_start_method
    assert origin_of_child() == default_start_method


def test_a_child_starts_by_the_method_that_is_set(default_start_method: str) -> None:
    """A test may set the method itself: the fixture puts back what was in use before."""
    multiprocessing.set_start_method(default_start_method)
    assert origin_of_child() == default_start_method


@pytest.mark.start_methods
def test_a_method_can_be_set_only_once() -> None:
    """A test that needs no fixture's value gets ``default_start_method`` from the marker alone."""
    multiprocessing.set_start_method("spawn")
    with pytest.raises(RuntimeError, match="context has already been set"):
        multiprocessing.set_start_method("spawn")


@pytest.mark.start_methods
def test_to_ask_for_the_method_is_to_set_it() -> None:
    """Once a program has looked at its default it can't choose another, but may ask warily."""
    assert multiprocessing.get_start_method(allow_none=True) is None
    multiprocessing.get_start_method()
    with pytest.raises(RuntimeError, match="context has already been set"):
        multiprocessing.set_start_method("spawn")
