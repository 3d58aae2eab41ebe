"""Fails a test that waits for what no process or thread can give any more."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.kernel import pipes, process_tree, waits
from pytest_startmethod.processes import threads
from pytest_startmethod.processes.places import package
from pytest_startmethod.stall import deadlocks, lookout, waiting_frames
from pytest_startmethod.system import WINDOWS, System

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import FrameType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.processes.children import Child


SOON = 1.0
"""Seconds after which a further wait of a test that has stalled is looked at."""

SIGNAL = lookout.SIGNAL
SIGALRM = getattr(signal, "SIGALRM", 0)


class Stall(NamedTuple):
    """Why a wait can't end."""

    lost: tuple[Child, ...] = ()
    """Workers of the pool that the wait is on: they ended, and their tasks are lost."""
    stuck: tuple[waits.Thread, ...] = ()
    """The threads that wait without end; none of the process tree can move."""


class StallWatch:
    """Lets the main thread look at its own wait, when the lookout finds it blocked for too long.

    `children` returns the test's children, `bystanders` the pids of those of earlier tests,
    `helpers` the pids of processes that serve multiprocessing itself, and `plugins` the names of
    modules whose threads aren't the test's;
    `on_stall` is called in the main thread, inside of the wait, which goes on where it returns.
    """

    def __init__(
        self,
        seconds: float,
        guard: Guard,
        *,
        children: Callable[[], Collection[Child]],
        bystanders: Callable[[], Collection[int]],
        helpers: Callable[[], Collection[int]],
        plugins: Callable[[], Collection[str]],
        on_stall: Callable[[Stall], None],
    ) -> None:
        self._seconds = seconds
        self._guard = guard
        self._children = children
        self._bystanders = bystanders
        self._helpers = helpers
        self._plugins = plugins
        self._on_stall = on_stall
        self._pid = System.getpid()
        self._main = System.main_thread().ident
        self._lock = threading.RLock()  # not held while others' code runs
        self._lookout: lookout.Lookout | None = None
        # The one for all tests, while a test that has stalled has one of its own.
        self._usual: lookout.Lookout | None = None
        self._on = False
        # Whether the lookout looks, and the signal has its handler.
        self._looks = False
        self.starting: set[int] = set()
        """The threads that start a process now, where no other thread may be alive then."""
        # The threads that were stuck at the last look, and where the main thread was.
        self._last: tuple[object, int, int] | None = None
        self._woken_by: Stall | None = None
        # How the signal was handled before.
        self._handled_before: Any = None
        # Threads that were there before the first test.
        self._older = frozenset(System.threads())
        self._older_ids = threads.thread_ids()

    def prepare(self) -> None:
        """Handle the signal, if the user doesn't, and have a lookout.

        Before each test, and till the last one has ended: so what a test or fixture sees at its
        start is there at its end.
        """
        if not SIGNAL or self._seconds <= 0 or System.get_ident() != self._main:
            return
        handler = System.get_handler(SIGNAL)
        if handler in System.NO_HANDLERS:
            self._handled_before = System.set_handler(SIGNAL, self._handle)
            handler = self._handle
        if self._lookout is None and handler == self._handle:
            self._lookout = lookout.lookout(self._seconds, self._is_stalled)

    def enter(self, *, begin: bool) -> None:
        """Watch from the next start of a child on; `begin` if there are some already."""
        self._on, self._looks = bool(SIGNAL) and self._seconds > 0, False
        if begin:
            self._begin()

    @property
    def handler(self) -> Callable[[int, FrameType | None], None]:
        """What handles the signal in pytest's process, and in forked children to no effect."""
        return self._handle

    def leave(self) -> None:
        """Watch no longer."""
        with self._lock:
            self._on = self._looks = False
            if self._lookout is not None:
                self._lookout.pause()
            if self._usual is not None:
                self._lookout, self._usual = self._usual, None

    def end(self) -> None:
        """End the lookout, and handle the signal as before."""
        self.leave()
        self._end_lookout()
        if self._handled_before is not None and System.get_handler(SIGNAL) == self._handle:
            System.set_handler(SIGNAL, self._handled_before)
        self._handled_before = None

    def _end_lookout(self) -> None:
        if self._lookout is not None:
            self._lookout.end()
            self._lookout = None

    def before_start(self, *, forks: bool) -> None:
        """Look from now on, but with a thread not before `after_start`: none may be at a fork."""
        try:
            if self._lookout is None or self._lookout.is_thread:
                self.starting.add(System.get_ident())
                if forks and self._lookout is not None:
                    with self._lock:
                        self._lookout.make_way()
            elif not self._looks:
                self._begin()
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self._guard.note(error)

    def after_start(self) -> None:
        """Look again; to be called if any thread is `starting` a process."""
        try:
            self.starting.discard(System.get_ident())
            self._begin()
        except Exception as error:  # noqa: BLE001 (ours: no test is to see it)
            self._guard.note(error)

    def _begin(self) -> None:
        with self._guard, self._lock:  # a pool's own thread may start a process at any time
            if not self._on or self.starting:
                return
            if System.get_handler(SIGNAL) != self._handle:  # the test's own is to hear of no more
                self._end_lookout()
                return
            if self._lookout is None:
                self._lookout = lookout.lookout(self._seconds, self._is_stalled)
            self._lookout.begin()
            self._looks = True

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        __tracebackhide__ = True
        if WINDOWS:
            stall, self._woken_by = self._woken_by, None
            if stall is None:
                self._pass_on(signum, frame)
        else:
            stall = self._look(frame)
            if stall is not None:
                self._look_soon()
        if stall is not None:
            self._on_stall(stall)

    def _look_soon(self) -> None:
        """Look at the next wait sooner: what a test leaves by ``with`` may wait for the same."""
        with self._guard, self._lock:
            if self._lookout is not None and self._usual is None:
                self._lookout.pause()
                self._usual = self._lookout
                self._lookout = lookout.ThreadLookout(min(SOON, self._seconds))
                self._lookout.begin()

    def _pass_on(self, signum: int, frame: FrameType | None) -> None:
        """Do what a Ctrl-Break of the user's did before."""
        if callable(self._handled_before):
            self._handled_before(signum, frame)
        elif self._handled_before == System.DEFAULT_HANDLER:
            System.set_handler(signum, System.DEFAULT_HANDLER)
            System.raise_signal(signum)

    def _is_stalled(self, frame: FrameType | None) -> bool:
        self._woken_by = self._look(frame)
        return self._woken_by is not None

    def _look(self, frame: FrameType | None) -> Stall | None:
        """Return why the wait that a frame is in can't end, where that is so for the second time.

        Not for the first time: the wait may have come to its end just now.
        """
        stall, last = None, self._last
        self._last = None
        if not self._on or System.getpid() != self._pid or frame is None:
            return None
        with self._guard:
            stall = self._find(frame)
        if stall is None:
            return None
        # A pool whose initializer fails loses one worker after the other.
        self._last = stall.stuck, id(frame), frame.f_lasti
        return stall if self._last == last else None

    def _find(self, frame: FrameType | None) -> Stall | None:
        """Return why the wait that a frame is in can't end, or None where it may."""
        frames = waiting_frames.waiting_frames(frame)
        if not any(package(frame) in waiting_frames.PROCESSES for frame in frames):
            return None
        if waiting_frames.is_start(frames) or self._expects_alarm():
            return None
        lost = waiting_frames.lost_workers(frames, self._children())
        if lost:
            return Stall(lost=tuple(lost))
        if not waits.AVAILABLE:
            return Stall() if self._all_are_dead() else None
        descriptor = waiting_frames.awaited_descriptor(frames)
        stuck = self._stuck(descriptor)
        beside = self._beside_deadlocked(waiting_frames.joined(frames)) if stuck is None else None
        if beside:
            stuck = self._stuck(descriptor, beside)
        if stuck is None or waiting_frames.is_answered(frames):
            return None
        return Stall(stuck=tuple(stuck))

    def _expects_alarm(self) -> bool:
        """Tell whether an alarm of the test's own is to come: not one of a plugin's time-out."""
        if System.getitimer is None or not System.getitimer(System.ITIMER_REAL)[0]:
            return False
        handler = System.get_handler(SIGALRM)
        return callable(handler) and getattr(handler, "__module__", "") not in self._plugins()

    def _beside_deadlocked(self, pid: int | None) -> frozenset[int]:
        """Return the threads that can't let go on a child which can't go on by itself.

        Each of its threads waits without end for a lock that only its own process can release, and
        it handles no signal. The threads are those that ran when it was forked, and do the
        same still: one that was started later, or has got another task, may end it.
        """
        child = next((c for c in self._children() if c.pid == pid), None)
        if child is None or not deadlocks.is_deadlocked(child.pid):
            return frozenset()
        return threads.still_running(child.forked_beside)

    def _stuck(
        self, descriptor: int | None, beside: frozenset[int] = frozenset()
    ) -> list[waits.Thread] | None:
        others = {System.main_thread().native_id or 0, *self._older_ids, *beside}
        others |= {thread.native_id or 0 for thread in self._of_others()}
        if self._lookout is not None:
            others.add(self._lookout.thread)
        silent: set[int] = set()
        if descriptor is not None:
            # An earlier test's process that has nothing of what this one waits for.
            silent |= set(self._bystanders()) - pipes.holders(descriptor)
        return waits.stuck_threads(process_tree.process_tree(silent, others, self._helpers()))

    def _of_others(self) -> list[threading.Thread]:
        """Return the threads that aren't the test's: older ones, and those of pytest's plugins."""
        plugins = self._plugins()
        return [t for t in System.threads() if t in self._older or threads.module(t) in plugins]

    def _all_are_dead(self) -> bool:
        """Tell whether each child has ended, and no thread of the test's is there to answer.

        Where the kernel can't be asked what others wait for, any other thread may answer, but for
        those in which the standard library alone is at work.
        """
        others = self._of_others()
        answering = [
            thread
            for thread in System.threads()
            if thread.ident != self._main and thread not in others and not threads.serves(thread)
        ]
        children = self._children()
        return bool(children) and not answering and all(c.has_ended() for c in children)
