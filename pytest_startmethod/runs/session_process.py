"""Starts and ends a pytest process, and reads what it sends."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pytest_startmethod import invocation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# The program of the process. It imports nothing before it has set sys.path, which begins with the
# working directory: that may have modules of any name. Then it waits for its turn.
BOOT = """
import sys
with open(int(sys.argv[1]), encoding="ascii", closefd=False) as file:
    given = eval(file.read())
sys.path[:], sys.argv[:] = given["sys_path"], given["argv"]
import pytest
with open(given["gate"], "rb") as file:
    begins = file.read(1)
sys.exit(pytest.main(given["args"]) if begins else 0)
"""
PLUGIN = "pytest_startmethod.session.plugin"
PATIENCE = 10.0
"""Seconds that it may take to end, and to end what its tests have left."""
LAST_LINES = 100  # faulthandler writes about 50 for pytest's stack


class SessionProcess:
    """A pytest process of its own; `given` has plain values for its plugin.

    It imports pytest at once, and does nothing else before `begin`.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        args: Sequence[str],
        folder: Path,
        *,
        environment: Mapping[str, str],
        shows: bool,
    ) -> None:
        self.ended = False
        """Whether it sent that it is complete."""
        self.is_closed = False
        """Whether no more messages can come."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (it lasts as long as the process)
        self._unread = b""
        self._reader, writer = os.pipe()
        gate, self._gate = os.pipe()
        self._has_begun = False
        with tempfile.TemporaryFile() as file:
            known = {
                **given,
                "sys_path": list(invocation.SYS_PATH),
                "argv": list(invocation.ARGV),
                "args": ["-p", PLUGIN, f"--startmethod-session={file.fileno()}", *args],
                "gate": gate,
                "writer": writer,
                "log": self._log.fileno(),
                "shows": shows,
                "parent": os.getpid(),
            }
            file.write(ascii(known).encode("ascii"))
            file.seek(0)
            output = None if shows else self._log
            try:
                self._process = subprocess.Popen(
                    [invocation.EXECUTABLE, *_flags(), "-c", BOOT, str(file.fileno())],
                    cwd=folder,
                    env={**invocation.ENVIRONMENT, **environment},
                    pass_fds=[gate, writer, self._log.fileno(), file.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            except BaseException:
                os.close(self._reader)
                os.close(self._gate)
                self._log.close()
                raise
            finally:
                os.close(gate)
                os.close(writer)

    def begin(self) -> None:
        """Let it run its tests."""
        if not self._has_begun:
            self._has_begun = True
            with suppress(OSError):  # it has ended already
                os.write(self._gate, b"1")

    def fileno(self) -> int:
        """Return the descriptor that messages are read from, for `select`."""
        return self._reader

    def read(self) -> list[list[Any]]:
        """Return the messages that have come, without waiting; record the end."""
        messages = []
        while not self.is_closed and select.select([self], [], [], 0)[0]:
            data = os.read(self._reader, 1 << 16)
            self.is_closed = not data
            *lines, self._unread = (self._unread + data).split(b"\n")
            messages += [json.loads(line) for line in lines]
            self.ended = bool(messages) and messages[-1][0] == "end"
            self.is_closed = self.is_closed or self.ended
        return messages

    def is_over(self) -> bool:
        """Return whether it has ended, even if children that it left keep the pipe open."""
        return self.is_closed or self._process.poll() is not None

    def end(self, *, patience: float = PATIENCE) -> str:
        """End it, if it doesn't end by itself in so many seconds, and return how it ended."""
        if not self._has_begun:
            self._process.kill()
        for number in (0, signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if number and self._process.poll() is None:
                self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE if number else patience)
                break
        os.close(self._gate)  # not earlier: Ctrl-C may end the wait, and this is called again
        os.close(self._reader)
        return _describe_exit(self._process.returncode)

    def last_lines(self, start: int = 0) -> str:
        """Return the last lines that it printed after `start`; to be called once, after its end."""
        with self._log:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(start, size - (1 << 16)))
            text = self._log.read().decode(errors="replace")
        return "\n".join(text.rstrip().splitlines()[-LAST_LINES:])


def wait(processes: Iterable[SessionProcess], seconds: float) -> None:
    """Wait until one of the processes sends a message."""
    select.select([process for process in processes if not process.is_closed], [], [], seconds)


def _describe_exit(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):  # the number of no signal
            return signal.Signals(-code).name
    return f"exit code {code}"


def _flags() -> list[str]:
    """Return the interpreter's own options, such as ``-X dev``.

    Private, and the same from Python 3.2 to 3.15; if it goes missing, there are none.
    """
    flags = getattr(subprocess, "_args_from_interpreter_flags", list)
    return list(flags())
