"""Lets children import the modules that pytest imported without ``sys.path``."""

from __future__ import annotations

import functools
import subprocess
import sys
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    Places = dict[str, tuple[str | None, list[str]]]

# A child runs this before it imports the module of its target: `places` says where the modules are
# that it wouldn't find by sys.path. It is sent as source: to import this module would take long.
FIND = """
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in places:
            return None
        file, folders = places[name]
        spec = file and spec_from_file_location(
            name, file, submodule_search_locations=folders or None
        )
        if not spec:  # a folder: pytest gives it as the file of a package that it makes up
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = folders
        return spec

sys.meta_path.insert(0, Finder)
"""


class Source:
    """Source, or pickled code, that runs where it is unpickled."""

    def __init__(self, source: object, variables: dict[str, Any]) -> None:
        self._arguments = source, variables

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the function and the arguments to call."""
        return exec, self._arguments


def import_error(modules: Sequence[str]) -> str:
    """Return why a fresh interpreter can't import one of these modules; "" if it can."""
    from multiprocessing import spawn  # not loaded otherwise

    code = "import importlib, sys\nsys.path[:], name = eval(sys.argv[1])\n"
    code += "importlib.import_module(name)"
    for name in modules:
        command = [spawn.get_executable(), "-c", code, repr((sys.path, name))]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            return f"can't import {name!r}: {reason or f'exit code {done.returncode}'}"
    return ""


def hidden(module: ModuleType, path: tuple[str, ...]) -> Places:
    """Return where a module and its packages are, if a child wouldn't find them.

    It doesn't if pytest imported them by their files, as ``--import-mode=importlib`` does, or if
    another package of that name comes first: many projects have one called ``tests``.
    """
    spec = found(module.__name__, path)
    if spec is not None and spec.origin == module.__file__:
        return {}
    places = {}
    for name in accumulate(module.__name__.split("."), "{}.{}".format):
        known, spec = sys.modules.get(name), found(name, path)
        file = getattr(known, "__file__", None)
        if spec is None or (known is not None and (file is None or file != spec.origin)):
            places[name] = file, list(getattr(known, "__path__", ()))
    return places


@functools.lru_cache
def found(name: str, path: tuple[str, ...]) -> ModuleSpec | None:
    """Return what an import finds by a name with this ``sys.path``."""
    folders: Sequence[str] = path
    spec = None
    for package in accumulate(name.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(package, folders)
        if spec is None:
            break
        folders = spec.submodule_search_locations or []
    return spec
