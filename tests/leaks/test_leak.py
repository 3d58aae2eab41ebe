"""No child outlives its owner, and pytest ends by itself."""

from __future__ import annotations

import multiprocessing
import re
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Gone = Callable[[int], None]

pytestmark = [
    pytest.mark.posix("os.kill(pid, 0), by which they ask who lives, ends a process there"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()
WARNING = "pytest_startmethod.ChildProcessLeakWarning"

HELPER = """
import os
import signal
from pathlib import Path

def forever(connection, obedient=True):
    if not obedient:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(os.getpid())
    while True:
        signal.pause()

def pauses():
    while True:
        signal.pause()

def note(pid):
    with Path("pids.txt").open("a") as file:
        print(pid, file=file)
    return pid

def waits(connection):
    connection.recv()

def tells(semaphore):
    semaphore.release()

def start(context, daemon=False, obedient=True):
    receiver, sender = context.Pipe()
    process = context.Process(target=forever, args=[sender, obedient], daemon=daemon)
    process.start()
    assert note(receiver.recv()) == process.pid  # it has come as far as to be signalled
    return process
"""

# The test after one that leaks.
NEXT = """
            def test_next(mp_context):
                assert multiprocessing.active_children() == []
                for pid in map(int, Path("pids.txt").read_text().split()):
                    with pytest.raises(ProcessLookupError):
                        os.kill(pid, 0)
"""


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_what_a_test_leaves_alive_is_ended_before_the_next(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone, arguments: list[str]
) -> None:
    if arguments:
        pytest.importorskip("xdist", reason="it runs under xdist")
    leaks = """
            import multiprocessing
            import os
            from concurrent.futures import ProcessPoolExecutor
            from pathlib import Path

            import helper
            import pytest

            KEPT = []

            def test_process(mp_context):
                helper.start(mp_context)

            def test_next_after_process(mp_context):
                test_next(mp_context)

            def test_deaf_daemon(mp_context):
                helper.start(mp_context, daemon=True, obedient=False)

            def test_next_after_deaf_daemon(mp_context):
                test_next(mp_context)

            def test_pool(mp_context):
                KEPT.append(mp_context.Pool(1))
                helper.note(KEPT[-1].apply(os.getpid))

            def test_next_after_pool(mp_context):
                test_next(mp_context)

            def test_executor(mp_context):
                KEPT.append(ProcessPoolExecutor(1, mp_context=mp_context))
                helper.note(KEPT[-1].submit(os.getpid).result())

            def test_next_after_executor(mp_context):
                test_next(mp_context)

            def test_manager(mp_context):
                KEPT.append(mp_context.Manager())
                [server] = multiprocessing.active_children()
                helper.note(server.pid)

            def test_next_after_manager(mp_context):
                test_next(mp_context)

            def test_fails(mp_context):
                helper.start(mp_context)
                raise AssertionError
"""
    pytester.makepyfile(test_it=leaks + NEXT.replace("pids.txt", "none.txt"))
    (pytester.path / "none.txt").touch()
    if not arguments:  # else another worker has just begun to write there
        pytester.makepyfile(test_it=leaks + NEXT)
    plugins = ("xdist",) if arguments else ()
    result = run_impatient(*arguments, plugins=plugins)
    count = len(METHODS)
    result.assert_outcomes(passed=11 * count, failed=count, warnings=6 * count)
    assert_gone(6 * count)
    leaked = "ChildProcessLeakWarning: still alive at the end of the test, and then ended: "
    assert result.stdout.str().count(leaked) == 6 * count
    assert re.search(
        r"ended: \w+Process-\d+ \(pid \d+, \w+\) started at helper\.py:\d+;", result.stdout.str()
    )


def test_what_ends_within_the_grace_is_no_leak(pytester: pytest.Pytester, run_watched: Run) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import helper

            def test_it(mp_context):
                receiver, sender = mp_context.Pipe()
                mp_context.Process(target=helper.waits, args=[receiver]).start()
                sender.send("go")

            def test_next(mp_context):
                assert multiprocessing.active_children() == []
        """,
    )
    result = run_watched("-W", f"error::{WARNING}")
    result.assert_outcomes(passed=2 * len(METHODS), errors=0)


def test_what_wider_fixtures_made_lives_as_long_as_they(
    pytester: pytest.Pytester, run_watched: Run, assert_gone: Gone
) -> None:
    pytester.makeconftest("""
        from concurrent.futures import ProcessPoolExecutor

        import helper
        import pytest

        @pytest.fixture(scope="session")
        def executor():
            with ProcessPoolExecutor(1) as executor:
                yield executor
    """)
    suite = """
        import multiprocessing
        import os
        from concurrent.futures import ProcessPoolExecutor

        import helper
        import pytest

        AT_IMPORT = ProcessPoolExecutor(1)  # starts nothing yet

        @pytest.fixture(scope="module")
        def started():
            return multiprocessing.Semaphore(0)

        @pytest.fixture(scope="module")
        def pool(started):
            with multiprocessing.Pool(1, helper.tells, [started], maxtasksperchild=1) as pool:
                started.acquire()
                yield pool

        @pytest.fixture(scope="class")
        def numbers():
            with multiprocessing.Manager() as manager:
                yield manager.list([1])

        @pytest.fixture(scope="module")
        def process():
            process = helper.start(multiprocessing)
            yield process
            process.kill()
            process.join()

        @pytest.mark.parametrize("number", [1, 2, 3])
        class TestClass:
            PIDS = set()

            def test_executor(self, executor, number):
                self.PIDS.add(executor.submit(os.getpid).result())
                assert len(self.PIDS) == 1

            def test_pool_that_replaces_its_worker(self, pool, started, number):
                assert pool.apply(abs, [-number]) == number
                # While pytest prints its progress, a fork would inherit a lock that is held.
                started.acquire()

            def test_manager(self, numbers, number):
                numbers.append(number)
                assert len(numbers) == 1 + number

            def test_process(self, process, number):
                assert process.is_alive()

        def test_uses_what_was_made_at_import():
            assert AT_IMPORT.submit(abs, -1).result() == 1

        def test_uses_it_again():
            assert AT_IMPORT.submit(abs, -1).result() == 1

        def test_ends_it():
            AT_IMPORT.shutdown()
    """
    pytester.makepyfile(test_one=suite, test_two=suite)
    for method in METHODS:
        result = run_watched(f"--start-method={method}", "-W", f"error::{WARNING}")
        result.assert_outcomes(passed=30, errors=0)
    assert_gone(2 * len(METHODS))


def test_what_wider_fixtures_leave_alive_is_ended_with_them(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            class TestClass:
                def test_one(self, of_session, of_module, of_class):
                    pass

                def test_two(self, of_session, of_module, of_class):
                    assert of_session.is_alive() and of_module.is_alive() and of_class.is_alive()

            def test_three(of_session, of_module):
                assert of_session.is_alive() and of_module.is_alive()
                assert len(multiprocessing.active_children()) == 2
        """,
        test_later="""
            import multiprocessing

            def test_four(mp_context, of_session):
                assert len(multiprocessing.active_children()) == 1
        """,
        conftest="""
            import helper
            import pytest

            def scoped(scope):
                @pytest.fixture(scope=scope)
                def process(mp_context):
                    return helper.start(mp_context, obedient=False)
                return process

            of_session, of_module, of_class = map(scoped, ["session", "module", "class"])
        """,
    )
    result = run_impatient("-o", "start_method_scope=session")
    result.assert_outcomes(passed=4 * len(METHODS), warnings=3 * len(METHODS))
    for name in ("of_class", "of_module", "of_session"):
        assert result.stdout.str().count(f"end of the fixture {name!r}") == len(METHODS)
    assert_gone(3 * len(METHODS))


def test_what_code_under_test_makes_for_later_serves_tests_that_ask_for_nothing(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(
        kept="""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            from functools import cache

            executor = cache(lambda: ProcessPoolExecutor(1))
            pool = cache(lambda: multiprocessing.Pool(1))
            manager = cache(lambda: multiprocessing.Manager().list())
        """,
        test_it="""
            import os

            import kept
            import pytest

            PIDS = set()

            @pytest.mark.parametrize("number", range(3))
            def test_it(number):
                executor, pool = kept.executor(), kept.pool()
                PIDS.add((executor.submit(os.getpid).result(), pool.apply(os.getpid)))
                assert len(PIDS) == 1
                kept.manager().append(number)
                assert list(kept.manager()) == list(range(number + 1))
        """,
    )
    for method in METHODS:
        result = run_watched(f"--start-method={method}", "-W", f"error::{WARNING}")
        result.assert_outcomes(passed=3, errors=0)


@pytest.mark.parametrize("ends", [True, False], ids=["ended by the library", "left by it"])
def test_what_a_library_starts_and_keeps_is_ended_by_it_or_else_when_python_exits(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone, ends: bool
) -> None:
    library = pytester.mkdir("site-packages") / "library.py"
    library.write_text(
        textwrap.dedent(f"""
            import atexit
            import multiprocessing
            import multiprocessing.util  # so that `end` is called before its exit hook

            import helper

            KEPT = []

            def start():
                if not KEPT:
                    KEPT.append(helper.Process(target=helper.pauses))
                    KEPT[0].start()
                    helper.note(KEPT[0].pid)

            @atexit.register
            def end():
                if {ends} and multiprocessing.parent_process() is None:
                    KEPT[0].kill()
        """),
        encoding="utf-8",
    )
    pytester.makepyfile(
        helper="from multiprocessing import Process\n" + HELPER,
        test_it="""
            import sys

            sys.path.append("site-packages")

            import library

            def test_first():
                library.start()

            def test_second():
                assert library.KEPT[0].is_alive()
        """,
    )
    result = run_impatient("--start-method=fork")
    result.assert_outcomes(passed=2, warnings=0)
    assert result.stderr.str().count("ChildProcessLeakWarning: still alive") == (not ends)
    assert_gone(1)


def test_what_was_made_at_import_is_ended_with_the_session(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone
) -> None:
    pytester.makepyfile(
        test_it="""
            import os
            import time
            from concurrent.futures import ProcessPoolExecutor

            import helper

            AT_IMPORT, STUCK = ProcessPoolExecutor(1), ProcessPoolExecutor(1)

            def test_one(default_start_method):
                helper.note(AT_IMPORT.submit(os.getpid).result())

            def test_two(default_start_method):
                AT_IMPORT.submit(os.getpid).result()

            def test_stuck(default_start_method):
                helper.note(STUCK.submit(os.getpid).result())
                stuck = STUCK.submit(helper.pauses)
                while not stuck.running():  # till then the end of the session may cancel it
                    time.sleep(0.01)
        """,
    )
    for method in METHODS:
        result = run_impatient(f"--start-method={method}")
        result.assert_outcomes(passed=3, warnings=1)
        [warning] = [line for line in result.outlines if "ChildProcessLeakWarning" in line]
        assert "at the end of the session," in warning
        assert warning.count("(pid ") == 1
    assert_gone(2 * len(METHODS))


@pytest.mark.parametrize("stop", ["-x", "--maxfail=1"])
def test_a_run_that_stops_early_leaves_nothing_either(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone, stop: str
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import helper
            import pytest

            @pytest.fixture(scope="session")
            def process():
                return helper.start(multiprocessing)

            def test_one(process):
                helper.start(multiprocessing)
                raise AssertionError

            def test_two():
                pass
        """,
    )
    for method in METHODS:
        result = run_impatient(f"--start-method={method}", stop)
        result.assert_outcomes(failed=1, warnings=result.parseoutcomes()["warnings"])
        assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert_gone(2 * len(METHODS))


def test_severity_is_the_users(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone
) -> None:
    pytester.makepyfile(
        test_it=f"""
            import helper
            import pytest

            def test_it(mp_context):
                helper.start(mp_context)

            @pytest.mark.filterwarnings("ignore::{WARNING}")
            def test_allowed(mp_context):
                helper.start(mp_context)
        """,
    )
    count = len(METHODS)
    result = run_impatient("-W", f"error::{WARNING}")
    result.assert_outcomes(passed=2 * count, errors=count, warnings=0)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert_gone(2 * count)


@pytest.mark.skipif("forkserver" not in METHODS, reason="it is about the forkserver")
def test_a_child_whose_start_was_interrupted_is_ended_too(
    pytester: pytest.Pytester, run_watched: Run, assert_gone: Gone
) -> None:
    pytester.makepyfile(
        test_it="""
            from multiprocessing import forkserver, popen_forkserver

            import helper
            import pytest

            class Interrupts:
                def __getattr__(self, name):
                    return getattr(forkserver, name)

                def read_signed(self, descriptor):
                    raise KeyboardInterrupt  # when the child runs and its pid is not known

            @pytest.mark.start_methods("forkserver")
            def test_it(mp_context, monkeypatch):
                receiver, sender = mp_context.Pipe()
                process = mp_context.Process(target=helper.forever, args=[sender])
                with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                    patch.setattr(popen_forkserver, "forkserver", Interrupts())
                    process.start()
                helper.note(receiver.recv())
        """,
    )
    run_watched().assert_outcomes(passed=1, warnings=1)
    assert_gone(1)


def test_processes_that_no_test_started_live_on(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        import helper
        import pytest

        def pytest_sessionstart(session):
            receiver, session.sender = multiprocessing.Pipe()
            session.server = multiprocessing.Process(target=helper.waits, args=[receiver])
            session.server.start()

        @pytest.hookimpl(trylast=True)
        def pytest_sessionfinish(session):
            assert session.server.is_alive()
            session.sender.send("go")
            session.server.join()
            assert session.server.exitcode == 0
            print("it was alive")
    """)
    pytester.makepyfile(
        test_it="""
            import subprocess
            import sys

            import pytest

            @pytest.fixture(scope="module")
            def program():
                read = [sys.executable, "-c", "import sys; sys.stdin.read()"]
                with subprocess.Popen(read, stdin=subprocess.PIPE) as program:
                    yield program
                    assert program.poll() is None

            @pytest.mark.parametrize("number", [1, 2])
            def test_it(number, mp_context, program, request):
                with mp_context.Pool(1) as pool:
                    pool.apply(abs, [1])
                assert program.poll() is None
                assert request.session.server.is_alive()
        """,
    )
    result = run_watched("-s")
    result.assert_outcomes(passed=2 * len(METHODS), warnings=0)
    assert "it was alive" in result.stdout.str()


def test_a_manager_that_no_test_made_ends_with_python(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        MANAGERS = []

        def pytest_runtest_logfinish():  # between tests
            MANAGERS.append(multiprocessing.Manager())
    """)
    pytester.makepyfile("""
        def test_it(mp_context):
            process = mp_context.Process(target=print)
            process.start()
            process.join()
    """)
    for method in METHODS:
        run_watched(f"--start-method={method}").assert_outcomes(passed=1)
