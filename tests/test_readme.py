"""The code in the README runs and prints what the README shows."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from pytest_startmethod.explain import stacks

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)```", re.DOTALL)
SESSION = re.compile(r"```console\n\$ pytest (?P<args>.*?)\n(?P<output>.*?)```", re.DOTALL)
FILES = {file["name"]: file["text"] for file in FILE.finditer(README)}
FAILURE = re.compile(r"<!-- failure: (?P<name>\S+) -->\n```text\n(?P<text>.*?)```", re.DOTALL)
METHODS = multiprocessing.get_all_start_methods()
# What Python warns of by chance: of a pool's threads that end a little later than the pool when the
# next process forks, and where the garbage collector finds a lock while another one is made.
BY_CHANCE = (
    *("-W", "ignore:This process:DeprecationWarning"),
    *("-W", "ignore:ResourceTracker called reentrantly:UserWarning"),
)
# What depends on the machine.
LEFT_OUT = ("platform ", "cachedir: ", "rootdir: ", "configfile: ", "plugins: ")


class Session(NamedTuple):
    args: list[str]
    output: str
    files: dict[str, str]
    """Those that the README shows before."""


def sessions() -> list[Session]:
    return [
        Session(
            shown["args"].split(),
            shown["output"],
            {file["name"]: file["text"] for file in FILE.finditer(README, 0, shown.start())},
        )
        for shown in SESSION.finditer(README)
    ]


def write(pytester: pytest.Pytester, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def comparable(output: str) -> list[str]:
    """Leave out what differs from run to run: times, and what tells of the machine."""
    lines = output.strip().replace("collecting ... ", "").splitlines()
    kept = (
        line for line in lines if not line.startswith(LEFT_OUT) and "session starts" not in line
    )
    return [re.sub(r" *\d+\.\d\ds|^=+ | =+$", "", line).rstrip() for line in kept]


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 12) or pytest.version_tuple < (9, 2),
    reason="the README shows what Python 3.12 and pytest 9.2 print, and others word it otherwise",
)
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session.args[-1])
def test_a_session_prints_what_the_readme_shows(
    pytester: pytest.Pytester, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("CI", raising=False)  # where it is set pytest doesn't shorten lines
    write(pytester, session.files)
    args = ("-p", "no:cacheprovider", "-p", "no:xdist", *BY_CHANCE, *session.args)
    result = pytester.runpytest_subprocess(*args, timeout=60)
    assert comparable(result.stdout.str()) == comparable(session.output)


@pytest.mark.needs("fork", "spawn")
@pytest.mark.skipif(not stacks.AVAILABLE, reason="children can't be asked where they are here")
def test_a_deadlock_is_explained_as_the_readme_shows(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    write(pytester, FILES)
    [shown] = FAILURE.finditer(README)
    options = ("-p", "no:xdist", "-o", "start_method_stall_timeout=1", *BY_CHANCE)
    leak = ("-W", "ignore::pytest_startmethod.ChildProcessLeakWarning")
    methods = "--start-method=fork,spawn"
    result = pytester.runpytest_subprocess(*options, *leak, methods, shown["name"], timeout=60)
    result.assert_outcomes(failed=1, passed=1)
    # The thread may be about to leave the call that wakes the test.
    printed = re.sub(r":9 in refresh", ":10 in refresh", result.stdout.str())
    assert shown["text"] in re.sub(r"\(pid \d+", "(pid 4242", printed)


def test_the_tests_that_the_readme_shows_pass(pytester: pytest.Pytester) -> None:
    tests = [name for name in FILES if name.startswith("test_") and name != "test_app.py"]
    write(pytester, {name: FILES[name] for name in tests})
    result = pytester.runpytest_subprocess("-W", "error::UserWarning", timeout=60)
    result.assert_outcomes(passed=4 * len(METHODS) + 2, xfailed=1)


def test_a_pool_is_shared_as_the_readme_shows(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(pytester, {name: text for name, text in FILES.items() if name.startswith("shared/")})
    monkeypatch.chdir(pytester.path / "shared")
    setup = pytester.runpytest_subprocess("-p", "no:xdist", "--setup-show", timeout=60)
    setup.assert_outcomes(passed=2 * len(METHODS))
    assert sum("SETUP    M pool" in line for line in setup.outlines) == len(METHODS)


def test_the_job_that_the_readme_shows_writes_its_summary(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    *_, run, show = re.findall(r"- run: (.*)", job)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(pytester.path / "summary"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    write(pytester, {"test_pool.py": FILES["test_pool.py"]})
    for command in (run, show):
        subprocess.run(command, shell=True, check=True, cwd=pytester.path)
    summary = (pytester.path / "summary").read_text(encoding="utf-8")
    assert [line for line in summary.splitlines() if line.startswith("| spawn | 1 |")]


def test_the_readme_names_every_package_of_the_plugin() -> None:
    [table] = re.findall(r"\n\| in `pytest_startmethod/` \|.*\n\|-.*\n((?:\|.*\n)*)", README)
    named = re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)
    package = ROOT / "pytest_startmethod"
    assert sorted(named) == sorted(path.parent.name for path in package.glob("*/__init__.py"))


def test_ci_runs_the_command_that_passes_the_tests() -> None:
    [_, tests] = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
