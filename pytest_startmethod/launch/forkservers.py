"""Keeps a forkserver for each environment and output that children are to start with.

A forkserver keeps ``os.environ`` and the descriptors 1 and 2 of its own start. The one that serves
is always the one that `multiprocessing.forkserver` itself holds: whoever stops that, stops it.
"""

from __future__ import annotations

import signal
import threading
import weakref
from contextlib import suppress
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_startmethod.guard import Guard

# What the module holds of its forkserver: the object, private, and four of its methods, the same
# from Python 3.4 to 3.15. Where one goes missing children start as without the plugin.
METHODS = (
    "ensure_running",
    "get_inherited_fds",
    "connect_to_new_process",
    "set_forkserver_preload",
)

DEFAULT = ("__main__",)
"""What a forkserver preloads where nobody chose."""

FREEZE = "pytest_startmethod.launch.freeze"


class Preload(NamedTuple):
    """What a forkserver imports before it forks, and what it does on an error."""

    modules: tuple[str, ...]
    on_error: str = "ignore"


class Forkservers:
    """The forkservers of a run, of which one is in use; `preload` names modules besides pytest."""

    def __init__(self, preload: Sequence[str], guard: Guard) -> None:
        self._default = Preload((*DEFAULT, "pytest", *preload, FREEZE))
        self._guard = guard
        self._servers: dict[object, Forkserver] = {}
        self._lock = threading.RLock()
        self._before: dict[str, Any] = {}

    def install(self) -> None:
        """Choose the forkserver for each process from now on."""
        names = ("_forkserver", *METHODS)
        self._before = {name: getattr(forkserver, name) for name in names}
        forkserver.connect_to_new_process = self.connect

    def uninstall(self) -> None:
        """Put back the forkserver that was there, and stop those without living children.

        To Python the children of the others would seem to end with them, and a manager wouldn't be
        told to.
        """
        for name, value in self._before.items():
            setattr(forkserver, name, value)
        while self._servers:
            _, server = self._servers.popitem()
            if not server.has_children():
                server.stop()

    def launched(self, popen: object) -> None:
        """Take note of the object that holds the process which was started last."""
        with self._lock:
            server = next(reversed(self._servers.values()), None)
            if server is not None:
                server.popens.append(weakref.ref(popen))

    def pids(self) -> list[int]:
        """Return the pids of the servers that run."""
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
        """Stop the servers that have no living children, but for the two used last.

        Two, as tests with their own output or environment often stand beside tests without.
        """
        with self._lock:
            for state in list(self._servers)[:-2]:
                if not self._servers[state].has_children():
                    self._servers.pop(state).stop()

    def _choose(self) -> Forkserver:
        preload = self._preload()
        # A forked child inherits the servers, which aren't its own to ask for more.
        state = (System.getpid(), preload, System.environment_items(), _file(1), _file(2))
        server = self._servers.pop(state, None) or Forkserver(preload)
        self._servers[state] = server  # the last one is the one in use
        server.bind(self.connect)
        return server

    def _replace(self, server: Forkserver) -> Forkserver:
        """Let a fresh server take the place of one that doesn't serve any more."""
        state = next(state for state, known in self._servers.items() if known is server)
        _forget_missing_folder()
        del self._servers[state]
        self._servers[object()] = server  # until its children have ended
        fresh = self._servers[state] = Forkserver(server.preload)
        fresh.bind(self.connect)
        return fresh

    def _preload(self) -> Preload:
        """Return what to preload: what the user set, or else pytest and the ini-option's modules.

        What was set is private, the same from Python 3.4 to 3.15; where it goes missing, the user's
        preload counts for nothing.
        """
        held = forkserver._forkserver  # noqa: SLF001
        modules = tuple(getattr(held, "_preload_modules", DEFAULT))
        on_error = str(getattr(held, "_preload_on_error", "ignore"))  # since Python 3.15
        if modules in (DEFAULT, self._default.modules):
            modules = self._default.modules
        return Preload(modules, on_error)


class Forkserver:
    """A forkserver, and weak references to what started its children."""

    def __init__(self, preload: Preload) -> None:
        self.preload = preload
        self.popens: list[weakref.ref[Any]] = []
        self._server = forkserver.ForkServer()
        options = {} if preload.on_error == "ignore" else {"on_error": preload.on_error}
        self._server.set_forkserver_preload(list(preload.modules), **options)

    @property
    def pid(self) -> int | None:
        """Its pid while it runs, as far as its object knows.

        Private, since Python 3.4; where it goes missing the server ends by itself after pytest.
        """
        return getattr(self._server, "_forkserver_pid", None)

    def bind(self, connect: Callable[[Sequence[int]], tuple[int, int]]) -> None:
        """Make it the one that the module holds; `connect` chooses anew at each start."""
        if forkserver._forkserver is not self._server:  # noqa: SLF001 (see METHODS)
            forkserver._forkserver = self._server  # noqa: SLF001 (see METHODS)
            for name in METHODS:
                setattr(forkserver, name, getattr(self._server, name))
            vars(forkserver)["connect_to_new_process"] = connect

    def connect(self, fds: Sequence[int]) -> tuple[int, int]:
        """Start a process; return the descriptors of its exit code and of its data."""
        return self._server.connect_to_new_process(fds)

    def has_children(self) -> bool:
        """Tell whether somebody keeps a process that is alive, or whose exit code is still to come.

        The server sends a pid, then an exit code, and then closes its end.
        """
        self.popens = [ref for ref in self.popens if getattr(ref(), "returncode", 0) is None]
        return any(_is_open(ref()) for ref in self.popens)

    def stop(self) -> None:
        """End the server, and not wait for the processes that hold its pipe."""
        pid = self.pid
        # Somebody has ended it, waited for it, removed its socket, or did so by halves.
        with suppress(OSError, TypeError):
            if pid is not None and System.waitid_alive(pid):
                System.kill(pid, signal.SIGKILL)
            self._server._stop()  # type: ignore[attr-defined]  # noqa: SLF001 (CPython's tests use it)


def _forget_missing_folder() -> None:
    """Let multiprocessing make another folder for its sockets, where somebody has removed its own.

    Its name is private, the same from Python 3.3 to 3.15; where it goes missing, the next start
    fails as without the plugin.
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
    """Return what tells files apart; None for a closed descriptor."""
    try:
        status = System.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino
