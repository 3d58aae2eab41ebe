"""A suite can't tell that it is watched: it behaves as under plain pytest."""

from __future__ import annotations

import multiprocessing
import re
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="sends signals")

LEAK_ALLOWED = ("-W", "ignore::pytest_startmethod.ChildProcessLeakWarning")
OWN_ERROR = "pytest-startmethod couldn't watch all processes of this run"

# With and without the plugin: the same fixture, the same runs.
CONFTEST = """
import multiprocessing

import pytest

KNOWN = multiprocessing.get_all_start_methods()
METHODS = [method for method in ("fork", "spawn", "forkserver") if method in KNOWN]

class Plain:
    @pytest.fixture(params=METHODS)
    def mp_context(self, request):
        return multiprocessing.get_context(request.param)

def pytest_addoption(parser):
    parser.addoption("--plain-default")

def pytest_configure(config):
    if not config.pluginmanager.has_plugin("startmethod"):
        config.pluginmanager.register(Plain())
        default = config.getoption("--plain-default")
        if default:
            multiprocessing.set_start_method(default)
"""

HELPER = '''
import os
import time

def nothing(*_):
    pass

def answers(connection, value):
    connection.send(value)
    connection.close()

def answers_after(connection, seconds):
    time.sleep(seconds)
    connection.send("here")

def exits(*_):
    os._exit(1)

def raises(*_):
    raise ZeroDivisionError

def waits(connection):
    connection.recv()

def pid(*_):
    return os.getpid()

def gone(pid):
    """Has it ended, whoever is to be told of that?"""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True

def ask(context, value):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answers, args=(sender, value))
    process.start()
    sender.close()
    answer = receiver.recv()
    receiver.close()
    return process, answer

def talks(context):
    """A child of its own answers, and ends."""
    process, answer = ask(context, "mine")
    process.join()
    assert answer == "mine"
    assert process.exitcode == 0
    process.close()

KEPT = []

def leaves(context):
    """A child that would wait for ever outlives the test."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=waits, args=(receiver,), daemon=True)
    process.start()
    KEPT.append(sender)
    return process
'''

TALKS = """
    def test_talks(mp_context):
        helper.talks(mp_context)

    def test_leaves(mp_context):
        helper.leaves(mp_context)

    def test_talks_after_that(mp_context):
        helper.talks(mp_context)
"""

POOLS = """
    def test_pool(mp_context):
        with mp_context.Pool(2) as pool:
            assert pool.map(abs, [-1, -2]) == [1, 2]

    def test_executor(mp_context):
        with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
            assert executor.submit(abs, -1).result() == 1
"""


class Compare(Protocol):
    """Runs a suite with the plugin and without, and checks that the outcomes are the same."""

    def __call__(self, *args: str, warnings: int = 0, **outcomes: int) -> pytest.RunResult: ...


def outcomes(result: pytest.RunResult) -> list[str]:
    """Return how each test ended, by its id."""
    found = [line for line in result.outlines if re.match(r"(PASSED|FAILED|ERROR|SKIPPED) ", line)]
    return sorted(line.partition(" - ")[0] for line in found)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Callable[..., None]:
    """Write a suite of a file, with a module of helpers, that runs under plain pytest, too."""

    def write(code: str, *more: str, imports: str = "", **files: str) -> None:
        pytester.makeconftest(CONFTEST)
        head = "import os\nimport signal\nimport threading\nimport time\n"
        head += "from concurrent.futures import ProcessPoolExecutor\n"
        head += f"from unittest import mock\nimport helper\nimport pytest\n{imports}\n"
        body = "\n".join(_dedent(part) for part in (code, *more))
        pytester.makepyfile(helper=HELPER, test_it=head + body, **files)

    return write


@pytest.fixture
def compare(pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]) -> Compare:
    def check(*args: str, warnings: int = 0, **expected: int) -> pytest.RunResult:
        own = [arg for arg in args if not arg.startswith("--start-method")]
        quiet = ["-W", "ignore:This process:DeprecationWarning"]
        quiet += ["-W", "ignore:ResourceTracker called reentrantly:UserWarning"]
        plain = pytester.runpytest_subprocess(
            "-rA", "-p", "no:startmethod", *quiet, *own, timeout=60
        )
        watched = run_watched("-rA", *args)
        before = outcomes(plain)
        tests = {line.partition(" ")[2] for line in before}
        # Less what runs again in a session.
        base = [o for o in outcomes(watched) if o.partition(" ")[2].rpartition("[")[0] not in tests]
        assert base == before
        watched.assert_outcomes(**expected, warnings=warnings)
        assert OWN_ERROR not in watched.stdout.str()
        return watched

    return check


