"""Other plugins and signals keep their function, nothing hangs, and no process is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Gone = Callable[[int], None]

pytestmark = pytest.mark.usefixtures("helper")

METHODS = multiprocessing.get_all_start_methods()

HELPER = """
import os
import signal
from pathlib import Path

def note(pid):
    with Path("pids.txt").open("a") as file:
        print(pid, file=file)

def nothing():
    pass

def exits():
    os._exit(1)

def lives_on():
    while True:
        signal.pause()

def doubles(number):
    return 2 * number

def start(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    note(process.pid)
    return process
"""

# Tests that wait for living children, as long as nobody ends that.
BLOCKED = """
import multiprocessing
import time

import helper
import pytest

def test_join(mp_context):
    process = helper.start(mp_context, helper.lives_on)
    print("it waits", flush=True)
    process.join()

def test_queue(mp_context):
    helper.start(mp_context, helper.lives_on)
    mp_context.Queue().get()

def test_pool(mp_context):
    with mp_context.Pool(1) as pool:
        helper.note(multiprocessing.active_children()[0].pid)
        pool.apply(time.sleep, [100])
"""


# What runs in the background of a script, as CI's may, is deaf to it.
HEARS_CTRL_C = """
import signal, sys, pytest
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(pytest.main())
"""


def interrupt(run: subprocess.Popen[bytes]) -> int:
    """Press Ctrl-C until it is heard: Python misses one that comes as a wait is about to begin."""
    for _ in range(3):
        run.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return run.wait(timeout=10)
    return run.wait(timeout=0)


@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_while_a_test_is_blocked(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    assert_nothing_left: Callable[[], None],
    assert_gone: Gone,
    method: str,
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(test_it=BLOCKED)
    arguments = ["-p", "startmethod", "-s", f"--start-method={method}", "-k", "test_join"]
    command = [sys.executable, "-c", HEARS_CTRL_C, *arguments]
    run = pytester.popen(command, stdin=subprocess.DEVNULL)
    assert run.stdout is not None
    with run:
        while b"it waits" not in (line := run.stdout.readline()):
            assert line, "it ended before"
        try:
            assert interrupt(run) == pytest.ExitCode.INTERRUPTED
            output = run.stdout.read().decode()
        finally:
            run.kill()  # so that a failure isn't waited for
    assert "KeyboardInterrupt" in output
    assert_gone(1)
    assert_nothing_left()


def test_pytest_timeout_interrupts_a_test_by_its_signal(
    pytester: pytest.Pytester, run_watched: Run, assert_gone: Gone
) -> None:
    pytest.importorskip("pytest_timeout", reason="it is about pytest-timeout")
    pytester.makepyfile(test_it=BLOCKED)
    result = run_watched("--timeout=3", "--timeout-method=signal", plugins=("pytest_timeout",))
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 3 * len(METHODS)
    assert outcomes["warnings"] == 2 * len(METHODS)  # the pool ends its worker itself
    assert len(re.findall(r"^E +Failed: Timeout", result.stdout.str(), re.MULTILINE)) == 3 * len(
        METHODS
    )
    assert_gone(3 * len(METHODS))


def test_pytest_timeout_ends_the_run_from_its_thread(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    assert_nothing_left: Callable[[], None],
) -> None:
    pytest.importorskip("pytest_timeout", reason="it is about pytest-timeout")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        test_it="""
            import threading

            import helper

            def test_it(mp_context):
                helper.start(mp_context, helper.exits).join()
                threading.Thread(target=threading.Event().wait, daemon=True).start()
                mp_context.Event().wait()
        """,
    )
    # It calls os._exit(), which gives nobody a chance to end a child that is alive.
    loaded = ("-p", "startmethod", "-p", "pytest_timeout", "-o", "start_method_stall_timeout=0.2")
    for method in METHODS:
        timeout = ("--timeout=1", "--timeout-method=thread", "-k", f"test_it[{method}]")
        result = pytester.runpytest_subprocess(*loaded, *timeout, timeout=60)
        assert result.ret == 1
        assert "+ Timeout +" in result.stdout.str() + result.stderr.str()
    assert_nothing_left()


@pytest.mark.parametrize("arguments", [["--timeout-method=signal"], ["--timeout-method=thread"]])
def test_a_stall_is_found_beside_the_timer_of_pytest_timeout(
    pytester: pytest.Pytester, run_watched: Run, arguments: list[str]
) -> None:
    pytest.importorskip("pytest_timeout", reason="it is about pytest-timeout")
    pytester.makepyfile(
        test_it="""
            import helper

            def test_stall(mp_context):
                helper.start(mp_context, helper.exits)
                mp_context.Queue().get()

            def test_next(mp_context):
                helper.start(mp_context, helper.nothing).join()
        """,
    )
    stall = ("-o", "start_method_stall_timeout=0.2", "--timeout=40")
    result = run_watched(*stall, *arguments, plugins=("pytest_timeout",))
    result.assert_outcomes(failed=len(METHODS), passed=len(METHODS))
    stalls = [line for line in result.outlines if re.match("E +Failed: blocked for 0.2 s", line)]
    assert len(stalls) == len(METHODS)


def test_rerunfailures_runs_again_with_a_record_of_its_own(
    pytester: pytest.Pytester, run_watched: Run, assert_gone: Gone
) -> None:
    pytest.importorskip("pytest_rerunfailures", reason="it is about pytest-rerunfailures")
    pytester.makepyfile(
        test_it="""
            import multiprocessing
            from collections import Counter

            import helper

            RUNS = Counter()

            def test_leaks_and_fails_at_first(mp_context, start_method):
                assert multiprocessing.active_children() == []
                RUNS[start_method] += 1
                if RUNS[start_method] == 1:
                    helper.start(mp_context, helper.lives_on)
                    raise AssertionError
                helper.start(mp_context, helper.nothing).join()

            def test_stalls_at_first(mp_context, start_method):
                RUNS["stall", start_method] += 1
                if RUNS["stall", start_method] == 1:
                    helper.start(mp_context, helper.exits)
                    mp_context.Queue().get()

            def test_fails(mp_context):
                helper.start(mp_context, helper.nothing).join()
                raise AssertionError
        """,
    )
    stall = ("-o", "start_method_stall_timeout=0.2", "--reruns=1")
    result = run_watched(*stall, plugins=("pytest_rerunfailures",))
    count = len(METHODS)
    outcomes = result.parseoutcomes()
    assert outcomes.pop("warnings") == count
    assert outcomes == {"passed": 2 * count, "failed": count, "rerun": 3 * count}
    sections = [line for line in result.outlines if "): exit code 0" in line]
    assert len(sections) == count  # of the last run alone
    assert_gone(5 * count)


def test_xdist_workers_watch_and_live_on(
    pytester: pytest.Pytester, run_watched: Run, assert_gone: Gone
) -> None:
    pytest.importorskip("xdist", reason="it is about pytest-xdist")
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import helper
            import pytest

            def test_stalls(mp_context):
                helper.start(mp_context, helper.exits)
                mp_context.Queue().get()

            def test_stalls_on_a_pool(mp_context):
                with mp_context.Pool(1) as pool:
                    pool.apply(helper.exits)

            def test_crashes(mp_context):
                helper.start(mp_context, helper.exits).join()

            def test_leaks(mp_context):
                helper.start(mp_context, helper.lives_on)

            @pytest.mark.parametrize("number", range(3))
            def test_clean(mp_context, number):
                assert multiprocessing.active_children() == []
                with mp_context.Pool(1) as pool:
                    assert pool.apply(helper.doubles, [number]) == 2 * number
        """,
    )
    stall = ("-o", "start_method_stall_timeout=0.2")
    result = run_watched("-n", "2", *stall, plugins=("xdist",))
    count = len(METHODS)
    result.assert_outcomes(passed=5 * count, failed=2 * count, warnings=2 * count)
    for name in ("ChildProcessCrashWarning: ", "ChildProcessLeakWarning: "):
        assert result.stdout.str().count(name) == count
    assert "crashed while running" not in result.stdout.str()
    assert_gone(3 * count)


