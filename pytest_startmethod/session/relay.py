"""Sends reports and warnings of a session to the pytest that started it."""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    import warnings
    from collections.abc import Generator

# Frames of these files only pass on an error that a plugin raises.
PLUMBING = re.compile(r"[/\\](_pytest|pluggy|pytest_startmethod)[/\\]")


class Warned(NamedTuple):
    """The parts of a warning that can be sent."""

    module: str
    category: str
    message: str
    filename: str
    lineno: int

    @classmethod
    def of(cls, recorded: warnings.WarningMessage) -> Warned:
        """Return the parts of a recorded warning."""
        kind = recorded.category
        text = str(recorded.message)
        return cls(kind.__module__, kind.__qualname__, text, recorded.filename, recorded.lineno)


class Relay:
    """The hooks that send each report as a line of JSON to the file descriptor `writer`.

    `log` is the file descriptor that the process prints to.
    """

    def __init__(self, config: pytest.Config, writer: int, log: int) -> None:
        self._config = config
        self._writer = writer
        self._log = log
        self._pid = os.getpid()
        # Kept from now on: tests may replace the functions of modules while a report is sent.
        self._write, self._get_pid, self._stat = os.write, os.getpid, os.fstat
        self._serialize, self._exit = json.dumps, os._exit

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        """Send the parts of a warning."""
        self._send("warning", Warned.of(warning_message), when, nodeid, location)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Send why something wasn't collected."""
        if not report.passed:
            self._send_report("collect_report", report)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Send which tests will run."""
        self._send("collected", [item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Send that a test begins, and how much was printed before."""
        self._send("start", nodeid, location, self._stat(self._log).st_size)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send how a phase of a test ended."""
        self._send_report("report", report)

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        """Send that a test is over."""
        self._send("finish", nodeid, location)

    @pytest.hookimpl(tryfirst=True)
    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Send the error of a plugin, and its line outside of pytest."""
        frames = [f for f in traceback.extract_tb(excinfo.tb) if not PLUMBING.search(f.filename)]
        place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        self._send("problem", f"{excinfo.exconly()}{place}")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Send what interrupts the session: Ctrl-C or ``pytest.exit()``."""
        self._send("problem", excinfo.exconly())

    @pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest's own, which records warnings
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int
    ) -> Generator[None, object, object]:
        """Send that the session is complete, unless an error ended it early."""
        result = yield
        if exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        ):
            self._send("end", str(session.shouldstop or session.shouldfail or ""))
        return result

    def _send_report(self, kind: str, report: pytest.CollectReport | pytest.TestReport) -> None:
        hook = self._config.hook
        self._send(kind, hook.pytest_report_to_serializable(config=self._config, report=report))

    def _send(self, kind: str, *values: Any) -> None:  # noqa: ANN401 (what JSON can tell)
        if self._get_pid() != self._pid:  # a forked child that runs on as pytest
            return
        text = self._serialize([kind, *values], default=repr, skipkeys=True)
        data = text.encode("utf-8", "backslashreplace") + b"\n"
        try:
            while data:
                data = data[self._write(self._writer, data) :]
        except OSError as error:  # the first pytest has ended, or a test has closed the pipe
            sys.stderr.write(f"this session can't send its reports any more: {error}\n")
            self._exit(1)