def _dedent(code: str) -> str:
    return re.sub(r"(?m)^    ", "", code)


# What a fixture of the module replaces: so it is replaced at the beginning and end of tests, too.
REPLACED = {
    "the monotonic clock": "mock.patch('time.monotonic', itertools.count(7.0).__next__)",
    "the time": "mock.patch('time.time', return_value=7.0)",
    "sleep": "mock.patch('time.sleep')",
    "the environment": "mock.patch.object(os, 'environ', {'PATH': '/bin'})",
    "an empty environment": "mock.patch.dict(os.environ, {'A': 'b'}, clear=True)",
    "getpid": "mock.patch('os.getpid', return_value=1)",
    "kill": "mock.patch('os.kill', side_effect=PermissionError)",
    "signal": "mock.patch('signal.signal', side_effect=ValueError)",
    "threads": "mock.patch('threading.Thread', side_effect=ZeroDivisionError)",
    "enumerate": "mock.patch('threading.enumerate', return_value=[])",
    "get_ident": "mock.patch('threading.get_ident', return_value=7)",
    "Popen": "mock.patch('subprocess.Popen', side_effect=ZeroDivisionError)",
    "open": "mock.patch('builtins.open', opens)",
    "get_start_method": "mock.patch('multiprocessing.get_start_method', return_value='fork')",
    "set_start_method": "mock.patch('multiprocessing.set_start_method', side_effect=ValueError)",
    "active_children": "mock.patch('multiprocessing.active_children', return_value=[])",
    "the executable": "mock.patch('sys.executable', '')",
    "the garbage collector": "mock.patch('gc.collect', side_effect=ZeroDivisionError)",
}


@pytest.mark.parametrize("what", REPLACED.values(), ids=REPLACED)
def test_a_suite_may_replace_what_the_plugin_uses_itself(
    suite: Callable[..., None], compare: Compare, what: str
) -> None:
    suite(
        f"""
    real_open = open

    def opens(file, *args, **kwargs):
        if isinstance(file, int):  # as multiprocessing does for spawn
            return real_open(file, *args, **kwargs)
        raise ZeroDivisionError(file)

    @pytest.fixture(scope="module", autouse=True)
    def replaced():
        with {what}:
            yield
        """,
        TALKS,
        # Before what it looks at is replaced, as in any suite that has used it before.
        imports="import itertools\nimport multiprocessing.spawn",
    )
    compare(passed=3 * len(METHODS), warnings=len(METHODS))


