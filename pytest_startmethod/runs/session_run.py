"""Runs tests in a session; if it dies, runs the remaining tests in a new one."""

from __future__ import annotations

import os
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pytest_startmethod.runs import session_process, worker_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from pytest_startmethod.runs.receiver import Receiver
    from pytest_startmethod.runs.session_process import SessionProcess

POLL = 0.1
"""Seconds between looks at processes that send nothing."""


class SessionRun:
    """The tests of one start method; `number` tells sessions apart that run side by side."""

    def __init__(self, shown: Receiver, method: str, number: int) -> None:
        self.shown = shown
        self._method = method
        self._number = number
        self._sessions = 0
        self._messages: deque[list[Any]] = deque()
        self.process: SessionProcess | None = None

    def prepare(self) -> None:
        """Start the process of a session for the remaining tests, if there is none."""
        if self.process is None and self.shown.is_unfinished:
            self._sessions += 1
            try:
                self.process = _start(self.shown, self._method, self._number, self._sessions)
            except OSError as error:
                why = f"the session under {self._method} can't be started: {error}"
                self.shown.give_up("its session failed", why)

    def begin(self) -> None:
        """Let the session run its tests."""
        if self.process is not None:
            self.process.begin()

    def read(self) -> None:
        """Read the messages of the session."""
        if self.process is not None:
            self._messages.extend(self.process.read())

    def step(self, session: pytest.Session | None) -> bool:
        """Handle the messages that were read, and return whether there will be more.

        A test that has begun is shown to its end, with its warnings, even if `session` stops.
        """
        while self._messages:
            is_stopping = session is not None and (session.shouldfail or session.shouldstop)
            if is_stopping and self._messages[0][0] == "start":
                return False
            self.shown.receive(*self._messages.popleft())
        if self.process is not None and self.process.is_over():
            self.read()  # messages that it sent before its end
            if not self._messages:
                self._finish()
        return bool(self._messages) or self.process is not None or self.shown.is_unfinished

    def end(self, *, patience: float = 0.0) -> None:
        """End the session, even if it still runs tests."""
        process, self.process = self.process, None
        if process is not None:
            process.end(patience=patience)
            process.last_lines()

    def _finish(self) -> None:
        """Handle the end of the session: complete, stopped or dead."""
        assert self.process is not None  # `step` has checked it
        process, shown = self.process, self.shown
        ending, printed = process.end(), process.last_lines(shown.printed)
        self.process = None
        if process.ended:
            shown.give_up(f"stopped: {shown.stopped}" if shown.stopped else "stopped")
            return
        how = f"the session under {self._method} ended with {ending}"
        ended = f"{how}: {shown.problem}" if shown.problem else f"{how}\n{printed}"
        if shown.running is not None:
            shown.end_running(ended)
        elif not shown.begun:  # a new one would end the same way
            shown.give_up("its session failed", ended)
        shown.begun, shown.printed, shown.problem = False, 0, ""


def run(runs: Sequence[SessionRun], session: pytest.Session | None = None) -> None:
    """Run as many sessions at once as there are workers, and show one after the other.

    If `session` is given, stop when it stops.
    """
    try:
        for number, current in enumerate(runs):
            at_once = max(1, worker_input.count(current.shown.config))
            together = runs[number : number + at_once]
            more = True
            while more:
                for one in runs[number : number + at_once + 1]:
                    one.prepare()  # the last one imports pytest while the others run
                for one in together:
                    one.begin()
                processes = [one.process for one in together if one.process is not None]
                session_process.wait(processes, POLL)
                for one in together:
                    one.read()
                more = current.step(session)
            if session is not None and current.shown.stopped:
                session.shouldstop = session.shouldstop or current.shown.stopped
            if session is not None and (session.shouldfail or session.shouldstop):
                return
    except KeyboardInterrupt:
        for one in runs:  # the terminal may have interrupted them, too
            one.end(patience=1.0)
        raise
    finally:
        for one in runs:
            one.end()


def _start(shown: Receiver, method: str, number: int, attempt: int) -> SessionProcess:
    config = shown.config
    params = config.invocation_params
    shows = shown.is_shown and config.getoption("capture") == "no"
    named = [p.__name__ if isinstance(p, ModuleType) else p for p in params.plugins or ()]
    loaded = [arg for name in named for arg in ("-p", str(name))]
    given = {
        "start_method": method,
        "tests": shown.todo,
        "files": shown.files,
        "basetemp": _basetemp(config, shown.label + (f"-{attempt}" if attempt > 1 else "")),
        "workerinput": worker_input.make(config, number),
    }
    return session_process.SessionProcess(
        given,
        [*loaded, *map(os.fspath, params.args)],
        params.dir,
        environment=worker_input.environment(config, number),
        shows=shows,
    )


def _basetemp(config: pytest.Config, name: str) -> str:
    """Return a base folder for ``tmp_path``, below the first pytest's, as for workers of xdist.

    Private, since pytest 3.9; if it goes missing, a session has a numbered folder of its own.
    """
    factory = getattr(config, "_tmp_path_factory", None)
    return str(factory.getbasetemp() / name) if factory is not None else ""
