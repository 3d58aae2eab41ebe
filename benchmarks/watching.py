"""What does it cost to watch the processes of a test?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compare import PYTEST, AtMostTimes, Comparison, main, write_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHILDREN = 200

WITH_PLUGIN = """
def test_{}(mp_context):
    process = mp_context.Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
"""

BY_HAND = """
@pytest.mark.parametrize("start_method", ["fork"])
def test_{}(start_method):
    process = multiprocessing.get_context(start_method).Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
"""


def benchmark(folder: Path) -> Iterator[Comparison]:
    """Compare tests that start a process each, and tests that start none."""
    header = "import multiprocessing\nimport pytest\n"
    ours = header + "".join(map(WITH_PLUGIN.format, range(CHILDREN)))
    by_hand = header + "".join(map(BY_HAND.format, range(CHILDREN)))
    yield Comparison(
        "200 tests with one fork child each",
        [*PYTEST, "--start-method=fork", str(write_suite(folder, "children", ours))],
        [*PYTEST, "-p", "no:startmethod", str(write_suite(folder, "children_by_hand", by_hand))],
        AtMostTimes(1.15),
    )
    for tests, method in {2_000: "fork", 5_000: "all"}.items():
        nothing = "".join(f"def test_{number}(): pass\n" for number in range(tests))
        suite = str(write_suite(folder, method, nothing))
        yield Comparison(
            f"{tests:,} tests under --start-method={method} that start nothing",
            [*PYTEST, f"--start-method={method}", suite],
            [*PYTEST, suite],
            AtMostTimes(1.05),
        )


if __name__ == "__main__":
    main(benchmark)