@needs_signals
def test_waitpid_may_be_replaced_while_a_process_starts_and_answers(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite("""
    def test_it(mp_context):
        with mock.patch("os.waitpid", side_effect=ChildProcessError):
            process, answer = helper.ask(mp_context, "mine")
            assert answer == "mine"
        process.join()
        assert process.exitcode == 0
    """)
    compare(passed=len(METHODS))


def test_a_clock_may_stand_still(suite: Callable[..., None], compare: Compare) -> None:
    pytest.importorskip("freezegun")
    suite(
        """
    @pytest.fixture(scope="module", autouse=True)
    def frozen():
        with freezegun.freeze_time("1999-12-31"):
            yield

    def test_year():
        assert time.gmtime().tm_year == 1999
        """,
        TALKS,
        POOLS,
        imports="import freezegun",
    )
    compare(passed=5 * len(METHODS) + 1, warnings=len(METHODS))


@needs_signals
def test_the_file_system_may_be_a_fake(suite: Callable[..., None], compare: Compare) -> None:
    pytest.importorskip("pyfakefs")
    suite(
        """
    @pytest.fixture
    def fork():
        return multiprocessing.get_context("fork")  # others can't start on it in plain Python

    def test_starts_the_first_process_on_it(fork, fs):
        process = fork.Process(target=helper.nothing)
        process.start()
        process.join()
        assert process.exitcode == 0

    def test_fails_on_it(fork, fs):
        process = fork.Process(target=helper.nothing)
        process.start()
        process.join()
        del process  # its descriptors are numbers of the fake one
        raise AssertionError("the only one")

    def test_reads_it(fs):
        fs.create_file("/x/y", contents="z")
        assert os.listdir("/x") == ["y"]
        """,
        TALKS,
        POOLS,
        # In plain Python what was imported on a fake file system goes on to look at it.
        imports="import multiprocessing.managers\n"
        "from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix",
    )
    again = len(METHODS) - 1
    count = {"passed": 5 * len(METHODS) + 2 + again, "failed": 1 + again, "warnings": len(METHODS)}
    plugin = ("-p", "pyfakefs.pytest_plugin")
    compare("--start-method=fork,spawn,forkserver", *plugin, **count)


@needs_proc
def test_a_fixture_that_counts_descriptors_counts_those_of_the_test_alone(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite("""
    def descriptors():
        return sorted(os.listdir("/proc/self/fd"))

    @pytest.fixture
    def warm(mp_context):
        helper.talks(mp_context)  # with the helpers of multiprocessing there

    @pytest.fixture
    def counted(warm):
        before = descriptors()
        yield
        assert descriptors() == before

    def test_joined(mp_context, counted):
        before = descriptors()
        process, answer = helper.ask(mp_context, "mine")
        during = len(descriptors())
        process.join()
        assert len(descriptors()) == during
        del process
        assert descriptors() == before

    def test_closed(mp_context, counted):
        before = descriptors()
        process, answer = helper.ask(mp_context, "mine")
        process.join()
        process.close()
        assert descriptors() == before

    def test_many(mp_context, counted):
        before = len(descriptors())
        processes = [helper.ask(mp_context, n)[0] for n in range(4)]
        for process in processes:
            process.join()
        each = {"fork": 1, "spawn": 1, "forkserver": 2}[mp_context.get_start_method()]
        assert before < len(descriptors()) <= before + 4 * 2 * each

    def test_pool(mp_context, counted):
        pool = mp_context.Pool(2)
        assert pool.map(abs, [-1]) == [1]
        pool.terminate()
        pool.join()

    def test_executor(mp_context, counted):
        with ProcessPoolExecutor(2, mp_context=mp_context) as executor:
            assert executor.submit(abs, -1).result() == 1

    def test_nothing(mp_context, counted):
        pass
    """)
    compare(passed=6 * len(METHODS))


def test_objects_that_end_when_they_are_collected_still_do(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite(
        """
    def gone(ref):
        gc.collect()
        return ref() is None

    def test_process(mp_context):
        process, _ = helper.ask(mp_context, "mine")
        process.join()
        popen = weakref.ref(process._popen)
        process = weakref.ref(process)
        assert gone(process)
        assert gone(popen)

    def test_locks(mp_context):
        for make in (mp_context.Lock, mp_context.RLock, mp_context.Event, mp_context.Queue):
            ref = weakref.ref(make())
            assert gone(ref)

    def test_pool(mp_context):
        pool = mp_context.Pool(1)
        result = pool.apply_async(abs, [-1])
        assert result.get() == 1
        # A pool that its own thread lets go of last may hang, also without the plugin.
        while result._pool is not None:
            pass
        workers = list(pool._pool)
        with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
            del pool
            gc.collect()
        for worker in workers:
            worker.join()

    def test_executor(mp_context):
        executor = ProcessPoolExecutor(1, mp_context=mp_context)
        assert executor.submit(abs, -1).result() == 1
        [worker] = executor._processes.values()
        executor = weakref.ref(executor)
        worker.join()
        assert gone(executor)

    def test_manager(mp_context):
        manager = mp_context.Manager()
        assert list(manager.list([1])) == [1]
        server = manager._process
        manager = weakref.ref(manager)
        assert gone(manager)
        server.join()
        """,
        imports="import gc\nimport weakref",
    )
    compare(passed=5 * len(METHODS))


def test_what_is_in_a_reference_cycle_at_the_end_of_its_test_is_no_leak(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult]
) -> None:
    suite(
        """
    class Cycle:
        def __init__(self, made):
            self.made = made
            self.me = self

    @pytest.fixture(autouse=True)
    def uncollected():
        gc.disable()
        yield
        gc.enable()

    def test_pool(mp_context):
        result = Cycle(mp_context.Pool(1)).made.apply_async(abs, [-1])
        assert result.get() == 1
        while result._pool is not None:  # let go of by the pool's own thread
            pass

    def test_executor(mp_context):
        cycle = Cycle(ProcessPoolExecutor(1, mp_context=mp_context))
        assert cycle.made.submit(abs, -1).result() == 1

    def test_manager(mp_context):
        assert list(Cycle(mp_context.Manager()).made.list([1])) == [1]
        """,
        imports="import gc",
    )
    result = run_watched(
        "-W", "ignore::ResourceWarning", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"
    )
    result.assert_outcomes(passed=3 * len(METHODS))


def test_a_collector_that_runs_at_each_allocation(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite(
        """
    @pytest.fixture(scope="module", autouse=True)
    def eager():
        before = gc.get_threshold()
        gc.set_threshold(1)
        yield
        gc.set_threshold(*before)
        """,
        TALKS,
        POOLS,
        imports="import gc",
    )
    compare(passed=5 * len(METHODS), warnings=len(METHODS))


# The lookout is a shell until the main thread waits for more than a second: then it looks quickly.
AWAKE = """
    def test_the_lookout_is_awake(mp_context):
        receiver, sender = mp_context.Pipe()
        process = mp_context.Process(target=helper.answers_after, args=(sender, 2.5))
        process.start()
        assert receiver.recv() == "here"
        process.join()
"""
QUICK = ("-o", "start_method_stall_timeout=0.25")
SIGNALS = """
import os
import signal
import time

def signals(pid, signum):
    time.sleep(0.6)
    os.kill(pid, signum)

def sleeps():
    time.sleep(0.6)

def tells_handlers(connection):
    connection.send(signal.getsignal(signal.SIGURG))
"""


@needs_signals
def test_no_signal_comes_but_the_tests_own(suite: Callable[..., None], compare: Compare) -> None:
    suite(
        AWAKE,
        """
    @pytest.fixture
    def counted():
        counts = Counter()
        handled = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        before = {number: signal.getsignal(number) for number in handled}
        for number in handled:
            signal.signal(number, lambda number, frame: counts.update([number]))
        yield counts
        for number in handled:
            signal.signal(number, before[number] or signal.SIG_DFL)

    def test_handlers_are_counted(mp_context, counted):
        process = mp_context.Process(target=signalling.sleeps)
        process.start()
        process.join()
        del counted[signal.SIGCHLD]
        assert not counted

    def test_pause(mp_context, counted):
        process = mp_context.Process(target=signalling.signals, args=(os.getpid(), signal.SIGUSR1))
        process.start()
        while not counted[signal.SIGUSR1]:
            signal.pause()
        process.join()
        del counted[signal.SIGCHLD]
        assert counted == {signal.SIGUSR1: 1}

    def test_sigwait(mp_context):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        process = mp_context.Process(target=signalling.signals, args=(os.getpid(), signal.SIGUSR1))
        process.start()
        assert signal.sigwait(signal.valid_signals() - {signal.SIGCHLD}) == signal.SIGUSR1
        process.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @pytest.fixture(autouse=True, scope="module")
    def all_handlers():
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        yield
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before

    @pytest.fixture
    def each_handler():
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        yield
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before

    def test_handlers_are_the_same_before_and_after(mp_context, each_handler):
        receiver, sender = mp_context.Pipe()
        process = mp_context.Process(target=signalling.tells_handlers, args=[sender])
        process.start()
        assert receiver.recv() == signal.SIG_DFL
        process.join()

    def test_sigurg_is_the_tests(mp_context):
        got = []
        before = signal.signal(signal.SIGURG, lambda *_: got.append("urgent"))
        process = mp_context.Process(target=signalling.signals, args=(os.getpid(), signal.SIGURG))
        process.start()
        process.join()
        assert got == ["urgent"]
        assert signal.signal(signal.SIGURG, before) is not before
        """,
        imports="from collections import Counter\nimport signalling",
        signalling=SIGNALS,
    )
    compare(*QUICK, passed=6 * len(METHODS))


@needs_signals
@pytest.mark.parametrize("method", [m for m in METHODS if m != "forkserver"])
@pytest.mark.parametrize("wait", ["handler", "sigwait"])
def test_sigchld_tells_of_the_tests_own_children(
    suite: Callable[..., None], compare: Compare, wait: str, method: str
) -> None:
    suite(
        f"""
    @pytest.fixture
    def context():
        return multiprocessing.get_context({method!r})

    def test_handler(context):
        got = []
        before = signal.signal(signal.SIGCHLD, lambda *_: got.append(1))
        processes = []
        for value in range(3):
            process, answer = helper.ask(context, value)
            assert answer == value
            process.join()
        signal.signal(signal.SIGCHLD, before)
        assert got == [1, 1, 1]

    def test_sigwait(context):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        receiver, sender = context.Pipe()
        process = context.Process(target=helper.answers_after, args=(sender, 0.3))
        process.start()
        assert signal.sigwait([signal.SIGCHLD]) == signal.SIGCHLD
        assert process.exitcode == 0
        assert not signal.sigpending()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    """,
        imports="import multiprocessing",
    )
    compare(f"--start-method={method}", "-k", wait, passed=1, deselected=1)


@needs_proc
def test_processes_and_threads_are_the_tests_alone(
    suite: Callable[..., None], compare: Compare
) -> None:
    pytest.importorskip("psutil")
    suite(
        """
    def children():
        found = {child.pid for child in psutil.Process().children(recursive=True)}
        tracker = resource_tracker._resource_tracker._pid
        return found - {tracker, forkserver._forkserver._forkserver_pid}

    def test_they_are_seen(mp_context):
        receiver, sender = mp_context.Pipe()
        process = mp_context.Process(target=helper.waits, args=(receiver,))
        process.start()
        assert children() == {process.pid}
        assert threading.enumerate() == [threading.main_thread()]
        assert os.listdir("/proc/self/task") == [str(os.getpid())]
        sender.send("end")
        process.join()
        assert children() == set()

    def test_they_are_waited_for(mp_context):
        if mp_context.get_start_method() != "forkserver":  # whose children are grandchildren
            process, _ = helper.ask(mp_context, "mine")
            assert os.wait()[0] == process.pid
            process.join()
        """,
        AWAKE,
        # Once more, when the lookout looks.
        "    test_seen_later = test_they_are_seen",
        imports="import psutil\nfrom multiprocessing import forkserver, resource_tracker",
    )
    compare(passed=4 * len(METHODS))


REAP = {
    "waitpid": "os.waitpid(pid, 0)",
    "wait": "os.wait()",
    "psutil": "psutil.Process(pid).wait()",
}


@needs_signals
@pytest.mark.parametrize("reap", REAP.values(), ids=REAP)
def test_somebody_else_takes_the_exit_status(
    suite: Callable[..., None], compare: Compare, reap: str
) -> None:
    if "psutil" in reap:
        pytest.importorskip("psutil")
    suite(
        f"""
    def test_process(mp_context):
        if mp_context.get_start_method() != "forkserver":  # which takes it itself
            process, _ = helper.ask(mp_context, "mine")
            pid = process.pid
            {reap}
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)

    def test_next(mp_context):
        helper.talks(mp_context)
        """,
        imports="import psutil" if "psutil" in reap else "",
    )
    compare(passed=2 * len(METHODS))


@needs_signals
def test_a_thread_that_waits_for_all_children_sees_the_tests_alone(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite(
        """
    def test_all(context):
        ended, over = [], threading.Event()

        def reap():
            while not over.is_set():
                try:
                    ended.append(os.waitpid(-1, os.WNOHANG)[0])
                except ChildProcessError:
                    time.sleep(0.001)

        reaper = threading.Thread(target=reap)
        reaper.start()
        processes = [context.Process(target=int) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()  # whoever of the two gets the exit status
        over.set()
        reaper.join()
        assert set(ended) - {0} <= {process.pid for process in processes}
        """,
        """
    @pytest.fixture
    def context():
        return multiprocessing.get_context("spawn")
        """,
        imports="import multiprocessing\nimport threading\nimport time",
    )
    compare("--start-method=spawn", passed=1)


def test_what_holds_a_process_may_be_a_mock(suite: Callable[..., None], compare: Compare) -> None:
    suite(
        """
    def limits(pid):
        if isinstance(pid, int) and hasattr(resource, "prlimit"):
            return resource.prlimit(pid, resource.RLIMIT_RTTIME)

    def test_it(mp_context):
        for pid in (mock.DEFAULT, os.getpid(), os.getppid()):
            before = limits(pid)
            with mock.patch.object(mp_context.Process, "_Popen") as popen:
                popen.return_value.pid = pid
                if pid is not mock.DEFAULT:
                    popen.return_value.method = "spawn"
                process = mp_context.Process(target=print)
                process.start()
            popen.assert_called_once_with(process)
            process.join()
            assert limits(pid) == before
        """,
        imports="try:\n    import resource\nexcept ImportError:\n    resource = None",
    )
    compare(passed=len(METHODS))


ANSWERS = """
import threading
import time

def put_later(jobs):
    time.sleep(1)
    jobs.put("here")

def relay(jobs):
    thread = threading.Thread(target=put_later, args=(jobs,))
    thread.start()
    return thread
"""


@needs_proc
def test_the_kernel_says_who_can_still_end_a_wait(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult]
) -> None:
    suite(
        AWAKE,
        """
    @pytest.fixture
    def dead(mp_context):
        process = mp_context.Process(target=helper.exits)
        process.start()
        process.join()
        assert process.exitcode == 1

    @pytest.fixture
    def listener(mp_context):
        records = mp_context.Queue()
        listener = logging.handlers.QueueListener(records)
        listener.start()
        yield
        listener.stop()

    def test_listener_beside_the_dead(mp_context, dead, listener):
        receiver, sender = mp_context.Pipe()
        receiver.recv()

    @pytest.mark.parametrize("module", [queue_relay, threading_helper])
    def test_module_that_answers(mp_context, dead, listener, module):
        jobs = mp_context.Queue()
        thread = module.relay(jobs)
        assert jobs.get() == "here"
        thread.join()
        """,
        imports="import logging.handlers\nimport queue_relay\nimport threading_helper",
        queue_relay=ANSWERS,
        threading_helper=ANSWERS,
    )
    result = run_watched(*QUICK, "-W", "ignore::pytest_startmethod.ChildProcessCrashWarning")
    result.assert_outcomes(passed=3 * len(METHODS), failed=len(METHODS))
    assert len(re.findall("E +Failed: blocked for 0.25 s", result.stdout.str())) == len(METHODS)


@needs_proc
def test_a_wait_for_something_outside_goes_on(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult]
) -> None:
    suite(
        AWAKE,
        '''
    DETACHED = """
    import os, sys, time
    if os.fork():
        os._exit(0)
    os.setsid()
    time.sleep(1)
    os.write(1, b"here")
    """

    @pytest.fixture
    def dead(mp_context):
        process = mp_context.Process(target=helper.exits)
        process.start()
        process.join()

    @pytest.mark.parametrize("ends", [os.pipe, os.openpty, socket.socketpair])
    def test_it(mp_context, dead, ends):
        reader, writer = [end if isinstance(end, int) else end.detach() for end in ends()]
        command = [sys.executable, "-c", textwrap.dedent(DETACHED)]
        subprocess.run(command, stdout=writer, stderr=subprocess.DEVNULL, check=True)
        os.close(writer)
        jobs = mp_context.SimpleQueue()
        thread = threading.Thread(target=lambda: jobs.put(os.read(reader, 9)))
        thread.start()
        assert jobs.get() == b"here"
        thread.join()
        os.close(reader)
        ''',
        imports="import socket\nimport subprocess\nimport sys\nimport textwrap",
    )
    result = run_watched(*QUICK, "-W", "ignore::pytest_startmethod.ChildProcessCrashWarning")
    result.assert_outcomes(passed=4 * len(METHODS))


# How others end the forkserver that serves.
ENDED = {
    "stopped": "forkserver._forkserver._stop()",
    "finalizers": "util._run_finalizers()",
    "folder": "shutil.rmtree(util.get_temp_dir())",
    "socket": "os.unlink(forkserver._forkserver._forkserver_address)",
    "killed": "kill(os.WNOWAIT)",
    "reaped": "kill(0)",
}


@needs_signals
@pytest.mark.parametrize("end", ENDED.values(), ids=ENDED)
def test_a_forkserver_that_others_end_is_replaced(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult], end: str
) -> None:
    suite(
        f"""
    def kill(flags):
        pid = forkserver._forkserver._forkserver_pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | flags)

    @pytest.mark.start_methods("forkserver")
    @pytest.mark.parametrize("number", [1, 2])
    def test_it(mp_context, number, monkeypatch):
        helper.talks(mp_context)
        {end}
        helper.talks(mp_context)
        with monkeypatch.context() as patch:
            patch.setenv("OTHER", "environment")
            helper.talks(mp_context)
            {end}
        helper.talks(mp_context)

    @pytest.mark.start_methods("forkserver")
    def test_leaves(mp_context):
        helper.leaves(mp_context)
        """,
        imports="import shutil\nfrom multiprocessing import forkserver, util",
    )
    result = run_watched(*LEAK_ALLOWED)
    result.assert_outcomes(passed=3)
    # Python 3.12 misses a folder that was removed itself.
    assert result.stderr.str() == "" or "rmtree" in end
    assert "pytest_startmethod" not in result.stderr.str()
    assert OWN_ERROR not in result.stdout.str()


@needs_signals
def test_the_folder_for_temporary_files_is_removed_by_the_test(
    suite: Callable[..., None], compare: Compare
) -> None:
    suite(
        """
    @pytest.fixture
    def folder(monkeypatch):
        with tempfile.TemporaryDirectory() as made:
            monkeypatch.setattr(tempfile, "tempdir", made)
            yield made

    def test_it(mp_context, folder):
        helper.talks(mp_context)
        assert tempfile.gettempdir() == folder
        """,
        imports="import tempfile",
    )
    result = compare(passed=len(METHODS))
    assert "pytest_startmethod" not in result.stderr.str()  # Python 3.12 misses the folder itself


@pytest.mark.parametrize("method", METHODS)
def test_a_suite_nobody_touched_keeps_what_it_keeps(
    suite: Callable[..., None], compare: Compare, method: str
) -> None:
    suite(
        """
    CONTEXT = multiprocessing.get_context()
    POOL = CONTEXT.Pool(1)

    def test_pool_of_the_file():
        assert POOL.apply(abs, [-1]) == 1

    def test_pool_of_the_file_later():
        assert POOL.apply(abs, [-2]) == 2

    def test_executor_of_a_library():
        test_executor_of_a_library.pid = library.ask(helper.pid)

    def test_executor_of_a_library_later():
        assert library.ask(helper.pid) == test_executor_of_a_library.pid

    def test_other_context():
        other = "fork" if CONTEXT.get_start_method() != "fork" else "spawn"
        helper.talks(multiprocessing.get_context(other))
        """,
        imports="import multiprocessing\nimport library",
        library="""
            from concurrent.futures import ProcessPoolExecutor

            EXECUTORS = []

            def ask(target):
                if not EXECUTORS:
                    EXECUTORS.append(ProcessPoolExecutor(1))
                return EXECUTORS[0].submit(target).result()
        """,
    )
    default = f"--plain-default={method}"
    compare(f"--start-method={method}", default, "-W", "error::UserWarning", passed=5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("filters", "errors"),
    [
        ("error", 0),
        ("error::UserWarning", 0),
        ("error::pytest_startmethod.ChildProcessCrashWarning", 1),
    ],
)
def test_the_plugins_warnings_fail_a_suite_nobody_touched_where_a_filter_names_them(
    suite: Callable[..., None],
    run_watched: Callable[..., pytest.RunResult],
    method: str,
    filters: str,
    errors: int,
) -> None:
    suite(
        """
    def test_kept():
        test_kept.process = helper.leaves(multiprocessing)

    def test_crashes():
        process = multiprocessing.Process(target=helper.raises)
        process.start()
        process.join()
        assert process.exitcode == 1
        """,
        imports="import multiprocessing",
    )
    result = run_watched(f"--start-method={method}", "-W", filters)
    result.assert_outcomes(passed=2, errors=errors, warnings=1 - errors)


@pytest.mark.parametrize("method", METHODS)
def test_kept_workers_that_would_keep_python_are_ended_with_one_warning(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult], method: str
) -> None:
    suite(
        """
    KEPT = []

    def test_keeps():
        for _ in range(2):
            receiver, sender = multiprocessing.Pipe()
            KEPT.append(multiprocessing.Process(target=helper.waits, args=(receiver,)))
            KEPT[-1].start()
            helper.KEPT.append(sender)

    def test_still_there():
        assert all(process.is_alive() for process in KEPT)
        """,
        imports="import multiprocessing",
    )
    result = run_watched(f"--start-method={method}", "-W", "error")
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*ChildProcessLeakWarning: still alive at the end of *"])


