"""Tells whether any process or thread could still end the main thread's wait, by the kernel's word.

Whoever runs, sleeps, or waits with a time-out may. So may whoever waits for the world outside of
pytest's process tree: a terminal, a server, a pipe that another process holds. Who waits without
end for a lock, a child, or a pipe that only this process tree holds, may not, as long as nobody
else of the tree may. What can't be read proves nothing, and counts as somebody who may.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.system import System
from pytest_startmethod.watch.kernel import CALLS, MACHINE, endless_wait, switches

try:
    import ctypes
except ImportError:  # a Python that was built without it
    ctypes = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_startmethod.watch.kernel import Wait

AVAILABLE = MACHINE in CALLS and os.path.exists("/proc/self/syscall")  # noqa: PTH110

# Its end in the same process tree: what an epoll or eventfd is of, only who holds it can change.
INSIDE = ("anon_inode:[eventfd]",)
MANY = 4096
"""More descriptors in one wait than this aren't looked at."""


class Thread(NamedTuple):
    """A thread that waits without end: who it is, in what, and how often it was switched."""

    pid: int
    tid: int
    wait: Wait
    switches: bytes


class Tree(NamedTuple):
    """The processes that may end a wait of this one's main thread."""

    here: int
    processes: frozenset[int]
    """This process and those below it."""
    silent: frozenset[int]
    """Those whose own threads don't count: the children of earlier tests."""
    helpers: frozenset[int]
    """Those that serve multiprocessing itself: they count but while they wait for requests."""
    threads: frozenset[int]
    """Threads of any of them that don't count."""


def stuck_threads(tree: Tree) -> list[Thread] | None:
    """Return the threads of a process tree if none of them can move; None where one may."""
    threads = list(_waiting(tree))
    if any(thread is None for thread in threads):
        return None
    waiting = [thread for thread in threads if thread is not None]
    outside = _Outside(tree)
    if any(outside.may_end(thread) for thread in waiting if thread.pid not in tree.helpers):
        return None
    return waiting


def process_tree(
    silent: Collection[int], threads: Collection[int], helpers: Collection[int]
) -> Tree:
    """Return the tree of this process.

    With the orphans that share its semaphores: nothing else of an orphan's could end a wait but a
    pipe, and who holds one is known by that.
    """
    here = System.getpid()
    parents: dict[int, int] = {}
    for pid in _pids():
        try:
            fields = _stat_fields(System.read_file(f"/proc/{pid}/stat"))
        except OSError:
            continue
        parents[pid] = int(fields[1])
    found, below = {here}, [here]
    while below:
        parent = below.pop()
        children = {pid for pid, of in parents.items() if of == parent} - found
        found |= children
        below += children
    own = _semaphores(here)
    orphans = [pid for pid, parent in parents.items() if parent == 1 and own]
    found |= {pid for pid in orphans if not own.isdisjoint(_semaphores(pid))}
    return Tree(here, frozenset(found), frozenset(silent), frozenset(helpers), frozenset(threads))


def _semaphores(pid: int) -> set[bytes]:
    """Return the semaphores of multiprocessing that a process maps, by device and inode."""
    try:
        maps = System.read_all(f"/proc/{pid}/maps")
    except OSError:  # another user's, or ended
        return set()
    lines = [line.split() for line in maps.splitlines() if b"/sem." in line]
    return {b" ".join(words[3:5]) for words in lines}


def holders(descriptor: int) -> set[int]:
    """Return the processes that hold the other end of a pipe or socket of this one, or the same."""
    link = System.readlink(f"/proc/self/fd/{descriptor}")
    known = _holders()
    found = set(known.get(link, ()))
    if link.startswith("socket:["):
        found |= known.get(f"socket:[{unix_peers().get(int(link[8:-1]), 0)}]", set())
    return found


def _stat_fields(stat: bytes) -> list[bytes]:
    """Return the fields of ``stat`` from the state on: a command's name may hold anything."""
    return stat[stat.rfind(b")") + 1 :].split()


def _pids() -> Iterator[int]:
    return (int(name) for name in System.listdir("/proc") if name.isdigit())


def _waiting(tree: Tree) -> Iterator[Thread | None]:
    """Return the threads that count, and None for each that may move."""
    for pid in tree.processes - tree.silent:
        try:
            state = _stat_fields(System.read_file(f"/proc/{pid}/stat"))[0]
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


