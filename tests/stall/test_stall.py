"""A test that waits for the dead fails, and says who died and how."""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.posix(
    "children are killed by signals; tests/stall/test_windows.py has its own stalls"
)

METHODS = multiprocessing.get_all_start_methods()

STALLED = "Failed: blocked for 0.2 s in a wait that no process or thread can end any more: "

HELPER = """
import os
import signal

import pytest

def exits(*_):
    os._exit(1)

def is_killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def skips(*_):
    pytest.skip("not here")

def raises(*_):
    raise ZeroDivisionError

def exits_with_the_lock(lock):
    lock.acquire()
    os._exit(1)

def exits_when_told(connection):
    connection.recv()
    os._exit(1)
"""


def stalled(result: pytest.RunResult) -> list[str]:
    """Return the errors of the tests that waited for the dead."""
    return [line for line in result.outlines if line.startswith("E  ") and STALLED in line]


@pytest.fixture
def run_stalled(run_watched: Callable[..., pytest.RunResult]) -> Callable[..., pytest.RunResult]:
    """Run a suite as `run_watched` does, with a short time-out for stalls."""

    def run(*args: str) -> pytest.RunResult:
        return run_watched("-o", "start_method_stall_timeout=0.2", *args)

    return run


def test_a_pool_whose_worker_died_with_the_task(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import sys
            import types

            import helper
            import pytest

            def apply(pool, target):
                pool.apply(target, [1])

            def map(pool, target):
                pool.map(target, [1, 2, 3])

            def imap(pool, target):
                list(pool.imap(target, [1, 2]))

            def get(pool, target):
                pool.apply_async(target, [1]).get()

            @pytest.mark.parametrize(
                ("wait", "target"),
                [
                    (apply, helper.exits),
                    (map, helper.is_killed),
                    (imap, helper.skips),
                    (get, helper.exits),
                ],
            )
            def test_it(mp_context, wait, target):
                with mp_context.Pool(2) as pool:
                    wait(pool, target)

            def test_module_cannot_be_imported(mp_context, monkeypatch):
                with mp_context.Pool(1) as pool:
                    assert pool.apply(abs, [-1]) == 1  # so that a fork has no such module either
                    late = types.ModuleType("late")
                    exec("def target(): pass", vars(late))
                    monkeypatch.setitem(sys.modules, "late", late)
                    pool.apply(late.target)

            def test_initializer_raises(mp_context):
                with mp_context.Pool(1, initializer=helper.raises) as pool:
                    pool.apply(abs, [-1])

            def test_without_with(mp_context):
                pool = mp_context.Pool(1)
                pool.map(helper.exits, [1])
        """,
    )
    result = run_stalled()
    result.assert_outcomes(failed=7 * len(METHODS), warnings=result.parseoutcomes()["warnings"])
    text = result.stdout.str()
    assert len(stalled(result)) == 7 * len(METHODS)
    assert " ended with SIGKILL" in text
    assert "Skipped: not here" in text
    assert "ModuleNotFoundError: No module named 'late'" in text
    assert "ZeroDivisionError" in text


def test_a_test_module_that_sets_the_start_method_at_import(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        multiprocessing.set_start_method("spawn")  # pytest's issue 10393

        def work(number):
            return -number

        def test_it(mp_context):
            with mp_context.Pool(1) as pool:
                assert pool.map(work, [1]) == [-1]
    """)
    result = run_stalled()
    forks = METHODS.count("fork")  # whose children don't import the module
    result.assert_outcomes(passed=forks, failed=len(METHODS) - forks)
    assert result.stdout.str().count("hint: set_start_method() runs when") == len(METHODS) - forks


