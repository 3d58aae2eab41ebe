"""How much more does one command take than another? Run in turns, in whole processes."""

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
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# A package that was installed is compiled, and so is this one when it has been run once.
ENVIRONMENT = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


@dataclass(frozen=True)
class AtMostTimes:
    """A target for how many times as much the command may take."""

    limit: float

    def measure(self, ours: float, baseline: float) -> float:
        """Compare two runs that followed each other."""
        return ours / baseline

    def show(self, measured: float) -> str:
        """Write a figure of this kind."""
        return f"x {measured:.3f}"


@dataclass(frozen=True)
class AtMostMore:
    """A target for how many milliseconds longer the command may take."""

    limit: float

    def measure(self, ours: float, baseline: float) -> float:
        """Compare two runs that followed each other."""
        return (ours - baseline) * 1000

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
    memory: bool = False
    """Whether it is about memory, not time."""


def main(*benchmarks: Callable[[Path], Iterable[Comparison]]) -> None:
    """Measure what the benchmarks compare and print it; each gets a folder for its suites."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, help="runs of each command (default: its own number)")
    parser.add_argument("--quick", action="store_const", const=3, dest="runs", help="--runs=3")
    parser.add_argument(
        "--cpu",
        action="store_const",
        const="cpu_seconds",
        default="seconds",
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
                of, unit = ("megabytes", "MB") if comparison.memory else (options.clock, "s")
                baseline, ours, costs = measure(comparison, options.runs or comparison.runs, of)
                target = comparison.target
                figures = [f"{baseline:.3f} {unit}", f"{ours:.3f} {unit}", target.show(costs)]
                met = "yes" if costs <= target.limit else "NO"
                print(row(comparison.title, *figures, target.show(target.limit), met), flush=True)


def measure(comparison: Comparison, runs: int, of: str) -> tuple[float, float, float]:
    """Return the medians: what the baseline uses, what the command does, and what each pair costs.

    The third is a median of its own, as a machine gets slower and faster in the course of all runs
    and hardly between two that follow each other.
    """
    commands = (comparison.baseline, comparison.command)
    for command in commands:  # once unmeasured, for what is written and cached by a first run
        _run(command, comparison.folder)
    pairs = []
    for number in range(runs):
        # Either may come first: the second of two finds another machine than the first.
        order = (0, 1) if number % 2 else (1, 0)
        used = {place: getattr(_run(commands[place], comparison.folder), of) for place in order}
        pairs.append((used[0], used[1]))
    costs = [comparison.target.measure(ours, baseline) for baseline, ours in pairs]
    baselines, all_ours = zip(*pairs, strict=True)
    return statistics.median(baselines), statistics.median(all_ours), statistics.median(costs)


class Used(NamedTuple):
    """What a process used."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    """At its peak."""


def _run(command: Sequence[str], folder: Path | None) -> Used:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)  # not on Windows
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.exit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read()}")
    kilobytes = used.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Used(seconds, used.ru_utime + used.ru_stime, kilobytes / 1024)


def write_suite(folder: Path, name: str, source: str) -> Path:
    """Write a suite of one module with an ini-file of its own, and return its folder."""
    suite = folder / name
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (suite / "test_it.py").write_text(source, encoding="utf-8")
    return suite
