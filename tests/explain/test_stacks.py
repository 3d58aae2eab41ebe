"""A failure says where each thread of each living child is, and which threads ran at a fork."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # not in typeshed
import multiprocessing
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.explain import stacks
from pytest_startmethod.launch.listener import Listener
from pytest_startmethod.processes import dumps
from pytest_startmethod.processes.threads import Beside

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    pytest.mark.skipif(not stacks.AVAILABLE, reason="children can't be asked here"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()
LEAK_ALLOWED = ("-W", "ignore::pytest_startmethod.ChildProcessLeakWarning")
FRESH = [method for method in METHODS if method != "fork"]

HELPER = """
import os
import signal
import threading
import time

def tell(connection):
    connection.send(os.getpid())

def inner(connection):
    tell(connection)
    time.sleep(60)

def sleeps(connection):
    inner(connection)

def recurses(connection, depth=30):
    if depth:
        recurses(connection, depth - 1)
    inner(connection)

def has_threads(connection):
    started = threading.Barrier(2)
    threading.Thread(target=holds, args=[started], name="Holder", daemon=True).start()
    started.wait()
    inner(connection)

def holds(started):
    started.wait()
    threading.Event().wait()

def keeps_the_interpreter(connection):
    tell(connection)
    digits = 10**6
    int("9" * 4000) ** digits  # in C, and holds the interpreter's lock

def handles_the_signal(connection):
    signal.signal(signal.SIGURG, lambda *_: os._exit(3))
    inner(connection)

def ignores_the_signal(connection):
    signal.signal(signal.SIGURG, signal.SIG_IGN)
    inner(connection)

def blocks_the_signal(connection):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
    inner(connection)

def pauses(connection):
    tell(connection)
    signal.pause()
    os._exit(4)

def closes_all(connection):
    descriptor = connection.fileno()
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 300)
    files = [open(f"{os.getpid()}.{number}", "w") for number in range(20)]
    inner(connection)

def stops(connection):
    tell(connection)
    os.kill(os.getpid(), signal.SIGSTOP)

def becomes_another_program(connection):
    tell(connection)
    os.execvp("sleep", ["sleep", "60"])

def start(context, target, **kwargs):
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=[theirs], name=target.__name__, **kwargs)
    process.start()
    ours.recv()
    return process
"""


def shown(result: pytest.RunResult, child: str) -> list[list[str]]:
    """Return what is shown below the lines of the children of a name, for each of them."""
    found: list[list[str]] = []
    lines = result.outlines
    for number, line in enumerate(lines):
        if line.startswith(f"{child} (pid "):
            assert line.endswith(": alive"), line
            below = iter(lines[number + 1 :])
            found.append([])
            for line in below:
                if not line.startswith("  "):
                    break
                found[-1].append(line[2:])
    return found


def test_where_each_thread_of_a_living_child_is(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import helper

            def test_it(mp_context):
                for target in (helper.sleeps, helper.recurses, helper.has_threads):
                    helper.start(mp_context, target, daemon=True)
                helper.start(mp_context, helper.keeps_the_interpreter, daemon=True)
                raise AssertionError("the only failure")
        """,
    )
    result = run_watched(*LEAK_ALLOWED)
    result.assert_outcomes(failed=len(METHODS))
    for below in shown(result, "sleeps"):
        main, sleeps, inner, *_ = below
        assert main == "MainThread:"
        assert sleeps == "  helper.py:14 in sleeps"
        assert inner.startswith("  helper.py:1")
        assert inner.endswith(" in inner")
    for below in shown(result, "recurses"):
        assert below[1].startswith("  (2")
        assert len(below) <= 12
        assert below[-1].endswith((" in inner", " in tell"))
    named = sys.version_info >= (3, 14)
    for below in shown(result, "has_threads"):
        start = below.index("Holder:" if named else "Thread (holds):")
        assert start > 0
        assert below[start + 1].startswith("  helper.py:")
        assert below[start + 1].endswith(" in holds")
        assert all(line.startswith("  threading.py:") for line in below[start + 2 :])
    for below in shown(result, "keeps_the_interpreter"):
        assert below[:1] == ["MainThread:"]
        assert below[1].endswith(" in keeps_the_interpreter")
    for name in ("sleeps", "recurses", "has_threads", "keeps_the_interpreter"):
        assert len(shown(result, name)) == len(METHODS)
    assert "_bootstrap" not in result.stdout.str()


