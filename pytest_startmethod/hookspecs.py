"""The hooks that other plugins and conftests may implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.hookspec
def pytest_startmethod_contexts(config: pytest.Config) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Return contexts by name: additional ones, or replacements for the standard library's.

    Each context is offered to tests as a start method of that name: a module or an object with a
    callable ``Process``, such as ``multiprocess.get_context("spawn")``. It never becomes the
    process-wide default. Called once, in ``pytest_configure``, in plugins and initial conftests. It
    is a usage error if two of them offer the same name.
    """


@pytest.hookspec  # not firstresult: plugins are asked one by one, until one has a reason
def pytest_startmethod_unavailable(config: pytest.Config, start_method: str) -> str | None:
    """Return a reason not to use a start method here, or None.

    The start method stays selected; its runs are skipped with the reason. Called once for each
    selected start method, in ``pytest_configure``, in plugins and initial conftests, until one
    returns a reason.
    """
