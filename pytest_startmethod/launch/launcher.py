"""How do children start fast and clean?"""

from __future__ import annotations

import functools
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from itertools import accumulate
from multiprocessing import spawn
from typing import TYPE_CHECKING, Any

try:
    from multiprocessing import forkserver
except ImportError:  # as on Windows
    forkserver = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    Places = dict[str, tuple[str | None, list[str]]]

# What a child runs before it looks for its target: `places` says where modules are that it wouldn't
# find by sys.path. It is sent as source, for a child that would take long to import this module.
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


class Launch:
    """Has a hand in how the standard library starts processes, from `install` to `uninstall`.

    `preload` names the modules that a forkserver imports before it forks, besides pytest; `modules`
    returns those whose functions may be targets of processes.
    """

    def __init__(self, preload: Sequence[str], modules: Callable[[], Iterable[ModuleType]]) -> None:
        self._modules = modules
        self._servers = Servers(tuple(preload))
        self._put_back = ExitStack()

    def install(self) -> None:
        """Begin to serve the processes that are started from now on."""
        main = sys.modules["__main__"]
        if is_script_of("pytest", main):
            # As after "python -m pytest", whose main module multiprocessing doesn't run again.
            self._patch(main, "__spec__", ModuleSpec("pytest.__main__", None))
        self._get_preparation_data = spawn.get_preparation_data
        self._patch(spawn, "get_preparation_data", self._preparation_data)
        if forkserver is not None:
            self._put_back.callback(self._servers.stop)
            self._patch(forkserver, "connect_to_new_process", self._servers.connect)

    def uninstall(self) -> None:
        """Put everything back, and stop the forkservers."""
        self._put_back.close()

    def test_ended(self) -> None:
        """Stop the forkservers that nobody needs any more."""
        self._servers.retire()

    def _patch(self, place: ModuleType, name: str, new: object) -> None:
        self._put_back.callback(setattr, place, name, getattr(place, name))
        setattr(place, name, new)

    def _preparation_data(self, name: str) -> dict[str, Any]:
        """Let a child import the modules that pytest didn't import by ``sys.path``."""
        pinned = multiprocessing.get_start_method(allow_none=True)
        data: dict[str, Any] = self._get_preparation_data(name)
        if pinned is None:  # until Python 3.13 to ask for the data is to pin the default
            multiprocessing.set_start_method(None, force=True)
        path = tuple(data.get("sys_path", ()))
        places = {k: v for module in self._modules() for k, v in hidden(module, path).items()}
        if places:
            data["pytest_startmethod"] = Run(FIND, {"places": places})
        return data


