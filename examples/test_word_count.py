"""A program gives the same result under every start method, and the same as without processes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import word_count

if TYPE_CHECKING:
    from collections import Counter
    from multiprocessing.context import BaseContext

# pytest-xdist has a thread in each of its workers: nothing that these children ever wait for.
pytestmark = pytest.mark.filterwarnings("ignore:.* is multi-threaded:DeprecationWarning")


@pytest.fixture(scope="module")
def expected() -> Counter[str]:
    """Count the words one file after the other, in no other process."""
    return word_count.total(map(word_count.words, word_count.sources()))


def test_a_pool_counts_the_same(mp_context: BaseContext, expected: Counter[str]) -> None:
    """A function that takes a context is tested with ``mp_context``."""
    assert word_count.count_with_pool(word_count.sources(), mp_context) == expected


def test_an_executor_counts_the_same(mp_context: BaseContext, expected: Counter[str]) -> None:
    """``concurrent.futures`` takes the very same context."""
    assert word_count.count_with_executor(word_count.sources(), mp_context) == expected


@pytest.mark.parametrize("workers", [[], ["--executor"]], ids=["pool", "executor"])
def test_the_command_prints_the_same(
    workers: list[str], start_method: str, expected: Counter[str]
) -> None:
    """A program with an option for the start method is tested with its name, ``start_method``."""
    command = [sys.executable, word_count.__file__, f"--start-method={start_method}", *workers]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in printed.splitlines()]
    assert {word: int(times) for times, word in lines} == dict(expected.most_common(10))
