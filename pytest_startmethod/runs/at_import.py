"""Tells which files may decide something at import by the process-wide default."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# What tells the default's name: what it decides then can't be seen, as its words are any text.
ASKS = b"get_start_method"


def may_decide(file: Path) -> bool:
    """Tell whether a file asks for the name of the default, maybe as it is imported.

    Its other tests may skip, do or be something else under another start method.
    """
    try:
        return ASKS in file.read_bytes()
    except OSError:  # it is generated, or in an archive
        return False
