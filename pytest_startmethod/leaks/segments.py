"""Finds the shared memory and the named semaphores that nobody unlinks, and unlinks them.

In pytest's own process and in forked ones the resource tracker's two functions tell of them, as all
of multiprocessing calls them by their module. Other children get `journal`.
"""

from __future__ import annotations

import marshal
import sys
from contextlib import ExitStack, suppress
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.launch.imports import Source
from pytest_startmethod.leaks.marks import SEMAPHORE_PREFIX
from pytest_startmethod.processes import makers
from pytest_startmethod.system import LINUX, System

if LINUX:
    from pytest_startmethod.leaks import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import FrameType, ModuleType

    from pytest_startmethod.guard import Guard
    from pytest_startmethod.load_hooks import LoadHooks
    from pytest_startmethod.processes.children import Child
    from pytest_startmethod.processes.owners import Owner

FOLDER = "/dev/shm"
SEMAPHORE = "semaphore"

TICK = 0.1
"""Seconds that the kernel's clock for files is behind at most."""


# What a child runs first that doesn't fork, and as little as it can: its wrappers of the resource
# tracker's functions get the journal with the first segment.
STUB = """
def wrap(tracker, name, method):
    original = getattr(tracker, name)
    def function(segment, kind):
        original(segment, kind)
        if kind == "shared_memory":
            try:
                import marshal, sys
                if "Journal" not in journal:
                    exec(marshal.loads(code), journal)
                getattr(journal["Journal"](folder), method)(segment, sys._getframe(1))
            except Exception:
                pass
    setattr(tracker, name, function)

from multiprocessing import resource_tracker
wrap(resource_tracker, "register", "note")
wrap(resource_tracker, "unregister", "drop")
"""


class Segment(NamedTuple):
    """Shared memory, or a named semaphore, and who made it."""

    name: str
    file: str
    inode: int
    place: str
    """The line that made it; "" where that isn't known."""
    owner: Owner
    child: Child | None = None
    """Whose child process made it; None where pytest's own did."""
    kind: str = "shared_memory"
    tracked: bool = False
    """Whether a resource tracker of the child's own unlinks it."""


