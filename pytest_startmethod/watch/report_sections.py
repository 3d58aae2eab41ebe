"""Counts a test's children for its report, and adds the section on them to a failure."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pytest_startmethod.explain import findings, hints, stack_hints

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import pytest

    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.watch.recorder import Recorder
    from pytest_startmethod.watch.watched_test import WatchedTest


def count(test: WatchedTest, recorder: Recorder, *, served: bool) -> None:
    """Count what the test started, while that is there.

    And what it was served by: the children of its fixtures, or what it was `served` by else.
    """
    fixtures = test.fixtures()
    own = [child for child in test.children if child.owner.untouched or not child.owner.lasts]
    used = [c for c in recorder.children if c.owner.lasts and c.owner in fixtures]
    proven = any(c.is_started_by(test.expected) for c in (*own, *used)) or (
        served and not test.run.asked
    )
    others = sum(not child.is_started_by(test.expected) for child in test.children)
    test.run = test.run._replace(
        processes=len(test.children),
        other_processes=others,
        proven=proven,
        used=bool(used) or served,
    )


def explain(
    test: WatchedTest,
    recorder: Recorder,
    report: pytest.TestReport,
    error: BaseException,
    relevant: Collection[Child],
) -> None:
    """Add to a failure what is known of the children, and of the cause.

    Of those that the test started, and those of its fixtures that are alive, of the `relevant`.
    """
    if test.run.asked:
        for child in test.children:
            if not child.owner.lasts:
                child.ask()
    own = set(map(id, test.children))
    shown = [c for c in relevant if id(c) not in own and not c.has_ended()] + test.children
    in_stacks = _ask(recorder, shown)
    told = hints.find("".join(traceback.format_exception(error)), test.stderr)
    hint = told or in_stacks
    text = [*findings.section(shown), *([f"hint: {hint}"] if hint else [])]
    for child in shown:
        child.threads = []
    if text:
        report.sections.append((f"processes under {test.expected}", "\n".join(text)))
    made = hints.refused_lock(error)
    before = made is not None and recorder.is_older(made)
    # Only a lock of a fork context refuses to go to another process.
    made_under = "fork" if before and test.run.asked else ""
    test.run = test.run._replace(hint=hint, made_under=made_under)


def living(recorder: Recorder, children: Collection[Child]) -> list[str]:
    """Return what is known of the children that are alive, if any are."""
    alive = [child for child in children if not child.has_ended()]
    hint = _ask(recorder, alive)
    return [*findings.section(alive), *([f"hint: {hint}"] if hint else [])]


def _ask(recorder: Recorder, children: Sequence[Child]) -> str:
    """Ask children where they are, but for those that a stall has asked; return the hint."""
    shown = children[-findings.MANY :]
    recorder.locate([child for child in shown if not child.threads])
    return next(filter(None, map(stack_hints.find, shown)), "")
