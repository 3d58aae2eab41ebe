"""How much longer does one command take than another? Run in turns, in whole processes."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# A package that was installed is compiled, and so is this one when it has been run once.
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class AtMostTimes:
    """A target for how many times as long the command may take."""

    limit: float

    def measure(self, seconds: float, baseline: float) -> float:
        """Compare two runs that followed each other."""
        return seconds / baseline

    def show(self, measured: float) -> str:
        """Write a figure of this kind."""
        return f"x {measured:.3f}"


@dataclass(frozen=True)
class AtMostMore:
    """A target for how many milliseconds longer the command may take."""

    limit: float

    def measure(self, seconds: float, baseline: float) -> float:
        """Compare two runs that followed each other."""
        return (seconds - baseline) * 1000

    def show(self, measured: float) -> str:
        """Write a figure of this kind."""
        return f"{measured:+.1f} ms"


@dataclass(frozen=True)
class Comparison:
    """One row of the table: a command, what it is compared with, and what it may cost."""

    title: str
    command: Sequence[str]
    baseline: Sequence[str]
    target: AtMostTimes | AtMostMore
    runs: int = 11
    folder: Path | None = None


def main(*benchmarks: Callable[[Path], Iterable[Comparison]]) -> None:
    """Measure what the benchmarks compare and print it; each gets a folder for its suites."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, help="runs of each command (default: its own number)")
    parser.add_argument("--quick", action="store_const", const=3, dest="runs", help="--runs=3")
    parser.add_argument(
        "--cpu",
        action="store_const",
        const=_cpu_seconds,
        default=time.perf_counter,
        dest="clock",
        help="compare processor time, for a machine that is busy with other work",
    )
    options = parser.parse_args()

    print(f"Python {platform.python_version()}, medians of runs in turns\n")
    row = "{:58} {:>9} {:>9} {:>9} {:>9}  {}".format
    print(row("", "baseline", "plugin", "costs", "at most", "met"))
    for benchmark in benchmarks:
        with tempfile.TemporaryDirectory() as folder:
            for comparison in benchmark(Path(folder)):
                baseline, ours, costs = measure(
                    comparison, options.runs or comparison.runs, options.clock
                )
                target = comparison.target
                figures = [f"{baseline:.3f} s", f"{ours:.3f} s", target.show(costs)]
                met = "yes" if costs <= target.limit else "NO"
                print(row(comparison.title, *figures, target.show(target.limit), met), flush=True)


def measure(
    comparison: Comparison, runs: int, clock: Callable[[], float]
) -> tuple[float, float, float]:
    """Return the medians: seconds of the baseline, of the command, and what each pair costs.

    The third is a median of its own, as a machine gets slower and faster in the course of all runs
    and hardly between two that follow each other.
    """
    commands = (comparison.baseline, comparison.command)
    for command in commands:  # once unmeasured, for what is written and cached by a first run
        _seconds(command, comparison.folder, clock)
    pairs = [
        [_seconds(command, comparison.folder, clock) for command in commands] for _ in range(runs)
    ]
    costs = [comparison.target.measure(ours, baseline) for baseline, ours in pairs]
    baselines, all_ours = zip(*pairs, strict=True)
    return statistics.median(baselines), statistics.median(all_ours), statistics.median(costs)


def _seconds(command: Sequence[str], folder: Path | None, clock: Callable[[], float]) -> float:
    started = clock()
    run = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, check=False, capture_output=True, text=True
    )
    seconds = clock() - started
    if run.returncode:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return seconds


def _cpu_seconds() -> float:
    import resource  # not on Windows

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write_suite(folder: Path, name: str, source: str) -> Path:
    """Write a suite of one module with an ini-file of its own, and return its folder."""
    suite = folder / name
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (suite / "test_it.py").write_text(source, encoding="utf-8")
    return suite
