"""Collects only the tests of a session, in their order."""

from __future__ import annotations

import os
from inspect import isfunction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.record import ASKS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping


class SessionTests:
    """The hooks that select `tests`, in their order, and all tests of `files`.

    Both map node ids to paths.
    """

    def __init__(self, tests: Mapping[str, str], files: Mapping[str, str]) -> None:
        self._places = {nodeid: place for place, nodeid in enumerate(tests)}
        self._files = files
        self._whole = {Path(path) for path in files.values()}
        self._paths = {Path(path) for path in tests.values()} | self._whole
        self._folders = {folder for path in self._paths for folder in path.parents}
        parts = (part for nodeid in tests for part in nodeid.split("::"))
        self._names = {part.partition("[")[0] for part in parts}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        """Drop arguments that lead to none of the tests: pytest would import what they name."""
        config = session.config
        kept = [arg for arg in config.args if self._leads_to_test(arg, config)]
        config.args = kept or config.args

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Ignore other files and folders."""
        wanted = collection_path in self._paths or collection_path in self._folders
        return None if wanted else True

    @pytest.hookimpl(tryfirst=True)
    def pytest_pycollect_makeitem(
        self, collector: pytest.Collector, name: str, obj: object
    ) -> list[pytest.Item] | None:
        """Make no items of other functions: that takes most of the time of a collection."""
        if not isfunction(obj) or name in self._names or collector.path in self._whole:
            return None
        return []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        """Keep only the tests, in the order of the first run: some plugins shuffle."""
        result = yield
        place, places = -1, dict[pytest.Item, int]()
        for item in items:
            place = self._places.get(item.nodeid, place)  # a new one runs after the one before
            if item.nodeid in self._places or self._is_new(item):
                places[item] = place
        items[:] = sorted(places, key=places.__getitem__)
        return result

    def _is_new(self, item: pytest.Item) -> bool:
        """Tell whether the first run didn't have a test."""
        # One that asks for its start method ran there under each.
        return item.nodeid.partition("::")[0] in self._files and ASKS not in item.keywords

    def _leads_to_test(self, arg: str, config: pytest.Config) -> bool:
        name = arg.partition("::")[0].partition("[")[0]
        path = Path(os.path.normpath(config.invocation_params.dir / name))
        # An argument that is no path is the name of a package, with --pyargs.
        return not path.exists() or path in self._paths or path in self._folders
