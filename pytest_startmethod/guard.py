"""Keeps the plugin's own errors away from the user's tests."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import TracebackType


class Guard:
    """A context in which the plugin looks at a test: an error there is noted, and goes no further.

    The first one of a run becomes its one warning.
    """

    def __init__(self) -> None:
        self.error = ""
        """The traceback of the first error, as text, which keeps nothing alive."""

    def __enter__(self) -> None:
        """Begin to look."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _frames: TracebackType | None,
    ) -> bool:
        """Note an error. Ctrl-C and the outcomes of pytest are none."""
        if not isinstance(error, Exception) or isinstance(error, pytest.exit.Exception):
            return False
        self.note(error)
        return True

    def note(self, error: Exception) -> None:
        """Note an error, where it is caught at the place itself: that is faster than a context."""
        if not self.error:
            self.error = "".join(traceback.format_exception(error))

    def warning(self) -> pytest.PytestWarning | None:
        """Return what is to be said at the end of the run, if anything went wrong."""
        if not self.error:
            return None
        return pytest.PytestWarning(
            "pytest-startmethod couldn't watch all processes of this run, by an error of its own; "
            "no outcome of a test comes of it. Please report it to pytest-startmethod, with the "
            f"versions of Python and pytest:\n{self.error}"
        )