def test_workers_and_a_child_that_imports_its_target(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        late="""
            import time

            with open("fifo", "w") as fifo:
                fifo.write("importing")
            time.sleep(60)

            def target():
                pass
        """,
        test_it="""
            import os
            import sys
            import types
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import pytest

            def test_pool(mp_context):
                ours, theirs = mp_context.Pipe()
                pool = mp_context.Pool(1, helper.sleeps, [theirs])
                ours.recv()
                raise AssertionError

            def test_executor(mp_context):
                ours, theirs = mp_context.Pipe()
                executor = ProcessPoolExecutor(1, mp_context, helper.sleeps, [theirs])
                executor.submit(abs, 1)
                ours.recv()
                pytest.fail("here")

            @pytest.mark.start_methods("spawn", "forkserver")
            def test_late(mp_context, monkeypatch):
                os.path.exists("fifo") or os.mkfifo("fifo")
                late = types.ModuleType("late")
                exec("def target(): pass", vars(late))
                monkeypatch.setitem(sys.modules, "late", late)
                mp_context.Process(target=late.target, name="late").start()
                with open("fifo") as fifo:
                    assert fifo.read() == "importing"
                pytest.fail("here")
        """,
    )
    result = run_watched(*LEAK_ALLOWED)
    result.assert_outcomes(failed=2 * len(METHODS) + len(FRESH))
    lines = result.outlines
    assert lines.count("    helper.py:14 in sleeps") == 2 * len(METHODS)
    late = [line for line in lines if line.startswith("    late.py:")]
    assert [line.partition(" in ")[2] for line in late] == ["<module>"] * len(FRESH)


def test_a_child_that_the_signal_would_disturb_is_left_alone(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import os
            import signal
            from pathlib import Path

            import helper

            TARGETS = [
                helper.handles_the_signal,
                helper.ignores_the_signal,
                helper.blocks_the_signal,
                helper.pauses,
                helper.closes_all,
                helper.stops,
                helper.becomes_another_program,
            ]

            def test_it(mp_context, request):
                for target in TARGETS:
                    child = helper.start(mp_context, target, daemon=True)
                    if target in (helper.stops, helper.pauses):
                        state = Path(f"/proc/{child.pid}/stat")
                        while state.read_text().rpartition(")")[2].split()[0] not in "TS":
                            pass
                    if target is helper.pauses:
                        call = Path(f"/proc/{child.pid}/syscall")
                        while call.read_text().split()[0] not in ("34", "73"):
                            pass
                    if target is helper.becomes_another_program:
                        while "sleep" not in Path(f"/proc/{child.pid}/comm").read_text():
                            pass
                raise AssertionError
        """,
    )
    result = run_watched(*LEAK_ALLOWED)
    result.assert_outcomes(failed=len(METHODS))
    for name in (
        "handles_the_signal",
        "ignores_the_signal",
        "blocks_the_signal",
        "pauses",
        "closes_all",
        "stops",
        "becomes_another_program",
    ):
        assert shown(result, name) == [[]] * len(METHODS)
    written = [path.read_text(encoding="utf-8") for path in pytester.path.glob("*.[0-9]*")]
    assert written == [""] * len(METHODS) * 20


@pytest.mark.needs("fork")
def test_a_handler_that_the_test_has_set_before_the_fork_is_not_called(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import os
            import signal

            import helper

            def test_it(mp_context):
                before = signal.signal(signal.SIGURG, lambda *_: os._exit(3))
                try:
                    helper.start(mp_context, helper.sleeps, daemon=True)
                    raise AssertionError
                finally:
                    signal.signal(signal.SIGURG, before)
        """,
    )
    result = run_watched("--start-method=fork", *LEAK_ALLOWED)
    result.assert_outcomes(failed=1)
    assert shown(result, "sleeps") == [[]]


