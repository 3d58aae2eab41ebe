"""Asks living children where their threads are.

Each child listens to a signal from its start on (see `launch.listener` and `fork_listener`), and
writes to a memory file, which is read by way of ``/proc``. So pytest holds nothing, and nobody is
asked before a test has failed. Linux only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.kernel.process_tree import stat_fields
from pytest_startmethod.kernel.syscalls import MACHINE
from pytest_startmethod.launch.listener import NAME
from pytest_startmethod.processes import dumps
from pytest_startmethod.stall import deadlocks, lookout
from pytest_startmethod.system import LINUX, System

if TYPE_CHECKING:
    from collections.abc import Collection

    from pytest_startmethod.processes.children import Child

SECONDS = 3.0
"""How long all children together may take to answer."""

SIGNAL = lookout.SIGNAL
"""The signal that asks a child where it is. The lookout sends it to pytest's own process, too."""

AVAILABLE = LINUX and None not in (System.memfd_create, System.register_dump)

# The calls that any handled signal ends: of pause() and sigsuspend().
PAUSES = {"x86_64": (b"34", b"130"), "aarch64": (b"133",)}


class _Asked(NamedTuple):
    child: Child
    descriptor: int
    before: int
    """The size of the file before."""


def ask(children: Collection[Child], seconds: float = SECONDS) -> None:
    """Ask the living ones of some children where they are, and note what they answer."""
    if not AVAILABLE:
        return
    asked: list[_Asked] = []
    try:
        files: set[int] = set()
        for child in children:
            one = None if child.has_ended() else _ask(child, files)
            if one is not None:
                asked.append(one)
        waiting, pause = asked, 0.0005
        deadline = System.monotonic() + seconds
        while waiting and System.monotonic() < deadline:
            System.sleep(pause)
            pause = min(pause * 2, 0.02)
            waiting = [one for one in waiting if not _has_answered(one)]
        for one in asked:
            one.child.threads = dumps.parse(_read(one)) or one.child.threads
    finally:
        for one in asked:
            System.close(one.descriptor)


def _ask(child: Child, files: set[int]) -> _Asked | None:
    """Send a child the signal, if that only makes it write to a memory file not in `files`.

    Children that two threads fork at the same moment share a file: only one of them is asked.
    """
    folder = f"/proc/{child.pid}"
    try:
        paths = (f"{folder}/fd/{name}" for name in System.listdir(f"{folder}/fd"))
        path = next(filter(_is_file, paths), "")
        if not path or not _listens(folder, child.pid):
            return None
        file = System.stat(path).st_ino
        if file in files:
            return None
        files.add(file)
        descriptor = System.open(path, System.READ_ONLY)
    except OSError:  # it has ended, or may not be looked at
        return None
    one = _Asked(child, descriptor, System.fstat(descriptor).st_size)
    # Before the signal: it interrupts waits, which then begin anew.
    child.waits_without_end = deadlocks.waits_without_end(child.pid)
    child.waits_for_itself = deadlocks.holds_itself(child.pid)
    child.send(SIGNAL)
    return one


def _is_file(path: str) -> bool:
    try:
        return str(System.readlink(path)).startswith(f"/memfd:{NAME}")
    except OSError:
        return False


def _listens(folder: str, pid: int) -> bool:
    """Tell whether a process runs, handles the signal, and isn't in a call that this would end."""
    status = System.read_file(f"{folder}/status")
    if stat_fields(System.read_file(f"{folder}/stat"))[0] in b"TtZX":
        return False
    try:
        call = System.read_file(f"{folder}/task/{pid}/syscall").split()[:5]
    except OSError:  # which is forbidden here
        call = []
    pauses = call[:1] and call[0] in PAUSES.get(MACHINE, ())
    # pause() where there is no such call: ppoll() of nothing, for ever.
    pauses = pauses or (MACHINE == "aarch64" and call[:1] == [b"73"] and call[2:4] == [b"0x0"] * 2)
    return not pauses and _has(status, b"SigCgt") and not _has(status, b"SigBlk")


def _has_answered(one: _Asked) -> bool:
    """Tell whether the signal was taken and its handler has returned, or the process has ended.

    While the handler runs, the kernel blocks the signal in its thread.
    """
    folder = f"/proc/{one.child.pid}/task"
    try:
        statuses = [System.read_file(f"{folder}/{tid}/status") for tid in System.listdir(folder)]
    except OSError:
        # A thread of it has ended, or all: then nothing more comes.
        return one.child.has_ended()
    if any(_has(s, field) for s in statuses for field in (b"ShdPnd", b"SigPnd", b"SigBlk")):
        return False
    return bool(System.fstat(one.descriptor).st_size > one.before)


def _has(status: bytes, field: bytes) -> bool:
    """Tell whether the signal is in a set of a process's or thread's ``status``."""
    _, _, after = status.partition(b"\n" + field + b":\t")
    return bool(int(after[:16] or b"0", 16) >> (SIGNAL - 1) & 1)


def _read(one: _Asked) -> str:
    parts, place = [], one.before
    while part := System.pread(one.descriptor, 1 << 16, place):
        parts.append(part)
        place += len(part)
    return b"".join(parts).decode(errors="replace")