class _Outside:
    """Tells which waits the world outside of a process tree may end."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._holders: dict[str, set[int]] | None = None
        self._peers: dict[int, int] | None = None

    def may_end(self, thread: Thread) -> bool:
        """Tell whether somebody else may, or whether that isn't known."""
        kind = thread.wait.call.kind
        if kind in ("lock", "child"):
            return False
        try:
            return any(self._may_serve(thread.pid, fd) for fd in self._descriptors(thread))
        except (OSError, ValueError, struct.error):
            return True

    def _descriptors(self, thread: Thread) -> list[int]:
        pid, arguments, kind = thread.pid, thread.wait.arguments, thread.wait.call.kind
        if kind in ("read", "write"):
            return [arguments[0]]
        if kind == "poll":
            return _polled(pid, arguments[0], arguments[1])
        if kind == "select":
            return _selected(pid, arguments)
        text = System.read_file(f"/proc/{pid}/fdinfo/{arguments[0]}").decode()
        lines = [line.split() for line in text.splitlines() if line.startswith("tfd:")]
        return [int(words[1]) for words in lines]

    def _may_serve(self, pid: int, descriptor: int) -> bool:
        """Tell whether a process outside of the tree may make a descriptor ready."""
        link = System.readlink(f"/proc/{pid}/fd/{descriptor}")
        if link in INSIDE:
            return False
        if link.startswith("pipe:"):
            return self._is_held_outside(link)
        if link.startswith("socket:["):
            peer = self._peer(int(link[len("socket:[") : -1]))
            # No peer that is known: a server in the network, or one that listens.
            return peer is None or (peer != 0 and self._is_held_outside(f"socket:[{peer}]"))
        return True

    def _is_held_outside(self, link: str) -> bool:
        if self._holders is None:
            self._holders = _holders()
        holders = self._holders.get(link)
        # A socket that nobody holds may be on its way in a message, or wait to be accepted.
        return not holders or bool(holders - self._tree.processes)

    def _peer(self, inode: int) -> int | None:
        if self._peers is None:
            self._peers = unix_peers()
        return self._peers.get(inode)


def _polled(pid: int, address: int, number: int) -> list[int]:
    """Return the descriptors of an array of ``struct pollfd`` in the memory of a process."""
    if number > MANY:
        raise ValueError(number)
    array = _memory(pid, address, 8 * number)
    return [fd for fd, _, _ in struct.iter_unpack("=ihh", array) if fd >= 0]


def _selected(pid: int, arguments: tuple[int, ...]) -> list[int]:
    """Return the descriptors of the three ``fd_set`` of a call of select."""
    number = arguments[0]
    if number > MANY:
        raise ValueError(number)
    found: set[int] = set()
    for address in filter(None, arguments[1:4]):
        bits = int.from_bytes(_memory(pid, address, (number + 7) // 8), "little")
        found |= {fd for fd in range(number) if bits >> fd & 1}
    return sorted(found)


def _memory(pid: int, address: int, size: int) -> bytes:
    descriptor = System.open(f"/proc/{pid}/mem", System.READ_ONLY)
    try:
        data: bytes = System.pread(descriptor, size, address)
    finally:
        System.close(descriptor)
    if len(data) != size:
        raise ValueError(size)
    return data


def _holders() -> dict[str, set[int]]:
    """Return the processes that hold each pipe and socket, as far as they may be looked at."""
    holders: dict[str, set[int]] = {}
    for pid in _pids():
        folder = f"/proc/{pid}/fd"
        try:
            names = System.listdir(folder)
        except OSError:  # another user's, or ended
            continue
        for name in names:
            try:
                link = System.readlink(f"{folder}/{name}")
            except OSError:
                continue
            holders.setdefault(link, set()).add(pid)
    return holders


SOCK_DIAG, BY_FAMILY, DUMP, DONE = 4, 20, 0x301, (2, 3)
SHOW_PEER, PEER = 4, 2


def unix_peers() -> dict[int, int]:
    """Return the peer of each connected unix socket, by inode; 0 where it is closed.

    By `man 7 sock_diag`. Raises `OSError` where the kernel doesn't tell.
    """
    peers: dict[int, int] = {}
    with System.Socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as diag:
        request = struct.pack(
            "=BBHIIIII", socket.AF_UNIX, 0, 0, ~0 & 0xFFFFFFFF, 0, SHOW_PEER, 0, 0
        )
        diag.send(struct.pack("=IHHII", 16 + len(request), BY_FAMILY, DUMP, 1, 0) + request)
        while True:
            data = diag.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in DONE:
                    return peers
                peers.update(_peer_of(data[16:length]))
                data = data[(length + 3) & ~3 :]


def _peer_of(message: bytes) -> Iterator[tuple[int, int]]:
    (inode,) = struct.unpack_from("=I", message, 4)
    place = 16
    while place < len(message):
        length, kind = struct.unpack_from("=HH", message, place)
        if kind == PEER:
            yield inode, struct.unpack_from("=I", message, place + 4)[0]
        place += max((length + 3) & ~3, 4)


# Of <linux/prctl.h>.
GET_CHILD_SUBREAPER, SET_PTRACER = 37, 0x59616D61


def is_subreaper() -> bool:
    """Tell whether processes whose parent has ended become children of this one (`man 2 prctl`)."""
    if ctypes is None:
        return False
    answer = ctypes.c_int()
    ctypes.CDLL(None).prctl(GET_CHILD_SUBREAPER, ctypes.byref(answer), 0, 0, 0)
    return bool(answer.value)


def allow_ptrace(pid: int) -> None:
    """Let a process look at this one, where Yama forbids it (`man 2 prctl`, PR_SET_PTRACER)."""
    if ctypes is not None:
        ctypes.CDLL(None).prctl(SET_PTRACER, ctypes.c_ulong(pid), 0, 0, 0)
