"""Records the processes that are started, who started them, and the exit codes that others get."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.explain import stacks
from pytest_startmethod.leaks.descendants import Starts
from pytest_startmethod.processes import makers
from pytest_startmethod.processes.children import Child
from pytest_startmethod.processes.owners import Owner
from pytest_startmethod.weak_map import WeakMap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from multiprocessing.process import BaseProcess
    from types import FrameType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.leaks.segments import Segments


class Maker(NamedTuple):
    """What is known of a pool or an executor."""

    owner: Owner | None
    place: str
    """The line that made it."""


class Recorder:
    """The record of a run; `wrappers.Wrappers` tells it what happens.

    `owner` returns the owner of what is made now, None if no test runs. `used` is called with the
    context of each pool, executor or manager that serves somebody, and `started` with each child
    that has an owner.
    """

    def __init__(
        self,
        owner: Callable[[], Owner | None],
        guard: Guard,
        *,
        used: Callable[[object], object] = id,
        started: Callable[[Child], object] = id,
    ) -> None:
        self._owner = owner
        self.guard = guard
        self._used = used
        self._started = started
        self.session = Owner("the session", lasts=True)
        self.children: list[Child] = []
        self.starts = Starts(self.session)
        self.segments: Segments | None = None
        self._makers: WeakMap[Maker] = WeakMap()
        # Who owns each process and lock, by its id: whatever gets the same id later is noted anew.
        # Nothing is kept alive, and it takes less time than a weak reference.
        self._owners: dict[int, Owner | None] = {}
        self._by_popen: dict[int, Child] = {}

    def note_made(self, made: object) -> None:
        """Record who makes a process or a lock."""
        self._owners[id(made)] = self._owner()

    def note_maker(self, maker: object, frame: FrameType) -> None:
        """Record who makes a pool or an executor, in a frame."""
        if maker not in self._makers:
            self._makers.set(maker, Maker(self._owner(), makers.line(frame)))

    def note_use(self, maker: object) -> None:
        """Record that a pool, an executor or the proxy of a manager serves somebody."""
        self._used(makers.context(maker))

    def expect(self, process: BaseProcess, frame: FrameType) -> Child | None:
        """Return the record of a process that is about to start in a frame.

        None of one that nobody owns.
        """
        place, maker, of_maker = "unknown line", None, None
        try:
            place, maker = makers.origin(frame, self._makers)
            of_maker = self._makers.get(maker)
        except Exception as error:  # noqa: BLE001 (what was found so far is still recorded)
            self.guard.note(error)
        by_pool = isinstance(maker, makers.POOLS)
        if by_pool:
            owner = of_maker.owner if of_maker else self.session
        else:  # a manager's only process is made by whoever starts it
            owner = self._owners.get(id(process), self.session)
        if owner is None:
            return None
        made_at = of_maker.place if of_maker else ""
        try:
            return Child(process, place, maker, owner, by_pool=by_pool, made_at=made_at)
        except Exception as error:  # noqa: BLE001 (the user's properties)
            self.guard.note(error)
        # What can't be read isn't known; the process is to end with its test all the same.
        return Child(None, place, maker, owner, by_pool=by_pool, made_at=made_at)

    def note_start(self, child: Child, popen: object, pid: int, mark: int) -> None:
        """Record that an expected child has started, what holds it, and the mark that it has."""
        child.has_started(popen, pid)
        self.children.append(child)
        self._by_popen[id(popen)] = child
        self.starts.note(mark, child)
        self._started(child)

    def note_exit_code(self, popen: object, code: int) -> None:
        """Record the exit code that somebody got from what holds a process."""
        child = self._by_popen.get(id(popen))
        if child is not None and child.exit_code is None and child.popen is popen:
            child.note(code)

    def is_older(self, lock: object) -> bool:
        """Tell whether a lock was made at import or by a wider fixture, not by the test."""
        owner = self._owners.get(id(lock), self.session)
        return owner is None or owner.lasts

    def test_ended(self, test: Owner) -> None:
        """Drop what is known of the processes and locks that a test has made."""
        self._owners = {number: one for number, one in self._owners.items() if one is not test}

    def of_ended_owners(self) -> list[Child]:
        """Return the children whose owner has ended."""
        return [child for child in self.children if child.owner.ended]

    def locate(self, children: Collection[Child]) -> None:
        """Ask children where they are."""
        with self.guard:
            stacks.ask(children)

    def give(self, child: Child, owner: Owner) -> None:
        """Let another own a child, and the pool, executor or manager that started it."""
        child.owner = owner
        maker = child.maker
        if maker is not None:
            self._makers.set(maker, Maker(owner, child.made_at))

    def forget(self, children: Iterable[Child]) -> None:
        """Drop the record of `children`."""
        gone = set(map(id, children))
        if gone:
            self.children = [child for child in self.children if id(child) not in gone]
            kept = set(map(id, self.children))
            self._by_popen = {n: child for n, child in self._by_popen.items() if id(child) in kept}
