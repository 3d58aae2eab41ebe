"""Keeps the plugin's own errors away from the user's tests."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, TracebackType


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
        """Record an error that the caller has caught; this is faster than the context manager.

        Raises an error that comes from a signal handler again: it is the test's.
        """
        if _comes_from_handler(error):
            raise error
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


def _comes_from_handler(error: Exception) -> bool:
    """Tell whether an error comes from a signal handler, which may run at any time."""
    codes = set(_handlers())
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _handlers() -> Iterator[CodeType]:
    """Return the code objects of all signal handlers except the plugin's own."""
    for signum in System.SIGNALS:
        handler: Any = System.get_handler(signum)
        with suppress(Exception):  # an object of the user's
            call = handler if hasattr(handler, "__code__") else type(handler).__call__
            function = getattr(handler, "__func__", call)
            if not function.__module__.startswith("pytest_startmethod"):
                yield function.__code__
