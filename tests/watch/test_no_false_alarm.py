"""A test that is slow, or that has somebody left to answer, is left alone."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.posix("most of its children are forked, or stopped by signals")

METHODS = multiprocessing.get_all_start_methods()

QUICK = ("-o", "start_method_stall_timeout=0.25")
CRASH_ALLOWED = ("-W", "ignore::pytest_startmethod.ChildProcessCrashWarning")

HELPER = """
import os
import time

def nothing():
    pass

def exits(*_):
    os._exit(1)

def exits_when_told(connection):
    connection.recv()
    os._exit(1)

def sleeps(seconds):
    time.sleep(seconds)
    return seconds

def answers(connection, seconds):
    time.sleep(seconds)
    connection.send("here")

def crash(context):
    process = context.Process(target=exits)
    process.start()
    process.join()
    assert process.exitcode == 1
    return process
"""


def test_a_dead_child_alone_is_no_stall(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import queue
            import threading
            import time
            from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
            from concurrent.futures import TimeoutError as FutureTimeoutError
            from concurrent.futures import wait
            from multiprocessing import TimeoutError as PoolTimeoutError
            from multiprocessing.pool import ThreadPool

            import helper
            import pytest

            LONG = 0.5

            @pytest.fixture(autouse=True)
            def dead(mp_context):
                return helper.crash(mp_context)

            def test_sleeps(mp_context):
                time.sleep(LONG)

            def test_computes(mp_context):
                end = time.monotonic() + LONG
                while time.monotonic() < end:
                    sum(range(1000))

            def test_joins_the_living(mp_context):
                process = mp_context.Process(target=helper.sleeps, args=[LONG])
                process.start()
                process.join()
                assert process.exitcode == 0

            def test_waits_for_the_living(mp_context):
                receiver, sender = mp_context.Pipe()
                process = mp_context.Process(target=helper.answers, args=[sender, LONG])
                process.start()
                assert receiver.recv() == "here"
                process.join()
                assert process.exitcode == 0

            def test_executor(mp_context):
                with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                    assert executor.submit(helper.sleeps, LONG).result() == LONG

            def test_pool(mp_context):
                with mp_context.Pool(1) as pool:
                    assert pool.apply(helper.sleeps, [LONG]) == LONG

            def test_own_timeouts(mp_context):
                receiver, sender = mp_context.Pipe()
                event = mp_context.Event()
                with pytest.raises(queue.Empty):
                    mp_context.Queue().get(timeout=LONG)
                assert not receiver.poll(LONG)
                assert not event.wait(LONG)
                with pytest.raises(FutureTimeoutError):
                    Future().result(timeout=LONG)
                assert wait([Future()], timeout=LONG).not_done

            def test_own_timeout_of_a_pool_that_lost_its_task(mp_context):
                with mp_context.Pool(1) as pool:
                    with pytest.raises(PoolTimeoutError):
                        pool.apply_async(helper.exits).get(timeout=LONG)
                    assert pool.apply(abs, [-1]) == 1

            def test_thread_that_answers(mp_context):
                event = mp_context.Event()
                threading.Timer(LONG, event.set).start()
                event.wait()

            def test_thread_that_puts(mp_context):
                jobs = mp_context.Queue()
                threading.Timer(LONG, jobs.put, ["here"]).start()
                assert jobs.get() == "here"

            @pytest.mark.parametrize("work", [time.sleep, helper.sleeps])
            def test_pools_of_threads(mp_context, work):
                with ThreadPoolExecutor(1) as executor:
                    executor.submit(work, LONG).result()
                with ThreadPool(1) as pool:
                    pool.apply(work, [LONG])

            def test_goes_on(mp_context, dead):
                assert dead.exitcode == 1
                with mp_context.Pool(1) as pool:
                    assert pool.map(abs, [-1, -2]) == [1, 2]
        """,
    )
    result = run_watched(*QUICK, *CRASH_ALLOWED)
    result.assert_outcomes(passed=13 * len(METHODS))


def test_a_worker_that_died_in_an_earlier_test_took_no_task_of_this_one(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing
            from multiprocessing.connection import wait

            import helper
            import pytest

            @pytest.fixture(scope="module")
            def pool():
                with multiprocessing.Pool(2) as pool:
                    pool.map(abs, range(10))  # so that the workers are there
                    yield pool

            def test_kills_a_worker(pool):
                workers = [child.sentinel for child in multiprocessing.active_children()]
                pool.apply_async(helper.exits)
                wait(workers)

            def test_next(pool):
                assert pool.apply(helper.sleeps, [0.4]) == 0.4
        """,
    )
    for method in METHODS:
        result = run_watched(f"--start-method={method}", *QUICK, *CRASH_ALLOWED)
        result.assert_outcomes(passed=2)


@pytest.mark.parametrize("option", ["--pdb", "--trace"])
def test_a_debugger_may_stay_at_its_prompt(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult], option: str
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import sys
            import time

            import helper
            import pytest

            @pytest.fixture
            def slow_user(monkeypatch):
                class Input:
                    def readline(self):
                        time.sleep(0.4)
                        return "c\\n"

                monkeypatch.setattr(sys, "stdin", Input())

            def test_it(mp_context, slow_user):
                helper.crash(mp_context)
                raise AssertionError("the only one")
        """,
    )
    result = run_watched(*QUICK, "-s", option)
    result.assert_outcomes(failed=len(METHODS))
    assert "(Pdb)" in result.stdout.str()
    assert "blocked for" not in result.stdout.str()


def test_no_thread_of_ours_is_alive_when_a_test_forks(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    if "fork" not in METHODS:
        pytest.skip("there is no fork here")
    pytester.makeconftest("""
        import os
        import threading
        from pathlib import Path

        def note():
            with Path("forks.txt").open("a") as file:
                tasks = os.listdir("/proc/self/task") if Path("/proc/self/task").is_dir() else [0]
                print(os.getpid(), len(tasks), [t.name for t in threading.enumerate()], file=file)

        os.register_at_fork(before=note)
    """)
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import pytest

            @pytest.mark.parametrize("number", range(20))
            def test_processes(mp_context, number):
                processes = [mp_context.Process(target=helper.nothing) for _ in range(5)]
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()

            def test_pool(mp_context):
                with mp_context.Pool(3) as pool:
                    pool.map(abs, [1, 2])

            def test_executor(mp_context):
                with ProcessPoolExecutor(2, mp_context=mp_context) as executor:
                    list(executor.map(abs, [1, 2]))

            @pytest.mark.parametrize("number", range(3))
            def test_leaks(mp_context, number):
                mp_context.Process(target=helper.sleeps, args=[0.1]).start()
        """,
    )
    # The threads of a pool may end a little after it: a run for each.
    for some, passed in {"processes or leaks": 23, "pool": 1, "executor": 1}.items():
        # To make an error of this warning is no proof: multiprocessing goes on without a word.
        always = ("-W", "always::DeprecationWarning")
        result = run_watched("--start-method=fork", *always, "-k", some)
        result.assert_outcomes(passed=passed, warnings=0, deselected=25 - passed)
    forks = (pytester.path / "forks.txt").read_text(encoding="utf-8").splitlines()
    assert len(forks) == 20 * 5 + 3 + 2 + 3
    assert {line.partition(" ")[2] for line in forks} == {"1 ['MainThread']"}
