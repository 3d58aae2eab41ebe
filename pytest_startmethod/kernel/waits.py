"""Asks the kernel whether any process or thread could still end the main thread's wait.

Whoever runs, sleeps, or waits with a time-out may. So may whoever waits for the world outside of
pytest's process tree: a terminal, a server, a pipe that another process holds. Who waits without
end for a lock, a child, or a pipe that only this process tree holds, may not, as long as nobody
else of the tree may. What can't be read proves nothing, and counts as somebody who may.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.kernel.pipes import Outside
from pytest_startmethod.kernel.process_tree import FLAGS, FORKED, PARENT, stat_fields
from pytest_startmethod.kernel.syscalls import CALLS, MACHINE, catches, endless_wait, switches
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_startmethod.kernel.process_tree import Tree
    from pytest_startmethod.kernel.syscalls import Wait

AVAILABLE = MACHINE in CALLS and os.path.exists("/proc/self/syscall")  # noqa: PTH110


class Thread(NamedTuple):
    """A thread that waits without end: who it is, in what, and how often it was switched."""

    pid: int
    tid: int
    wait: Wait
    switches: bytes


def stuck_threads(tree: Tree) -> list[Thread] | None:
    """Return the threads of a process tree if none of them can move; None where one may."""
    threads = list(_waiting(tree))
    if any(thread is None for thread in threads):
        return None
    waiting = [thread for thread in threads if thread is not None]
    children = {thread.pid for thread in waiting} - {tree.here}
    if any(map(_has_own_handler, children)):
        return None  # whose time the kernel doesn't tell
    outside = Outside(tree.processes)
    if any(
        outside.may_end(thread.pid, thread.wait)
        for thread in waiting
        if thread.pid not in tree.helpers
    ):
        return None
    return waiting


def _has_own_handler(pid: int) -> bool:
    """Tell whether a process has a handler for SIGALRM that it didn't inherit by a fork."""
    if not _catches_alarm(pid):
        return False
    try:
        stat = stat_fields(System.read_file(f"/proc/{pid}/stat"))
    except OSError:  # it has ended
        return False
    return not (int(stat[FLAGS]) & FORKED and _catches_alarm(int(stat[PARENT])))


def _catches_alarm(pid: int) -> bool:
    try:
        return catches(System.read_file(f"/proc/{pid}/status"), signal.SIGALRM)
    except OSError:  # it has ended
        return False


def threads_of(pid: int) -> list[Thread | None]:
    """Return the threads of a process that wait without end, and None for each that may move."""
    try:
        tids = [int(name) for name in System.listdir(f"/proc/{pid}/task")]
    except OSError:  # it has ended
        return []
    return [thread for tid in tids for thread in _thread(pid, tid)]


def _waiting(tree: Tree) -> Iterator[Thread | None]:
    """Return the threads that count, and None for each that may move."""
    for pid in tree.processes - tree.silent:
        try:
            state = stat_fields(System.read_file(f"/proc/{pid}/stat"))[0]
            tids = [int(name) for name in System.listdir(f"/proc/{pid}/task")]
        except OSError:
            continue  # it has ended
        if state == b"Z":
            continue
        for tid in tids:
            if tid not in tree.threads:
                yield from _thread(pid, tid)


def _thread(pid: int, tid: int) -> Iterator[Thread | None]:
    folder = f"/proc/{pid}/task/{tid}"
    try:
        wait = endless_wait(System.read_file(f"{folder}/syscall"))
        status = System.read_file(f"{folder}/status")
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    except OSError:
        yield None
        return
    if b"\nState:\tT" in status or b"\nState:\tt" in status:  # stopped: somebody may let it go on
        yield None
    else:
        yield wait and Thread(pid, tid, wait, switches(status))