class Run:
    """Source that is run where this is unpickled."""

    def __init__(self, source: str, variables: dict[str, Any]) -> None:
        self._arguments = source, variables

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what to call, and with what."""
        return exec, self._arguments


def is_script_of(distribution: str, main: ModuleType) -> bool:
    """Tell whether a main module is a script that was installed with a distribution.

    It then holds what the entry point of the script names: `console_main` until pytest 9.1,
    `_console_main` since. A user's script that does the same may have targets of its own.
    """
    own = any(getattr(held, "__module__", "") == "__main__" for held in vars(main).values())
    if own or getattr(main, "__spec__", None) is not None:
        return False
    scripts = metadata.distribution(distribution).entry_points.select(group="console_scripts")
    return any(getattr(main, script.attr, None) is script.load() for script in scripts)


def import_error(modules: Sequence[str]) -> str:
    """Return why a fresh interpreter can't import one of these modules; "" where it can."""
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
    """Return where a module and the packages it is in are, as far as a child wouldn't find them.

    That is so where pytest imported them by their files, as ``--import-mode=importlib`` does, and
    where another package of that name comes first: many a project has its ``tests``.
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
    """Return what is found by a name where this is ``sys.path``."""
    folders: Sequence[str] = path
    spec = None
    for package in accumulate(name.split("."), "{}.{}".format):
        spec = PathFinder.find_spec(package, folders)
        if spec is None:
            break
        folders = spec.submodule_search_locations or []
    return spec


class Servers:
    """The forkservers, one for each environment and output that children are to start with.

    A forkserver keeps ``os.environ`` and the descriptors 1 and 2 of its own start.
    """

    def __init__(self, preload: tuple[str, ...]) -> None:
        self._preload = preload
        self._servers: dict[object, Server] = {}
        self._lock = threading.Lock()

    def connect(self, fds: list[int]) -> tuple[int, int]:
        """Start a process as ``forkserver.connect_to_new_process()`` does, by the right server."""
        with self._lock:
            preload = self._to_preload()
            # A forked child inherits the servers, which aren't its own to ask for more.
            state = (os.getpid(), preload, _environment(), _target(1), _target(2))
            server = self._servers.pop(state, None) or Server(*preload)
            self._servers[state] = server  # the last one is the one in use
            return server.connect(fds)

    def retire(self) -> None:
        """Stop the servers that have no living children, but for the two used last.

        Two, as tests with their own output or environment often stand beside tests without.
        """
        with self._lock:
            for state in list(self._servers)[:-2]:
                if not self._servers[state].has_children():
                    self._servers.pop(state).stop()

    def stop(self) -> None:
        """Stop the servers; one with living children, which no test started, ends with Python.

        To Python they would seem to end with it, and a manager wouldn't be told to.
        """
        with self._lock:
            while self._servers:
                _, server = self._servers.popitem()
                if not server.has_children():
                    server.stop()

    def _to_preload(self) -> tuple[tuple[str, ...], str]:
        """Return what to preload, and what to do on an error.

        That is what the user set, or else pytest and the ini-option's modules. What was set is
        private, the same from Python 3.4 to 3.15; where it goes missing, the user's preload counts
        for nothing.
        """
        default = ["__main__"]
        user = forkserver._forkserver  # noqa: SLF001
        chosen = getattr(user, "_preload_modules", default)
        modules = (*default, "pytest", *self._preload) if chosen == default else tuple(chosen)
        return modules, getattr(user, "_preload_on_error", "ignore")  # since Python 3.15


class Server:
    """A forkserver and the children that it has started."""

    def __init__(self, preload: Sequence[str], on_error: str) -> None:
        self._server = forkserver.ForkServer()
        options = {} if on_error == "ignore" else {"on_error": on_error}
        self._server.set_forkserver_preload(list(preload), **options)
        self._sentinels: list[int] = []

    def connect(self, fds: list[int]) -> tuple[int, int]:
        """Start a process; return the descriptors of its exit code and of its data."""
        sentinel, data = self._server.connect_to_new_process(fds)
        self.has_children()  # so that the descriptors of those who are gone go, too
        self._sentinels.append(os.dup(sentinel))
        return sentinel, data

    def has_children(self) -> bool:
        """Tell whether a child is alive, or has an exit code that the server hasn't sent yet.

        The server sends a pid, then an exit code, and closes its end, whoever has read what.
        """
        poll = select.poll()
        for sentinel in self._sentinels:
            poll.register(sentinel, 0)  # to hear of the closed end alone
        ended = {sentinel for sentinel, _ in poll.poll(0)}
        for sentinel in filter(ended.__contains__, self._sentinels):
            os.close(sentinel)
        self._sentinels = [s for s in self._sentinels if s not in ended]
        return bool(self._sentinels)

    def stop(self) -> None:
        """End the server, and not wait for the processes that hold its pipe."""
        for sentinel in self._sentinels:
            os.close(sentinel)
        # Private, and the same from Python 3.4 to 3.15; where it goes missing _stop() waits.
        pid = getattr(self._server, "_forkserver_pid", None)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # a test has waited for all children that there are
            self._server._stop()  # type: ignore[attr-defined]  # noqa: SLF001 (CPython's tests use it)


def _environment() -> frozenset[tuple[str | bytes, str | bytes]]:
    """Return ``os.environ`` less what pytest itself changes with each test."""
    # What it holds is private, the same from Python 3.2 to 3.15, and there without decoding all of
    # it for each child; where it goes missing, that is done.
    held: Mapping[str | bytes, str | bytes] = vars(os.environ).get("_data", os.environ)
    of_pytest = ("PYTEST_CURRENT_TEST", b"PYTEST_CURRENT_TEST")
    return frozenset(item for item in held.items() if item[0] not in of_pytest)


def _target(descriptor: int) -> tuple[int, int] | None:
    """Return what tells files apart; None for a closed descriptor."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
