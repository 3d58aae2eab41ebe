"""What the README shows is what happens."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```python\n(?P<text>.*?)```", re.DOTALL)
SESSION = re.compile(r"```console\n\$ pytest (?P<args>.*?)\n(?P<output>.*?)```", re.DOTALL)
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
    for name, text in session.files.items():
        pytester.path.joinpath(name).write_text(text, encoding="utf-8")
    args = ("-p", "no:cacheprovider", "-p", "no:xdist", *session.args)
    result = pytester.runpytest_subprocess(*args, timeout=60)
    assert comparable(result.stdout.str()) == comparable(session.output)


def test_the_files_that_the_readme_shows_work(pytester: pytest.Pytester) -> None:
    files = {file["name"]: file["text"] for file in FILE.finditer(README)}
    for name in ("test_pool.py", "test_marked.py", "test_crash.py"):
        pytester.path.joinpath(name).write_text(files[name], encoding="utf-8")
    result = pytester.runpytest_subprocess("-W", "error::UserWarning", timeout=60)
    result.assert_outcomes(passed=8, xfailed=1)


def test_ci_runs_the_command_that_passes_the_tests() -> None:
    [_, tests] = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    assert tests in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
