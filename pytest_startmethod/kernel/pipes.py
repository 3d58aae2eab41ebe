"""Tells who holds the other ends of the pipes and sockets that a thread waits for."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from pytest_startmethod.kernel.process_tree import pids
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from pytest_startmethod.kernel.syscalls import Wait

# Its end in the same process tree: what an epoll or eventfd is of, only who holds it can change.
INSIDE = ("anon_inode:[eventfd]",)


MANY = 4096
"""More descriptors in one wait than this aren't looked at."""


def holders(descriptor: int) -> set[int]:
    """Return the processes that hold the other end of a pipe or socket of this one, or the same."""
    link = System.readlink(f"/proc/self/fd/{descriptor}")
    known = _holders()
    found = set(known.get(link, ()))
    if link.startswith("socket:["):
        found |= known.get(f"socket:[{unix_peers().get(int(link[8:-1]), 0)}]", set())
    return found


class Outside:
    """Tells which waits the world outside of a process tree may end."""

    def __init__(self, tree: Collection[int]) -> None:
        self._tree = frozenset(tree)
        self._holders: dict[str, set[int]] | None = None
        self._peers: dict[int, int] | None = None

    def may_end(self, pid: int, wait: Wait) -> bool:
        """Tell whether somebody else may, or whether that isn't known."""
        if wait.call.kind in ("lock", "child"):
            return False
        try:
            return any(self._may_serve(pid, fd) for fd in self._descriptors(pid, wait))
        except (OSError, ValueError, struct.error):
            return True

    def _descriptors(self, pid: int, wait: Wait) -> list[int]:
        arguments, kind = wait.arguments, wait.call.kind
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
        return not holders or bool(holders - self._tree)

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
    for pid in pids():
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
