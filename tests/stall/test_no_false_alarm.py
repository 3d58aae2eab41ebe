"""A test that is slow, or that has somebody left to answer, is left alone."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def test_a_process_that_takes_long_to_start_is_no_stall(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    slow = pytester.path / "slow"
    slow.write_text(f'#!/bin/sh\nsleep 1\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    slow.chmod(0o755)
    pytester.makepyfile(
        helper=HELPER,
        # As where the kernel can't be asked: there a test stalls once its known children are dead.
        kernel_is_silent="""
            from pytest_startmethod.kernel import waits

            waits.AVAILABLE = False
        """,
        test_it=f"""
            import helper

            def test_it(mp_context):
                helper.crash(mp_context)
                mp_context.set_executable({str(slow)!r})
                # More than fits into the pipe that the child is to read it from.
                process = mp_context.Process(target=len, args=(bytes(1 << 20),))
                process.start()
                process.join()
                assert process.exitcode == 0
        """,
    )
    result = run_watched(
        "--start-method=spawn", *QUICK, *CRASH_ALLOWED, plugins=("kernel_is_silent",)
    )
    result.assert_outcomes(passed=1)


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
                # Kept: the number of a sentinel that is closed may become the next worker's.
                workers = multiprocessing.active_children()
                pool.apply_async(helper.exits)
                wait([worker.sentinel for worker in workers])

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


PATIENT_HELPER = """
import asyncio
import os
import signal
import socket
import subprocess
import threading
import time

LONG = float(os.environ["LONG"])

def sleeps(*_):
    time.sleep(LONG)
    return LONG

def computes():
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        pass

def waits_with_a_timeout(event):
    assert not event.wait(LONG)

def waits(event):
    event.wait()

def waits_for_a_signal(connection):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    connection.send(os.getpid())
    signal.sigwait([signal.SIGUSR1])

def pauses_until_a_signal(connection):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    connection.send(os.getpid())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    while True:
        signal.pause()

def waits_for_an_alarm():
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, LONG)
    threading.Event().wait()

def serves(connection):
    server = socket.create_server(("127.0.0.1", 0))
    connection.send(server.getsockname()[1])
    server.accept()

def asks_a_server(port):
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(9) == b"here"

def runs_a_program():
    subprocess.run(["sleep", str(LONG)], check=True)

def reads_from_a_program(connection):
    command = ["sh", "-c", f"sleep {LONG}; echo here"]
    connection.send(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

def acquires(lock):
    with lock:
        pass

def handles_a_signal(lock):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    acquires(lock)

def kills_late(pid):
    time.sleep(LONG)
    os.kill(pid, signal.SIGKILL)

def puts_late(queue):
    time.sleep(LONG)
    queue.put("x" * 1_000_000)

def gets(queue):
    queue.get()

def puts(queue):
    queue.put("x" * 1_000_000)

def gets_late(queue):
    time.sleep(LONG)
    queue.get()

def meets(barrier, seconds):
    time.sleep(seconds)
    barrier.wait()

def waits_for_a_thread():
    event = threading.Event()
    threading.Timer(LONG, event.set).start()
    event.wait()

def runs_a_loop():
    asyncio.run(asyncio.sleep(LONG))

def joins_a_child(context):
    process = context.Process(target=sleeps)
    process.start()
    process.join()

def stops():
    os.kill(os.getpid(), signal.SIGSTOP)
"""

PATIENT = """
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import wait
from pathlib import Path

import helper
import pytest
from helper import LONG

@pytest.fixture
def start(mp_context):
    started = []

    def start(target, *args):
        started.append(mp_context.Process(target=target, args=args))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)

@pytest.fixture
def later():
    timers = []

    def later(function, *args):
        timers.append(threading.Timer(LONG, function, args))
        timers[-1].start()

    yield later
    for timer in timers:
        timer.join()

@pytest.mark.parametrize(
    "target",
    [
        helper.sleeps,
        helper.computes,
        helper.runs_a_program,
        helper.waits_for_a_thread,
        helper.runs_a_loop,
    ],
)
def test_a_child_takes_its_time(start, target):
    start(target).join()

def test_a_child_waits_with_a_timeout(start, mp_context):
    event = mp_context.Event()
    start(helper.waits_with_a_timeout, event).join()

def test_a_child_waits_for_the_test(start, later, mp_context):
    event = mp_context.Event()
    process = start(helper.waits, event)
    later(event.set)
    process.join()

@pytest.mark.parametrize("target", [helper.waits_for_a_signal, helper.pauses_until_a_signal])
def test_a_child_waits_for_a_signal(start, later, mp_context, target):
    receiver, sender = mp_context.Pipe()
    process = start(target, sender)
    later(os.kill, receiver.recv(), signal.SIGUSR1)
    process.join()

def test_a_child_waits_for_an_alarm(start):
    start(helper.waits_for_an_alarm).join()

