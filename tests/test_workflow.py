"""The workflow tests what the project says that it supports."""

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
    assert sorted(run) == sorted(re.findall(r"^\[testenv:(.*)\]$", tox, re.MULTILINE))
