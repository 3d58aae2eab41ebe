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


MANY_WITH_PLUGIN = """
@pytest.mark.parametrize("test", range({}))
def test_many(mp_context, test):
    for _ in range({}):
        process = mp_context.Process(target=int)
        process.start()
        process.join()
        assert process.exitcode == 0
"""

MANY_BY_HAND = """
@pytest.mark.parametrize("test", range({}))
@pytest.mark.parametrize("start_method", ["fork"])
def test_many(start_method, test):
    context = multiprocessing.get_context(start_method)
    for _ in range({}):
        process = context.Process(target=int)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


def benchmark(folder: Path) -> Iterator[Comparison]:
    """Compare tests that start a process each, or many, and tests that start none."""
    header = "import multiprocessing\nimport pytest\n"
    fork = [*PYTEST, "--start-method=fork"]
    many = str(write_suite(folder, "many", header + MANY_WITH_PLUGIN.format(1, 300)))
    many_by_hand = str(write_suite(folder, "many_by_hand", header + MANY_BY_HAND.format(1, 300)))
    yield Comparison(
        "300 fork children in one test",
        [*fork, many],
        [*PYTEST, "-p", "no:startmethod", many_by_hand],
        AtMostTimes(1.05),
    )
    yield Comparison(
        "3,000 fork children in one test, and in ten",
        [*fork, str(write_suite(folder, "in_one", header + MANY_WITH_PLUGIN.format(1, 3000)))],
        [*fork, str(write_suite(folder, "in_ten", header + MANY_WITH_PLUGIN.format(10, 300)))],
        AtMostTimes(1.1),
    )
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
