"""Keeps the plugin's own errors away from the user's tests."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import TracebackType


class Guard:
    """A context manager that catches the plugin's own errors while a test runs.

    The first error of a run becomes its one warning.
    """

    def __init__(self) -> None:
        self.error = ""
        """The traceback of the first error: text, so it keeps no object alive."""

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _frames: TracebackType | None,
    ) -> bool:
        """Catch and record an error, but not Ctrl-C or an outcome of pytest."""
        if not isinstance(error, Exception) or isinstance(error, pytest.exit.Exception):
            return False
        self.note(error)
        return True

    def note(self, error: Exception) -> None:
        """Record an error that was caught at its place: that is faster than a context."""
        if not self.error:
            self.error = "".join(traceback.format_exception(error))

    def warning(self) -> pytest.PytestWarning | None:
        """Return the warning for the end of the run, if there was an error."""
        if not self.error:
            return None
        return pytest.PytestWarning(
            "pytest-startmethod couldn't watch all processes of this run, because of an error of "
            "its own; it changed the outcome of no test. Please report it to pytest-startmethod, "
            f"with the versions of Python and pytest:\n{self.error}"
        )
