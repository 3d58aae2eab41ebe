"""Which processes did a test start, and how did they end?"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing.connection import wait
from multiprocessing.pool import Pool
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import SemLock
from typing import TYPE_CHECKING, Any

from pytest_startmethod.selection.contexts import RUN_ORDER
from pytest_startmethod.watch.owners import Owner, Owners

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from multiprocessing.managers import BaseManager
    from types import FrameType

    Maker = Pool | ProcessPoolExecutor | BaseManager

PATIENCE = 10.0
"""Seconds that a busy machine may take for what happens in any case."""

FAULTS = frozenset(
    -getattr(signal, name)
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE")
    if hasattr(signal, name)
)

# Each starts processes for those who use it, at times of its own.
POOLS = (Pool, ProcessPoolExecutor)

# Whose frames don't say who starts a process.
PASSED_ON = ("multiprocessing.", "concurrent.futures.", "threading", "pytest_startmethod.")


class Child:
    """A process that was started, the exit code from when it is known on."""

    def __init__(
        self,
        process: BaseProcess,
        popen: Any,  # noqa: ANN401 (a private class, another for each start method)
        place: str,
        maker: Maker | None,
        owner: Owner,
        made_at: str = "",
    ) -> None:
        self.popen = popen
        """What started it; None from when the exit code is known: it holds files."""
        self.name = process.name
        self.pid: int = getattr(popen, "pid", process.pid) or 0
        # What started a process alone knows by which method, since Python 3.4. Where it goes
        # missing the child is still recorded, and its end is not watched.
        self.start_method: str = getattr(popen, "method", "unknown")
        """The method that really started it."""
        # loky's "loky_init_main" is one that starts by "loky".
        self._start_method_of_class = getattr(process, "_start_method", None)
        self.by_default = self.start_method == multiprocessing.get_start_method(allow_none=True)
        """Whether that was the process-wide default."""
        self.place = place
        """The line that started it."""
        self.maker = maker
        self.owner = owner
        self.made_at = made_at or place
        """The line that made what started it: its pool or executor, or else the line above."""
        self.is_standard = self.start_method in RUN_ORDER
        """Whether it was started by a start method of the standard library's."""
        # The pools of other libraries are unknown: loky keeps an executor for the next call.
        self.kept = maker is not None or process.daemon or not self.is_standard
        """Whether code may keep it for later, as it ends by itself when Python exits."""
        self.exitcode: int | None = None
        self.reported = False

    def is_started_by(self, method: str) -> bool:
        """Tell whether it was started by a method, or by another that its class calls so."""
        return method in (self.start_method, self._start_method_of_class)

    @property
    def crashed(self) -> bool:
        """Whether it ended by an uncaught exception or a fault."""
        return self.exitcode == 1 or self.exitcode in FAULTS

    def has_ended(self) -> bool:
        """Look, without taking the exit code away from somebody who waits for it.

        So it can only be told by the sentinel, which is closed a little before the end, or long
        before it by a child that closes all files.
        """
        popen = self.popen  # settle() may run meanwhile, in another thread
        # Once the exit code is known, close() may have closed the sentinel.
        return (
            popen is None or popen.returncode is not None or bool(wait([popen.sentinel], timeout=0))
        )

    @property
    def is_asked_for(self) -> bool:
        """Whether a thread of a pool or an executor asks for the exit code."""
        return isinstance(self.maker, POOLS)

    def settle(self, *, ask: bool) -> None:
        """Take note of the exit code where it is known; `ask` for it as `Process.exitcode` does.

        Ask in the main thread while no test waits: whoever asks takes the answer from a thread that
        asks at the same time.
        """
        if self.popen is not None:
            if ask:
                self.popen.poll()
            if self.popen.returncode is not None:
                self.exitcode, self.popen = self.popen.returncode, None

    def is_gone(self) -> bool:
        """Ask, where no pool or executor does so: once the owner's time is over."""
        self.settle(ask=not self.is_asked_for)
        return self.has_ended() if self.is_asked_for else self.popen is None


