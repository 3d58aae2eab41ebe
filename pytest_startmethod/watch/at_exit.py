"""Ends, when Python exits, processes of libraries that would keep it from exiting."""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from pytest_startmethod.explain import findings
from pytest_startmethod.leaks import descendants, reaper

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pytest_startmethod.leaks.segments import Segment, Segments
    from pytest_startmethod.processes.children import Child

INSTALLED = ("site-packages", "dist-packages")
"""The folders that libraries are installed in."""


def is_librarys(child: Child) -> bool:
    """Tell whether an installed library started a child: it may end it in an exit hook."""
    return is_installed(child.place)


def is_installed(place: str) -> bool:
    """Tell whether a line is one of an installed library."""
    return any(folder in place for folder in INSTALLED)


def leave(children: Collection[Child]) -> None:
    """Leave children to the libraries that started them, until Python exits.

    multiprocessing calls such finalizers just before it waits for its children. It is not
    documented, since Python 2.6.
    """
    if children:
        Finalize(None, _end, args=[list(children)], exitpriority=0)


def _end(children: list[Child]) -> None:
    with suppress(Exception):  # nobody is left to hear of it
        ended = reaper.stop(lambda: [child for child in children if not child.has_ended()])
        _tell(findings.leak(ended))


def leave_descendants(children: Sequence[Child]) -> None:
    """Leave to children what they started, until they have ended, as Python exits.

    A priority below 0 comes after multiprocessing has ended and joined its children.
    """
    if children:
        Finalize(None, _end_descendants, args=[list(children)], exitpriority=-1)


def _end_descendants(children: Sequence[Child]) -> None:
    with suppress(Exception):  # as above
        _tell(findings.leak([], descendants.stop(children, daemons_stay=False)))


def leave_segments(segments: Segments, kept: Sequence[Segment]) -> None:
    """Leave shared memory to the exit hooks of those who made it, and then unlink it."""
    if kept:
        Finalize(None, _unlink, args=[segments, list(kept)], exitpriority=-1)


def _unlink(segments: Segments, kept: Sequence[Segment]) -> None:
    with suppress(Exception):  # as above
        left = [one for one in kept if segments.remove(one)]
        _tell(findings.memory([one for one in left if is_installed(one.place)]))


def _tell(warnings: Sequence[Warning]) -> None:
    for warning in warnings:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{type(warning).__name__}: {warning}\n")
