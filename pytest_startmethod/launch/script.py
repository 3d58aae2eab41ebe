"""Finds out whether the main module is pytest's own script, which children needn't run again."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def is_script_of(distribution: str, main: ModuleType) -> bool:
    """Return whether a main module is a script that was installed with a distribution.

    It then has the function that the script's entry point names: `console_main` up to pytest 9.1,
    `_console_main` since. A script with functions of its own may have targets of processes.
    """
    own = any(getattr(held, "__module__", "") == "__main__" for held in vars(main).values())
    if own or getattr(main, "__spec__", None) is not None:
        return False
    scripts = metadata.distribution(distribution).entry_points.select(group="console_scripts")
    return any(getattr(main, script.attr, None) is script.load() for script in scripts)