class Recorder:
    """Records the processes that are started, from `install` to `uninstall`.

    `owner` returns whose it is what is made now: None where nobody watches.
    """

    def __init__(
        self,
        owner: Callable[[], Owner | None],
        around_start: Callable[[bool], AbstractContextManager[None]],
    ) -> None:
        self._owner = owner
        self.session = Owner("the session", lasts=True)
        self.children: list[Child] = []
        self._around_start = around_start
        self._owners = Owners()
        self._pid = os.getpid()
        self._patches = ExitStack()

    def install(self, contexts: Iterable[Any]) -> None:
        """Begin to record: what the standard library starts, and what these contexts start."""
        starting = {BaseProcess, *filter(None, map(_process_base, contexts))}
        for base in starting:
            self._patch(base, "start", self._wrap_start)
        for made in (*starting, SemLock, *POOLS):
            self._patch(made, "__init__", self._wrap_init)

    def uninstall(self) -> None:
        """Put back what `install` wrapped."""
        self._patches.close()

    def made_before(self, made: object) -> bool:
        """Tell whether something was made at import or by a wider fixture, not by the test."""
        owner = self._owners.get(made, self.session)
        return owner is None or owner.lasts

    def ended(self) -> list[Child]:
        """Return the children whose owner has ended."""
        return [child for child in self.children if child.owner.ended]

    def give(self, child: Child, owner: Owner) -> None:
        """Let another own a child, and the pool, executor or manager that started it."""
        child.owner = owner
        if child.maker is not None:
            self._owners.add(child.maker, owner, child.made_at)

    def settle(self, ask: Callable[[Child], bool] = lambda _: False) -> None:
        """Take note of the exit codes that are known, and ask for some; see `Child.settle`."""
        for child in tuple(self.children):
            child.settle(ask=ask(child) and not child.is_asked_for)

    def forget(self, children: Collection[Child]) -> None:
        """Drop the record of `children`."""
        gone = set(children)
        self.children = [child for child in self.children if child not in gone]

    def _patch(self, cls: type, name: str, wrap: Callable[[Any], Any]) -> None:
        original = vars(cls).get(name)
        if original is not None:
            setattr(cls, name, wrap(original))
            self._patches.callback(setattr, cls, name, original)

    def _wrap_init(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(made: object, /, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807
            __tracebackhide__ = True
            if os.getpid() == self._pid and made not in self._owners:  # another class's first
                pool = isinstance(made, POOLS)
                place = _origin(sys._getframe(1), self._owners)[0] if pool else ""  # noqa: SLF001 (see `_record`)
                self._owners.add(made, self._owner(), place)
            original(made, *args, **kwargs)

        return __init__

    def _wrap_start(self, original: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(original)
        def start(process: BaseProcess) -> None:
            __tracebackhide__ = True
            if os.getpid() != self._pid:  # the child of a fork inherits this, and has no part in it
                return original(process)
            # Of the standard library's classes; others, and the default's, may fork.
            forks = getattr(process, "_start_method", None) not in ("spawn", "forkserver")
            with self._around_start(forks):
                try:
                    original(process)
                except BaseException as error:
                    self._record(process, _interrupted(error))
                    raise
                return self._record(process, getattr(process, "_popen", None))

        return start

    def _record(self, process: BaseProcess, popen: Any) -> None:  # noqa: ANN401 (as that of Child)
        self.settle()  # so that the descriptors of those who are gone go, too
        place, maker = _origin(sys._getframe(2), self._owners)  # noqa: SLF001 (no other way to see who calls, on CPython)
        # A manager's only process is made by whoever starts it.
        owner = self._owners.get(maker if isinstance(maker, POOLS) else process, self.session)
        if owner is not None and getattr(popen, "pid", process.pid) is not None:
            made_at = self._owners.place(maker)
            self.children.append(Child(process, popen, place, maker, owner, made_at))


def _interrupted(error: BaseException) -> Any:  # noqa: ANN401 (as that of Child)
    """Return what had started a process by the forkserver when an error (Ctrl-C) came in between.

    The child runs then, and only the forkserver knows its pid, which it is about to tell. By names
    that are the same from Python 3.4 to 3.15; where they go missing nothing is found.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        popen: Any = frame.f_locals.get("self")
        if getattr(popen, "method", "") == "forkserver" and hasattr(popen, "sentinel"):
            from multiprocessing.forkserver import read_signed

            # Within some seconds, as the forkserver may have just begun to import what it preloads.
            if not hasattr(popen, "pid") and wait([popen.sentinel], PATIENCE):
                with suppress(EOFError):  # the forkserver has ended before
                    popen.pid = read_signed(popen.sentinel)
                    return popen
    return None


def _process_base(context: object) -> type | None:
    """Return the class whose ``start()`` starts a context's processes, if it is a class."""
    process = getattr(context, "Process", None)
    # Threads have no sentinel: multiprocessing.dummy offers them as processes.
    bases = process.__mro__ if isinstance(process, type) and hasattr(process, "sentinel") else ()
    return next((base for base in reversed(bases) if "start" in vars(base)), None)


def _origin(frame: FrameType | None, owners: Owners) -> tuple[str, Maker | None]:
    """Return the line that starts a process, and the maker whose code does it."""
    maker: Maker | None = None
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if not module.startswith(PASSED_ON):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}", maker
        maker = maker or _maker(frame, owners)
        frame = frame.f_back
    return "the pool's own thread", maker


def _maker(frame: FrameType, owners: Owners) -> Maker | None:
    """Return the pool, executor or manager whose method a frame runs."""
    this: Any = frame.f_locals.get("self")
    # Imported where there is one, and maybe not yet in full where another thread imports it now.
    managers = sys.modules.get("multiprocessing.managers")
    if isinstance(this, (*POOLS, getattr(managers, "BaseManager", Pool))):
        maker: Maker = this
        return maker
    # A pool's own thread knows its list of workers alone, as `pool`, and not the Pool itself: it
    # would live for ever. Where a Python version names them otherwise the test owns the worker.
    workers = frame.f_locals.get("pool")
    if isinstance(workers, list):
        pools = (made for made in owners.living() if isinstance(made, Pool))
        return next((pool for pool in pools if vars(pool).get("_pool") is workers), None)
    return None
