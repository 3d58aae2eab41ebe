"""Finds test files that may depend on the process-wide default when they are imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# The function that returns the name of the default: what a file does with a name can't be watched.
ASKS = b"get_start_method"


def may_decide(file: Path) -> bool:
    """Tell whether a file may ask for the name of the default when it is imported.

    Under another start method it may have other tests, or skip them.
    """
    try:
        return ASKS in file.read_bytes()
    except OSError:  # it is generated, or in an archive
        return False
