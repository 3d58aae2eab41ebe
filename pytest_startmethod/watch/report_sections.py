"""Adds to a test's report what its children did: to the counts, and to a failure."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from pytest_startmethod.watch import findings, hints

if TYPE_CHECKING:
    from collections.abc import Collection

    import pytest

    from pytest_startmethod.watch.owners import Owner
    from pytest_startmethod.watch.recorder import Recorder
    from pytest_startmethod.watch.watched_test import WatchedTest


def count(
    test: WatchedTest, recorder: Recorder, fixtures: Collection[Owner], *, served: bool
) -> None:
    """Count what the test started, while that is there.

    And what it was served by: the children of its `fixtures`, or what it was `served` by else.
    """
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
    test: WatchedTest, recorder: Recorder, report: pytest.TestReport, error: BaseException
) -> None:
    """Add to a failure what is known of the children, and of the cause."""
    if test.run.asked:
        for child in test.children:
            if not child.owner.lasts:
                child.ask()
    hint = hints.find("".join(traceback.format_exception(error)), test.stderr)
    text = [*findings.section(test.children), *([f"hint: {hint}"] if hint else [])]
    if text:
        report.sections.append((f"processes under {test.expected}", "\n".join(text)))
    made = hints.refused_lock(error)
    before = made is not None and recorder.is_older(made)
    # Only a lock of a fork context refuses to go to another process.
    made_under = "fork" if before and test.run.asked else ""
    test.run = test.run._replace(hint=hint, made_under=made_under)
