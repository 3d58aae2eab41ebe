"""Finds the known cause of a failure, and words the hint."""

from __future__ import annotations

import re
import traceback
from typing import NamedTuple

from pytest_startmethod.explain.tracebacks import normalize


class Hint(NamedTuple):
    """What a traceback of the test or of a child shows, and what it means."""

    pattern: str
    text: str


def _traceback(*frames: tuple[str, str], error: str) -> str:
    """Return what matches a traceback by files and functions and the type that it ends with.

    Those are the same from Python 3.10 to 3.15, where the messages differ.
    """
    lines = "".join(
        rf'  File "[^"]*{file}\.py", line \d+, in (?:\w+\.)*(?:{function})\n(?: .*\n)*?'
        for file, function in frames
    )
    return rf"(?m)^{lines}(?:\w+\.)*(?:{error})\b"


OTHER_METHOD = (
    "a lock or queue made under one start method was given to a process of another: make both by "
    "mp_context, and in the test, as what is made at import keeps the method of then"
)

HINTS = (
    Hint(
        _traceback(("multiprocessing.(?:forkserver|connection)", r"\w+"), error="OSError"),
        "the forkserver and managers listen at a socket in the folder for temporary files, whose "
        "path may have some hundred characters at most: set TMPDIR to a shorter one",
    ),
    Hint(
        _traceback(("multiprocessing.context", "set_start_method"), error="RuntimeError"),
        "set_start_method() runs when a child imports the module, and its method is set already: "
        'call it below `if __name__ == "__main__":`, or leave it to --start-method',
    ),
    Hint(
        _traceback(("multiprocessing.spawn", "_check_not_importing_main"), error="RuntimeError"),
        "spawn and forkserver import the main module in each child: start processes below "
        '`if __name__ == "__main__":` there',
    ),
    Hint(
        _traceback(
            ("multiprocessing.(?:synchronize|queues)", "__getstate__"),
            ("multiprocessing.context", "assert_spawning"),
            error="RuntimeError",
        ),
        "a lock or queue can be given to a process when it is made, not sent to it later: pass it "
        "in Process(args=...) or by the initializer of a pool",
    ),
    Hint(
        _traceback(
            ("multiprocessing.synchronize", "__getstate__|__setstate__"),
            error="RuntimeError|FileNotFoundError",
        ),
        OTHER_METHOD,
    ),
    Hint(
        _traceback(
            ("multiprocessing.reduction", "dumps?"), error="AttributeError|TypeError|PicklingError"
        ),
        "what goes to a child is pickled: move it to the top level of its module, and pass "
        "arguments that can be pickled",
    ),
    Hint(
        _traceback(
            ("multiprocessing.(?:spawn|queues)", "_main|get"),
            error="ModuleNotFoundError|ImportError|AttributeError",
        ),
        "a child finds its target by importing the module it is in, and couldn't: that module, and "
        "what it imports, is to be importable from sys.path without what the test did",
    ),
    Hint(
        # What interrupts the wait has frames of its own.
        r'(?s)multiprocessing/popen_forkserver\.py", line \d+, in _launch\n.*\n(?:\w+\.)*Failed\b',
        "the forkserver doesn't answer: what it preloads is imported before it starts a child, and "
        "one of these modules may wait for ever",
    ),
)


IN_CHILDREN = (
    Hint(
        _traceback(("_pytest.outcomes", r"\w+"), error="Skipped|Failed|Exit"),
        "pytest.skip() and pytest.fail() end a child as an exception does, and the test hears "
        "nothing of it: call them in the test, by what the child returns",
    ),
    *HINTS,
)


def find(test: str, children: str) -> str:
    """Return the hint for the tracebacks of a test and of its children; "" where there is none."""
    children = normalize(children)
    of_children = (hint.text for hint in IN_CHILDREN if re.search(hint.pattern, children))
    of_test = (hint.text for hint in HINTS if re.search(hint.pattern, test))
    return next(of_children, "") or next(of_test, "")


def refused_lock(error: BaseException) -> object | None:
    """Return the lock that refused to go to a process of another start method, if one did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    innermost = frames[-1] if frames else None
    if innermost is None or innermost.f_globals.get("__name__") != "multiprocessing.synchronize":
        return None
    lock: object = innermost.f_locals.get("self")
    return lock
