"""Ends, as Python exits, the processes that a suite has kept, once its exit hooks have run."""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_startmethod.explain import findings
from pytest_startmethod.leaks import descendants, reaper
from pytest_startmethod.processes import threads
from pytest_startmethod.processes.places import is_installed
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence
    from multiprocessing.pool import Pool

    from pytest_startmethod.leaks.segments import Segment, Segments
    from pytest_startmethod.processes.children import Child

# The priorities of what multiprocessing calls as Python exits, the highest first. With 15 it ends
# its pools, with 10 its managers; after 0 it terminates daemons and joins all children.
POOLS, CHILDREN, LEFT = 16, 0, -1


def is_let_go(child: Child) -> bool:
    """Tell whether a child won't keep Python from exiting.

    Executors without tasks, managers and libraries end theirs themselves.
    """
    if child.daemon or child.by_manager or is_installed(child.place) or child.has_ended():
        return True
    return child.by_pool and not _works(child)


def _works(child: Child) -> bool:
    """Tell whether a child is the worker of an executor that has tasks, or that is gone.

    `ProcessPoolExecutor._pending_work_items` is private, since Python 3.2; where it goes missing,
    any executor may have tasks. The workers of pools are daemons.
    """
    tasks = getattr(child.maker, "_pending_work_items", True)
    return child.by_pool and not child.daemon and bool(tasks)


def _is_standard(child: Child) -> bool:
    """Tell whether multiprocessing itself started a child, and no copy of it."""
    popen = child.popen
    return popen is None or type(popen).__module__.startswith("multiprocessing.")


class Leftovers:
    """The children and the shared memory that are left at the end of the session.

    `pools` returns the pools that live. The descendants of `marked` children are to be ended, too,
    and of those `told` the user was warned.
    """

    def __init__(
        self,
        children: Sequence[Child],
        pools: Callable[[], Iterable[Pool]],
        marked: Sequence[Child],
        told: Collection[Child],
    ) -> None:
        self._children = children
        self._pools = pools
        self._marked = marked
        self._told = set(map(id, told))
        self.segments: Segments | None = None
        self.memory: list[Segment] = []
        """What pytest's own process made; the user was warned of what no library made."""
        self._exits = threading.Event()
        # The join() of each thread that is to stop a pool.
        self._stopping: list[Callable[[float], None]] = []

    def leave(self, add_cleanup: Callable[[Callable[[], None]], None]) -> None:
        """Leave all to the exit hooks, and have it ended before Python would wait for it."""
        if next(iter(self._pools()), None) is not None:
            add_cleanup(self._prepare_to_stop_pools)
            _finalize(POOLS, self._stop_pools)
        if self._children:
            add_cleanup(self._end_awaited)
            _finalize(CHILDREN, self._end_children)
        if self._children or self.memory:
            _finalize(LEFT, self._end_left)

    def _end_awaited(self) -> None:
        """End what Python may wait for before it calls the exit hook of multiprocessing.

        That is what its threads wait for, as it joins them first.
        """
        with suppress(Exception):  # nobody is left to hear of it
            any_may_wait = threads.any_is_joined_at_exit()
            self._end(
                lambda child: (
                    _works(child)
                    or (not is_let_go(child) and (any_may_wait or not _is_standard(child)))
                )
            )

    def _prepare_to_stop_pools(self) -> None:
        """Start a thread for each pool: Python 3.12 starts none as it exits."""
        with suppress(Exception):  # as above
            for pool in self._pools():
                args = (self._exits, weakref.ref(pool))
                thread = System.Thread(target=_stop_at_exit, args=args, daemon=True)
                thread.start()
                self._stopping.append(thread.join)

    def _stop_pools(self) -> None:
        """Stop pools by threads: what multiprocessing does next may wait for ever."""
        with suppress(Exception):  # as above
            self._exits.set()
            for join in self._stopping:
                join(reaper.GRACE)

    def _end_children(self) -> None:
        """End what multiprocessing would join next."""
        with suppress(Exception):  # as above
            for child in self._alive():
                if child.daemon:  # which multiprocessing terminates
                    child.send(signal.SIGTERM)
            self._end(bool)

    def _end(self, is_meant: Callable[[Child], bool]) -> None:
        ended = reaper.stop(lambda: list(filter(is_meant, self._alive())))
        _tell(findings.leak([one for one in ended if not one.daemon and id(one) not in self._told]))

    def _alive(self) -> list[Child]:
        return [child for child in self._children if not child.has_ended()]

    def _end_left(self) -> None:
        """End what the children have left, and unlink shared memory."""
        with suppress(Exception):  # as above
            if self._marked:
                _tell(findings.leak([], descendants.stop(self._marked, lambda: False)))
        with suppress(Exception):  # as above
            if self.segments is not None:
                left = [one for one in self.memory if self.segments.remove(one)]
                found = [one for one in left if is_installed(one.place)]
                found += self.segments.unlink(self._marked, [], self._children)
                _tell(findings.memory(found))


def _stop_at_exit(exits: threading.Event, pool: weakref.ref[Pool]) -> None:
    exits.wait()
    reaper.stop_maker(pool())


def _finalize(priority: int, function: Callable[[], None]) -> None:
    """Let multiprocessing call a function when Python exits: not documented, since Python 2.6."""
    # Loaded with the first process. Any earlier would change the order of exit hooks.
    from multiprocessing.util import Finalize

    Finalize(None, function, exitpriority=priority)


def _tell(warnings: Sequence[Warning]) -> None:
    for warning in warnings:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{type(warning).__name__}: {warning}\n")
