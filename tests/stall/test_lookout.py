"""The lookout interrupts a main thread that is blocked without end, and nobody notices it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.kernel import prctl, syscalls, waits
from pytest_startmethod.kernel.process_tree import Tree
from pytest_startmethod.stall import lookout
from pytest_startmethod.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

METHODS = multiprocessing.get_all_start_methods()
pytestmark = pytest.mark.skipif(not waits.AVAILABLE, reason="this platform has no /proc to look at")

KINDS = [lookout.ProcessLookout, lookout.ThreadLookout]
PRIVATE_LOCK = b"202 0x55 0x189 0x0 0x0 0x0 0xffffffff 0x7f 0x7f"


class InterruptedWaitError(Exception):
    """What the handler of these tests raises."""


@pytest.fixture
def _handled() -> Iterator[None]:
    def handle(_signum: int, _frame: object) -> None:
        raise InterruptedWaitError

    before = signal.signal(signal.SIGURG, handle)
    yield
    signal.signal(signal.SIGURG, before)


@pytest.fixture
def look() -> Iterator[Callable[..., lookout.Lookout]]:
    made: list[lookout.Lookout] = []

    def make(kind: Callable[[float], lookout.Lookout], seconds: float) -> lookout.Lookout:
        made.append(kind(seconds))
        return made[-1]

    yield make
    for each in made:
        each.end()


def threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


@pytest.mark.usefixtures("_handled")
@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_without_end_is_interrupted_as_often_as_it_is_blocked(
    kind: Callable[[float], lookout.Lookout], look: Callable[..., lookout.Lookout]
) -> None:
    made = look(kind, 0.2)
    receiver, _sender = multiprocessing.Pipe()
    for wait in (receiver.recv, threading.Event().wait, multiprocessing.Event().wait):
        made.begin()
        with pytest.raises(InterruptedWaitError):
            wait()
        made.pause()


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_that_ends_by_itself_is_left_alone(
    kind: Callable[[float], lookout.Lookout], look: Callable[..., lookout.Lookout]
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGURG, lambda *_: heard.append(1))
    receiver, _sender = multiprocessing.Pipe()
    try:
        made = look(kind, 0.2)
        made.begin()
        time.sleep(1.5)
        receiver.poll(0.7)
        threading.Event().wait(0.7)
        made.pause()
    finally:
        signal.signal(signal.SIGURG, before)
    assert heard == []


def test_no_thread_is_there_when_the_process_is_to_fork(
    look: Callable[..., lookout.Lookout],
) -> None:
    before = threads()
    made = look(lookout.ThreadLookout, 60)
    for _ in range(20):
        made.begin()
        made.begin()  # where it has begun, that is nothing
        made.make_way()
        assert threads() == before


def test_the_process_is_no_child_and_leaves_no_descriptor(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile("""
        import os
        import signal
        from pytest_startmethod.stall import lookout

        heard = []
        signal.signal(signal.SIGCHLD, lambda *_: heard.append(1))
        before = sorted(os.listdir("/proc/self/fd"))
        made = lookout.ProcessLookout(60)
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert heard == []
        try:
            os.wait()
        except ChildProcessError:
            print("no child")
        made.end()
    """)
    result = pytester.runpython(script)
    assert result.outlines == ["no child"]


def test_the_process_ends_with_the_one_it_looks_at(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile("""
        import os
        import signal
        import sys
        from pytest_startmethod.stall import lookout

        made = lookout.ProcessLookout(0.1)
        print(made._pid, flush=True)
        if sys.argv[1] == "blocked":
            os.read(0, 1)  # so that the shell has become the lookout when this ends
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    for how in ("at once", "blocked"):
        process = pytester.popen([sys.executable, script, how], stdin=-1)
        assert process.stdout is not None
        assert process.stdin is not None
        pid = int(process.stdout.readline())
        end = os.pidfd_open(pid)
        if how == "blocked":
            command = Path(f"/proc/{pid}/cmdline")
            while not command.read_bytes().startswith(sys.executable.encode()):
                assert not System.ready([end])
            assert str(Path(f"/proc/{pid}/cwd").readlink()) == "/"  # no test's, to be unmounted
            process.stdin.write(b"x")
            process.stdin.flush()
        assert System.ready([end], 30)
        os.close(end)
        process.communicate()


