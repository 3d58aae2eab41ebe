"""How long does a child take, of a bare script, of plain pytest and of pytest with the plugin?"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from compare import ENVIRONMENT, AtMostTimes, write_suite
from untouched import WITHOUT

if TYPE_CHECKING:
    from collections.abc import Callable

PYTEST = [str(Path(sys.executable).with_name("pytest")), "-q", "-p", "no:cacheprovider"]

CHILDREN = 20

# What children import: as little as can be.
HELPER = """
def target():
    pass
"""

# What they don't import.
MEASURE = f"""
import json
import os
import statistics
import time

def measure(title, context, target):
    seconds = []
    for _ in range(1 + {CHILDREN}):  # the first starts the forkserver
        started = time.perf_counter()
        process = context.Process(target=target)
        process.start()
        process.join()
        seconds.append(time.perf_counter() - started)
        assert process.exitcode == 0
    with open(os.environ["MEASURED"], "a") as file:
        print(json.dumps([title, statistics.median(seconds[1:])]), file=file)
"""

# Each child imports the module of its target, as it does under pytest. (From Python 3.14 on a
# forkserver preloads the script, and with it what the script imports at its top.)
SCRIPT = """
import multiprocessing

if __name__ == "__main__":
    import helper
    from measure import measure

    for method in "fork", "spawn", "forkserver":
        measure(method, multiprocessing.get_context(method), helper.target)
"""

# What the plugin's forkserver preloads, too: that price is the user's choice.
PRELOADING_SCRIPT = SCRIPT.replace(
    "    for method in",
    """    multiprocessing.set_forkserver_preload(["__main__", "pytest"])
    for method in""",
)

SUITE = """
import multiprocessing
import helper
import pytest

def target():
    pass

{decorator}
def test_helper({argument}):
    from measure import measure

    measure({method}, {context}, helper.target)

{decorator}
def test_module({argument}):
    from measure import measure

    measure({method} + ", target in the test module", {context}, target)
"""

WITH_PLUGIN = SUITE.format(
    decorator="",
    argument="mp_context",
    method="mp_context.get_start_method()",
    context="mp_context",
)

BY_HAND = SUITE.format(
    decorator='@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])',
    argument="method",
    method="method",
    context="multiprocessing.get_context(method)",
)


IN_THE_TEST_MODULE = "{}, target in the test module".format


class Row(NamedTuple):
    """One row of the table: a child of the plugin's, and whose child it is compared with."""

    child: str
    other: str
    other_child: str
    target: AtMostTimes | None


ROWS = (
    Row("spawn", "bare script", "spawn", AtMostTimes(1.10)),
    Row("forkserver", "that preloads", "forkserver", AtMostTimes(1.05)),
    Row("forkserver", "bare script", "forkserver", AtMostTimes(1.20)),
    Row(IN_THE_TEST_MODULE("forkserver"), "bare script", "forkserver", AtMostTimes(1.50)),
    Row("spawn", "plain pytest", "spawn", AtMostTimes(0.45)),
    Row(
        IN_THE_TEST_MODULE("forkserver"),
        "plain pytest",
        IN_THE_TEST_MODULE("forkserver"),
        AtMostTimes(0.15),
    ),
    Row("fork", "plain pytest", "fork", AtMostTimes(1.05)),
    # No target: each spawn child imports the module of its target, and what that imports. So it
    # costs about what importing pytest does, and a target in a helper module doesn't.
    Row(IN_THE_TEST_MODULE("spawn"), "plain pytest", IN_THE_TEST_MODULE("spawn"), None),
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="runs of each (default: %(default)s)")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, {CHILDREN} children in a row, medians of "
        f"{options.runs} runs in turns\n"
    )
    row = "{:38} {:13} {:>9} {:>9} {:>9} {:>9}  {}".format
    print(row("child", "against", "baseline", "plugin", "costs", "at most", "met"))
    with tempfile.TemporaryDirectory() as folder:
        runners = _runners(Path(folder))
        for run in runners.values():  # once unmeasured: it compiles the modules
            run()
        rounds = [{name: run() for name, run in runners.items()} for _ in range(options.runs)]
    for child, other, other_child, target in ROWS:
        pairs = [(turn[other][other_child], turn["plugin"][child]) for turn in rounds]
        baseline, ours = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
        show = (target or AtMostTimes(0)).show
        costs = statistics.median(ours / baseline for baseline, ours in pairs)
        figures = [f"{baseline * 1000:.1f} ms", f"{ours * 1000:.1f} ms", show(costs)]
        if target is not None:
            figures += [show(target.limit), "yes" if costs <= target.limit else "NO"]
        print(row(child, other, *figures, *[""] * (5 - len(figures))))


def _runners(folder: Path) -> dict[str, Callable[[], dict[str, float]]]:
    script, preloads = folder / "script", folder / "preloads"
    for place, source in ((script, SCRIPT), (preloads, PRELOADING_SCRIPT)):
        place.mkdir()
        (place / "script.py").write_text(source, encoding="utf-8")
    commands = {
        "bare script": ([sys.executable, "script.py"], script),
        "that preloads": ([sys.executable, "script.py"], preloads),
        "plugin": (PYTEST, write_suite(folder, "with_plugin", WITH_PLUGIN)),
        "plain pytest": ([*PYTEST, *WITHOUT], write_suite(folder, "by_hand", BY_HAND)),
    }
    for _, place in commands.values():
        (place / "helper.py").write_text(HELPER, encoding="utf-8")
        (place / "measure.py").write_text(MEASURE, encoding="utf-8")
    return {name: functools.partial(_run, *command) for name, command in commands.items()}


def _run(command: list[str], folder: Path) -> dict[str, float]:
    """Return the median of seconds by kind of child."""
    measured = folder / "measured"
    measured.unlink(missing_ok=True)
    environment = {**ENVIRONMENT, "MEASURED": str(measured)}
    run = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True
    )
    if run.returncode:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout}{run.stderr}")
    return dict(map(json.loads, measured.read_text(encoding="utf-8").splitlines()))


if __name__ == "__main__":
    main()