class _Code:
    """Compiled code, which needn't be compiled by each child."""

    def __init__(self, code: bytes) -> None:
        self._code = code

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes a code object of it where this is unpickled."""
        return marshal.loads, (self._code,)


class Segments:
    """Records segments from `install` to `uninstall`; `owner` returns the owner of a new one."""

    def __init__(self, owner: Callable[[], Owner | None], session: Owner, guard: Guard) -> None:
        self._owner = owner
        self._session = session
        self._guard = guard
        self._own: dict[str, Segment] = {}
        self._pid = System.getpid()
        self._journal: journal.Journal | None = None
        self._source = b""
        self._stub, self._code = _Code(b""), b""
        self._tracker: Any = None
        """`multiprocessing.resource_tracker`, once it is loaded."""
        self._put_back = ExitStack()

    def install(self, folder: str, load_hooks: LoadHooks) -> None:
        """Begin to record; children do so in a `folder`, which is made here."""
        System.mkdir(folder)
        self._journal = journal.Journal(folder)
        file = str(journal.__file__)
        self._source = System.read_all(file)  # now: a test may hide the file system
        load_hooks.add("multiprocessing.resource_tracker", self._wrap_tracker)
        load_hooks.add("multiprocessing.spawn", self._wrap_preparation_data)

    def _wrap_tracker(self, tracker: ModuleType) -> None:
        self._tracker = tracker
        self._register, self._unregister = tracker.register, tracker.unregister
        # Each with its own original: a suite may load the module a second time.
        self._patch(tracker, "register", partial(self._registers, tracker.register))
        self._patch(tracker, "unregister", partial(self._unregisters, tracker.unregister))
        # What unlinks a segment that isn't tracked here, private, since Python 3.8. Where it goes
        # missing, one that a child's own tracker knows counts as unlinked by that.
        module = getattr(tracker, "_posixshmem", None)
        if module is not None:
            self._patch(module, "shm_unlink", self._wrap_unlink(module.shm_unlink))

    def _wrap_preparation_data(self, spawn: ModuleType) -> None:
        self._spawn = spawn
        wrapped = partial(self._preparation_data, spawn.get_preparation_data)
        self._patch(spawn, "get_preparation_data", wrapped)

    def uninstall(self) -> None:
        """Record no longer."""
        self._put_back.close()

    def find(self, children: Sequence[Child]) -> list[Segment]:
        """Return the shared memory that ended owners and their `children` have left."""
        return [*self._find_own(), *self._find_noted(children)]

    def unlink(
        self, children: Sequence[Child], known: Sequence[Segment], ended: Collection[Child]
    ) -> list[Segment]:
        """Unlink what ended owners have left, and return it with what was `known` before.

        The semaphores of children that this plugin had to end are no finding of their own.
        """
        found = {one.name: one for one in (*known, *self.find(children))}
        semaphores = _find_semaphores(children) if children else []
        for one in (*found.values(), *semaphores):
            self.remove(one)
        killed = set(map(id, ended))
        return [*found.values(), *(one for one in semaphores if id(one.child) not in killed)]

    def take_kept(self) -> list[Segment]:
        """Return what belongs to the session, and was made by pytest's own process."""
        kept = [one for one in tuple(self._own.values()) if self._is_kept(one)]
        for one in kept:
            del self._own[one.name]
        return [one._replace(owner=self._session) for one in kept if _exists(one)]

    def remove(self, one: Segment) -> bool:
        """Unlink a segment, and let the resource tracker know; return False where it was gone."""
        with suppress(OSError):
            self._drop(one.name)
        if not _exists(one):
            return False
        with suppress(OSError):
            System.unlink(one.file)
        # Private, since Python 3.4; where it goes missing, the tracker says at exit what it found
        # unlinked. One that doesn't run knows of nothing.
        held = getattr(self._tracker, "_resource_tracker", None)
        if getattr(held, "_fd", None) is not None:
            with suppress(OSError):
                # A tracker that doesn't know it any more would complain.
                self._register(one.name, one.kind)
                self._unregister(one.name, one.kind)
        return True

    def _patch(self, place: object, name: str, new: object) -> None:
        self._put_back.callback(setattr, place, name, getattr(place, name))
        setattr(place, name, new)

    def _registers(self, original: Callable[..., None], name: str, rtype: str) -> None:
        original(name, rtype)
        if rtype == journal.MEMORY and self._journal is not None:
            with self._guard, suppress(FileNotFoundError):  # unlinked already, or no folder
                frame = sys._getframe(1)  # noqa: SLF001 (no other way to see who calls, on CPython)
                if System.getpid() != self._pid:
                    self._journal.note(name, frame)
                elif journal.makes(frame):
                    self._note(name, frame)

    def _note(self, name: str, frame: FrameType) -> None:
        file, owner = FOLDER + name, self._owner() or self._session
        place, inode = makers.line(frame), System.stat(file).st_ino
        self._own[name] = Segment(name, file, inode, place, owner)

    def _unregisters(self, original: Callable[..., None], name: str, rtype: str) -> None:
        original(name, rtype)
        if rtype == journal.MEMORY:
            with self._guard:
                self._drop(name)

    def _wrap_unlink(self, original: Callable[[str], None]) -> Callable[[str], None]:
        @wraps(original)
        def shm_unlink(name: str) -> None:
            original(name)
            with self._guard:
                self._drop(name)

        return shm_unlink

    def _drop(self, name: str) -> None:
        if System.getpid() == self._pid:
            self._own.pop(name, None)
        if self._journal is not None:
            self._journal.drop(name)

    def _preparation_data(
        self, original: Callable[[str], dict[str, Any]], name: str
    ) -> dict[str, Any]:
        """Let a child that doesn't fork keep the journal, too."""
        data = original(name)
        # Another Python than this one may not understand its code.
        executable = System.fsencode(self._spawn.get_executable() or "")
        own = executable == System.fsencode(System.executable)
        if self._journal is not None and own:
            if not self._code:  # with the first child that needs it
                file = str(journal.__file__)
                self._stub = _Code(marshal.dumps(compile(STUB, file, "exec")))
                self._code = marshal.dumps(compile(self._source, file, "exec"))
            variables = {"code": self._code, "folder": self._journal.folder, "journal": {}}
            data["pytest_startmethod_journal"] = Source(self._stub, variables)
        return data

    def _is_kept(self, one: Segment) -> bool:
        return one.owner is self._session or one.owner.untouched

    def _find_own(self) -> list[Segment]:
        # Other threads may make one meanwhile.
        own = tuple(self._own.values())
        ended = [one for one in own if one.owner.ended and not self._is_kept(one)]
        for one in ended:
            del self._own[one.name]
        return [one for one in ended if _exists(one)]

    def _find_noted(self, children: Sequence[Child]) -> list[Segment]:
        if not children or self._journal is None:
            return []
        folder, by_mark = self._journal.folder, {child.mark: child for child in children}
        found = []
        with suppress(FileNotFoundError):
            for name in System.listdir(folder):
                words = System.read_file(f"{folder}/{name}").decode(errors="replace").split("\n", 3)
                child = by_mark.get(int(words[0])) if len(words) == 4 else None
                if child is not None:
                    _, inode, tracked, place = words
                    file = f"{FOLDER}/{name}"
                    one = Segment(f"/{name}", file, int(inode), place, child.owner, child)
                    found.append(one._replace(tracked=tracked == "1"))
        # What is gone was unlinked by its name alone, unless a tracker did that.
        return [one for one in found if one.tracked or _exists(one)]


def _find_semaphores(children: Sequence[Child]) -> list[Segment]:
    """Return the named semaphores that children left: only one that is killed leaves some."""
    oldest = min(child.began for child in children)
    began = System.wall_clock() - (System.monotonic() - oldest)
    found = []
    with suppress(OSError):
        if System.stat(FOLDER).st_mtime < began - TICK:
            return []
        by_prefix = {(SEMAPHORE_PREFIX % child.mark)[1:]: child for child in children}
        for file in System.listdir(FOLDER):
            name = file.removeprefix("sem.")  # musl writes none
            child = by_prefix.get(name.rpartition("-")[0])
            if child is not None:
                path = f"{FOLDER}/{file}"
                inode = System.stat(path).st_ino
                owner = child.owner
                found.append(Segment(f"/{name}", path, inode, "", owner, child, SEMAPHORE))
    return found


def _exists(one: Segment) -> bool:
    """Tell whether a segment is there, and no other of its name."""
    try:
        return System.stat(one.file).st_ino == one.inode
    except OSError:
        return False
