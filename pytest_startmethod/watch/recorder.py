"""Records the processes that are started, who started them, and the exit codes that others get."""

from __future__ import annotations

import functools
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import SemLock
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.explain import stacks
from pytest_startmethod.leaks.descendants import Starts
from pytest_startmethod.processes import broken_starts, makers, threads
from pytest_startmethod.processes.children import Child
from pytest_startmethod.processes.owners import Owner
from pytest_startmethod.processes.weak_map import WeakMap
from pytest_startmethod.system import WINDOWS, System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.leaks.child_config import ChildConfig
    from pytest_startmethod.leaks.marks import Marks
    from pytest_startmethod.leaks.segments import Segments
    from pytest_startmethod.stall.stall import StallWatch


# What learns an exit code, in the classes that hold a process.
TELLS = "wait" if WINDOWS else "poll"


class Maker(NamedTuple):
    """What is known of a pool or an executor."""

    owner: Owner | None
    place: str
    """The line that made it."""


class Recorder:
    """Records processes from `install` to `uninstall`.

    `owner` returns the owner of what is made now, None if no test runs. `stall` hears of each
    start, before and after it. `marks` marks what is started, and `child_config` sets what it
    starts with. `used` is called with the context of each pool, executor or manager that serves
    somebody, `launched` with each object that holds a process, and `started` with each child that
    has an owner.
    """

    def __init__(
        self,
        owner: Callable[[], Owner | None],
        guard: Guard,
        *,
        stall: StallWatch | None = None,
        marks: Marks | None = None,
        child_config: ChildConfig | None = None,
        used: Callable[[object], None] | None = None,
        launched: Callable[[object], object] = id,
        started: Callable[[Child], object] = id,
    ) -> None:
        self._owner = owner
        self.guard = guard
        self._stall = stall
        self._marks = marks
        self._child_config = child_config
        self._used = used
        self._launched = launched
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
        self._proxies_watched = False
        # The classes that hold processes, and those of them that define how to ask for the end.
        self._popen_classes: set[type] = set()
        self._patched_popens: set[type] = set()
        self._pid = System.getpid()
        # The threads that were there before the first test.
        self._older = frozenset(thread.ident or 0 for thread in System.threads())
        self._patches = ExitStack()

    def install(self, contexts: Iterable[Any]) -> None:
        """Begin to record what the standard library starts, and what these contexts start."""
        starting = {BaseProcess, *filter(None, map(makers.process_base, contexts))}
        for base in starting:
            self._patch(base, "start", self._wrap_start)
        for made in (*starting, SemLock):
            self._patch(made, "__init__", self._wrap_init)
        for pool in makers.POOLS:
            self._patch(pool, "__init__", self._wrap_maker_init)
        # `Pool._check_running` is private, since Python 3.8; where it goes missing, a test that is
        # served by a pool made elsewhere isn't known to be.
        self._patch(Pool, "_check_running", self._wrap_use)
        self._patch(ProcessPoolExecutor, "submit", self._wrap_use)
        self._watch_proxies()

    def uninstall(self) -> None:
        """Put back what `install` wrapped."""
        self._patches.close()

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

    def _patch(self, cls: type, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(cls).get(name)
        if original is not None:
            setattr(cls, name, wrap(original))
            self._patches.callback(setattr, cls, name, original)

    def _watch_proxies(self) -> None:
        """Hear of requests to managers, once their module is there: to import it takes time."""
        managers = sys.modules.get("multiprocessing.managers")
        proxy = getattr(managers, "BaseProxy", None)
        if proxy is not None and not self._proxies_watched:
            self._proxies_watched = True
            self._patch(proxy, "_callmethod", self._wrap_use)

    def _watch_popen(self, cls: type) -> None:
        """Hear of the exit codes that a class learns, from the first process on that it holds.

        The class of the object itself: other libraries have their own, and pytester lets the
        standard library's be imported a second time.
        """
        self._popen_classes.add(cls)
        base = next((base for base in cls.__mro__ if TELLS in vars(base)), None)
        if base is not None and base not in self._patched_popens:
            self._patched_popens.add(base)
            self._patch(base, TELLS, self._wrap_poll)

    # A forked child inherits the wrappers, and has no part in the record: hence the pid.

    def _wrap_init(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(made: object, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
            __tracebackhide__ = True
            if System.getpid() == self._pid:
                try:
                    self._owners[id(made)] = self._owner()
                except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                    self.guard.note(error)
            original(made, *args, **kwargs)

        return __init__

    def _wrap_maker_init(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(maker: object, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
            __tracebackhide__ = True
            if System.getpid() == self._pid and maker not in self._makers:
                with self.guard:
                    # No other way to see who calls, on CPython.
                    place = makers.line(sys._getframe(1))  # noqa: SLF001
                    self._makers.set(maker, Maker(self._owner(), place))
            original(maker, *args, **kwargs)

        return __init__

    def _wrap_poll(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def poll(popen: object, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            __tracebackhide__ = True
            code = original(popen, *args, **kwargs)
            if code is not None and System.getpid() == self._pid:
                try:
                    child = self._by_popen.get(id(popen))
                    if child is not None and child.exit_code is None and child.popen is popen:
                        child.note(code)
                except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                    self.guard.note(error)
            return code

        return poll

    def _wrap_use(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def use(maker: object, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            __tracebackhide__ = True
            if self._used is not None and System.getpid() == self._pid:
                with self.guard:
                    self._used(makers.context(maker))
            return original(maker, *args, **kwargs)

        return use

    def _wrap_start(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(original)
        def start(process: BaseProcess, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            __tracebackhide__ = True
            if System.getpid() != self._pid:
                return original(process, *args, **kwargs)
            # As much as can be is done before the start. What is written afterwards the system
            # copies, if the process is a fork; and it is none of the new process's time.
            child = self._expect(process)
            method = getattr(process, "_start_method", None)
            mark = self._begin(process, child, method)
            try:
                original(process, *args, **kwargs)
            except BaseException as error:
                with self.guard:
                    self._record(child, process, broken_starts.find_popen(error), mark)
                raise
            finally:
                self._end(mark, method)
            try:
                self._record(child, process, self._popen(process), mark)
            except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                self.guard.note(error)
            return None

        return start

    def _begin(self, process: BaseProcess, child: Child | None, method: str | None) -> int:
        """Do what comes just before a start; return the mark of what is started, 0 for none."""
        mark = 0
        # Of the standard library's classes; others, and the default's, may fork.
        forks = method not in ("spawn", "forkserver")
        if self._stall is not None:
            self._stall.before_start(forks=forks)
        try:
            if self._marks is not None:
                mark = self._marks.begin(forks=method == "fork")
            if self._child_config is not None:
                self._child_config.give(process, mark)
            if forks and child is not None:
                child.forked_beside = threads.other_threads(self._older)
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self.guard.note(error)
        return mark

    def _end(self, mark: int, method: str | None) -> None:
        """Do what comes after a start, also after one that failed."""
        try:
            if self._marks is not None:
                self._marks.end(mark, forks=method == "fork")
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self.guard.note(error)
        if self._stall is not None:
            self._stall.after_start()

    def _popen(self, process: BaseProcess) -> object:
        """Return what holds a process that was started, whatever its class makes of `_popen`."""
        try:
            return getattr(process, "_popen", None)
        except Exception as error:  # noqa: BLE001 (the user's property)
            self.guard.note(error)
        held = vars(process).values()
        return next((one for one in held if hasattr(one, "pid") and hasattr(one, "poll")), None)

    def _expect(self, process: BaseProcess) -> Child | None:
        """Return the record of a process that is about to start; None of one that nobody owns."""
        place, maker, of_maker = "unknown line", None, None
        try:
            # No other way to see who calls, on CPython.
            place, maker = makers.origin(sys._getframe(2), self._makers)  # noqa: SLF001
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
        if maker is not None and not by_pool:
            self._watch_proxies()
        made_at = of_maker.place if of_maker else ""
        try:
            return Child(process, place, maker, owner, by_pool=by_pool, made_at=made_at)
        except Exception as error:  # noqa: BLE001 (the user's properties)
            self.guard.note(error)
        # What can't be read isn't known; the process is to end with its test all the same.
        return Child(None, place, maker, owner, by_pool=by_pool, made_at=made_at)

    def _record(self, child: Child | None, process: BaseProcess, popen: object, mark: int) -> None:
        pid = getattr(popen, "pid", None) or getattr(process, "pid", None)
        if popen is None or pid is None:
            return
        if getattr(popen, "method", "") == "forkserver":
            with self.guard:
                self._launched(popen)
        if child is None:
            return
        child.has_started(popen, pid)
        if type(popen) not in self._popen_classes:
            with self.guard:
                self._watch_popen(type(popen))
        self.children.append(child)
        self._by_popen[id(popen)] = child
        self.starts.note(mark, child)
        try:
            if self._marks is not None:
                self._marks.confirm(mark, child.pid)
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self.guard.note(error)
        self._started(child)
