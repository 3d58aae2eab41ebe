"""Installs what watches the processes of a run, and removes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_startmethod.explain import stacks
from pytest_startmethod.explain.fork_listener import ForkListener
from pytest_startmethod.leaks import segments
from pytest_startmethod.leaks.child_config import ChildConfig
from pytest_startmethod.leaks.marks import Marks
from pytest_startmethod.system import LINUX
from pytest_startmethod.watch.wrappers import Wrappers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pytest_startmethod.launch.launcher import Launcher
    from pytest_startmethod.load_hooks import LoadHooks
    from pytest_startmethod.processes.owners import Owner
    from pytest_startmethod.stall.stall import StallWatch
    from pytest_startmethod.watch.recorder import Recorder


class Installation:
    """Watches for a recorder from `install` to `uninstall`."""

    def __init__(
        self, recorder: Recorder, launcher: Launcher, stall: StallWatch, load_hooks: LoadHooks
    ) -> None:
        self._guard = recorder.guard
        self._recorder = recorder
        self._stall = stall
        self._load_hooks = load_hooks
        self._child_config: ChildConfig | None = None
        if LINUX:
            with self._guard:
                self._child_config = ChildConfig()
        self._wrappers = Wrappers(
            recorder,
            load_hooks,
            stall=stall,
            marks=Marks(launcher.helpers),
            child_config=self._child_config,
            listener=ForkListener(stall.handler) if stacks.AVAILABLE else None,
            launched=launcher.launched,
        )

    def install(self, contexts: Iterable[Any], owner: Callable[[], Owner | None]) -> None:
        """Begin; `contexts` are those that tests may use, `owner` is that of the recorder."""
        self._load_hooks.install()
        self._wrappers.install(contexts)
        if self._child_config is not None:
            with self._guard:
                watched = segments.Segments(owner, self._recorder.session, self._guard)
                watched.install(f"{self._child_config.folder}/shared_memory", self._load_hooks)
                self._recorder.segments = watched

    def uninstall(self) -> None:
        """Put back what `install` has changed, and end the lookout."""
        with self._guard:
            self._load_hooks.uninstall()
            self._wrappers.uninstall()
            self._stall.end()
            if self._recorder.segments is not None:
                self._recorder.segments.uninstall()
            if self._child_config is not None:
                self._child_config.end()
