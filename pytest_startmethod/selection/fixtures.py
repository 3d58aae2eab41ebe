"""The fixtures ``start_method``, ``mp_context`` and ``default_start_method``."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import settings
from pytest_startmethod.selection import contexts, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_startmethod.settings import Settings

NAMES = ("start_method", "mp_context", "default_start_method")


def plugin(known: Settings) -> ModuleType:
    """Return the fixtures as a plugin, made for one run of pytest.

    So they know the settings without asking for `request`, which takes pytest 9.2 longer than
    everything else.
    """

    @pytest.fixture(scope=settings.scope)
    def start_method() -> str:
        """Name of the multiprocessing start method that the test runs under, such as "fork"."""
        if known.test.parameter is None:
            pytest.fail(
                "this test has no start method: request.getfixturevalue() comes too late to make "
                "a run for each. Name the fixture among the arguments of the test, or mark a "
                "unittest.TestCase with start_methods",
                pytrace=False,
            )
        return known.test.parameter

    @pytest.fixture(scope=settings.scope)
    def mp_context(start_method: str) -> Any:  # noqa: ANN401 (a plugin's context is no BaseContext)
        """Return the multiprocessing context of the test's start method.

        It is what multiprocessing.get_context(start_method) returns, or what a plugin offers under
        that name. The process-wide default doesn't change.
        """
        if start_method not in known.contexts:  # the suite overrides start_method
            pytest.fail(table.unsupported([start_method], list(known.contexts)), pytrace=False)
        return known.contexts[start_method]

    @pytest.fixture(scope=settings.scope)
    def default_start_method(start_method: str) -> Iterator[str]:
        """Make the test's start method the process-wide default while it runs; return its name.

        For code that calls multiprocessing.Process(), Pool() or ProcessPoolExecutor() itself. The
        default is restored afterwards, even if none was set. Tests that don't ask for this fixture
        never see its default, whatever the scope.
        """
        before, wanted = contexts.Default.current(), contexts.Default.of(start_method)
        # If the test asks for this fixture by an argument, the hook around the test has set the
        # default already, and restores it. Not so if the suite overrides start_method.
        set_by_hook = before == wanted and known.test.parameter is not None
        wanted.restore()
        yield start_method
        if not set_by_hook:
            before.restore()

    made = ModuleType(__name__, __doc__)
    vars(made).update(zip(NAMES, (start_method, mp_context, default_start_method), strict=True))
    return made