def test_what_yama_forbids_is_asked_for_or_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for scope, kind in ((0, lookout.ProcessLookout), (2, lookout.ThreadLookout)):
        monkeypatch.setattr(lookout, "_ptrace_scope", lambda scope=scope: scope)
        made = lookout.lookout(60)
        assert isinstance(made, kind)
        made.end()
    allowed: list[int] = []
    monkeypatch.setattr(lookout, "_ptrace_scope", lambda: 1)
    monkeypatch.setattr(prctl, "allow_ptrace", allowed.append)
    made = lookout.lookout(60)
    assert isinstance(made, lookout.ProcessLookout)
    assert len(allowed) == 1
    made.end()


def test_a_thread_looks_where_a_process_would_be_a_child(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile("""
        import ctypes
        import os
        import signal

        from pytest_startmethod.kernel import prctl
        from pytest_startmethod.stall import lookout

        SET_CHILD_SUBREAPER = 36
        told = []
        signal.signal(signal.SIGCHLD, lambda *_: told.append(1))
        assert ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
        assert prctl.is_subreaper()
        made = lookout.lookout(60)
        assert isinstance(made, lookout.ThreadLookout)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            assert not told
            print("no child")
    """)
    assert pytester.runpython(script).outlines == ["no child"]


@pytest.mark.parametrize("error", [PermissionError(1, ""), PermissionError(13, "")])
def test_a_thread_that_may_not_be_looked_at_may_move(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    read = System.read_file

    def refuse(path: str) -> bytes:
        if path.endswith("/syscall"):
            raise error
        return read(path)

    blocked = threading.Thread(target=threading.Event().wait, daemon=True)
    blocked.start()
    main = {threading.main_thread().native_id or 0}
    older = {int(name) for name in threads()} - {blocked.native_id or 0}
    none: frozenset[int] = frozenset()
    tree = Tree(os.getpid(), frozenset({os.getpid()}), none, none, frozenset(main | older))
    while waits.stuck_threads(tree) is None:
        pass
    monkeypatch.setattr(System, "read_file", staticmethod(refuse))
    assert waits.stuck_threads(tree) is None


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (PRIVATE_LOCK, "futex"),
        (PRIVATE_LOCK.replace(b"0x189", b"0x109"), "futex"),
        (PRIVATE_LOCK.replace(b"0x0 0x0", b"0x0 0x7ffe", 1), ""),
        (PRIVATE_LOCK.replace(b"0x189", b"0x81"), ""),
        (b"0 0x3 0x7f 0x4 0x0 0x0 0x0 0x7f 0x7f", "read"),
        (b"7 0x7f 0x1 0xffffffff 0x0 0x0 0x0 0x7f 0x7f", "poll"),
        (b"7 0x7f 0x1 0xffffffffffffffff 0x0 0x0 0x0 0x7f 0x7f", "poll"),
        (b"7 0x7f 0x1 0x182b8 0x0 0x0 0x0 0x7f 0x7f", ""),
        (b"34 0x0 0x0 0x0 0x0 0x0 0x0 0x7f 0x7f", ""),
        (b"230 0x1 0x1 0x7f 0x0 0x0 0x0 0x7f 0x7f", ""),
        (b"running", ""),
        (b"-1 0x7f 0x7f", ""),
    ],
)
def test_a_wait_without_end_is_told_from_others(line: bytes, name: str) -> None:
    wait = syscalls.endless_wait(line, "x86_64")
    assert (wait.call.name if wait else "") == name


def test_another_machine_has_other_numbers() -> None:
    wait = syscalls.endless_wait(b"98" + PRIVATE_LOCK[3:], "aarch64")
    assert wait is not None
    assert syscalls.endless_wait(PRIVATE_LOCK, "aarch64") is None
    assert syscalls.endless_wait(PRIVATE_LOCK, "riscv64") is None


def test_a_test_that_waits_for_the_dead_fails_by_a_thread_that_looks(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        from pytest_startmethod.stall import lookout

        lookout.lookout = lambda seconds, _: lookout.ThreadLookout(seconds)
    """)
    pytester.makepyfile(
        helper="""
            import os

            def exits(queue):
                os._exit(3)
        """,
        test_it="""
            import helper

            def test_it(mp_context):
                queue = mp_context.Queue()
                for _ in range(3):  # where the thread makes way for the next
                    process = mp_context.Process(target=helper.exits, args=(queue,))
                    process.start()
                queue.get()
        """,
    )
    stalls = ("-o", "start_method_stall_timeout=0.2", "-W", "error::DeprecationWarning")
    result = run_watched(*stalls)
    result.assert_outcomes(failed=len(METHODS))
    failures = [line for line in result.outlines if line.startswith("E ")]
    assert len(failures) == len(METHODS)
    assert all("blocked for 0.2 s in a wait" in line for line in failures)