@pytest.mark.needs("fork")
def test_what_a_child_prints_and_where_its_descriptors_are_stays_as_it_is(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import os

            import helper

            def closes_its_output(connection):
                for number in range(3):
                    os.close(number)
                    assert os.open("output", os.O_RDWR | os.O_CREAT) == number
                helper.inner(connection)

            def test_it(mp_context):
                helper.start(mp_context, closes_its_output, daemon=True)
                raise AssertionError
        """,
    )
    result = run_watched("--start-method=fork", "-s", *LEAK_ALLOWED)
    result.assert_outcomes(failed=1)
    assert "E       AssertionError" in result.outlines
    assert len(shown(result, "closes_its_output")[0]) > 1
    assert (pytester.path / "output").read_bytes() == b""


def test_a_child_without_input_and_output_keeps_their_numbers_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_signal, "signal", _signal.signal)  # a listener replaces it
    registered: list[int] = []
    closed: list[int] = []
    system = SimpleNamespace(
        memfd_create=lambda _: 0,
        dup=lambda number: number + 1,
        close=closed.append,
        register_dump=lambda _, descriptor: registered.append(descriptor),
    )
    Listener(system, signal.SIGWINCH).listen()
    assert registered == [3]
    assert closed == [0, 1, 2]


def test_a_time_out_of_pytest_timeout_says_where_a_child_is(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        test_it="""
            import helper
            import pytest

            @pytest.mark.timeout(2, method="signal")
            def test_it(mp_context):
                helper.start(mp_context, helper.sleeps, daemon=True).join()
        """,
    )
    result = run_watched(*LEAK_ALLOWED, plugins=("pytest_timeout",))
    result.assert_outcomes(failed=len(METHODS))
    assert "blocked for" not in result.stdout.str()
    assert len(shown(result, "sleeps")) == len(METHODS)
    for below in shown(result, "sleeps"):
        assert below[:2] == ["MainThread:", "  helper.py:14 in sleeps"]


def test_under_xdist_too(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        test_it="""
            import helper

            def test_it(mp_context):
                helper.start(mp_context, helper.sleeps, daemon=True)
                raise AssertionError
        """,
    )
    result = run_watched(*LEAK_ALLOWED, "-n", "1", plugins=("xdist",))
    result.assert_outcomes(failed=len(METHODS))
    assert result.outlines.count("    helper.py:14 in sleeps") == len(METHODS)


def test_ctrl_c_says_where_the_children_are(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import os
            import signal
            import threading

            import helper

            def test_it(mp_context):
                process = helper.start(mp_context, helper.sleeps, daemon=True)
                interrupt = [os.getpid(), signal.SIGINT]  # not the children, as a terminal does
                threading.Timer(0.2, os.kill, interrupt).start()
                process.join()
        """,
    )
    for method in METHODS:
        result = run_watched(f"--start-method={method}")
        assert result.ret == pytest.ExitCode.INTERRUPTED
        [below] = shown(result, "sleeps")
        assert below[:2] == ["MainThread:", "  helper.py:14 in sleeps"]


def test_a_leak_says_where_the_child_was(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import helper

            def test_it(mp_context):
                helper.start(mp_context, helper.sleeps)

            def test_idle(mp_context):
                global pool
                pool = mp_context.Pool(1)
                pool.apply(abs, [1])
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=2 * len(METHODS), warnings=2 * len(METHODS))
    text = result.stdout.str()
    for method in METHODS:
        assert f", {method}) started at helper.py:" in text
    assert text.count(", was at helper.py:") == len(METHODS)


