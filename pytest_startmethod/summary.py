"""How is it worded?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_startmethod.selection import Selection


def header(selection: Selection) -> str:
    """Return the line of the report header: what tests run under, and what they can't."""
    missing = [name for name in selection.selected if name not in selection.methods.supported]
    unusable = {*missing, *selection.unavailable}
    usable = [name for name in selection.selected if name not in unusable]
    notes = [f"platform default: {selection.methods.platform_default}"]
    if missing:
        notes.append(f"not supported: {', '.join(missing)}")
    notes.extend(f"{name} unavailable: {why}" for name, why in selection.unavailable.items())
    return f"start methods: {', '.join(usable) or 'none'} ({'; '.join(notes)})"