def test_the_test_waits_for_an_alarm(start, mp_context):
    event = mp_context.Event()
    process = start(helper.waits, event)
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("the alarm came"))
    signal.setitimer(signal.ITIMER_REAL, LONG)
    with pytest.raises(pytest.fail.Exception, match="the alarm came"):
        mp_context.Queue().get()
    signal.signal(signal.SIGALRM, before)
    event.set()
    process.join()

def test_a_job_that_a_shell_left_in_the_background_ends_a_child(start, mp_context):
    event = mp_context.Event()
    process = start(helper.waits, event)
    job = f"(sleep {LONG}; kill -9 {process.pid}) > /dev/null 2>&1 &"
    subprocess.run(["sh", "-c", job], check=True)
    process.join()

def test_a_child_is_a_server(start, later, mp_context):
    receiver, sender = mp_context.Pipe()
    process = start(helper.serves, sender)
    later(socket.create_connection, ("127.0.0.1", receiver.recv()))
    process.join()

def test_a_child_waits_for_the_network(start, later):
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = start(helper.asks_a_server, server.getsockname()[1])
        with server.accept()[0] as connection:
            later(connection.send, b"here")
            process.join()

def test_a_child_waits_for_a_program(start, mp_context):
    receiver, sender = mp_context.Pipe()
    start(helper.reads_from_a_program, sender)
    assert receiver.recv() == b"here\\n"

def test_a_child_waits_for_a_lock(start, later, mp_context):
    lock = mp_context.Lock()
    lock.acquire()
    process = start(helper.acquires, lock)
    later(lock.release)
    process.join()

def test_a_child_waits_for_another(start, mp_context):
    jobs = mp_context.Queue()
    consumer = start(helper.gets, jobs)
    start(helper.puts_late, jobs)
    consumer.join()

def test_a_child_waits_until_another_has_read(start, mp_context):
    jobs = mp_context.Queue()
    producer = start(helper.puts, jobs)
    start(helper.gets_late, jobs)
    producer.join()

def test_children_meet(start, mp_context):
    barrier = mp_context.Barrier(3)
    for seconds in (0, LONG):
        start(helper.meets, barrier, seconds)
    barrier.wait()

def test_several_children(start):
    sentinels = [start(helper.sleeps).sentinel for _ in range(2)]
    while sentinels:
        for sentinel in wait(sentinels):
            sentinels.remove(sentinel)

def test_a_child_joins_a_child(start, mp_context):
    start(helper.joins_a_child, mp_context).join()

def test_a_child_is_stopped_for_a_while(start, later):
    process = start(helper.stops)
    state = Path(f"/proc/{process.pid}/stat")
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "T":
        pass
    later(os.kill, process.pid, signal.SIGCONT)
    process.join()

def test_pools_that_work(mp_context):
    with mp_context.Pool(2) as pool:
        assert pool.map(helper.sleeps, range(2)) == [LONG, LONG]

def test_executors_that_work(mp_context):
    with ProcessPoolExecutor(2, mp_context) as executor:
        assert list(executor.map(helper.sleeps, range(2))) == [LONG, LONG]

def test_pools_that_wait_for_work(mp_context, later):
    jobs = mp_context.Queue()
    with mp_context.Pool(2) as pool, ProcessPoolExecutor(1, mp_context) as executor:
        assert pool.map(abs, [-1]) == list(executor.map(abs, [-1]))
        later(jobs.put, "here")
        assert jobs.get() == "here"

def test_a_thread_that_waits_for_an_idle_pool(mp_context):
    with mp_context.Pool(1) as pool, ThreadPoolExecutor(1) as executor:
        executor.submit(helper.sleeps).result()
        assert pool.apply(abs, [-1]) == 1

def test_a_manager(mp_context, later):
    with mp_context.Manager() as manager:
        jobs = manager.Queue()
        later(jobs.put, "here")
        assert jobs.get() == "here"

def test_a_future_of_its_own(start, later):
    start(helper.sleeps)
    future = Future()
    later(future.set_result, "here")
    assert future.result() == "here"

LOCK = threading.Lock()

@pytest.fixture
def held():
    with LOCK:
        yield

@pytest.mark.start_methods("fork")
def test_a_watchdog_ends_a_child_that_is_deadlocked(start, later, held):
    holder = threading.Thread(target=helper.sleeps)
    holder.start()
    process = start(helper.acquires, LOCK)
    later(process.kill)
    process.join()
    holder.join()

@pytest.mark.start_methods("fork")
@pytest.mark.parametrize("target", [helper.acquires, helper.handles_a_signal])
def test_an_older_thread_ends_a_child(start, held, target):
    with ThreadPoolExecutor(1) as executor:
        executor.submit(abs, 1).result()
        process = start(target, LOCK)
        executor.submit(helper.kills_late, process.pid)
        process.join()

