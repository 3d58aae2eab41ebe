"""Finds the package of a frame, and the modules of pytest's plugins and of a test."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


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
    """Return the names of the modules of pytest's plugins, whose threads aren't the test's."""
    plugins = config.pluginmanager.get_plugins()
    named = {p.__name__ if isinstance(p, ModuleType) else type(p).__module__ for p in plugins}
    return {name for name in named if not _is_conftest(name)}


def _is_conftest(name: str) -> bool:
    return name.rpartition(".")[2] == "conftest"
