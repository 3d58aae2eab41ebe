"""Keeps a forkserver for each environment and output that children need.

A forkserver keeps ``os.environ`` and the descriptors 1 and 2 of its own start. The one in use is
always the one in `multiprocessing.forkserver` itself: code that stops that one stops it.
"""

from __future__ import annotations

import signal
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from pytest_startmethod.guard import Guard

# The module has its forkserver, private, and these four of its methods, the same from Python 3.4 to
# 3.15. If one goes missing, children start as without the plugin.
METHODS = (
    "ensure_running",
    "get_inherited_fds",
    "connect_to_new_process",
    "set_forkserver_preload",
)

DEFAULT = ("__main__",)
"""The modules that a forkserver preloads by default."""

FREEZE = "pytest_startmethod.launch.freeze"


class Preload(NamedTuple):
    """The modules that a forkserver imports before it forks, and what it does on an error."""

    modules: tuple[str, ...]
    on_error: str = "ignore"


class Forkservers:
    """The forkservers of a run, of which one is in use.

    `module` is `multiprocessing.forkserver`; `preload` names modules besides pytest.
    """

    def __init__(self, module: ModuleType, preload: Sequence[str], guard: Guard) -> None:
        self._module = module
        self._default = Preload((*DEFAULT, "pytest", *preload, FREEZE))
        self._guard = guard
        self._servers: dict[object, Forkserver] = {}
        self._lock = threading.RLock()
        self._before: dict[str, Any] = {}

    def install(self) -> None:
        """Choose the forkserver for each process from now on."""
        names = ("_forkserver", *METHODS)
        self._before = {name: getattr(self._module, name) for name in names}
        vars(self._module)["connect_to_new_process"] = self.connect

    def uninstall(self) -> None:
        """Restore the forkserver from before, and stop those without living children.

        If the others were stopped, Python would take their children for dead, and wouldn't tell a
        manager to end.
        """
        for name, value in self._before.items():
            setattr(self._module, name, value)
        while self._servers:
            _, server = self._servers.popitem()
            if not server.has_children():
                server.stop()

    def launched(self, popen: object) -> None:
        """Record the object that holds the process which was started last."""
        with self._lock:
            server = next(reversed(self._servers.values()), None)
            if server is not None:
                server.popens.append(weakref.ref(popen))

    def pids(self) -> list[int]:
        """Return the pids of the running servers."""
        return [pid for server in tuple(self._servers.values()) if (pid := server.pid)]

    def connect(self, fds: Sequence[int]) -> tuple[int, int]:
        """Start a process as ``forkserver.connect_to_new_process()`` does, by the right server."""
        with self._lock:
            server = None
            with self._guard:
                server = self._choose()
            if server is None:
                return self._before["connect_to_new_process"](fds)  # type: ignore[no-any-return]
            try:
                return server.connect(fds)
            except (OSError, EOFError):  # somebody ended it, or removed its socket
                return self._replace(server).connect(fds)

    def retire(self) -> None:
        """Stop the servers that have no living children, except for the two used last.

        Two, because tests with their own output or environment often alternate with others.
        """
        with self._lock:
            for state in list(self._servers)[:-2]:
                if not self._servers[state].has_children():
                    self._servers.pop(state).stop()

    def _choose(self) -> Forkserver:
        preload = self._preload()
        # A forked child inherits the servers, but can't use them.
        state = (System.getpid(), preload, System.environment_items(), _file(1), _file(2))
        server = self._servers.pop(state, None) or Forkserver(self._module, preload)
        self._servers[state] = server  # the last one is in use
        server.bind(self.connect)
        return server

    def _replace(self, server: Forkserver) -> Forkserver:
        """Replace a server that doesn't work any more."""
        state = next(state for state, known in self._servers.items() if known is server)
        _forget_missing_folder()
        del self._servers[state]
        self._servers[object()] = server  # until its children have ended
        fresh = self._servers[state] = Forkserver(self._module, server.preload)
        fresh.bind(self.connect)
        return fresh

    def _preload(self) -> Preload:
        """Return what to preload: what the user has set, else pytest and the ini-option's modules.

        What was set is private, the same from Python 3.4 to 3.15; if it goes missing, the user's
        preload is ignored.
        """
        held = self._module._forkserver  # noqa: SLF001
        modules = tuple(getattr(held, "_preload_modules", DEFAULT))
        on_error = str(getattr(held, "_preload_on_error", "ignore"))  # since Python 3.15
        if modules in (DEFAULT, self._default.modules):
            modules = self._default.modules
        return Preload(modules, on_error)


class Forkserver:
    """A forkserver, and weak references to the objects that hold its children."""

    def __init__(self, module: ModuleType, preload: Preload) -> None:
        self._module = module
        self.preload = preload
        self.popens: list[weakref.ref[Any]] = []
        self._server = module.ForkServer()
        options = {} if preload.on_error == "ignore" else {"on_error": preload.on_error}
        self._server.set_forkserver_preload(list(preload.modules), **options)

    @property
    def pid(self) -> int | None:
        """Its pid while it runs, according to its object.

        Private, since Python 3.4; if it goes missing, the server ends by itself after pytest.
        """
        return getattr(self._server, "_forkserver_pid", None)

    def bind(self, connect: Callable[[Sequence[int]], tuple[int, int]]) -> None:
        """Put it into the module; `connect` chooses a server at each start."""
        held = vars(self._module)
        if held["_forkserver"] is not self._server:
            held["_forkserver"] = self._server
            held.update({name: getattr(self._server, name) for name in METHODS})
            held["connect_to_new_process"] = connect

    def connect(self, fds: Sequence[int]) -> tuple[int, int]:
        """Start a process; return the descriptors of its exit code and of its data."""
        started: tuple[int, int] = self._server.connect_to_new_process(fds)
        return started

    def has_children(self) -> bool:
        """Return whether code has a process that is alive, or whose exit code hasn't come yet.

        The server sends a pid, then an exit code, and then closes its end of the pipe.
        """
        self.popens = [ref for ref in self.popens if getattr(ref(), "returncode", 0) is None]
        return any(_is_open(ref()) for ref in self.popens)

    def stop(self) -> None:
        """Stop the server without waiting for processes that hold its pipe."""
        pid = self.pid
        # Code may have ended it, waited for it, or removed its socket.
        with suppress(OSError, TypeError):
            if pid is not None and System.waitid_alive(pid):
                System.kill(pid, signal.SIGKILL)
            self._server._stop()  # noqa: SLF001 (CPython's tests use it)


def _forget_missing_folder() -> None:
    """Let multiprocessing make a new folder for its sockets, if code has removed the old one.

    Its name is private, the same from Python 3.3 to 3.15; if it goes missing, the next start fails
    as without the plugin.
    """
    config = getattr(System.current_process(), "_config", {})
    folder = config.get("tempdir")
    if folder is not None:
        try:
            System.stat(folder)
        except FileNotFoundError:
            config["tempdir"] = None


def _is_open(popen: Any) -> bool:  # noqa: ANN401 (a private class)
    sentinel = getattr(popen, "sentinel", None)
    return sentinel is not None and not System.ready([int(sentinel)])


def _file(descriptor: int) -> tuple[int, int] | None:
    """Return what identifies a descriptor's file; None if it is closed."""
    try:
        status = System.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
