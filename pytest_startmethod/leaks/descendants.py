"""Finds the processes that a test's children started and left, and stops them."""

from __future__ import annotations

import signal
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.kernel import prctl
from pytest_startmethod.kernel.process_tree import (
    FLAGS,
    FORKED,
    PARENT,
    SESSION,
    START_TIME,
    pids,
    stat_fields,
)
from pytest_startmethod.leaks import reaper
from pytest_startmethod.leaks.marks import mark_of
from pytest_startmethod.processes.broken_starts import PATIENCE
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.processes.owners import Owner

LAST_PID = "/proc/sys/kernel/ns_last_pid"
FEW = 200
"""As many pids at most are looked at one by one: to list those of the system takes longer then."""

SOON = 1.0
"""Seconds in which no system gives a pid a second time."""

ROUNDS = 10
"""How often those are ended that were started by others which were about to be ended."""

# States of what has ended.
ENDED = (b"Z", b"X")

# What multiprocessing, and libraries that copied it, run beside their processes: such a helper ends
# after the last process that it serves.
HELPERS = (b"resource_tracker", b"semaphore_tracker", b"forkserver import main")


class Descendant(NamedTuple):
    """A process that a child started, or another of its descendants."""

    pid: int
    began: bytes
    """When it was started, as the kernel counts: with the pid it names a process."""
    parent: int
    session: int
    command: bytes
    is_helper: bool
    """Whether it serves multiprocessing in a child, and ends with what it serves."""
    child: Child
    """The test's child that it comes from."""


class MarkedChildren:
    """The children that have a mark, until the plugin has looked for what they left."""

    def __init__(self, session: Owner) -> None:
        self._session = session
        self.new: list[Child] = []
        # Of the session and of tests that ask for nothing: not looked at before the session ends.
        self._kept: list[Child] = []

    def take_ended(self) -> list[Child]:
        """Return those whose owner has ended, all with the session, and keep them no longer."""
        new, self.new = self.new, []
        ended: list[Child] = []
        for child in new:
            if child.owner is self._session or child.owner.untouched:
                self._kept.append(child)
            else:
                (ended if child.owner.ended else self.new).append(child)
        if self._session.ended:
            for child in self._kept:
                child.owner = self._session
            ended = [*self._kept, *ended, *self.new]
            self.new, self._kept = [], []
        return ended

    def take(self, children: Collection[Child]) -> list[Child]:
        """Return those of `children`, and keep them no longer."""
        known = set(map(id, children))
        taken = [child for child in (*self.new, *self._kept) if id(child) in known]
        self.new = [child for child in self.new if id(child) not in known]
        self._kept = [child for child in self._kept if id(child) not in known]
        return taken


def stop(children: Sequence[Child], daemons_stay: Callable[[], bool]) -> list[Descendant]:
    """Stop what children have left, and return those that didn't end by themselves.

    They get `reaper.GRACE` seconds for that, then a SIGTERM, and a SIGKILL. Those that left by
    ``setsid()`` stay where `daemons_stay`, which is asked if there are some, or where the test
    allowed that.
    """
    leaked: list[Descendant] = []
    alive = reaper.wait(_find(children, daemons_stay), reaper.GRACE, _has_ended) if children else []
    for _ in range(ROUNDS):
        if not alive:
            break
        # It may run another program by now.
        found = [_look(one.pid, one.child) or one for one in alive if not one.is_helper]
        leaked += found
        _end(found, signal.SIGTERM, reaper.GRACE)
        _end(found, reaper.KILL, PATIENCE)
        if not daemons_stay():  # which a helper may serve
            helpers = [one for one in alive if one.is_helper]
            helpers = reaper.wait(helpers, reaper.GRACE, _has_ended)
            _end(helpers, reaper.KILL, PATIENCE)
        # What one of them has started to take its place.
        alive = _find(children, daemons_stay) if found else []
    return leaked


def _find(children: Sequence[Child], daemons_stay: Callable[[], bool]) -> list[Descendant]:
    by_mark = {child.mark: child for child in children}
    found = []
    for pid in _candidates(children):
        child = by_mark.get(mark_of(pid))
        # A start that a signal has interrupted may leave this process with a mark.
        if child is not None and pid not in (child.pid, System.getpid()):
            one = _look(pid, child)
            if one is not None and not (
                one.session != System.getsid(0) and (child.daemons_stay or daemons_stay())
            ):
                found.append(one)
    return found


def _candidates(children: Sequence[Child]) -> Iterable[int]:
    """Return the pids that were given since: the kernel counts them up, and then anew."""
    given = [child.pid for child in children]
    oldest = min(child.began for child in children)
    with suppress(OSError, ValueError):  # a kernel without it
        last = int(System.read_file(LAST_PID))
        first = min(given)
        recent = System.monotonic() - oldest < SOON
        if recent and max(given) <= last and last - first <= FEW:
            return range(first + 1, last + 1)
    return pids()


def _look(pid: int, child: Child) -> Descendant | None:
    """Return what is to be known of a descendant; None where it has ended, or isn't one.

    Who starts a process marks its other threads' for a moment, too; those are no child's.
    """
    try:
        stat = stat_fields(System.read_file(f"/proc/{pid}/stat"))
        status = System.read_file(f"/proc/{pid}/status")
        command = System.read_file(f"/proc/{pid}/cmdline").replace(b"\0", b" ").strip()
    except OSError:
        return None
    parent = int(stat[PARENT])
    is_thread = b"\nTgid:\t%d\n" % pid not in status
    if is_thread or stat[0] in ENDED or (parent == System.getpid() and not _adopts()):
        return None
    runs_own = not int(stat[FLAGS]) & FORKED  # a fork has the command line of its parent
    is_helper = runs_own and any(name in command for name in HELPERS)
    return Descendant(pid, stat[START_TIME], parent, int(stat[SESSION]), command, is_helper, child)


def _adopts() -> bool:
    """Tell whether orphans become children of this process."""
    return System.getpid() == 1 or prctl.is_subreaper()


def _has_ended(one: Descendant) -> bool:
    try:
        stat = stat_fields(System.read_file(f"/proc/{one.pid}/stat"))
    except OSError:
        return True
    return stat[START_TIME] != one.began or stat[0] in ENDED


def _end(some: Sequence[Descendant], signum: int, seconds: float) -> None:
    """Send a signal to those that are alive, and wait until they have ended."""
    for one in some:
        System.send(one.pid, signum, partial(_has_ended, one))
    reaper.wait(some, seconds, _has_ended)
    for one in some:
        if one.parent == System.getpid():  # an orphan that came to us: nobody else waits for it
            with suppress(OSError):
                System.waitpid(one.pid, System.NO_HANG)
