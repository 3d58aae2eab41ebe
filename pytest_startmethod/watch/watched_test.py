"""Keeps what is known of the running test, from its first process to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_startmethod.processes.owners import Owner

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import pytest

    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.record import Run


class WatchedTest:
    """One test; made when it starts its first process, or may use an older one."""

    def __init__(
        self, item: pytest.Item, run: Run, expected: str, modules: Sequence[ModuleType]
    ) -> None:
        self.item = item
        self.run = run
        self.expected = expected
        """The start method that its context starts processes by."""
        self.modules = modules
        """Its module and the conftests, where targets of processes may be."""
        self.owner = Owner("the test", lasts=not run.asked, untouched=not run.asked)
        self.children: list[Child] = []
        """Those that were started while it ran."""
        self.judged = 0
        """How many of them were looked at for mismatches: subtests have a call each."""
        self.passed = False
        self.stderr = ""

    def unjudged(self) -> list[Child]:
        """Return the children that weren't looked at for mismatches so far."""
        new = self.children[self.judged :]
        self.judged = len(self.children)
        return [child for child in new if not child.owner.lasts]
