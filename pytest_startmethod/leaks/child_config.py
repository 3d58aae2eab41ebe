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
        # As multiprocessing names its own.
        self.folder = tempfile.mkdtemp(prefix="pymp-")
        if System.geteuid() == 0:  # a child may give up its rights, and is to listen all the same
            System.chmod(self.folder, 0o1777)
        self._is_short = len(self.folder) < LONGEST
        self._variables = System.environment()
        self._settings = self._tempdir_settings()

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

    def give(self, process: BaseProcess, mark: int) -> None:
        """Let a process that is about to be started have it; its mark is 0 where it has none."""
        config = getattr(process, "_config", None)
        if not isinstance(config, dict):
            return
        if mark and str(config.get("semprefix", "")).startswith("/mp"):
            config["semprefix"] = SEMAPHORE_PREFIX % mark
        # That of this process serves its children, too, where it has one; and a test may choose
        # where temporary files are, or remove the folder.
        chosen = config.get("tempdir") is not None or self._tempdir_settings() != self._settings
        if not chosen and self._is_short and System.access(self.folder, System.EXISTS):
            config["tempdir"] = self.folder

    def _tempdir_settings(self) -> tuple[object, ...]:
        """Return the settings that choose the folder for temporary files."""
        variables = self._variables
        return (
            tempfile.tempdir,
            variables.get(b"TMPDIR"),
            variables.get(b"TEMP"),
            variables.get(b"TMP"),
        )