# What is wrong with what the plugin looks at, and what it looks at itself.
BROKEN = {
    "a process without a name": """
    class Odd:
        @property
        def name(self):
            raise ZeroDivisionError

        @name.setter
        def name(self, name):
            pass
    """,
    "a process that hides what holds it": """
    class Odd:
        @property
        def _popen(self):
            if any("pytest_startmethod" in frame.filename for frame in inspect.stack()[1:2]):
                raise ZeroDivisionError
            return vars(self).get("held")

        @_popen.setter
        def _popen(self, popen):
            self.held = popen
    """,
    "a process without weak references": """
    weak_map.weakref = types.SimpleNamespace(ref=not_weak)
    """,
    "what holds a process doesn't say how it started it": """
    for module in (popen_fork, popen_spawn_posix, popen_forkserver):
        if "method" in vars(module.Popen):
            del module.Popen.method
    """,
    "what learns exit codes": """
    wrappers.Wrappers._watch_popen = broken
    """,
    "the line that starts": """
    makers.origin = broken
    """,
    "the owner of a fixture": """
    owners.OwnerFinder.of_fixtures = broken
    """,
    "what is told": """
    report_sections.count = broken
    """,
    "the lookout": """
    lookout.lookout = broken
    """,
    "the forkservers": """
    forkservers.Forkservers._choose = broken
    forkservers.Forkservers.launched = broken
    """,
    "what a child imports": """
    launcher.hidden = broken
    """,
    "the script": """
    launcher.is_script_of = broken
    """,
    "the threads beside": """
    threads.other_threads = broken
    """,
    "the mark of a process": """
    marks.Marks.begin = broken
    """,
    "what a child starts with": """
    child_config.ChildConfig.give = broken
    """,
    "what children leave": """
    descendants.stop = broken
    """,
    "shared memory": """
    segments.Segments.find = broken
    """,
    "the end of a process": """
    children.Child.note = broken
    """,
}
# Where these break, nothing that the plugin needs is missing.
HARMLESS = (
    "a process without a name",
    "a process without weak references",
    "what holds a process doesn't say how it started it",
)


