"""Tells which of the standard library's modules are loaded, and calls a function once one is.

The plugin imports none that a run doesn't use: tests could see it, and each fork would copy it.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader
from typing import TYPE_CHECKING, Any

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from pytest_startmethod.guard import Guard


def loaded(module: str, name: str) -> Any:  # noqa: ANN401 (whatever it holds)
    """Return an attribute of a module; None if the module isn't loaded, or not yet in full."""
    return getattr(sys.modules.get(module), name, None)


def loaded_classes(names: Iterable[tuple[str, str]]) -> tuple[type[Any], ...]:
    """Return the classes that are loaded, of those that are named by module and name."""
    found = (loaded(module, name) for module, name in names)
    return tuple(cls for cls in found if isinstance(cls, type))


class LoadHooks:
    """Calls functions when their modules are loaded, from `install` to `uninstall`."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._pid = System.getpid()
        self._functions: dict[str, list[Callable[[ModuleType], object]]] = {}

    def install(self) -> None:
        """Start noticing imports."""
        sys.meta_path.insert(0, self)

    def uninstall(self) -> None:
        """Stop noticing imports."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def add(self, name: str, function: Callable[[ModuleType], object]) -> None:
        """Call a function with a module now, or once it is loaded, and if it is loaded again."""
        self._functions.setdefault(name, []).append(function)
        module = sys.modules.get(name)
        if module is not None:
            with self.guard:
                function(module)

    def remove(self, name: str, function: Callable[[ModuleType], object]) -> None:
        """Call a function no more."""
        self._functions[name].remove(function)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find, for a module that functions are for; else None.

        None also in forked children, which inherit this.
        """
        wanted = self._functions.get(name) and self in sys.meta_path
        if not wanted or System.getpid() != self._pid:
            return None
        # Not guarded: a finder of the suite's may refuse the import.
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]
        finders = (finder for finder in others if hasattr(finder, "find_spec"))
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next(filter(None, specs), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, self._has_loaded)
        return spec

    def _has_loaded(self, module: ModuleType) -> None:
        for function in tuple(self._functions.get(module.__name__, ())):
            with self.guard:
                function(module)


class _Loader(Loader):
    """Loads a module by its own loader, and tells when that is done."""

    def __init__(self, loader: Any, tell: Callable[[ModuleType], object]) -> None:  # noqa: ANN401 (a protocol of few members)
        self._loader = loader
        self._tell = tell

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever it has)
        """Return any other attribute of the module's own loader."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the module's own loader makes of its spec."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Load the module, to which its own loader alone is known."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._tell(module)
