"""Reads what faulthandler writes: where each thread of a process is."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import NamedTuple

from pytest_startmethod.processes.places import is_installed
from pytest_startmethod.system import System

HEADER = re.compile(
    r"^(?:Current thread|Thread) 0x(?P<ident>[0-9a-f]+)(?: \[(?P<name>.*)\])? \(most recent call"
)
FRAME = re.compile(r'^  File "(?P<file>.*)", line (?P<line>\d+|\?\?\?) in (?P<function>.*)$')

STANDARD = str(threading.__file__).rpartition(System.SEPARATOR)[0] + System.SEPARATOR
"""The folder of the standard library."""

MOST = 10
"""As many frames of a thread are shown at most, and as many threads of a process."""

# Frames that say nothing of a thread: how multiprocessing and threading begin, the outermost first.
PROCESS_BEGINS = (
    ("multiprocessing/process.py", ("_bootstrap",)),
    ("multiprocessing/spawn.py", ("_main", "spawn_main")),
    ("multiprocessing/forkserver.py", ("_serve_one", "main")),
)
THREAD_BEGINS = ("_bootstrap", "_bootstrap_inner")


class Frame(NamedTuple):
    """Where a function is."""

    file: str
    line: str
    function: str

    def __str__(self) -> str:
        """Return "file:line in function", the path shortened as far as that says which it is."""
        file = relative(self.file) if self.is_users else self.file.removeprefix(STANDARD)
        return f"{file}:{self.line} in {self.function}"

    def is_in(self, file: str, *functions: str) -> bool:
        """Tell whether it is in a file, and in one of some functions if any are named."""
        return self.file.endswith(file) and (not functions or self.function in functions)

    @property
    def is_users(self) -> bool:
        """Whether it is in no module of the standard library's."""
        if self.file.startswith("<"):
            return not self.file.startswith("<frozen ")
        is_standard = self.file.startswith(STANDARD)
        return not is_standard or is_installed(self.file)


class Thread(NamedTuple):
    """Where a thread is: its frames, the innermost first, without those that began it."""

    ident: int
    name: str
    frames: tuple[Frame, ...]

    @property
    def place(self) -> str:
        """The innermost frame of the user's code, or "" where there is none."""
        return next((str(frame) for frame in self.frames if frame.is_users), "")

    @property
    def task(self) -> str:
        """The outermost function of the user's code, or "" where there is none."""
        frame = next((frame for frame in reversed(self.frames) if frame.is_users), None)
        return f"{frame.function} in {frame.file}" if frame else ""

    @property
    def innermost(self) -> Frame:
        """The innermost frame; one of nothing where there is none."""
        return self.frames[0] if self.frames else Frame("", "", "")

    def lines(self) -> list[str]:
        """Return what is shown of it, the innermost frame last, as in tracebacks."""
        more = [f"({len(self.frames) - MOST} more)"] if self.frames[MOST:] else []
        shown = [str(frame) for frame in reversed(self.frames[:MOST])] or ["in C code"]
        return [f"{self.name}:", *(f"  {line}" for line in (*more, *shown))]


def parse(dump: str) -> list[Thread]:
    """Return the threads of a dump of a child, its main thread first.

    faulthandler begins with the youngest. Before Python 3.14 it knows no names: a thread is then
    named by the function that it runs.
    """
    found = [_thread(part) for part in re.split(r"\n(?=Current thread|Thread)", dump.strip())]
    threads = [thread for thread in reversed(found) if thread is not None]
    return [_process_begun(thread) if n == 0 else thread for n, thread in enumerate(threads)]


def lines(threads: list[Thread]) -> list[str]:
    """Return what is shown of a process's threads."""
    more = [f"and {len(threads) - MOST} more threads"] if threads[MOST:] else []
    return [*(line for thread in threads[:MOST] for line in thread.lines()), *more]


def relative(place: str) -> str:
    """Shorten the path of a place below the working directory."""
    with suppress(OSError):  # the working directory is gone
        return place.removeprefix(System.getcwd().rstrip(System.SEPARATOR) + System.SEPARATOR)
    return place


def _thread(part: str) -> Thread | None:
    first, _, rest = part.partition("\n")
    header = HEADER.match(first)
    if header is None:
        return None
    found = (FRAME.match(line) for line in rest.splitlines())
    frames = [Frame(*frame.group("file", "line", "function")) for frame in found if frame]
    while frames and frames[-1].is_in("threading.py", *THREAD_BEGINS):
        frames.pop()
    if len(frames) > 1 and frames[-1].is_in("threading.py", "run"):
        frames.pop()
    name = header["name"] or _name(frames)
    return Thread(int(header["ident"], 16), name, tuple(frames))


def _name(frames: list[Frame]) -> str:
    if not frames:
        return "a thread"
    outermost = frames[-1]
    if outermost.is_in("multiprocessing/queues.py", "_feed"):
        return "QueueFeederThread"
    return f"Thread ({outermost.function})"


def _process_begun(thread: Thread) -> Thread:
    """Return the main thread of a child, as from its own beginning on."""
    frames = list(thread.frames)
    for file, functions in PROCESS_BEGINS:
        begun = next((n for n, f in enumerate(frames) if f.is_in(file, *functions)), 0)
        if begun:
            frames = frames[:begun]
            if len(frames) > 1 and frames[-1].is_in("multiprocessing/process.py", "run"):
                frames.pop()
            break
    return Thread(thread.ident, "MainThread", tuple(frames))
