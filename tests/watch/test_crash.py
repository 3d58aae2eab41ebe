"""A test that passes though a child of it crashed is told so, and no exit code gets lost."""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()
WARNING = "pytest_startmethod.ChildProcessCrashWarning"

HELPER = """
import faulthandler
import os
import signal
import sys

def nothing(*_):
    pass

def raises(*_):
    raise ZeroDivisionError("so it is")

def imports(*_):
    import there_is_no_such_module

def faults(name, *_):
    faulthandler.disable()
    os.kill(os.getpid(), getattr(signal, name))

def exits(code):
    sys.exit(code)

def waits(connection):
    connection.recv()

def run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    return process.exitcode
"""


@pytest.mark.posix("the signal that a process sends to itself is an exit code there")
def test_crashes_of_every_kind_are_warned_of_with_the_last_line(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import sys
            import types
            from concurrent.futures import ProcessPoolExecutor
            from concurrent.futures.process import BrokenProcessPool

            import helper
            import pytest

            def test_raises(mp_context):
                assert helper.run(mp_context, helper.raises) == 1

            def test_imports(mp_context):
                assert helper.run(mp_context, helper.imports) == 1

            @pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"])
            def test_faults(mp_context, name):
                assert helper.run(mp_context, helper.faults, name) < 0

            def test_executor(mp_context):
                with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                    with pytest.raises(BrokenProcessPool):
                        executor.submit(helper.faults, "SIGSEGV").result()

            KEPT = []  # Python 3.12 and 3.13 may hang at exit if a broken executor is collected

            def test_executor_that_nobody_shut_down(mp_context):
                executor = ProcessPoolExecutor(1, mp_context=mp_context)
                KEPT.append(executor)
                with pytest.raises(BrokenProcessPool):
                    executor.submit(helper.faults, "SIGSEGV").result()

            def test_nobody_joins(mp_context):
                mp_context.Process(target=helper.raises).start()

            def test_closed(mp_context):
                process = mp_context.Process(target=helper.raises)
                process.start()
                process.join()
                process.close()

            @pytest.mark.start_methods("spawn", "forkserver")
            def test_target_cannot_be_imported(mp_context, monkeypatch):
                late = types.ModuleType("late")
                exec("def target(): pass", vars(late))
                monkeypatch.setitem(sys.modules, "late", late)
                assert helper.run(mp_context, late.target) == 1
        """,
    )
    result = run_watched()
    tests = 11 * len(METHODS) + len({"spawn", "forkserver"} & {*METHODS})
    result.assert_outcomes(passed=tests, warnings=tests)
    text = result.stdout.str()
    for words in ("ZeroDivisionError: so it is", "ModuleNotFoundError: No module named 'there_is"):
        assert text.count(f"exit code 1 ({words}") >= len(METHODS)
    assert text.count("(ModuleNotFoundError: No module named 'late')") == len(METHODS) - 1
    for fault, times in {"SIGSEGV": 3, "SIGABRT": 1, "SIGBUS": 1, "SIGILL": 1, "SIGFPE": 1}.items():
        assert text.count(f") ended with {fault}") == times * len(METHODS)


def test_what_the_test_asked_for_is_no_crash(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import pytest

            @pytest.mark.parametrize("code", [0, 2, 3, 255])
            def test_exits(mp_context, code):
                assert helper.run(mp_context, helper.exits, code) == code

            @pytest.mark.parametrize("end", ["terminate", "kill"])
            def test_ended(mp_context, end):
                receiver, sender = mp_context.Pipe()
                process = mp_context.Process(target=helper.waits, args=[receiver])
                process.start()
                getattr(process, end)()
                process.join()
                assert process.exitcode < 0

            def test_pools(mp_context):
                with mp_context.Pool(2) as pool:
                    assert pool.map(abs, [-1]) == [1]
                with mp_context.Pool(1, maxtasksperchild=1) as pool:
                    assert pool.map(abs, [-1, -2], chunksize=1) == [1, 2]
                    pool.close()
                    pool.join()
                with ProcessPoolExecutor(2, mp_context=mp_context) as executor:
                    assert list(executor.map(abs, [-1])) == [1]
                with mp_context.Manager() as manager:
                    assert list(manager.list([1])) == [1]
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=7 * len(METHODS), warnings=0)


def test_children_of_an_untouched_suite_that_exit_by_1_on_purpose_are_no_crash(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing

            import helper

            def test_exits():
                assert helper.run(multiprocessing, helper.exits, 1) == 1

            def test_raises():
                assert helper.run(multiprocessing, helper.raises) == 1
        """,
    )
    for method in METHODS:
        result = run_watched(f"--start-method={method}")
        result.assert_outcomes(passed=2, warnings=1)
        result.stdout.fnmatch_lines("*: the test passed, but *(ZeroDivisionError: so it is)*")


def test_a_failing_test_is_not_warned_of_its_crashes_too(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            def test_fails(mp_context):
                assert helper.run(mp_context, helper.raises) == 0

            def test_skips(mp_context):
                helper.run(mp_context, helper.raises)
                pytest.skip()
        """,
    )
    count = len(METHODS)
    run_watched().assert_outcomes(failed=count, skipped=count, warnings=0)


def test_severity_is_the_users(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it=f"""
            import helper
            import pytest

            def test_it(mp_context):
                helper.run(mp_context, helper.raises)

            @pytest.mark.filterwarnings("ignore::{WARNING}")
            def test_allowed(mp_context):
                helper.run(mp_context, helper.raises)
        """,
    )
    count = len(METHODS)
    result = run_watched("-W", f"error::{WARNING}")
    result.assert_outcomes(passed=2 * count, errors=count, warnings=0)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result = run_watched("-o", f"filterwarnings=ignore::{WARNING}")
    result.assert_outcomes(passed=2 * count, warnings=0)


@pytest.mark.parametrize("method", METHODS)
def test_400_clean_children_have_exit_code_0_while_the_plugin_watches(
    pytester: pytest.Pytester, assert_nothing_left: Callable[[], None], method: str
) -> None:
    pytester.makepyfile(
        helper="def nothing(): pass\ndef crashes(): raise SystemExit(1)",
        test_it=f"""
            import threading

            import helper
            import pytest

            @pytest.mark.start_methods({method!r})
            @pytest.mark.filterwarnings("ignore::{WARNING}")
            def test_it(mp_context):
                dead = mp_context.Process(target=helper.crashes)
                dead.start()  # with one dead child the watch has reason to look, all the time
                dead.join()
                codes = []
                for _ in range(10):
                    processes = [mp_context.Process(target=helper.nothing) for _ in range(40)]
                    for process in processes:
                        process.start()
                    for process in processes[:20]:
                        process.join()
                    thread = threading.Thread(target=lambda: [p.join() for p in processes[20:]])
                    thread.start()
                    thread.join()
                    codes += [process.exitcode for process in processes]
                assert dead.exitcode == 1
                assert codes == [0] * 400
        """,
    )
    # Not as "python -m pytest", which each spawned child would import.
    result = pytester.run(
        *(sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"),
        *("-o", "start_method_stall_timeout=0.001", "-p", "no:xdist"),
        timeout=120,
    )
    assert_nothing_left()
    result.assert_outcomes(passed=1)
