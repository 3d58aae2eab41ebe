"""Wraps the functions of the standard library that start processes and tell how they ended."""

from __future__ import annotations

import functools
import sys
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

from pytest_startmethod.processes import broken_starts, makers, threads
from pytest_startmethod.system import WINDOWS, System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from pytest_startmethod.explain.fork_listener import ForkListener
    from pytest_startmethod.leaks.child_config import ChildConfig
    from pytest_startmethod.leaks.marks import Marks
    from pytest_startmethod.load_hooks import LoadHooks
    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.stall.stall import StallWatch
    from pytest_startmethod.watch.recorder import Recorder


# What learns an exit code, in the classes that hold a process.
TELLS = "wait" if WINDOWS else "poll"


class Wrappers:
    """Wraps functions from `install` to `uninstall`, and tells the recorder of their calls.

    `stall` hears of each start, before and after it. `marks` marks what is started,
    `child_config` sets what it starts with, and `listener` lets forks tell where they are.
    `launched` is called with each object that holds a process of a forkserver's.
    """

    def __init__(
        self,
        recorder: Recorder,
        load_hooks: LoadHooks,
        *,
        stall: StallWatch | None = None,
        marks: Marks | None = None,
        child_config: ChildConfig | None = None,
        listener: ForkListener | None = None,
        launched: Callable[[object], object] = id,
    ) -> None:
        self._recorder = recorder
        self._guard = recorder.guard
        self._load_hooks = load_hooks
        self._stall = stall
        self._marks = marks
        self._child_config = child_config
        self._listener = listener
        self._launched = launched
        # The classes that hold processes, and those of them that define how to ask for the end.
        self._popen_classes: set[type] = set()
        self._patched_popens: set[type] = set()
        self._pid = System.getpid()
        # The threads that were there before the first test.
        self._older = frozenset(thread.ident or 0 for thread in System.threads())
        self._patches = ExitStack()

    def install(self, contexts: Iterable[Any]) -> None:
        """Wrap what starts processes: the standard library's, and what these contexts have."""
        starting = {BaseProcess, *filter(None, map(makers.process_base, contexts))}
        for base in starting:
            self._patch(base, "start", self._wrap_start)
        for made in starting:
            self._patch(made, "__init__", self._wrap_init)
        # `Pool._check_running` is private, since Python 3.8; where it goes missing, a test that is
        # served by a pool made elsewhere isn't known to be.
        for (module, cls), name, wrap in (
            (makers.LOCK, "__init__", self._wrap_init),
            (makers.POOL, "__init__", self._wrap_maker_init),
            (makers.POOL, "_check_running", self._wrap_use),
            (makers.EXECUTOR, "__init__", self._wrap_maker_init),
            (makers.EXECUTOR, "submit", self._wrap_use),
            (makers.PROXY, "_callmethod", self._wrap_use),
        ):
            self._load_hooks.add(module, functools.partial(self._patch_in, cls, name, wrap))

    def uninstall(self) -> None:
        """Put back what `install` wrapped."""
        self._patches.close()

    def _patch(self, cls: type, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(cls).get(name)
        if original is not None:
            setattr(cls, name, wrap(original))
            self._patches.callback(setattr, cls, name, original)

    def _patch_in(
        self, cls: str, name: str, wrap: Callable[[Any], Any], module: ModuleType
    ) -> None:
        self._patch(getattr(module, cls), name, wrap)

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
        owners, owner = self._recorder.owners, self._recorder.owner

        @functools.wraps(original)
        def __init__(made: object, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
            __tracebackhide__ = True
            if System.getpid() == self._pid:
                try:
                    owners[id(made)] = owner()
                except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                    self._guard.note(error)
            original(made, *args, **kwargs)

        return __init__

    def _wrap_maker_init(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(maker: object, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
            __tracebackhide__ = True
            if System.getpid() == self._pid:
                with self._guard:
                    # No other way to see who calls, on CPython.
                    self._recorder.note_maker(maker, sys._getframe(1))  # noqa: SLF001
            original(maker, *args, **kwargs)

        return __init__

    def _wrap_poll(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def poll(popen: object, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            __tracebackhide__ = True
            code = original(popen, *args, **kwargs)
            if isinstance(code, int) and System.getpid() == self._pid:
                try:
                    self._recorder.note_exit_code(popen, code)
                except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                    self._guard.note(error)
            return code

        return poll

    def _wrap_use(self, original: Callable[..., Any]) -> Callable[..., Any]:
        recorder = self._recorder

        @functools.wraps(original)
        def use(maker: object, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            __tracebackhide__ = True
            # Once is enough: what takes time here may let the test's threads meet otherwise.
            if id(maker) not in recorder.served_by and System.getpid() == self._pid:
                with self._guard:
                    recorder.note_use(maker)
            return original(maker, *args, **kwargs)

        return use

    # Most is done before the start: after a fork the system copies each page that is written.

    def _wrap_start(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(original)
        def start(process: BaseProcess, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            __tracebackhide__ = True
            if System.getpid() != self._pid:
                return original(process, *args, **kwargs)
            child = None
            try:
                # No other way to see who calls, on CPython.
                child = self._recorder.expect(process, sys._getframe(1))  # noqa: SLF001
            except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                self._guard.note(error)
            method = getattr(type(process), "_start_method", None)
            begun: list[Callable[[], None]] = []
            try:
                self._begin(process, child, method, begun)
                original(process, *args, **kwargs)
            except BaseException as error:
                with self._guard:
                    self._has_started(child, process, broken_starts.find_popen(error))
                raise
            finally:
                try:
                    self._end(begun)
                except BaseException:
                    self._end(begun)  # a signal's handler has raised: a time-out of the test
                    raise
            try:
                popen: object = getattr(process, "_popen", None)
            except Exception as error:  # noqa: BLE001 (the user's property)
                self._guard.note(error)
                popen = _popen_among(vars(process).values())
            try:
                self._has_started(child, process, popen)
            except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                self._guard.note(error)
            return None

        return start

    def _begin(
        self,
        process: BaseProcess,
        child: Child | None,
        method: str | None,
        begun: list[Callable[[], None]],
    ) -> None:
        """Do what comes just before a start; append to `begun` what is to be called after it."""
        mark = 0
        # Of the standard library's classes; others, and the default's, may fork.
        forks = method not in ("spawn", "forkserver")
        if self._stall is not None:
            self._stall.before_start(forks=forks)
        try:
            if forks and self._listener is not None:
                begun.append(self._listener.end)
                self._listener.begin()
            if self._marks is not None:
                begun.append(self._marks.end)
                mark = self._marks.begin(forks=method == "fork")
            if self._child_config is not None:
                self._child_config.give(process, mark, forks=forks)
            if child is not None:
                child.mark = mark
                if forks:
                    child.forked_beside = threads.other_threads(self._older)
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self._guard.note(error)

    def _end(self, begun: list[Callable[[], None]]) -> None:
        """Do what comes after a start, also after one that failed or was interrupted."""
        while begun:
            try:
                begun[-1]()
            except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
                self._guard.note(error)
            begun.pop()
        if self._stall is not None and self._stall.starting:
            self._stall.after_start()

    def _has_started(self, child: Child | None, process: BaseProcess, popen: object) -> None:
        pid = getattr(popen, "pid", None) or getattr(process, "pid", None)
        if popen is None or not isinstance(pid, int):  # nothing, or a mock
            return
        if getattr(popen, "method", "") == "forkserver":
            with self._guard:
                self._launched(popen)
        if child is None:
            return
        if type(popen) not in self._popen_classes:
            with self._guard:
                self._watch_popen(type(popen))
        self._recorder.note_start(child, popen, pid)
        # Nothing else can have marked a fork, but a start in another thread.
        marks = self._marks
        if marks and child.mark and (child.start_method != "fork" or child.mark != marks.last):
            marks.confirm(child.mark, pid)


def _popen_among(held: Iterable[object]) -> object:
    """Return what holds a process that was started, whatever its class makes of `_popen`."""
    return next((one for one in held if hasattr(one, "pid") and hasattr(one, "poll")), None)
