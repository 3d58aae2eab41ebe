"""Finds the package of a frame, and the modules of pytest's plugins and of a test."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


INSTALLED = ("site-packages", "dist-packages")
"""The folders that libraries are installed in."""


def is_installed(file: str) -> bool:
    """Tell whether a file belongs to an installed library; it may end with a line number."""
    return any(folder in file for folder in INSTALLED)


def package(frame: FrameType) -> str:
    """Return the top-level package of a frame's module."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def test_modules(item: pytest.Item) -> Sequence[ModuleType]:
    """Return the modules where a test's processes may have targets: its own and conftests."""
    plugins = item.config.pluginmanager.get_plugins()
    conftests = [p for p in plugins if isinstance(p, ModuleType) and _is_conftest(p.__name__)]
    module = item.getparent(pytest.Module)
    return [*conftests, *([module.obj] if module else [])]


def plugin_modules(config: pytest.Config) -> set[str]:
    """Return the names of the modules of pytest's plugins, whose threads aren't the test's.

    What a conftest loads by `pytest_plugins` is the suite's own, unless it is installed.
    """
    plugins = config.pluginmanager.get_plugins()
    named = {p.__name__ if isinstance(p, ModuleType) else type(p).__module__ for p in plugins}
    given = {*config.getoption("plugins"), *System.plugins_variable.split(",")}
    return {name for name in named if name in given or is_installed(_file(name))}


def _file(module: str) -> str:
    return str(getattr(sys.modules.get(module), "__file__", None))


def _is_conftest(name: str) -> bool:
    return name.rpartition(".")[2] == "conftest"
