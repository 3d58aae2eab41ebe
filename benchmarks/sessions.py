"""What do sessions of further start methods cost, against a run for each start method?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from compare import PYTEST, AtMostMore, AtMostTimes, Comparison, main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES, TESTS, STARTING = 40, 50, 20
METHODS = ("fork", "spawn", "forkserver")

# One process for each of these commands, one after the other.
IN_TURN = "import subprocess, sys\nfor command in {!r}: subprocess.run(command, check=True)"

STARTS = """
import multiprocessing

def test_starts():
    process = multiprocessing.Process(target=int)
    process.start()
    process.join()
    assert process.exitcode == 0
"""


def benchmark(folder: Path) -> Iterator[Comparison]:
    """Compare a run of all start methods with a run of each, and what a session adds."""
    suite = folder / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    nothing = "".join(f"def test_{number}(): pass\n" for number in range(TESTS - 1))
    for number in range(FILES):
        last = STARTS if number < STARTING else "def test_last(): pass\n"
        (suite / f"test_{number}.py").write_text(nothing + last, encoding="utf-8")
    each = [[*PYTEST, f"--start-method={method}", str(suite)] for method in METHODS]
    number = FILES * TESTS
    yield Comparison(
        f"{number:,} tests of which {STARTING} start a process, 3 methods",
        [*PYTEST, "--start-method=all", str(suite)],
        [sys.executable, "-c", IN_TURN.format(each)],
        AtMostTimes(0.6),
        runs=5,
    )
    yield Comparison(
        "a session of one further method, over its tests",
        [*PYTEST, "--start-method=fork,spawn", str(suite)],
        [*PYTEST, "--start-method=fork", str(suite)],
        AtMostMore(1500 + STARTING * 60),  # a spawn child takes some 60 ms
        runs=5,
    )


if __name__ == "__main__":
    main(benchmark)
