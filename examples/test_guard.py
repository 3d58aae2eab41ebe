"""Why a program that starts processes says ``if __name__ == "__main__"``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(program: str, start_method: str) -> subprocess.CompletedProcess[str]:
    """Run a program from this folder as a user would."""
    command = [sys.executable, str(Path(__file__).with_name(program)), start_method]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_a_guarded_program_works(start_method: str) -> None:
    """With the guard a program works under every method."""
    run("guarded.py", start_method).check_returncode()


@pytest.mark.start_methods("spawn", "forkserver", reason="a forked child imports nothing")
def test_an_unguarded_program_fails(start_method: str) -> None:
    """A child has to import its program, and without the guard that would start the next child."""
    ended = run("unguarded.py", start_method)
    assert ended.returncode != 0
    assert "RuntimeError" in ended.stderr
    assert "finished its bootstrapping phase" in ended.stderr


@pytest.mark.start_methods("fork", reason="only a forked child has its program in memory")
def test_a_forked_child_needs_no_guard(start_method: str) -> None:
    """A program that was only ever forked works without the guard, on the platforms that fork."""
    run("unguarded.py", start_method).check_returncode()
