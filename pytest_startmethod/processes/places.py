"""Says where in the user's code a thread is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

LIBRARY = ("multiprocessing", "concurrent", "threading", "queue", "selectors", "asyncio", "logging")
"""The standard library's packages and modules in which threads wait for others."""


def user_line(frame: FrameType | None) -> str:
    """Return the innermost line outside of the standard library's waits: "file:line in function".

    Where there is none, the innermost one.
    """
    place = frame
    while place is not None and package(place) in LIBRARY:
        place = place.f_back
    place = place or frame
    if place is None:
        return "an unknown line"
    return f"{place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_name}"


def package(frame: FrameType) -> str:
    """Return the top-level package of a frame's module."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
