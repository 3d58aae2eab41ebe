"""Tells whether the main module is pytest's own script, which children needn't run again."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def is_script_of(distribution: str, main: ModuleType) -> bool:
    """Tell whether a main module is a script that was installed with a distribution.

    It then holds what the entry point of the script names: `console_main` until pytest 9.1,
    `_console_main` since. A user's script that does the same may have targets of its own.
    """
    own = any(getattr(held, "__module__", "") == "__main__" for held in vars(main).values())
    if own or getattr(main, "__spec__", None) is not None:
        return False
    scripts = metadata.distribution(distribution).entry_points.select(group="console_scripts")
    return any(getattr(main, script.attr, None) is script.load() for script in scripts)
