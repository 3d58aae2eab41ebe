"""How is it worded: by plain calls."""

from __future__ import annotations

import pytest

from pytest_startmethod.selection import Methods, Selection
from pytest_startmethod.summary import header

THREE = ("fork", "spawn", "forkserver")
LINUX = Methods(THREE, THREE, THREE, platform_default="fork")
WINDOWS = Methods(THREE, ("spawn",), ("spawn",), platform_default="spawn")


@pytest.mark.parametrize(
    ("selection", "line"),
    [
        (
            Selection(LINUX, THREE, by_user=False),
            "start methods: fork, spawn, forkserver (platform default: fork)",
        ),
        (
            Selection(LINUX, ("spawn",), by_user=True),
            "start methods: spawn (platform default: fork)",
        ),
        (
            Selection(WINDOWS, THREE, by_user=True),
            "start methods: spawn (platform default: spawn; not supported: fork, forkserver)",
        ),
        (
            Selection(LINUX, ("fork", "spawn"), True, {"fork": "CUDA is initialised"}),
            "start methods: spawn (platform default: fork; fork unavailable: CUDA is initialised)",
        ),
        (
            Selection(LINUX, ("fork",), True, {"fork": "CUDA is initialised"}),
            "start methods: none (platform default: fork; fork unavailable: CUDA is initialised)",
        ),
    ],
)
def test_the_header_says_what_tests_run_under_and_what_they_cannot(
    selection: Selection, line: str
) -> None:
    assert header(selection) == line
