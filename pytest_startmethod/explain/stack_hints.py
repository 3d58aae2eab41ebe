"""Finds out from its stacks why a living child can't go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pytest_startmethod.processes.threads import NONE

if TYPE_CHECKING:
    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.processes.dumps import Thread


class Hint(NamedTuple):
    """In which functions of the standard library a thread is blocked, and what that means."""

    file: str
    functions: tuple[str, ...]
    text: str


START_BEFORE = "use spawn or forkserver, or start children before threads"

AT_THE_FORK = (
    "a lock that another thread held at the fork is never released in the child: " + START_BEFORE
)

UNREAD = (
    "a child that has put something into a queue doesn't end before that is read: read the queue "
    "before you join the child"
)

UNSENT = (
    "the child waits for a message that only the test could send, and the test is blocked itself: "
    "send it, or close the test's end of the pipe, before you wait for the child"
)

# By the innermost frame of a thread; the functions are the same from Python 3.10 to 3.15.
HINTS = (
    Hint(
        "multiprocessing/connection.py",
        ("_send",),
        UNREAD,
    ),
    Hint(
        "<frozen importlib._bootstrap>",
        ("acquire", "__enter__", "_lock_unlock_module"),
        "another thread was importing a module at the fork, and holds that module's lock for ever "
        f"in the child: import it before, {START_BEFORE}",
    ),
    Hint(
        "logging/__init__.py",
        ("acquire", "handle", "_acquireLock"),
        "another thread was logging at the fork, and holds the lock of a logging handler for ever "
        f"in the child: {START_BEFORE}, or let children log to a queue",
    ),
    Hint(
        "multiprocessing/resource_tracker.py",
        (),
        "another thread held the lock of multiprocessing's resource tracker at the fork: "
        + START_BEFORE,
    ),
)
# Whose threads wait for tasks, when nothing is wrong with them.
WORKERS = (
    ("multiprocessing/pool.py", "worker"),
    ("concurrent/futures/process.py", "_process_worker"),
)


def find(child: Child) -> str:
    """Return the hint for a child if all its threads wait without end, else "".

    Where the kernel can't tell, there is no hint.
    """
    if not child.threads or not child.waits_without_end:
        return ""
    for thread in child.threads:
        for hint in HINTS:
            if thread.innermost.is_in(hint.file, *hint.functions) and _applies(hint, thread):
                return hint.text
    if child.forked_beside != NONE and child.waits_for_itself:
        return AT_THE_FORK
    main = child.threads[0]
    if main.innermost.is_in("multiprocessing/connection.py", "_recv", "wait") or (
        main.innermost.is_in("multiprocessing/queues.py", "get")
    ):
        is_idle = any(f.is_in(file, name) for f in main.frames for file, name in WORKERS)
        return "" if is_idle else UNSENT
    return ""


def _applies(hint: Hint, thread: Thread) -> bool:
    """Tell whether a hint fits a thread: `UNREAD` fits only the feeder thread of a queue."""
    return hint.text is not UNREAD or any(
        frame.is_in("multiprocessing/queues.py", "_feed") for frame in thread.frames
    )
