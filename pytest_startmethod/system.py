"""Keeps the real functions of the system for code that runs while a test runs.

Tests replace attributes of modules: ``time.monotonic``, ``os.environ``, ``signal.signal``.
freezegun and pyfakefs search every loaded module for such functions and replace them. Neither looks
at attributes of classes, so a class here has the real functions, taken before the first conftest.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in typeshed
import _thread
import faulthandler
import gc
import multiprocessing
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

LINUX = sys.platform.startswith("linux")
WINDOWS = sys.platform == "win32"


def _real(module: object, name: str) -> Any:  # noqa: ANN401 (of any type)
    """Return a function of a module; None on a platform without it."""
    return getattr(module, name, None)


class System:
    """The real functions; what a platform lacks is None. Called by the class, which binds none."""

    monotonic = time.monotonic
    wall_clock = time.time
    sleep = time.sleep

    getpid = os.getpid
    getppid = os.getppid
    fstat = os.fstat
    stat = os.stat
    open = os.open
    read = os.read
    pread = _real(os, "pread")
    write = os.write
    close = os.close
    dup = os.dup
    memfd_create = _real(os, "memfd_create")  # Linux
    pipe = os.pipe
    listdir = os.listdir
    readlink = _real(os, "readlink")
    mkdir = os.mkdir
    unlink = os.unlink
    getcwd = os.getcwd
    SEPARATOR = os.sep
    kill = os.kill
    waitpid = os.waitpid
    waitid = _real(os, "waitid")  # macOS has it since Python 3.13, Windows never
    pidfd_open = _real(os, "pidfd_open")  # Linux
    posix_spawn = _real(os, "posix_spawn")
    urandom = os.urandom
    getsid = _real(os, "getsid")
    geteuid = _real(os, "geteuid")  # not on Windows
    chmod = os.chmod
    access = os.access
    EXISTS = os.F_OK

    prlimit = _real(resource, "prlimit")  # Linux
    RTTIME = getattr(resource, "RLIMIT_RTTIME", -1)
    INFINITY = getattr(resource, "RLIM_INFINITY", -1)

    # Private, since Python 3.5: those of `signal` make an enum of the answer, and take ten times as
    # long, in each test. Where they go missing those do it.
    set_handler = getattr(_signal, "signal", signal.signal)
    get_handler = getattr(_signal, "getsignal", signal.getsignal)
    DEFAULT_HANDLER = int(signal.SIG_DFL)
    NO_HANDLERS = (DEFAULT_HANDLER, int(signal.SIG_IGN))
    SIGNALS = tuple(map(int, signal.valid_signals()))
    raise_signal = signal.raise_signal
    getitimer = _real(signal, "getitimer")
    ITIMER_REAL = getattr(signal, "ITIMER_REAL", 0)
    pthread_kill = _real(signal, "pthread_kill")
    pthread_sigmask = _real(signal, "pthread_sigmask")
    sigpending = _real(signal, "sigpending")
    sigtimedwait = _real(signal, "sigtimedwait")
    pidfd_send_signal = _real(signal, "pidfd_send_signal")

    register_dump = _real(faulthandler, "register")  # not on Windows
    unregister_dump = _real(faulthandler, "unregister")
    dump_traceback = faulthandler.dump_traceback

    poll = _real(select, "poll")
    READABLE = getattr(select, "POLLIN", 0)
    CLOSED = getattr(select, "POLLNVAL", 0)
    READ_ONLY = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
    WRITE_ONLY = os.O_WRONLY
    SPAWN_OPEN = getattr(os, "POSIX_SPAWN_OPEN", 0)
    SPAWN_CLOSE = getattr(os, "POSIX_SPAWN_CLOSE", 0)
    SPAWN_DUP = getattr(os, "POSIX_SPAWN_DUP2", 0)
    NO_HANG = getattr(os, "WNOHANG", 0)
    # Ask whether a child has ended, but leave its exit status to the code that waits for it.
    LOOK = getattr(os, "WEXITED", 0) | NO_HANG | getattr(os, "WNOWAIT", 0)
    PID = getattr(os, "P_PID", 0)
    ALL = getattr(os, "P_ALL", 0)
    KILLED = (getattr(os, "CLD_KILLED", -1), getattr(os, "CLD_DUMPED", -1))

    Socket = socket.socket
    Thread = threading.Thread
    get_ident = threading.get_ident
    main_thread = threading.main_thread
    threads = threading.enumerate
    # Private, since Python 3.0, and faster than to list them: how many there are, but for the main
    # thread. Where it goes missing they are listed.
    count_threads = _real(_thread, "_count")

    executable = sys.executable
    fsencode = os.fsencode
    collect_garbage = gc.collect

    # Bound to the default context, even if tests replace these names in `multiprocessing`.
    get_start_method = multiprocessing.get_start_method
    set_start_method = multiprocessing.set_start_method
    current_process = multiprocessing.current_process

    plugins_variable = os.environ.get("PYTEST_PLUGINS", "")
    """The names of plugins that pytest loads besides those of its options."""
    _current_test = "PYTEST_CURRENT_TEST" if WINDOWS else b"PYTEST_CURRENT_TEST"
    _environ = os.environ
    _undecoded = getattr(os, "environb", os.environ)  # Windows has only decoded items

    @classmethod
    def environment(cls) -> Mapping[Any, Any]:
        """Return the environment that children get, even if tests replace `os.environ`.

        Undecoded, but on Windows. Where `os.environ` has them is private, the same from Python 3.2
        to 3.15; if it goes missing, the slower `os.environb` tells.
        """
        held: Mapping[Any, Any] = vars(cls._environ).get("_data", cls._undecoded)
        return held

    @classmethod
    def environment_items(cls) -> frozenset[tuple[Any, Any]]:
        """Return the environment without the variable that pytest changes with each test."""
        items = cls.environment().items()
        return frozenset(item for item in items if item[0] != cls._current_test)

    @classmethod
    def waitid_alive(cls, pid: int) -> bool:
        """Return whether a pid is a child of this process that hasn't ended.

        On platforms that don't tell, every pid counts as one.
        """
        try:
            return cls.waitid is None or cls.waitid(cls.PID, pid, cls.LOOK) is None
        except ChildProcessError:
            return False

    @classmethod
    def has_zombie(cls) -> bool:
        """Return whether a child of this process has ended and nobody has waited for it."""
        try:
            return cls.waitid(cls.ALL, 0, cls.LOOK) is not None
        except ChildProcessError:
            return False

    @classmethod
    def is_grandchild(cls, pid: int) -> bool:
        """Return whether a pid is a living grandchild of this process, on Linux."""
        found = pid
        for _ in range(2):
            try:
                stat = cls.read_file(f"/proc/{found}/stat")
            except OSError:
                return False
            state, parent = stat[stat.rfind(b")") + 1 :].split()[:2]
            if state in (b"Z", b"X"):
                return False
            found = int(parent)
        return found == cls.getpid()

    @classmethod
    def lookout_environment(cls) -> dict[str, str]:
        """Return the environment variables that the lookout needs, and no others."""
        kept = ("LD_LIBRARY_PATH", "PYTHONHOME")
        known = {name: cls._environ[name] for name in kept if name in cls._environ}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", **known}

    @classmethod
    def pidfd(cls, pid: int) -> int | None:
        """Return a descriptor of the process that has a pid now; None before Linux 5.3."""
        try:
            return None if cls.pidfd_open is None else int(cls.pidfd_open(pid))
        except OSError:
            return None

    exit_code_of_handle: Callable[[int], int | None]
    """On Windows: return the exit code of a process by its handle; None while it runs."""

    @classmethod
    def read_file(cls, path: str) -> bytes:
        """Return the content of a file, at most 64 KiB: files of ``/proc`` come in one piece.

        Raises `OSError`.
        """
        descriptor = cls.open(path, cls.READ_ONLY)
        try:
            return cls.read(descriptor, 1 << 16)
        finally:
            cls.close(descriptor)

    @classmethod
    def send(cls, pid: int, signum: int, has_ended: Callable[[], bool]) -> None:
        """Send a signal to a process, unless it `has_ended`: its pid may be another's then."""
        descriptor = cls.pidfd(pid)
        try:
            if has_ended():
                return
            if descriptor is None:
                cls.kill(pid, signum)
            else:
                cls.pidfd_send_signal(descriptor, signum)
        except OSError:  # it has ended meanwhile, or isn't ours to end
            return
        finally:
            if descriptor is not None:
                cls.close(descriptor)

    @classmethod
    def read_all(cls, path: str) -> bytes:
        """Return the whole content of a file. Raises `OSError`."""
        descriptor, parts = cls.open(path, cls.READ_ONLY), []
        try:
            while part := cls.read(descriptor, 1 << 16):
                parts.append(part)
        finally:
            cls.close(descriptor)
        return b"".join(parts)

    @classmethod
    def ready(cls, descriptors: Iterable[int], seconds: float = 0.0) -> dict[int, bool]:
        """Wait at most some seconds, and return the descriptors that can be read or have ended.

        For each, return also whether it is still open: a test may have closed it.
        """
        poll = cls.poll()
        for descriptor in descriptors:
            poll.register(descriptor, cls.READABLE)
        return {fd: not event & cls.CLOSED for fd, event in poll.poll(seconds * 1000)}


if sys.platform == "win32":
    import _winapi

    WAIT, GET_EXIT_CODE = _winapi.WaitForSingleObject, _winapi.GetExitCodeProcess
    TERMINATED = 0x10000  # the exit code after Process.terminate()

    def exit_code_of_handle(handle: int) -> int | None:
        """Return the exit code without waiting; None while the process runs."""
        if WAIT(handle, 0) != _winapi.WAIT_OBJECT_0:
            return None
        code = int(GET_EXIT_CODE(handle))
        return -signal.SIGTERM if code == TERMINATED else code

    System.exit_code_of_handle = exit_code_of_handle
