"""Starts the lookout, which interrupts a main thread that has been blocked for too long.

On Linux that is a detached process (see `kernel`): no thread, which would be alive at a fork, no
child that a test could see or wait for, and no descriptor in pytest's process. Elsewhere, and where
such a process would become a child of pytest, a thread that makes way for each fork.
"""

from __future__ import annotations

import _thread
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from pytest_startmethod.kernel import prctl, syscalls, waits
from pytest_startmethod.kernel.process_tree import PARENT, stat_fields
from pytest_startmethod.leaks import marks
from pytest_startmethod.system import LINUX, WINDOWS, System

if WINDOWS:
    from pytest_startmethod.stall.windows_lookout import WindowsLookout

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# A handler of it that raises ends a wait; where it returns the wait goes on. Ignored by default.
# Windows has another, which only comes once it is sure that the test is to fail.
SIGNAL: int = getattr(signal, "SIGURG", 0) or getattr(signal, "SIGBREAK", 0)
SIGCHLD = getattr(signal, "SIGCHLD", 0)

# For a second it costs next to nothing: until then it is a shell. $1 is pytest's pid, the rest the
# command of the lookout. It stays in no folder that a test may want to unmount.
SHELL = """
cd /; pid=$1; shift
{ last=
while sleep 1; do
  now=
  while read -r name value; do
    case $name in *voluntary_ctxt_switches:) now="$now $value";; esac
  done < "/proc/$pid/status" || exit
  [ "$now" = "$last" ] && exec "$@"
  last=$now
done; } > /dev/null &
echo $!
"""


class Lookout(Protocol):
    """Sends `SIGNAL` to a main thread that is blocked."""

    is_thread: bool
    """Whether it is a thread, which must not be alive at a fork."""
    thread: int
    """The system's id of its thread, where it is one; else 0."""

    def begin(self) -> None:
        """Look from now on, where it doesn't yet."""

    def pause(self) -> None:
        """Look no more, until it is to begin again."""

    def make_way(self) -> None:
        """Let this process fork now; `begin` is called afterwards."""

    def end(self) -> None:
        """Look no more at all."""


def lookout(
    seconds: float, is_stalled: Callable[[FrameType | None], bool] = lambda _: False
) -> Lookout:
    """Return a lookout for this process's main thread; only that of Windows asks `is_stalled`."""
    if WINDOWS:
        return WindowsLookout(seconds, is_stalled)
    if LINUX and waits.AVAILABLE and System.posix_spawn is not None and _may_detach():
        with suppress(OSError, NotImplementedError):  # no shell
            return ProcessLookout(seconds)
    return ThreadLookout(seconds)


def _may_detach() -> bool:
    """Tell whether a detached process may look at this one, and isn't sure to be its child."""
    return System.getpid() != 1 and _ptrace_scope() < 2


def _ptrace_scope() -> int:
    """Return what Yama forbids, by its documentation: 1 is all but descendants and who is named."""
    try:
        return int(System.read_file("/proc/sys/kernel/yama/ptrace_scope"))
    except (OSError, ValueError):  # a kernel without Yama
        return 0


class ProcessLookout:
    """A detached process, which looks until pytest's process has ended.

    Raises `OSError` where it can't be started, or would be a child of this process.
    """

    is_thread = False
    thread = 0

    def __init__(self, seconds: float) -> None:
        here = System.getpid()
        self._file = str(syscalls.__file__)
        began = syscalls.start_time(System.read_file(f"/proc/{here}/stat")).decode()
        command = [System.executable, "-I", "-S", "-E", self._file]
        command += [str(here), str(seconds), str(int(SIGNAL)), began, "1"]
        with marks.unmarked():  # it ends by itself, and is no affair of a run that this is part of
            self._pid = _detach(["sh", "-c", SHELL, "sh", str(here), *command])
        if _ptrace_scope() == 1:
            prctl.allow_ptrace(self._pid)

    def begin(self) -> None:
        """Do nothing: it tells by the handler whether somebody wants to know."""

    pause = make_way = begin

    def end(self) -> None:
        """End it, where its pid is still its own."""
        descriptor = System.pidfd(self._pid)
        if descriptor is None:
            return
        try:
            command = System.read_file(f"/proc/{self._pid}/cmdline")
            if self._file.encode() in command.split(b"\0"):
                System.pidfd_send_signal(descriptor, signal.SIGKILL)
        except OSError:  # it has ended
            return
        finally:
            System.close(descriptor)