@pytest.mark.needs("fork")
@pytest.mark.parametrize("options", [(), ("-W", "error")])
def test_the_threads_that_ran_at_the_fork(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    options: tuple[str, ...],
) -> None:
    if options and sys.version_info >= (3, 15):
        pytest.skip("there start() raises the warning that is an error")
    pytester.makepyfile(
        test_it="""
            import ctypes
            import threading
            from pathlib import Path

            import helper

            def hold(started, done):
                started.release()
                done.wait()

            def test_it(mp_context):
                done, started = threading.Event(), threading.Semaphore(0)
                threads = [
                    threading.Thread(target=hold, args=[started, done], name=name)
                    for name in ("first", "second")
                ]
                for thread in threads:
                    thread.start()
                for _ in threads:
                    started.acquire()
                try:
                    helper.start(mp_context, helper.sleeps, daemon=True)
                finally:
                    done.set()
                raise AssertionError

            def test_native(mp_context):
                import _thread

                done = _thread.allocate_lock()
                done.acquire()
                before = len(list(Path("/proc/self/task").iterdir()))
                _thread.start_new_thread(done.acquire, ())
                while len(list(Path("/proc/self/task").iterdir())) == before:
                    pass
                try:
                    helper.start(mp_context, helper.sleeps, daemon=True)
                finally:
                    done.release()
                raise AssertionError
        """,
    )
    result = run_watched("--start-method=fork", *options)
    assert result.parseoutcomes()["failed"] == 2
    lines = [line for line in result.outlines if line.startswith("  forked while ")]
    both, native = lines[-2:]  # errors at teardown, of leaks, are shown before
    assert both.startswith("  forked while 2 other threads ran: first at test_it.py:")
    assert both.count(" in hold") == 2
    assert ", second at test_it.py:" in both
    assert native == "  forked while 1 other thread ran: 1 that Python doesn't know"


def test_no_descriptor_is_held_while_children_are_asked(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import os

            import helper
            import pytest

            def descriptors():
                return set(os.listdir("/proc/self/fd"))

            @pytest.fixture
            def child(mp_context):
                child = helper.start(mp_context, helper.sleeps)
                before.append(descriptors())
                yield child
                assert descriptors() <= before.pop()
                child.kill()
                child.join()

            before = []

            def test_it(child):
                raise AssertionError("the only failure")
        """,
    )
    run_watched().assert_outcomes(failed=len(METHODS))


def test_an_error_of_asking_is_one_warning_and_the_child_is_ended_all_the_same(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        from pytest_startmethod.explain import stacks

        def broken(*_):
            raise ZeroDivisionError

        stacks._ask = broken
    """)
    pytester.makepyfile(
        test_it="""
            import helper

            def test_fails(mp_context):
                helper.start(mp_context, helper.sleeps)
                raise AssertionError("the only failure")

            def test_passes(mp_context):
                helper.start(mp_context, helper.sleeps)
        """,
    )
    result = run_watched(*LEAK_ALLOWED)
    result.assert_outcomes(passed=len(METHODS), failed=len(METHODS), warnings=1)
    assert shown(result, "sleeps") == [[]] * len(METHODS)


@pytest.mark.parametrize("name", ["", " [pytest]"])
def test_a_dump_is_read_as_each_python_writes_it(name: str) -> None:
    threading, process = (
        dumps.STANDARD + file for file in ("threading.py", "multiprocessing/process.py")
    )
    dump = f"""\
Thread 0x00007f01{name} (most recent call first):
  File "{threading}", line 355 in wait
  File "/code/lock.py", line 7 in hold
  File "{threading}", line 1010 in run
  File "{threading}", line 1073 in _bootstrap_inner
  File "{threading}", line 1030 in _bootstrap

Thread 0x00007f02 (most recent call first):
  <no Python frame>

Current thread 0x00007f03{name} (most recent call first):
  File "/code/work.py", line ??? in work
  File "{process}", line 108 in run
  File "{process}", line 314 in _bootstrap
  File "/code/pytest.py", line 1 in main
"""
    main, native, holder = dumps.parse(dump)
    assert main.lines() == ["MainThread:", "  /code/work.py:??? in work"]
    assert native.lines() == ["a thread:", "  in C code"]
    assert holder.name == (name.strip(" []") or "Thread (hold)")
    assert holder.lines()[1:] == ["  /code/lock.py:7 in hold", "  threading.py:355 in wait"]
    assert holder.place == "/code/lock.py:7 in hold"
    assert dumps.parse("") == []
    assert dumps.parse("no dump\nat all") == []


def test_few_of_very_many_threads_are_named() -> None:
    text = str(Beside(tuple(f"t{n}" for n in range(12)), 3))
    assert text.startswith("15 other threads ran: t0, t1, ")
    assert text.endswith("t9, 2 more, 3 that Python doesn't know")


def test_the_signal_that_asks_is_ignored_by_default() -> None:
    assert stacks.SIGNAL == signal.SIGURG
