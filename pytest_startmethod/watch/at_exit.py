"""Ends, when Python exits, processes of libraries that would keep it from exiting."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_startmethod.explain import findings
from pytest_startmethod.leaks import descendants, reaper
from pytest_startmethod.processes.places import INSTALLED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from pytest_startmethod.leaks.segments import Segment, Segments
    from pytest_startmethod.processes.children import Child


def is_librarys(child: Child) -> bool:
    """Tell whether an installed library started a child: it may end it in an exit hook."""
    return is_installed(child.place)


def is_installed(place: str) -> bool:
    """Tell whether a line is one of an installed library."""
    return any(folder in place for folder in INSTALLED)


def leave(children: Collection[Child]) -> None:
    """Leave children to the libraries that started them, until Python exits.

    A priority of 0 comes just before multiprocessing waits for its children.
    """
    if children:
        _finalize(0, _end, list(children))


def _end(children: list[Child]) -> None:
    with suppress(Exception):  # nobody is left to hear of it
        ended = reaper.stop(lambda: [child for child in children if not child.has_ended()])
        _tell(findings.leak(ended))


def leave_descendants(children: Sequence[Child]) -> None:
    """Leave to children what they started, until they have ended, as Python exits.

    A priority below 0 comes after multiprocessing has ended and joined its children.
    """
    if children:
        _finalize(-1, _end_descendants, list(children))


def _end_descendants(children: Sequence[Child]) -> None:
    with suppress(Exception):  # as above
        _tell(findings.leak([], descendants.stop(children, lambda: False)))


def leave_segments(segments: Segments, kept: Sequence[Segment]) -> None:
    """Leave shared memory to the exit hooks of those who made it, and then unlink it."""
    if kept:
        _finalize(-1, _unlink, segments, list(kept))


def _unlink(segments: Segments, kept: Sequence[Segment]) -> None:
    with suppress(Exception):  # as above
        left = [one for one in kept if segments.remove(one)]
        _tell(findings.memory([one for one in left if is_installed(one.place)]))


def _finalize(priority: int, function: Callable[..., None], *args: object) -> None:
    """Let multiprocessing call a function when Python exits: not documented, since Python 2.6."""
    # Loaded with the first process. Any earlier would change the order of exit hooks.
    from multiprocessing.util import Finalize

    Finalize(None, function, args=args, exitpriority=priority)


def _tell(warnings: Sequence[Warning]) -> None:
    for warning in warnings:
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"{type(warning).__name__}: {warning}\n")
