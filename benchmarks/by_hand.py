"""What does the plugin cost more than a suite's own parametrization?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compare import PYTEST, AtMostTimes, Comparison, main, write_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TESTS = 1_000

WITH_PLUGIN = """
def test_{}(mp_context):
    assert mp_context
"""

BY_HAND = """
@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
def test_{}(start_method):
    assert multiprocessing.get_context(start_method)
"""


def benchmark(folder: Path) -> Iterator[Comparison]:
    """Compare tests that ask for ``mp_context`` and tests that make a context of a parameter."""
    header = "import multiprocessing\nimport pytest\n"
    ours = write_suite(folder, "ours", header + "".join(map(WITH_PLUGIN.format, range(TESTS))))
    by_hand = write_suite(folder, "by_hand", header + "".join(map(BY_HAND.format, range(TESTS))))
    yield Comparison(
        "1,000 tests under each method, none starts a process",
        [*PYTEST, str(ours)],
        [*PYTEST, str(by_hand)],
        AtMostTimes(1.10),
    )


if __name__ == "__main__":
    main(benchmark)
