"""Records the processes that are started, who started them, and the exit codes that others get."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.explain import stacks
from pytest_startmethod.leaks.descendants import MarkedChildren
from pytest_startmethod.processes import makers
from pytest_startmethod.processes.children import Child
from pytest_startmethod.processes.owners import Owner
from pytest_startmethod.weak_map import WeakMap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from multiprocessing.pool import Pool
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

    `owner` returns the owner of what is made now, None if no test runs. `is_expected` tells
    whether a context starts processes by the test's start method.
    """

    def __init__(
        self,
        owner: Callable[[], Owner | None],
        guard: Guard,
        *,
        is_expected: Callable[[object], bool] = bool,
    ) -> None:
        self.owner = owner
        self.guard = guard
        self._is_expected = is_expected
        self.session = Owner("the session", lasts=True)
        self.children: list[Child] = []
        self.started: list[Child] = []
        """Those that were started since the test began; the test's own list."""
        self.served = False
        """Whether a pool, executor or manager of the test's start method has served the test."""
        self.served_by: set[int] = set()
        """The ids of all pools, executors and proxies of managers that have served the test."""
        self.marked = MarkedChildren(self.session)
        self.segments: Segments | None = None
        self._makers: WeakMap[Maker] = WeakMap()
        self.owners: dict[int, Owner | None] = {}
        """Who owns each process and lock, by its id: what gets the same id later is noted anew."""
        self._by_popen: dict[int, Child] = {}

    def test_changes(self) -> None:
        """Forget what the last test started and used."""
        self.started, self.served = [], False
        self.served_by.clear()

    def note_maker(self, maker: object, frame: FrameType) -> None:
        """Record who makes a pool or an executor, in a frame."""
        self.served_by.discard(id(maker))
        if maker not in self._makers:
            self._makers.set(maker, Maker(self.owner(), makers.line(frame)))

    def pools(self) -> Iterator[Pool]:
        """Return the pools that live."""
        return makers.pools(self._makers)

    def note_use(self, maker: object) -> None:
        """Record that a pool, an executor or the proxy of a manager serves the test."""
        self.served_by.add(id(maker))
        if self._is_expected(makers.context(maker)):
            self.served = True

    def expect(self, process: BaseProcess, frame: FrameType) -> Child | None:
        """Return the record of a process that is about to start in a frame.

        None of one that nobody owns.
        """
        place, maker, of_maker = "unknown line", None, None
        try:
            place, maker = makers.origin(frame, self._makers)
            of_maker = None if maker is None else self._makers.get(maker)
        except Exception as error:  # noqa: BLE001 (what was found so far is still recorded)
            self.guard.note(error)
        by_pool = maker is not None and makers.is_pool(maker)
        if by_pool:
            owner = of_maker.owner if of_maker else self.session
        else:  # a manager's only process is made by whoever starts it
            if id(process) not in self.owners:
                self.owner()  # so that the test is watched which starts what was made before it
            owner = self.owners.get(id(process), self.session)
        if owner is None:
            return None
        made_at = of_maker.place if of_maker else ""
        return Child(process, place, maker, owner, by_pool=by_pool, made_at=made_at)

    def note_start(self, child: Child, popen: object, pid: int) -> None:
        """Record that an expected child has started, and what holds it."""
        child.has_started(popen, pid)
        self._by_popen[id(popen)] = child
        self.children.append(child)
        self.started.append(child)
        if child.mark:
            self.marked.new.append(child)

    def note_exit_code(self, popen: object, code: int) -> None:
        """Record the exit code that somebody got from what holds a process."""
        child = self._by_popen.get(id(popen))
        if child is not None and child.exit_code is None and child.popen is popen:
            child.note(code)

    def is_older(self, lock: object) -> bool:
        """Tell whether a lock was made at import or by a wider fixture, not by the test."""
        owner = self.owners.get(id(lock), self.session)
        return owner is None or owner.lasts

    def test_ended(self, test: Owner) -> None:
        """Drop what is known of the processes and locks that a test has made."""
        for number, owner in list(self.owners.items()):
            if owner is test:
                del self.owners[number]

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
