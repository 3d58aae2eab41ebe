"""Warns of what was found; the user's filters decide whether that fails the test."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.warning_classes import (
    ChildProcessCrashWarning,
    ChildProcessLeakWarning,
    SharedMemoryLeakWarning,
    StartMethodMismatchWarning,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

OWN = (
    StartMethodMismatchWarning,
    ChildProcessCrashWarning,
    ChildProcessLeakWarning,
    SharedMemoryLeakWarning,
)


def warn(
    item: pytest.Item, found: Iterable[Warning], *, untouched: bool
) -> pytest.ExceptionInfo[Any] | None:
    """Warn at a test; return the failure of those that the user makes errors.

    An `untouched` test is failed by a filter only that names the class of the warning, or this
    package: not by one that makes all warnings errors.
    """
    errors = [error for warning in found if (error := _raised(item, warning, untouched))]
    if not errors:
        return None
    try:
        pytest.fail("\n".join(errors), pytrace=False)
    except pytest.fail.Exception as failure:
        return pytest.ExceptionInfo.from_exception(failure)


def warn_of_run(warning: Warning) -> None:
    """Warn of the run: it is too late for an error to fail any test."""
    with warnings.catch_warnings(), suppress(Warning):
        if not _is_named(warning):
            warnings.simplefilter("always")
        warnings.warn(warning, stacklevel=1)


def is_ignored(warning: Warning) -> bool:
    """Tell whether the user's filters ignore a warning."""
    decides = _deciding(warning)
    return decides is not None and decides[0] == "ignore"


def _raised(item: pytest.Item, warning: Warning, untouched: bool) -> str:
    try:
        if untouched and not _is_named(warning):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                item.warn(warning)
        else:
            item.warn(warning)
    except Warning as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _is_named(warning: Warning) -> bool:
    """Tell whether the filter that decides on a warning names its class, text or package."""
    decides = _deciding(warning)
    if decides is None:
        return False
    _, text, category, module = decides
    own = any(category is known for known in OWN)
    return own or bool(text) or "pytest_startmethod" in module


def _deciding(warning: Warning) -> tuple[str, str, object, str] | None:
    """Return the action, text, class and module of the filter that decides on a warning."""
    for action, message, category, module, _ in warnings.filters:
        # Strings in the filters of Python's own.
        text = str(getattr(message, "pattern", message) or "")
        if isinstance(warning, category) and (
            not text or re.match(text, str(warning), re.IGNORECASE)
        ):
            return action, text, category, str(getattr(module, "pattern", module) or "")
    return None
