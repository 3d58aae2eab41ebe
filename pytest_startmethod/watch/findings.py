"""What is wrong with the processes that a test started?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_startmethod.watch import dumps
from pytest_startmethod.watch.dumps import relative
from pytest_startmethod.watch.exit_codes import describe
from pytest_startmethod.watch.threads import NONE
from pytest_startmethod.watch.tracebacks import last_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_startmethod.watch.children import Child


FEW, MANY = 10, 50
"""As many children at most are named in a sentence, and in a list."""


class StartMethodMismatchWarning(UserWarning):
    """A process was started by another method than the one that the test runs under."""


class ChildProcessCrashWarning(UserWarning):
    """A test passed though a process that it started ended by an uncaught exception or a fault."""


class ChildProcessLeakWarning(UserWarning):
    """A process was alive at the end of the test or fixture that started it, and was ended."""


def mismatch(children: Sequence[Child], expected: str) -> list[StartMethodMismatchWarning]:
    """Return the warning of children that weren't started by the expected method."""
    known = [child for child in children if child.start_method != "unknown"]
    wrong = [child for child in known if not child.is_started_by(expected)]
    if not wrong:
        return []
    counted = Counter((child.start_method, relative(child.place)) for child in wrong)
    starts = "; ".join(
        f"{_count(n)} started by {method}, at {place}" for (method, place), n in counted.items()
    )
    text = (
        f"the test runs under {expected}, but {starts}: start it by the mp_context of the test, or "
        "by the process-wide default"
    )
    return [StartMethodMismatchWarning(text)]


def crash(children: Sequence[Child], stderr: str) -> list[ChildProcessCrashWarning]:
    """Return the warning of children that crashed while the test passed."""
    if not children:
        return []
    words = last_line(stderr) if len(children) == 1 and children[0].exit_code == 1 else ""
    quoted = f" ({words})" if words else ""
    text = (
        f"the test passed, but {_ends(children)}{quoted}: let the test check "
        "its children, or allow this by a filterwarnings marker"
    )
    return [ChildProcessCrashWarning(text)]


def leak(children: Sequence[Child]) -> list[ChildProcessLeakWarning]:
    """Return the warning of children that outlived their owner."""
    if not children:
        return []
    owners = " and of ".join(dict.fromkeys(child.owner.name for child in children))
    processes = _list([_leaked(child) for child in children])
    text = (
        f"still alive at the end of {owners}, and then ended: {processes}; join or terminate it, "
        "or shut down the pool, executor or manager that it belongs to"
    )
    return [ChildProcessLeakWarning(text)]


def stall(children: Sequence[Child], seconds: float) -> str:
    """Say that a test waits for what none of these children can give any more."""
    dead = [child for child in children if child.has_ended()]
    alive = [_stuck(child) for child in children if not child.has_ended()]
    who = ", ".join([*([_ends(dead)] if dead else []), *([_list(alive)] if alive else [])])
    return (
        f"blocked for {seconds:g} s in a wait that no process or thread can end any more: "
        f"{who or 'the test started no process'}; what children printed, if anything, is among the "
        "captured stderr"
    )


def _leaked(child: Child) -> str:
    was = f" was at {child.place_now}" if child.place_now else ""
    return f"{_described(child)} started at {relative(child.place)}{was}"


def _stuck(child: Child) -> str:
    place = f" at {child.place_now}" if child.place_now else ""
    beside = f", forked while {child.forked_beside}" if child.forked_beside != NONE else ""
    return f"{_described(child)} is alive, and waits without end{place}{beside}"


def section(children: Sequence[Child]) -> list[str]:
    """Return a line for each child, or for the last of very many.

    Below it which threads ran when it was forked, and where its own are, as far as that is known.
    """
    lines = [f"{len(children)} in all, the last of them:"] if children[MANY:] else []
    for child in children[-MANY:]:
        end = ending(child)
        lines.append(f"{_described(child)}: {end}")
        if child.forked_beside != NONE and child.exit_code != 0:
            lines.append(f"  forked while {child.forked_beside}")
        if child.threads:
            lines += [f"  {line}" for line in dumps.lines(child.threads)]
    return lines


def _described(child: Child) -> str:
    return f"{child.name} (pid {child.pid}, {child.start_method})"


def _ends(children: Sequence[Child]) -> str:
    return _list([f"{_described(child)} ended with {ending(child)}" for child in children])


def _list(texts: Sequence[str]) -> str:
    more = [f"and {len(texts) - FEW} more"] if texts[FEW:] else []
    return ", ".join([*texts[:FEW], *more])


def ending(child: Child) -> str:
    """Return the exit code, or the name of the signal, of a child."""
    has_ended = child.has_ended()  # a look at it may tell the exit code
    if child.exit_code is None:
        return "exit code unknown" if has_ended else "alive"
    return describe(child.exit_code)


def _count(number: int) -> str:
    return "1 process was" if number == 1 else f"{number} processes were"
