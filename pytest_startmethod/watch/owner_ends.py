"""Ends the children of tests and fixtures that have ended, and finds what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_startmethod.explain import findings, severity, tracebacks
from pytest_startmethod.leaks import descendants, reaper
from pytest_startmethod.leaks.segments import Segment
from pytest_startmethod.processes.places import is_installed
from pytest_startmethod.warning_classes import ChildProcessLeakWarning
from pytest_startmethod.watch import at_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_startmethod.leaks.descendants import Descendant
    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.watch.recorder import Recorder
    from pytest_startmethod.watch.watched_test import WatchedTest


def end(recorder: Recorder, test: WatchedTest | None) -> list[Warning]:
    """End what outlives the test, or the fixtures that ended with it; return what is wrong."""
    if test is not None and test.owner.untouched and test.children:
        with recorder.guard:
            # Its filters hold now, and what its children leave is ended with the session.
            stay = _is_allowed()
            for child in test.children:
                child.daemons_stay = stay
    _keep(recorder, test)
    marked, segments, there = recorder.marked.take_ended(), recorder.segments, list[Segment]()

    def before_stop(alive: list[Child]) -> None:
        recorder.locate(alive)
        with recorder.guard:  # a manager that is to be stopped unlinks what it made
            there.extend(segments.find(marked) if segments and alive else ())

    leaked = []
    if recorder.of_ended_owners():
        leaked = reaper.stop(recorder.of_ended_owners, before_stop)
        marked += recorder.marked.take_ended()
    left: list[Descendant] = []
    with recorder.guard:
        left = _stop_left(marked) if marked else []
    unlinked: list[Segment] = []
    with recorder.guard:
        unlinked = segments.unlink(marked, there, leaked) if segments else []
    ended = recorder.of_ended_owners()
    reaper.settle([child for child in ended if not child.owner.untouched])
    crashed = _crashed(test, leaked)
    gone = [c for c in recorder.children if c.has_ended() and (c.owner.ended or c.owner.lasts)]
    recorder.forget([*ended, *gone])
    crash = findings.crash(crashed, test.stderr) if test and test.passed else []
    return [*crash, *findings.leak(leaked, left), *findings.memory(unlinked)]


def end_session(
    recorder: Recorder, add_cleanup: Callable[[Callable[[], None]], None]
) -> list[Warning]:
    """Return what is wrong at the end of the session, and leave what lives to the exit hooks.

    It is ended as Python exits. `add_cleanup` takes a function to be called after the hooks
    `pytest_unconfigure`.
    """
    _keep(recorder, None)
    kept = [child for child in recorder.children if not (child.has_ended() or child.owner.ended)]
    blocking = reaper.wait(kept, reaper.GRACE, at_exit.is_let_go)
    recorder.locate(blocking)
    recorder.forget(kept)
    marked = recorder.marked.take(kept)
    recorder.session.ended = True
    found = [*findings.leak(blocking), *end(recorder, None)]
    left = at_exit.Leftovers(kept, recorder.pools, marked, told=blocking)
    with recorder.guard:
        if recorder.segments:
            left.segments, left.memory = recorder.segments, recorder.segments.take_kept()
            found += findings.memory([one for one in left.memory if not is_installed(one.place)])
    left.leave(add_cleanup)
    return found


def _keep(recorder: Recorder, test: WatchedTest | None) -> None:
    """Let the session own what is kept though its owner has ended."""
    for child in recorder.of_ended_owners():
        if child.owner is not recorder.session and _is_kept(test, child):
            recorder.give(child, recorder.session)


def _stop_left(children: Sequence[Child]) -> list[Descendant]:
    return descendants.stop(children, _is_allowed)


def _is_allowed() -> bool:
    """Tell whether the user's filters, as they are now, ignore the warning of a leak."""
    return severity.is_ignored(ChildProcessLeakWarning("still alive at the end of "))


def _crashed(test: WatchedTest | None, leaked: Iterable[Child]) -> list[Child]:
    """Return the test's children that crashed, each of them once."""
    ended_here = set(map(id, leaked))
    new = [
        child
        for child in (test.children if test else ())
        if child.has_ended() and child.crashed and not child.reported
    ]
    if test and not (test.run.asked or tracebacks.last_line(test.stderr)):
        # A suite nobody touched may have children end by sys.exit(1), and check that.
        new = [child for child in new if child.exit_code != 1]
    for child in new:
        child.reported = True
    return [child for child in new if id(child) not in ended_here]


def _is_kept(test: WatchedTest | None, child: Child) -> bool:
    """Tell whether a child stays though its owner has ended.

    A suite nobody touched may rely on what it keeps. And a test that asks for its start method
    doesn't ask for what another library starts by a method of its own.
    """
    if child.owner.untouched:
        return True
    return test is not None and not (child.is_standard or child.is_started_by(test.expected))