def test_other_waits_for_a_child_that_died_before_it_answered(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            from concurrent.futures import Future
            from multiprocessing.connection import wait

            import helper
            import pytest

            def die(context, target, *args):
                process = context.Process(target=target, args=args)
                process.start()
                return process

            def test_queue(mp_context):
                queue = mp_context.Queue()
                die(mp_context, helper.raises, queue)
                queue.get()

            def test_joinable_queue(mp_context):
                queue = mp_context.JoinableQueue()
                queue.put(1)
                die(mp_context, helper.exits, queue)
                queue.join()

            def test_simple_queue(mp_context):
                queue = mp_context.SimpleQueue()
                die(mp_context, helper.is_killed, queue)
                queue.get()

            def test_pipe(mp_context):
                receiver, sender = mp_context.Pipe()
                die(mp_context, helper.exits, sender)
                receiver.recv()

            def test_wait(mp_context):
                receiver, sender = mp_context.Pipe()
                die(mp_context, helper.exits, sender)
                wait([receiver])

            def test_event(mp_context):
                event = mp_context.Event()
                die(mp_context, helper.skips, event)
                event.wait()

            def test_barrier(mp_context):
                barrier = mp_context.Barrier(2)
                die(mp_context, helper.exits, barrier)
                barrier.wait()

            def test_condition(mp_context):
                condition = mp_context.Condition()
                with condition:
                    die(mp_context, helper.exits, condition)
                    condition.wait()

            def test_lock(mp_context):
                lock = mp_context.Lock()
                die(mp_context, helper.exits_with_the_lock, lock).join()
                with lock:
                    pass

            def test_semaphore(mp_context):
                semaphore = mp_context.Semaphore(1)
                die(mp_context, helper.exits_with_the_lock, semaphore).join()
                with semaphore:
                    pass

            def test_future_that_a_child_was_to_make_done(mp_context):
                die(mp_context, helper.exits).join()
                Future().result()

            def test_set_up(mp_context, stalls):
                pass

            @pytest.fixture
            def stalls(mp_context):
                queue = mp_context.Queue()
                die(mp_context, helper.exits, queue)
                queue.get()
        """,
    )
    result = run_stalled()
    count = len(METHODS)
    result.assert_outcomes(failed=11 * count, errors=count)
    assert len(stalled(result)) == 12 * count
    for method in METHODS:
        assert sum(f", {method}) ended with " in line for line in stalled(result)) == 12
    assert "ZeroDivisionError" in result.stdout.str()  # the child's own words


def test_the_child_of_a_wider_fixture_dies_in_a_test_that_starts_nothing(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing

            import helper
            import pytest

            @pytest.fixture(scope="module")
            def connection():
                receiver, sender = multiprocessing.Pipe()
                process = multiprocessing.Process(target=helper.exits_when_told, args=[receiver])
                process.start()
                return receiver, sender  # both, as a closed one would end the wait

            def test_sets_up(connection):
                pass

            def test_waits(connection):
                receiver, sender = connection
                sender.send("go")
                sender.recv()
        """,
    )
    for method in METHODS:
        result = run_stalled(f"--start-method={method}")
        result.assert_outcomes(passed=1, failed=1)
        assert len(stalled(result)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells where processes come from")
def test_an_orphan_of_another_program_or_worker_answers_nobody(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import os
            import signal
            import subprocess

            import helper
            import pytest

            JOB = "sleep 60 > /dev/null 2>&1 & echo $!"

            @pytest.mark.parametrize(
                "command",
                [
                    ["env", "-u", "PYTEST_CURRENT_TEST"],
                    ["env", "PYTEST_XDIST_WORKER=gw99"],
                ],
            )
            def test_it(mp_context, command):
                job = int(subprocess.check_output([*command, "sh", "-c", JOB]))
                try:
                    queue = mp_context.Queue()
                    mp_context.Process(target=helper.exits).start()
                    queue.get()
                finally:
                    os.kill(job, signal.SIGKILL)
        """,
    )
    result = run_stalled()
    result.assert_outcomes(failed=2 * len(METHODS))
    assert len(stalled(result)) == 2 * len(METHODS)


def test_a_manager_whose_server_died(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import os
        import signal
        import threading

        def test_it(mp_context):
            with mp_context.Manager() as manager:
                queue = manager.Queue()
                [server] = multiprocessing.active_children()
                kill = [server.pid, signal.SIGKILL]
                threading.Timer(0.1, os.kill, kill).start()  # while the test waits for an answer
                queue.get()
    """)
    result = run_stalled()
    result.assert_outcomes(failed=len(METHODS))
    assert sum(line.endswith(": SIGKILL") for line in result.outlines) == len(METHODS)


def test_a_stall_that_the_test_answers_by_waiting_again(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper

            def test_it(mp_context):
                queue = mp_context.Queue()
                process = mp_context.Process(target=helper.exits)
                process.start()
                try:
                    queue.get()
                finally:
                    queue.get()
        """,
    )
    result = run_stalled()
    result.assert_outcomes(failed=len(METHODS))
    assert result.stdout.str().count(STALLED) >= 2 * len(METHODS)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of the threads")
def test_the_timeout_0_turns_it_off_and_the_test_ends_by_itself(
    pytester: pytest.Pytester, run_stalled: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import signal

            import helper

            def test_it(mp_context):
                process = mp_context.Process(target=helper.exits)
                process.start()
                process.join()
                assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL
        """,
    )
    for seconds, passed in (("0", 1), ("0.2", 0)):
        result = run_stalled("-o", f"start_method_stall_timeout={seconds}")
        counts = {"passed": passed * len(METHODS), "failed": (1 - passed) * len(METHODS)}
        result.assert_outcomes(**counts, warnings=passed * len(METHODS))