def test_xdist_stops_at_the_first_failure(pytester: pytest.Pytester, run_watched: Run) -> None:
    pytest.importorskip("xdist", reason="it is about pytest-xdist")
    pytester.makepyfile(
        test_it="""
            import helper
            import pytest

            @pytest.mark.parametrize("number", range(50))
            def test_it(mp_context, number):
                helper.start(mp_context, helper.lives_on)
                raise AssertionError
        """,
    )
    result = run_watched("-n", "2", "-x", plugins=("xdist",))
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert result.parseoutcomes()["failed"] < 10


def test_cov_measures_the_test_and_its_children(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytest.importorskip("pytest_cov", reason="it is about pytest-cov")
    pytester.makefile(
        ".toml",
        pyproject="""
            [tool.coverage.run]
            concurrency = ["multiprocessing", "thread"]
            parallel = true
            sigterm = true
        """,
    )
    pytester.makepyfile(
        test_it="""
            import helper

            def test_it(mp_context):
                with mp_context.Pool(1) as pool:
                    assert pool.map(helper.doubles, [1]) == [2]
                    pool.close()
                    pool.join()

            def test_stalls(mp_context):
                process = mp_context.Process(target=helper.exits)
                process.start()
                mp_context.Queue().get()
        """,
    )
    stall = ("-o", "start_method_stall_timeout=0.3")
    arguments = ("--cov=helper", "--cov-report=term-missing", *stall)
    result = run_watched(*arguments, plugins=("pytest_cov",))
    result.assert_outcomes(passed=len(METHODS), failed=len(METHODS))
    [line] = [line for line in result.outlines if line.startswith("helper.py")]
    doubles = next(n for n, text in enumerate(HELPER.splitlines()) if "return 2" in text)
    missing = line.partition("%")[2]
    assert str(doubles) not in re.split(r"[ ,-]+", missing)  # which runs in children alone


def test_faulthandler_timeout_dumps_and_the_stall_is_found(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(
        test_it="""
            import helper

            def test_stalls(mp_context):
                helper.start(mp_context, helper.exits)
                mp_context.Queue().get()

            def test_clean(mp_context):
                helper.start(mp_context, helper.nothing).join()
        """,
    )
    options = ("-o", "faulthandler_timeout=0.1", "-o", "start_method_stall_timeout=0.5")
    result = run_watched(*options)
    result.assert_outcomes(passed=len(METHODS), failed=len(METHODS))
    assert result.stderr.str().count("Timeout (0:00:00.1") >= len(METHODS)


@pytest.mark.parametrize("option", ["-x", "--maxfail=2"])
def test_the_run_ends_at_the_failure_that_it_is_to_end_at(
    pytester: pytest.Pytester, run_watched: Run, option: str
) -> None:
    pytester.makepyfile(
        test_it="""
            import helper
            import pytest

            @pytest.mark.parametrize("number", range(4))
            def test_stalls(mp_context, number):
                helper.start(mp_context, helper.exits)
                mp_context.Queue().get()
        """,
    )
    result = run_watched("-o", "start_method_stall_timeout=0.2", option)
    result.assert_outcomes(failed=1 if option == "-x" else 2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
