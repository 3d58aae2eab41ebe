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

HELPER = """
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

def waits(connection):
    connection.recv()

def pid(*_):
    return os.getpid()

def ask(context, value):
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answers, args=(sender, value))
    process.start()
    sender.close()
    answer = receiver.recv()
    receiver.close()
    return process, answer

def talks(context):
    '''A child of its own answers, and ends.'''
    process, answer = ask(context, "mine")
    process.join()
    assert answer == "mine"
    assert process.exitcode == 0
    process.close()

KEPT = []

def leaves(context):
    '''A child that would wait for ever outlives the test.'''
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=waits, args=(receiver,), daemon=True)
    process.start()
    KEPT.append(sender)
    return process
"""

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
        assert outcomes(watched) == outcomes(plain)
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
    count = {"passed": 5 * len(METHODS) + 2, "failed": 1, "warnings": len(METHODS)}
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


def test_what_ends_by_being_collected_ends_so(suite: Callable[..., None], compare: Compare) -> None:
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
        assert pool.apply(abs, [-1]) == 1
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
        assert Cycle(mp_context.Pool(1)).made.apply(abs, [-1]) == 1

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
