"""Says what is wrong with the processes that a test started."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pytest_startmethod.explain.tracebacks import last_line
from pytest_startmethod.processes import dumps
from pytest_startmethod.processes.dumps import relative
from pytest_startmethod.processes.exit_codes import describe
from pytest_startmethod.processes.threads import NONE
from pytest_startmethod.warning_classes import (
    ChildProcessCrashWarning,
    ChildProcessLeakWarning,
    SharedMemoryLeakWarning,
    StartMethodMismatchWarning,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_startmethod.leaks.descendants import Descendant
    from pytest_startmethod.leaks.segments import Segment
    from pytest_startmethod.processes.children import Child


FEW, MANY = 10, 50
"""How many children are named in a sentence, and in a list, at most."""

LONG = 80
"""How many characters of a command line are shown."""


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


def leak(
    children: Sequence[Child], left: Sequence[Descendant] = ()
) -> list[ChildProcessLeakWarning]:
    """Return the warning of children that outlived their owner, and of what children left."""
    if not (children or left):
        return []
    of = [*children, *(one.child for one in left)]
    owners = " and of ".join(dict.fromkeys(child.owner.name for child in of))
    own = [_leaked(child) for child in children]
    others = [
        f"{_command(one)} (pid {one.pid}) started by {_described(one.child)}, itself started at "
        f"{relative(one.child.place)}"
        for one in left
    ]
    advice = [
        *(
            ["join or terminate it, or shut down the pool, executor or manager that it belongs to"]
            if children
            else []
        ),
        *(["let a child end what it starts"] if left else []),
    ]
    text = (
        f"still alive at the end of {owners}, and then ended: {_list([*own, *others])}; "
        f"{'; '.join(advice)}"
    )
    return [ChildProcessLeakWarning(text)]


def memory(segments: Sequence[Segment]) -> list[SharedMemoryLeakWarning]:
    """Return the warning of shared memory and semaphores that nobody unlinked."""
    if not segments:
        return []
    owners = " and of ".join(dict.fromkeys(one.owner.name for one in segments))
    texts = []
    for one in segments:
        by = f" by {_described(one.child)}" if one.child else ""
        place = one.place or (one.child.place if one.child else "")
        at = " at" if one.place else ", started at"
        what = "" if one.kind == "shared_memory" else f"{one.kind} "
        texts.append(f"{what}{one.name[1:]} made{by}{at} {relative(place)}")
    kinds = {one.kind == "shared_memory" for one in segments}
    memory = "let the process that is the last to need it call unlink(), or shut down the manager"
    semaphore = "let a child end by itself, as one that is killed leaves its semaphores"
    advice = [*([memory] if True in kinds else []), *([semaphore] if False in kinds else [])]
    text = (
        f"still there at the end of {owners}, and then unlinked: {_list(texts)}; "
        f"{'; '.join(advice)}"
    )
    return [SharedMemoryLeakWarning(text)]


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
    was = f", was at {child.place_now}" if child.place_now else ""
    return f"{_described(child)} started at {relative(child.place)}{was}"


def _stuck(child: Child) -> str:
    place = f" at {child.place_now}" if child.place_now else ""
    beside = f", forked while {child.forked_beside}" if child.forked_beside != NONE else ""
    return f"{_described(child)} is alive, and waits without end{place}{beside}"


def section(children: Sequence[Child]) -> list[str]:
    """Return the lines on each child, or on the last of very many.

    They say how it ended, which threads ran when it was forked, and where its own threads are.
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


def _command(one: Descendant) -> str:
    command = one.command.decode(errors="replace")
    return f"{command[:LONG]}…" if command[LONG:] else command


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
