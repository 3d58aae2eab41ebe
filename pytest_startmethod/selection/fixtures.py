"""What may a test ask for?"""

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
    """Return the fixtures as a plugin, made for a run of pytest.

    So they know what there is, and don't ask for `request`, which takes pytest 9.2 longer than all
    the rest.
    """

    @pytest.fixture(scope=settings.scope)
    def start_method() -> str:
        """Name of the multiprocessing start method that the test runs under, such as "fork"."""
        if known.test.parameter is None:
            pytest.fail(
                "this test has no start method: name the fixture among the arguments of the test, "
                "as request.getfixturevalue() comes too late to make a run for each; mark a "
                "unittest.TestCase with start_methods",
                pytrace=False,
            )
        return known.test.parameter

    @pytest.fixture(scope=settings.scope)
    def mp_context(start_method: str) -> Any:  # noqa: ANN401 (a plugin's context is no BaseContext)
        """Return the multiprocessing context of the test's start method.

        It is what multiprocessing.get_context(start_method) returns, or what a plugin offers under
        that name. The process-wide default stays as it is.
        """
        if start_method not in known.contexts:  # a start_method of the suite's own
            pytest.fail(table.unsupported([start_method], list(known.contexts)), pytrace=False)
        return known.contexts[start_method]

    @pytest.fixture(scope=settings.scope)
    def default_start_method(start_method: str) -> Iterator[str]:
        """Make the test's start method the process-wide default while it runs; return its name.

        For code that calls multiprocessing.Process(), Pool() or ProcessPoolExecutor() itself. What
        was the default before, or that none was set, is so again afterwards; a test that doesn't
        ask for this fixture never sees it, whatever its scope.
        """
        before, wanted = contexts.Default.current(), contexts.Default.of(start_method)
        # It is already, by the hook around the run of a test that asks for this by an argument: it
        # also puts it back, whatever the test pins. Not so where a suite has its own start_method.
        set_by_hook = before == wanted and known.test.parameter is not None
        wanted.restore()
        yield start_method
        if not set_by_hook:
            before.restore()

    made = ModuleType(__name__, __doc__)
    vars(made).update(zip(NAMES, (start_method, mp_context, default_start_method), strict=True))
    return made
