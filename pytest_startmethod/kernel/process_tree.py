"""Finds the processes that may end a wait of this one: those below it, and orphans of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


# Fields of ``/proc/PID/stat``, from the state on (`man 5 proc`).
PARENT, SESSION, FLAGS, START_TIME = 1, 3, 6, 19

# The flag of what was forked and runs no program of its own (<linux/sched.h>).
FORKED = 0x40


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


def process_tree(
    silent: Collection[int], threads: Collection[int], helpers: Collection[int]
) -> Tree:
    """Return the tree of this process.

    With the orphans that share its semaphores, and those that it has started: a shell's background
    job may send a signal. Of others only a pipe could end a wait, and who holds one is known by
    that.
    """
    here = System.getpid()
    parents: dict[int, int] = {}
    stats: dict[int, list[bytes]] = {}
    for pid in pids():
        try:
            fields = stat_fields(System.read_file(f"/proc/{pid}/stat"))
        except OSError:
            continue
        parents[pid] = int(fields[PARENT])
        stats[pid] = fields
    own = _semaphores(here)
    orphans = {pid for pid, parent in parents.items() if parent == 1} - {here}
    found = {pid for pid in orphans if _may_come_from(here, pid, stats)}
    if own:
        found |= {pid for pid in orphans - found if not own.isdisjoint(_semaphores(pid))}
    found.add(here)
    unvisited = [*found]
    while unvisited:
        parent = unvisited.pop()
        children = {pid for pid, of in parents.items() if of == parent} - found
        found |= children
        unvisited += children
    return Tree(here, frozenset(found), frozenset(silent), frozenset(helpers), frozenset(threads))


def _may_come_from(here: int, pid: int, stats: Mapping[int, list[bytes]]) -> bool:
    """Tell whether this process may be the one that started an orphan.

    A fork of this process is known by its command line, another program by the variables that
    pytest and its workers have set. What can't be read counts, but for that of other sessions.
    """
    fields, own = stats[pid], stats[here]
    if int(fields[START_TIME]) <= int(own[START_TIME]):
        return False
    try:
        commands = {System.read_file(f"/proc/{each}/cmdline") for each in (pid, here)}
        if int(fields[FLAGS]) & FORKED and len(commands) == 1:
            return True
        variables = System.read_all(f"/proc/{pid}/environ").split(b"\0")
    except OSError:
        return fields[SESSION] == own[SESSION]
    worker = System.environment().get(b"PYTEST_XDIST_WORKER")
    workers = [one for one in variables if one.startswith(b"PYTEST_XDIST_WORKER=")]
    has_worker = workers == ([] if worker is None else [b"PYTEST_XDIST_WORKER=%b" % worker])
    return has_worker and any(one.startswith(b"PYTEST_CURRENT_TEST=") for one in variables)


def _semaphores(pid: int) -> set[bytes]:
    """Return the semaphores of multiprocessing that a process maps, by device and inode."""
    try:
        maps = System.read_all(f"/proc/{pid}/maps")
    except OSError:  # another user's, or ended
        return set()
    lines = [line.split() for line in maps.splitlines() if b"/sem." in line]
    return {b" ".join(words[3:5]) for words in lines}


def stat_fields(stat: bytes) -> list[bytes]:
    """Return the fields of ``stat`` from the state on: a command's name may hold anything."""
    return stat[stat.rfind(b")") + 1 :].split()


def pids() -> Iterator[int]:
    """Return the processes of the system, or of the container."""
    return (int(name) for name in System.listdir("/proc") if name.isdigit())
