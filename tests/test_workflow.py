"""The workflow tests all that the project claims to support."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_every_python_that_is_classified_is_tested() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    [versions] = re.findall(r"python: \[(.*)\]", WORKFLOW)
    assert re.findall(r'"(.*?)"', versions) == re.findall(r":: (3\.\d+)\"", project)


def test_every_environment_of_its_own_is_run() -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    run = re.findall(r"environment: ([\w-]+),", WORKFLOW)
    run.append("windows")  # by Wine, where there is no Windows: the workflow has jobs on Windows
    assert sorted(run) == sorted(re.findall(r"^\[testenv:(.*)\]$", tox, re.MULTILINE))


def test_other_platforms_run_the_files_that_pass_with_a_windows_python() -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    [commands] = re.findall(r"(?s)^\[testenv:windows\].*?^commands =(.*?)^\[", tox, re.MULTILINE)
    by_wine = {*re.findall(r"tests/[\w/]*test_\w+\.py", commands)}
    named = re.findall(r"tests/[\w/]*test_\w+\.py", WORKFLOW)
    assert named == sorted(by_wine)
    assert by_wine <= {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")}
