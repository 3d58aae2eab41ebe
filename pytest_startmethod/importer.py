"""Lets Python's own importer import the plugin's modules.

pytest imports the modules of plugins by an importer that rewrites assertions. That is several times
slower, most of all where no bytecode may be written, and the plugin's modules have no tests.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PREFIX = "pytest_startmethod."


class Finder:
    """Finds the plugin's modules, in front of pytest's finder."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the plugin; None for all others."""
        return PathFinder.find_spec(name, path, target) if name.startswith(PREFIX) else None


@contextmanager
def own_modules() -> Iterator[None]:
    """Put the finder in front of the others while the plugin's modules are imported."""
    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        if Finder in sys.meta_path:  # a hook of others may have replaced the list
            sys.meta_path.remove(Finder)
