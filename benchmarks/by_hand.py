"""What does the plugin cost more than a suite's own parametrization?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compare import PYTEST, AtMostTimes, Comparison, main, write_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TESTS = 1_000
MORE_TESTS = 5_000

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
    for tests, target in {TESTS: AtMostTimes(1.10), MORE_TESTS: AtMostTimes(1.05)}.items():
        memory = tests == MORE_TESTS
        sources = {
            name: header + "".join(map(test.format, range(tests)))
            for name, test in {"ours": WITH_PLUGIN, "by_hand": BY_HAND}.items()
        }
        suites = {n: str(write_suite(folder, f"{n}_{tests}", s)) for n, s in sources.items()}
        yield Comparison(
            f"{tests:,} tests under each method{', at its peak' if memory else ', no process'}",
            [*PYTEST, suites["ours"]],
            [*PYTEST, suites["by_hand"]],
            target,
            runs=3 if memory else 11,
            memory=memory,
        )


if __name__ == "__main__":
    main(benchmark)
