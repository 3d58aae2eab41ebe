"""What does the plugin cost a run that uses nothing of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compare import PYTEST, AtMostMore, AtMostTimes, Comparison, main, write_suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WITHOUT = ["-p", "no:startmethod"]


def benchmark(folder: Path) -> Iterator[Comparison]:
    """Compare runs that have the plugin and runs that don't."""
    tests = "".join(f"def test_{number}(): pass\n" for number in range(10_000))
    suite = write_suite(folder, "suite", tests)
    yield Comparison(
        "10,000 tests that use nothing of the plugin",
        [*PYTEST],
        [*PYTEST, *WITHOUT],
        AtMostTimes(1.02),
        folder=suite,
    )
    # Said once, it makes pytest 9 print its version and end before it loads any plugin.
    version = [*PYTEST, "--version", "--version"]
    yield Comparison(
        "pytest --version --version",
        version,
        [*version, *WITHOUT],
        AtMostMore(5.0),
        runs=41,
        folder=suite,
    )


if __name__ == "__main__":
    main(benchmark)