@needs_proc
@pytest.mark.parametrize("what", BROKEN)
def test_an_error_of_the_plugin_is_one_warning_of_the_run(
    suite: Callable[..., None],
    run_watched: Callable[..., pytest.RunResult],
    what: str,
) -> None:
    suite(
        """
    class Odd:
        pass

    def broken(*_, **__):
        raise ZeroDivisionError

    def not_weak(*_):  # as of what a C extension makes
        raise TypeError
        """,
        BROKEN[what],
        """
    class Fork(Odd, multiprocessing.get_context("fork").Process):
        pass

    class Spawn(Odd, multiprocessing.get_context("spawn").Process):
        pass

    class Forkserver(Odd, multiprocessing.get_context("forkserver").Process):
        pass

    CLASSES = {"fork": Fork, "spawn": Spawn, "forkserver": Forkserver}
    PIDS = []

    def started(context, target, *args):
        process = CLASSES[context.get_start_method()](target=target, args=args)
        process.start()
        return process

    def test_joins(mp_context):
        process = started(mp_context, helper.nothing)
        process.join()
        assert process.exitcode == 0

    def test_leaves(mp_context):
        receiver, sender = mp_context.Pipe()
        PIDS.append(started(mp_context, helper.waits, receiver).pid)
        helper.KEPT.append(sender)

    def test_it_is_gone(mp_context):
        assert helper.gone(PIDS.pop(0))
        """,
        imports="import inspect\nimport multiprocessing\nimport types\n"
        "from multiprocessing import popen_fork, popen_forkserver, popen_spawn_posix\n"
        "from pytest_startmethod.launch import forkservers, launcher\n"
        "from pytest_startmethod.leaks import child_config, descendants, marks, segments\n"
        "from pytest_startmethod import weak_map\n"
        "from pytest_startmethod.processes import children, makers, owners, threads\n"
        "from pytest_startmethod.stall import lookout\n"
        "from pytest_startmethod.watch import report_sections, wrappers",
    )
    result = run_watched(*LEAK_ALLOWED)
    told = int(what not in HARMLESS)
    result.assert_outcomes(passed=3 * len(METHODS), warnings=told)
    assert result.stdout.str().count(f"PytestWarning: {OWN_ERROR}") == told
    assert result.stderr.str() == ""