def _detach(command: list[str]) -> int:
    """Run a shell that starts a process in the background and prints its pid."""
    reader, writer = System.pipe()
    with _no_sigchld() as shell:
        try:
            keep = (0, 1, 2, writer)
            closed = [
                int(name) for name in System.listdir("/proc/self/fd") if int(name) not in keep
            ]
            shell.pid = pid = System.posix_spawn(
                "/bin/sh",
                command,
                System.lookout_environment(),
                file_actions=[
                    (System.SPAWN_DUP, writer, 1),
                    (System.SPAWN_OPEN, 0, "/dev/null", System.READ_ONLY, 0),
                    (System.SPAWN_OPEN, 2, "/dev/null", System.WRITE_ONLY, 0),
                    *((System.SPAWN_CLOSE, descriptor) for descriptor in (*closed, writer)),
                ],
                setsid=True,
                setsigmask=[],
            )
        finally:
            System.close(writer)
        try:
            told = System.read(reader, 32)
        finally:
            System.close(reader)
            with suppress(ChildProcessError):  # where SIGCHLD is ignored
                System.waitpid(pid, 0)
        if not told.strip().isdigit():
            raise OSError("no lookout was started")
        detached = int(told)
        stat = stat_fields(System.read_file(f"/proc/{detached}/stat"))
        if int(stat[PARENT]) == System.getpid():  # this process is a subreaper
            System.kill(-pid, signal.SIGKILL)  # the group, which the shell had led
            with suppress(ChildProcessError):
                while System.waitpid(-pid, 0):
                    pass
            raise OSError("the lookout would be a child")
    return detached


class _no_sigchld:  # noqa: N801 (reads as a context)
    """Keeps the end of the shell from a test that handles SIGCHLD or waits for it."""

    pid = 0
    """The shell's."""

    def __enter__(self) -> _no_sigchld:
        handler = System.get_handler(SIGCHLD)
        in_main_thread = System.get_ident() == System.main_thread().ident
        # Other threads may take the signal, whatever this one blocks.
        self._handler = handler if callable(handler) and in_main_thread else None
        if self._handler is not None:
            System.set_handler(SIGCHLD, System.DEFAULT_HANDLER)
        self._zombie = self._handler is not None and System.has_zombie()
        # A test that waits for it by sigwait() has blocked it.
        self._blocks = SIGCHLD not in System.sigpending()
        if self._blocks:
            self._before = System.pthread_sigmask(signal.SIG_BLOCK, [SIGCHLD])
        return self

    def __exit__(self, *_: object) -> None:
        another = self._handler is not None and not self._zombie and System.has_zombie()
        if self._blocks:
            told = System.sigtimedwait([SIGCHLD], 0)
            another = another or (told is not None and told.si_pid != self.pid)
        if self._handler is not None:
            System.set_handler(SIGCHLD, self._handler)
        if another:  # another child has ended meanwhile
            System.kill(System.getpid(), SIGCHLD)
        if self._blocks:
            System.pthread_sigmask(signal.SIG_SETMASK, self._before)


class ThreadLookout:
    """A thread of this process, which is never alive at a fork: Python 3.12 and later warn of one.

    Where there is no ``/proc`` it can't tell whether the main thread is blocked, and looks for the
    first time when the whole time is over.
    """

    is_thread = True

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kernel: syscalls.Lookout | None = None
        if waits.AVAILABLE:
            here = System.getpid()
            self._kernel = syscalls.Lookout(here, seconds, int(SIGNAL), System.read_file)
        self._pause = min(syscalls.SECONDS, seconds / 4) if self._kernel else seconds
        self._told = False
        self._next = 0.0  # outlives a thread: a Pool may start workers without end
        self._running = False
        self.thread = 0
        # Held but by a thread that is to end, and by one that is there.
        self._to_end = _thread.allocate_lock()
        self._to_end.acquire()
        self._ended = _thread.allocate_lock()

    def begin(self) -> None:
        """Look from now on, where it doesn't yet."""
        if not self._running:
            self._running = self._ended.acquire()
            # Not threading.Thread, whose start() waits for the thread: half of what it takes to
            # start a process.
            _thread.start_new_thread(self._run, ())

    def pause(self) -> None:
        """Look no more, until it is to begin again."""
        if self._running:
            self._to_end.release()
            with self._ended:
                self._running = False
            # The system's thread ends a little later, and os.fork() warns of that one, too. None
            # of it to be seen but on Linux.
            with suppress(OSError):
                while LINUX and System.stat(f"/proc/self/task/{self.thread}"):
                    System.sleep(0)

    make_way = pause

    def end(self) -> None:
        """Look no more at all."""
        self.pause()

    def _run(self) -> None:
        self.thread = _thread.get_native_id()
        main = System.main_thread().ident or 0
        self._next = max(self._next, System.monotonic() + self._pause)
        try:
            while not self._to_end.acquire(timeout=max(self._next - System.monotonic(), 0)):
                now = System.monotonic()
                self._next = now + self._pause
                if self._kernel is None:  # twice, as that does
                    self._told = not self._told
                    self._next = now + (syscalls.SECONDS if self._told else self._pause)
                if self._kernel is None or self._kernel.look(now):
                    System.pthread_kill(main, SIGNAL)
        finally:
            self._ended.release()
