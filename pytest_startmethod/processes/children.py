"""A child process of a test: how it was started, whether it is alive, and how it ended."""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_startmethod.processes.exit_codes import is_fault
from pytest_startmethod.processes.threads import NONE
from pytest_startmethod.selection.contexts import RUN_ORDER
from pytest_startmethod.system import WINDOWS, System

if TYPE_CHECKING:
    from pytest_startmethod.processes import dumps
    from pytest_startmethod.processes.owners import Owner


class Child:
    """A process that was started; it holds nothing of the user's, and no descriptor."""

    __slots__ = (
        "_class_method",
        "_maker",
        "_popen",
        "began",
        "by_manager",
        "by_pool",
        "daemon",
        "daemons_stay",
        "exit_code",
        "forked_beside",
        "gone",
        "is_standard",
        "made_at",
        "mark",
        "name",
        "owner",
        "pid",
        "place",
        "reported",
        "start_method",
        "threads",
        "waits_for_itself",
        "waits_without_end",
    )

    def __init__(
        self,
        process: object,
        place: str,
        maker: object,
        owner: Owner,
        *,
        by_pool: bool = False,
        made_at: str = "",
    ) -> None:
        self._popen: weakref.ref[Any] | None = None
        # Private, since Python 2.6: the public ones may run the user's code. Where they go missing
        # it has no name, and is no daemon.
        held = vars(process)
        name = held.get("_name")
        self.name = name if isinstance(name, str) else "process"
        # loky's "loky_init_main" is one that starts by "loky".
        self._class_method = getattr(type(process), "_start_method", None)
        self.place = place
        """The line that started it."""
        self.began = System.monotonic()
        self.mark = 0
        """The mark that it and its descendants have (see `leaks.marks`); 0 for none."""
        self._maker: weakref.ref[Any] | None = None
        if maker is not None:
            with suppress(TypeError):  # its class allows none
                self._maker = weakref.ref(maker)
        self.by_pool = by_pool
        """Whether a thread of a pool or an executor asks for its exit code."""
        self.by_manager = self._maker is not None and not by_pool
        """Whether a manager started it."""
        self.owner = owner
        self.made_at = made_at or place
        """The line that made its pool or executor, or else the line above."""
        config = held.get("_config")
        self.daemon = isinstance(config, dict) and bool(dict.get(config, "daemon"))
        """Whether Python ends it when it exits."""
        self.pid = 0
        """0 before it has started."""
        self.start_method = "unknown"
        """The method that really started it."""
        self.is_standard = False
        """Whether it was started by a start method of the standard library's."""
        self.daemons_stay = False
        """Whether what it started and what left by ``setsid()`` may outlive the test."""
        self.exit_code: int | None = None
        """None while it runs, and where it isn't known."""
        self.gone = False
        """Whether it is known to have ended."""
        self.reported = False
        self.forked_beside = NONE
        """The other threads that ran in the test's process when it was forked."""
        self.threads: list[dumps.Thread] = []
        """Where its threads were when it was asked last."""
        self.waits_without_end = False
        """Whether each of its threads waited without end when it was asked last."""
        self.waits_for_itself = False
        """Whether each of them then waited for a lock that only this process can release."""

    def has_started(self, popen: object, pid: int) -> None:
        """Learn what holds the process, as it runs now."""
        try:
            self._popen = weakref.ref(popen)
        except TypeError:  # its class allows none
            self._popen = None
        self.pid = pid
        # What started a process alone knows by which method, since Python 3.4. Where it goes
        # missing the child is still recorded, and counts as proof of nothing.
        self.start_method = str(getattr(popen, "method", "unknown"))
        self.is_standard = self.start_method in RUN_ORDER
        if self.start_method != "fork":
            self.forked_beside = NONE

    @property
    def popen(self) -> Any:  # noqa: ANN401 (a private class, another for each start method)
        """What started it, while somebody else keeps that."""
        return self._popen and self._popen()

    @property
    def maker(self) -> Any:  # noqa: ANN401 (a pool, an executor or a manager)
        """The pool, executor or manager that started it, while somebody else keeps that."""
        return self._maker and self._maker()

    @property
    def is_direct(self) -> bool:
        """Whether the operating system knows it as a child of this process."""
        return self.start_method != "forkserver"

    def is_started_by(self, method: str) -> bool:
        """Tell whether it was started by a method, or by another that its class calls so."""
        return method in (self.start_method, self._class_method)

    @property
    def crashed(self) -> bool:
        """Whether it ended by an uncaught exception or a fault."""
        code = self.exit_code
        return code is not None and (code == 1 or is_fault(code))

    def note(self, exit_code: int) -> None:
        """Record the exit code that somebody got."""
        self.exit_code, self.gone = exit_code, True

    def has_ended(self) -> bool:
        """Look whether it has ended, and take the exit status from nobody."""
        if not self.gone:
            popen = self.popen
            code = getattr(popen, "returncode", None)
            if isinstance(code, int):  # and no mock
                self.note(code)
            elif WINDOWS:
                self._look_at_handle(popen)
            elif self.is_direct and System.waitid is not None:
                self._look_at_pid()
            else:
                self._look_at_sentinel(popen)
        return self.gone

    def _look_at_pid(self) -> None:
        try:
            found = System.waitid(System.PID, self.pid, System.LOOK)
        except ChildProcessError:  # somebody else has taken its exit status, or a forkserver will
            self.gone = not System.is_grandchild(self.pid)
            return
        if found is not None:
            killed = found.si_code in System.KILLED
            self.note(-found.si_status if killed else found.si_status)

    def _look_at_handle(self, popen: Any) -> None:  # noqa: ANN401 (as the property)
        handle = getattr(popen, "sentinel", None)
        if handle is None:
            self.gone = True
            return
        code = System.exit_code_of_handle(int(handle))
        if code is not None:
            self.note(code)

    def _look_at_sentinel(self, popen: Any) -> None:  # noqa: ANN401 (as the property)
        """Look at the descriptor that the forkserver closes when it has told the exit code."""
        sentinel = getattr(popen, "sentinel", None)
        is_open = False
        if sentinel is not None:
            ready = System.ready([int(sentinel)])
            if not ready:
                return
            is_open = all(ready.values())
        # A descriptor that somebody has closed tells nothing; and where nobody keeps what had
        # started the process (Ctrl-C came in between), there is none.
        self.gone = is_open or not System.is_grandchild(self.pid)

    def ask(self) -> None:
        """Ask for the exit code as `Process.exitcode` does, where that is to be had at once.

        In the main thread, and while no test waits: whoever asks takes the answer from a thread
        that asks at the same time. Pools and executors ask themselves.
        """
        popen = self.popen
        if popen is not None and self.exit_code is None and not self.by_pool and self.has_ended():
            code = popen.poll()
            if isinstance(code, int):
                self.note(code)

    @property
    def place_now(self) -> str:
        """The innermost frame of the user's code that it was in when it was asked last, or ""."""
        return next((place for thread in self.threads if (place := thread.place)), "")

    def send(self, signum: int) -> None:
        """Send a signal, where the pid is known to be this child's at this moment."""
        popen = self.popen
        if WINDOWS:
            if popen is not None:
                popen.terminate()
            return
        System.send(self.pid, signum, self.has_ended)