@pytest.mark.start_methods("fork")
def test_an_older_thread_answers_though_a_child_is_deadlocked(start, later, held, mp_context):
    jobs = mp_context.Queue()
    later(jobs.put, "here")
    process = start(helper.acquires, LOCK)
    assert jobs.get() == "here"
    process.kill()

def test_a_person_at_the_terminal(mp_context, later, monkeypatch):
    with mp_context.Pool(1) as pool:
        pool.apply(abs, [-1])
        terminal, end = pty.openpty()
        monkeypatch.setattr(sys, "stdin", open(end))
        later(os.write, terminal, b"here\\n")
        assert input() == "here"
"""
NUMBER = 29
"""As many tests it has; under fork four more."""


def test_a_thread_of_a_plugin_of_the_suites_own_may_answer(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("pytest_plugins = ['answering']")
    pytester.makepyfile(
        helper=HELPER,
        answering="""
            import signal
            import threading
            import time

            import pytest

            def answer(future):
                time.sleep(4)
                future.set_result("here")

            @pytest.fixture
            def ask():
                return lambda future: threading.Thread(target=answer, args=[future]).start()

            @pytest.fixture
            def alarm():
                asked = []
                before = signal.signal(signal.SIGALRM, lambda *_: asked.pop().set_result("here"))

                def alarm(future):
                    asked.append(future)
                    signal.setitimer(signal.ITIMER_REAL, 4)

                yield alarm
                signal.signal(signal.SIGALRM, before)
        """,
        test_it="""
            from concurrent.futures import Future

            import helper
            import pytest

            @pytest.mark.parametrize("by", ["ask", "alarm"])
            def test_it(mp_context, by, request):
                helper.crash(mp_context)
                future = Future()
                request.getfixturevalue(by)(future)
                assert future.result() == "here"
        """,
    )
    result = run_watched(*QUICK, *CRASH_ALLOWED)
    result.assert_outcomes(passed=2 * len(METHODS))


@pytest.mark.parametrize("leave", ["", "setsid"])
def test_a_job_that_a_shell_has_left_may_end_a_child_that_is_deadlocked(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult], leave: str
) -> None:
    pytester.makepyfile(
        helper="""
            import threading

            def locks_itself():
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
        """,
        test_it=f"""
            import subprocess

            import helper

            def test_it(mp_context):
                process = mp_context.Process(target=helper.locks_itself)
                process.start()
                job = f"{leave} sh -c 'sleep 4; kill -9 {{process.pid}}' > /dev/null 2>&1 &"
                subprocess.run(["sh", "-c", job], check=True)
                process.join()
                assert process.exitcode == -9
        """,
    )
    run_watched(*QUICK).assert_outcomes(passed=len(METHODS))


@pytest.fixture
def patient(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Make a suite whose tests wait for so long."""

    def make(seconds: float) -> None:
        monkeypatch.setenv("LONG", str(seconds))
        pytester.makepyfile(helper=PATIENT_HELPER, test_it=PATIENT)

    return make


@pytest.fixture
def _busy() -> Iterator[None]:
    """Keep all cores busy."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.needs("fork")
@pytest.mark.usefixtures("_busy")
def test_the_patient_are_left_alone_while_all_cores_are_busy(
    run_watched: Callable[..., pytest.RunResult], patient: Callable[[float], None]
) -> None:
    pytest.importorskip("xdist")
    patient(2.7)
    result = run_watched("--start-method=fork", "-n", "9", plugins=("xdist",))
    result.assert_outcomes(passed=NUMBER + 4)


def test_the_patient_are_left_alone_under_a_short_stall_timeout(
    run_watched: Callable[..., pytest.RunResult], patient: Callable[[float], None]
) -> None:
    patient(0.6)
    result = run_watched("--start-method=fork", *QUICK)
    result.assert_outcomes(passed=NUMBER + 4)


def test_the_patient_are_left_alone_under_each_start_method(
    run_watched: Callable[..., pytest.RunResult], patient: Callable[[float], None]
) -> None:
    pytest.importorskip("xdist")
    patient(0.6)
    fresh = [method for method in METHODS if method != "fork"]
    result = run_watched(f"--start-method={','.join(fresh)}", *QUICK, "-n", "4", plugins=("xdist",))
    result.assert_outcomes(passed=NUMBER * len(fresh))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fork"])
def test_a_childs_alarm_counts_also_if_pytest_has_a_handler_for_its_own(
    method: str, pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        import signal

        signal.signal(signal.SIGALRM, lambda *_: None)  # as pytest-timeout has one
    """)
    pytester.makepyfile("""
        import os
        import signal
        import threading

        def waits():
            signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
            signal.alarm(4)
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()

        def test_it(mp_context):
            process = mp_context.Process(target=waits)
            process.start()
            process.join()
            assert process.exitcode == 0
    """)
    run_watched(*QUICK, f"--start-method={method}").assert_outcomes(passed=1)
