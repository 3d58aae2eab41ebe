"""Reads from ``/proc`` what threads are blocked in; run as a script, it is the lookout.

The lookout is a small detached process that looks at pytest's main thread, and sends it a signal
when that has been blocked for too long in one wait without end. It is started by `lookout`, as a
script of its own: so this module imports nothing of the plugin. Linux only, by `man 5 proc`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Read = Callable[[str], bytes]

SECONDS = 0.25
"""How often the lookout looks, while the main thread is blocked."""


class Call(NamedTuple):
    """A system call that may wait without end."""

    name: str
    limit: int = -1
    """Which argument limits the wait; -1 where none can."""
    kind: str = ""
    """What it waits for: "lock", "child", or the argument that names descriptors."""


# By the machine's name and the number of the call: those that multiprocessing, concurrent.futures
# and the threads of their users wait in. Every other call counts as one that ends by itself.
_LOCK = Call("futex", 3, "lock")
CALLS: Mapping[str, Mapping[int, Call]] = {
    "x86_64": {
        0: Call("read", kind="read"),
        1: Call("write", kind="write"),
        7: Call("poll", 2, "poll"),
        19: Call("readv", kind="read"),
        20: Call("writev", kind="write"),
        23: Call("select", 4, "select"),
        44: Call("sendto", kind="write"),
        45: Call("recvfrom", kind="read"),
        46: Call("sendmsg", kind="write"),
        47: Call("recvmsg", kind="read"),
        61: Call("wait4", kind="child"),
        202: _LOCK,
        232: Call("epoll_wait", 3, "epoll"),
        247: Call("waitid", kind="child"),
        270: Call("pselect6", 4, "select"),
        271: Call("ppoll", 2, "poll"),
        281: Call("epoll_pwait", 3, "epoll"),
    },
    "aarch64": {
        22: Call("epoll_pwait", 3, "epoll"),
        63: Call("read", kind="read"),
        64: Call("write", kind="write"),
        65: Call("readv", kind="read"),
        66: Call("writev", kind="write"),
        72: Call("pselect6", 4, "select"),
        73: Call("ppoll", 2, "poll"),
        95: Call("waitid", kind="child"),
        98: _LOCK,
        206: Call("sendto", kind="write"),
        207: Call("recvfrom", kind="read"),
        211: Call("sendmsg", kind="write"),
        212: Call("recvmsg", kind="read"),
        260: Call("wait4", kind="child"),
    },
}
FUTEX_WAITS = (0, 6, 9)
"""Operations of futex that wait: WAIT, LOCK_PI, WAIT_BITSET."""
INFINITE = {"poll": (0xFFFFFFFF, 2**64 - 1), "epoll_wait": (0xFFFFFFFF, 2**64 - 1)}
INFINITE["epoll_pwait"] = INFINITE["epoll_wait"]


MACHINE = os.uname().machine if hasattr(os, "uname") else ""


class Wait(NamedTuple):
    """A wait without end that a thread is blocked in."""

    call: Call
    arguments: tuple[int, ...]


def endless_wait(line: bytes, machine: str = MACHINE) -> Wait | None:
    """Return the wait without end that a line of ``/proc/PID/task/TID/syscall`` tells of, or None.

    None is also for what runs, sleeps, waits with a time-out, or does what isn't known here.
    """
    words = line.split()
    if len(words) < 9 or not words[0].isdigit():  # "running", or "-1 ..."
        return None
    call = CALLS.get(machine, {}).get(int(words[0]))
    if call is None:
        return None
    arguments = tuple(int(word, 16) for word in words[1:7])
    if call.kind == "lock" and arguments[1] & 0x7F not in FUTEX_WAITS:
        return None
    if call.limit >= 0 and arguments[call.limit] not in INFINITE.get(call.name, (0,)):
        return None
    return Wait(call, arguments)


def switches(status: bytes) -> bytes:
    """Return how often a thread was switched from or to, of its ``status``: it tells any move."""
    return status[status.rfind(b"\nvoluntary_ctxt_switches") :]


def catches(status: bytes, signum: int) -> bool:
    """Tell whether a process has a handler for a signal, by its ``status``."""
    _, _, after = status.partition(b"\nSigCgt:\t")
    return bool(int(after[:16] or b"0", 16) >> (signum - 1) & 1)


class Lookout:
    """Tells when a process's main thread has been blocked for some time in a wait without end.

    It tells so twice, the second time soon after the first: a wait may have come to its end just
    when it was interrupted, and only one that goes on is one without end.
    """

    def __init__(self, pid: int, seconds: float, signum: int, read: Read) -> None:
        self._seconds = seconds
        self._signum = signum
        self._read = read
        self._folder = f"/proc/{pid}"
        self._status, self._call = f"{self._folder}/status", f"{self._folder}/task/{pid}/syscall"
        self._last = b""
        self._due = 0.0
        self._told = 0

    def look(self, now: float, *, blocked: float = 0.0) -> bool:
        """Look once; `blocked` says how long it is known to be so. Raises `OSError` at its end."""
        status = self._read(self._status)
        last, self._last = self._last, switches(status)
        if self._last != last:
            soon = self._told == 1  # it was interrupted, and is expected to be blocked again
            self._told = 2 if soon else 0
            self._due = now + (SECONDS if soon else self._seconds - blocked)
        if now < self._due:
            return False
        self._due = now + self._seconds
        if not catches(status, self._signum) or not self._is_suspicious():
            return False
        self._told = 1 if self._told == 0 else 0
        return True

    def _is_suspicious(self) -> bool:
        wait = endless_wait(self._read(self._call))
        if wait is None or wait.call.kind not in ("read", "write"):
            return wait is not None
        # Not a terminal, a file, a server in the network: what multiprocessing reads from.
        kind, _, inode = os.readlink(  # noqa: PTH115 (a small process: no pathlib)
            f"{self._folder}/fd/{wait.arguments[0]}"
        ).partition(":")
        unix = self._read(f"{self._folder}/net/unix") if kind == "socket" else b""
        return kind == "pipe" or inode.strip("[]").encode() in unix.split()


def main(pid: int, seconds: float, signum: int, began: bytes, blocked: float) -> None:
    """Look at a process until it has ended; `began` is when it was started, as ``stat`` says."""
    import select
    import time

    def read(path: str) -> bytes:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a small process: no pathlib)
            return file.readall()

    end = select.poll()
    end.register(os.pidfd_open(pid), select.POLLIN)
    if start_time(read(f"/proc/{pid}/stat")) != began:
        return
    lookout = Lookout(pid, seconds, signum, read)
    pause = min(SECONDS, seconds / 4)
    while not end.poll(pause * 1000):
        if lookout.look(time.monotonic(), blocked=blocked):
            os.kill(pid, signum)
        blocked = 0.0


def start_time(stat: bytes) -> bytes:
    """Return when a process was started, of its ``stat``: with its pid that is unique."""
    return stat[stat.rfind(b")") :].split()[20]


if __name__ == "__main__":
    import sys

    _, pid, seconds, signum, began, blocked = sys.argv
    try:
        main(int(pid), float(seconds), int(signum), began.encode(), float(blocked))
    except OSError:  # the process has ended, or may not be looked at
        sys.exit()
