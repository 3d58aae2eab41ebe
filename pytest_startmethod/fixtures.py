"""What may a test ask for?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import contexts, selection, settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Fixtures:
    """The fixtures: a plugin of its own, which knows the contexts by name.

    A function would ask for `request` to find them, which takes pytest 9.2 longer than all the rest.
    """

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    @pytest.fixture(scope=settings.scope)
    def start_method(self, request: pytest.FixtureRequest) -> str:
        """Name of the multiprocessing start method that the test runs under: "fork", for instance."""
        if not hasattr(request, "param"):
            pytest.fail(
                "this test has no start method, as request.getfixturevalue() comes too late to "
                "make a run for each: name the fixture among the arguments of the test",
                pytrace=False,
            )
        return str(request.param)

    @pytest.fixture(scope=settings.scope)
    def mp_context(self, start_method: str) -> Any:  # noqa: ANN401 (a plugin's context is no BaseContext)
        """Return the multiprocessing context of the test's start method.

        It is what multiprocessing.get_context(start_method) returns, or what a plugin offers under
        that name. The process-wide default stays as it is.
        """
        if start_method not in self._known:  # a start_method of the suite's own
            pytest.fail(selection.unsupported([start_method], list(self._known)), pytrace=False)
        return self._known[start_method]

    @pytest.fixture(scope=settings.scope)
    def default_start_method(self, start_method: str) -> Iterator[str]:
        """Make the test's start method the process-wide default while the test runs; its name.

        For code that calls multiprocessing.Process(), Pool() or ProcessPoolExecutor() itself. What
        was the default before, or that none was set, is so again afterwards; a test that doesn't
        ask for this fixture never sees it, whatever its scope.
        """
        # It is already, by the hook around the run of a test that asks for this by an argument.
        before, wanted = contexts.Default.current(), contexts.Default.of(start_method)
        wanted.restore()
        yield start_method
        if before != wanted:
            before.restore()
