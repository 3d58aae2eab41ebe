"""Lets Python import the plugin's modules, and not pytest.

pytest imports all modules of plugins itself, to rewrite their assertions. That takes a multiple of
the time, more still where no bytecode may be written, and the plugin asserts nothing.
"""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PREFIX = "pytest_startmethod."


class Finder:
    """Finds the plugin's modules as Python does, before pytest is asked."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the plugin's, None for others."""
        return PathFinder.find_spec(name, path, target) if name.startswith(PREFIX) else None


def install() -> None:
    """Import the plugin's modules by Python from now on."""
    sys.meta_path.insert(0, Finder)


def uninstall() -> None:
    """Leave it to pytest again."""
    if Finder in sys.meta_path:
        sys.meta_path.remove(Finder)
