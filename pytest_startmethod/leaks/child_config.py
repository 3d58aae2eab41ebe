"""Gives each child a place for its temporary files, and names for its semaphores.

A child that is killed leaves both: the folder ``pymp-…``, which multiprocessing makes in a child
that listens at a socket, as a manager does, and semaphores by their names. What a child starts with
is private, the same from Python 3.3 to 3.15; where it goes missing a child does as without this.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

from pytest_startmethod.leaks.marks import SEMAPHORE_PREFIX
from pytest_startmethod.load_hooks import loaded
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LONGEST = 80
"""The folder's path may have so many characters: a socket's path may have 108 bytes on Linux."""


class ChildConfig:
    """What children start with, until `end`."""

    def __init__(self) -> None:
        before = tempfile.tempdir
        # As multiprocessing names its own.
        self.folder = tempfile.mkdtemp(prefix="pymp-")
        self._found, tempfile.tempdir = tempfile.tempdir, before  # who asks first finds it anew
        if System.geteuid() == 0:  # a child may give up its rights, and is to listen all the same
            System.chmod(self.folder, 0o1777)
        self._is_short = len(self.folder) < LONGEST
        self._variables = System.environment()
        self._chosen = self._choices()

    def end(self) -> None:
        """Let the folder be removed when Python exits, as multiprocessing removes its own.

        After children have ended and all else that the plugin has to end. That is not documented,
        since Python 2.6.
        """
        finalize = loaded("multiprocessing.util", "Finalize")
        if finalize is None:  # no process was started
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            finalize(None, shutil.rmtree, args=[self.folder, True], exitpriority=-100)

    def give(self, process: BaseProcess, mark: int, *, forks: bool) -> None:
        """Let a process that is about to be started have it; its mark is 0 where it has none."""
        config = getattr(process, "_config", None)
        if not isinstance(config, dict):
            return
        if mark and str(config.get("semprefix", "")).startswith("/mp"):
            config["semprefix"] = SEMAPHORE_PREFIX % mark
        # That of this process serves its children, too, where it has one.
        is_free = self._is_short and config.get("tempdir") is None
        # A test may choose where temporary files are, or remove the folder.
        if is_free and not self._is_chosen(forks) and System.access(self.folder, System.EXISTS):
            config["tempdir"] = self.folder

    def _is_chosen(self, forks: bool) -> bool:
        """Tell whether a test has chosen where the temporary files of its children are.

        A fork inherits what tempfile has found, if it has; others look at the variables.
        """
        if forks and tempfile.tempdir is not None:
            return tempfile.tempdir != self._found
        return self._choices() != self._chosen

    def _choices(self) -> list[object]:
        """Return the variables that choose the folder for temporary files."""
        return [self._variables.get(name) for name in (b"TMPDIR", b"TEMP", b"TMP")]
