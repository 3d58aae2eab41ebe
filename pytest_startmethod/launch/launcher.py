"""Changes how the standard library starts processes, and restores it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING, Any

from pytest_startmethod.launch import listener
from pytest_startmethod.launch.forkservers import Forkservers
from pytest_startmethod.launch.imports import FIND, Source, hidden
from pytest_startmethod.launch.script import is_script_of
from pytest_startmethod.load_hooks import loaded
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.load_hooks import LoadHooks


# What a child runs first of all. A forkserver has imported the module, for all its children.
LISTEN = """
try:
    import sys
    module = sys.modules.get("pytest_startmethod.launch.listener")
    scope = vars(module) if module else {}
    module or exec(source, scope)
    scope["begin"](signum)
except Exception:
    pass
"""


class Launcher:
    """Helps the processes that are started between `install` and `uninstall`.

    `preload` names the modules that a forkserver imports before it forks, besides pytest; `modules`
    returns those whose functions may be targets of processes; by `signum` children are asked where
    they are, if it isn't 0.
    """

    def __init__(
        self,
        preload: Sequence[str],
        modules: Callable[[], Iterable[ModuleType]],
        guard: Guard,
        load_hooks: LoadHooks,
        *,
        signum: int = 0,
    ) -> None:
        self._preload = preload
        self._modules = modules
        self._guard = guard
        self._load_hooks = load_hooks
        self._signum = signum
        self._listener = b""  # its source
        self._servers: Forkservers | None = None
        self._main_is_script = False
        self._put_back = ExitStack()

    def prepare(self) -> None:
        """Read what is needed, before a test may hide the file system."""
        with self._guard:
            self._main_is_script = is_script_of("pytest", sys.modules["__main__"])
        if self._signum:
            with self._guard:
                self._listener = System.read_all(str(listener.__file__))

    def install(self) -> None:
        """Help the processes that are started from now on."""
        if self._main_is_script:
            # As after "python -m pytest": multiprocessing doesn't run that main module again.
            main = sys.modules["__main__"]
            self._patch(main, "__spec__", ModuleSpec("pytest.__main__", None))
        self._with("multiprocessing.spawn", self._wrap_preparation_data)
        self._with("multiprocessing.forkserver", self._install_servers)

    def _with(self, name: str, function: Callable[[ModuleType], None]) -> None:
        self._put_back.callback(self._load_hooks.remove, name, function)
        self._load_hooks.add(name, function)

    def _wrap_preparation_data(self, spawn: ModuleType) -> None:
        wrapped = partial(self._preparation_data, spawn.get_preparation_data)
        self._patch(spawn, "get_preparation_data", wrapped)

    def _install_servers(self, forkserver: ModuleType) -> None:
        servers = Forkservers(forkserver, self._preload, self._guard)
        servers.install()
        self._servers = servers
        self._put_back.callback(servers.uninstall)

    def uninstall(self) -> None:
        """Restore everything, and stop the forkservers."""
        with self._guard:
            self._put_back.close()
            self._servers = None

    def launched(self, popen: object) -> None:
        """Record the object that holds the process which was just started."""
        if getattr(popen, "method", "") == "forkserver" and self._servers is not None:
            self._servers.launched(popen)

    def helpers(self) -> list[int]:
        """Return the pids of the processes that serve multiprocessing itself.

        The tracker's pid is private, since Python 3.4; where it goes missing, the tracker counts as
        one that may answer, as long as it moves.
        """
        held = loaded("multiprocessing.resource_tracker", "_resource_tracker")
        tracker = getattr(held, "_pid", None)
        servers = () if self._servers is None else self._servers.pids()
        return [pid for pid in (tracker, *servers) if pid]

    def test_ended(self) -> None:
        """Stop the forkservers that no test needs any more."""
        if self._servers is not None:
            self._servers.retire()

    def _patch(self, place: ModuleType, name: str, new: object) -> None:
        self._put_back.callback(setattr, place, name, getattr(place, name))
        setattr(place, name, new)

    def _preparation_data(
        self, original: Callable[[str], dict[str, Any]], name: str
    ) -> dict[str, Any]:
        """Let a child tell where it is, and import what pytest didn't import by ``sys.path``."""
        pinned = System.get_start_method(allow_none=True)
        data = original(name)
        with self._guard:
            if pinned is None:  # until Python 3.13 to ask for the data is to pin the default
                System.set_start_method(None, force=True)
            if self._listener:
                variables = {"source": self._listener, "signum": self._signum}
                data["pytest_startmethod_stacks"] = Source(LISTEN, variables)
            path = tuple(data.get("sys_path", ()))
            places = {k: v for module in self._modules() for k, v in hidden(module, path).items()}
            if places:
                data["pytest_startmethod"] = Source(FIND, {"places": places})
        return data