@needs_proc
def test_descriptors_that_the_test_closes_hide_no_process(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult]
) -> None:
    suite("""
    PIDS = []

    def test_leaves(mp_context):
        process = helper.leaves(mp_context)
        PIDS.append(process.pid)
        os.close(process.sentinel)

    def test_it_is_gone(mp_context):
        assert helper.gone(PIDS.pop(0))
    """)
    # A spawned child may find the end of its own data closed.
    crash_allowed = ("-W", "ignore::pytest_startmethod.ChildProcessCrashWarning")
    result = run_watched("-p", "no:unraisableexception", *LEAK_ALLOWED, *crash_allowed)
    result.assert_outcomes(passed=2 * len(METHODS))
    assert OWN_ERROR not in result.stdout.str()


@needs_proc
def test_a_pool_an_executor_or_a_manager_that_cannot_be_stopped_leaves_nothing(
    suite: Callable[..., None], run_watched: Callable[..., pytest.RunResult]
) -> None:
    suite(
        """
    KEPT, PIDS = [], []

    class StubbornPool(Pool):
        def terminate(self):
            raise ZeroDivisionError

    class StubbornExecutor(ProcessPoolExecutor):
        def shutdown(self, *_, **__):
            raise ZeroDivisionError

    class StubbornManager(SyncManager):
        @property
        def shutdown(self):
            raise ZeroDivisionError

        @shutdown.setter
        def shutdown(self, finalize):
            pass

    def test_pool(mp_context):
        KEPT.append(StubbornPool(1, context=mp_context))
        PIDS.append(KEPT[-1].apply(helper.pid))

    def test_executor(mp_context):
        KEPT.append(StubbornExecutor(1, mp_context=mp_context))
        PIDS.append(KEPT[-1].submit(helper.pid).result())

    def test_manager(mp_context):
        KEPT.append(StubbornManager(ctx=mp_context))
        KEPT[-1].start()
        PIDS.append(KEPT[-1]._process.pid)

    def test_they_are_gone():
        assert len(PIDS) == 3
        assert all(helper.gone(pid) for pid in PIDS)
        """,
        imports="from multiprocessing.managers import SyncManager\n"
        "from multiprocessing.pool import Pool",
    )
    own = ("UnhandledThreadException", "UnraisableException")  # by the makers' own, at their end
    quiet = [arg for name in own for arg in ("-W", f"ignore::pytest.Pytest{name}Warning")]
    result = run_watched("--start-method=spawn", *LEAK_ALLOWED, *quiet)
    result.assert_outcomes(passed=4)
    assert OWN_ERROR not in result.stdout.str()
