"""Suggests the plugin's option and marker to users who misspell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import warnings
    from collections.abc import Sequence

OPTIONS = ("--start-method", "--start-method-report")
HINT = "did you mean @pytest.mark.start_methods?"

# How pytest's warning begins, and its error under --strict-markers.
UNKNOWN = "Unknown pytest.mark.start_method - "
NOT_FOUND = "'start_method' not found in `markers`"


def check_options(parser: pytest.Parser, args: Sequence[str]) -> None:
    """Raise `pytest.UsageError` for an unknown option that resembles one of the plugin's."""
    _, unknown = parser.parse_known_and_unknown_args(args)
    for arg in unknown:
        from difflib import get_close_matches  # seldom needed

        option, equals, value = arg.partition("=")
        for close in get_close_matches(option, OPTIONS, n=1, cutoff=0.8):
            raise pytest.UsageError(
                f"unrecognized arguments: {arg}, did you mean {close}{equals}{value}?"
            )


def suggest_in_warning(recorded: warnings.WarningMessage) -> None:
    """Suggest the plugin's marker in pytest's warning of an unknown one."""
    if str(recorded.message).startswith(UNKNOWN):
        recorded.message = pytest.PytestUnknownMarkWarning(UNKNOWN + HINT)


def suggest_in_error(report: pytest.CollectReport) -> None:
    """Suggest the plugin's marker in pytest's error of an unknown one."""
    is_suggested = any(HINT in section for section in report.sections)  # by pytest-xdist's worker
    if not is_suggested and any(text in report.longreprtext for text in (UNKNOWN, NOT_FOUND)):
        report.sections.append(("hint", HINT))
