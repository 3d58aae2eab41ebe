"""What Windows does otherwise: there a test has no other start method, and no signals."""

from __future__ import annotations

import multiprocessing
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="it is about Windows")

HELPER = """
import ctypes
import faulthandler
import os
import signal
import sys
import time

def waits(*_):
    time.sleep(3600)

def ends(code):
    faulthandler.disable()
    os._exit(code - 2**32)

def reads_address_0():
    faulthandler.disable()
    faulthandler._read_null()  # as CPython's own tests do

def exits(code):
    sys.exit(code)

def is_alive(pid):
    kernel = ctypes.WinDLL("kernel32")
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return False
    code = ctypes.c_ulong()
    kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return code.value == 259  # STILL_ACTIVE
"""


@pytest.mark.parametrize("args", [["--start-method=fork,spawn"], []])
def test_a_start_method_that_it_lacks_is_skipped_with_the_reason(
    pytester: pytest.Pytester, args: list[str]
) -> None:
    pytester.makeini("[pytest]\nstart_methods = " + ("forkserver" if args else "fork, spawn"))
    pytester.makepyfile("""
        def test_it(mp_context):
            with mp_context.Pool(1) as pool:
                assert pool.apply(abs, [-1]) == 1
    """)
    result = pytester.runpytest_subprocess("-v", *args)
    result.assert_outcomes(passed=1, skipped=1)
    assert "start methods: spawn (platform default: spawn; not supported: fork)" in result.outlines


def test_a_start_method_that_it_lacks_alone_is_a_usage_error(
    pytester: pytest.Pytester, assert_usage_error: Callable[[pytest.RunResult, str], None]
) -> None:
    assert_usage_error(
        pytester.runpytest_subprocess("--start-method=forkserver"),
        "--start-method: start method 'forkserver' is not supported on win32 (supported: spawn)",
    )


def test_what_a_test_leaves_alive_is_ended_before_the_next(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import pytest

            PIDS, KEPT = [], []

            def process(context):
                process = context.Process(target=helper.waits)
                process.start()
                return process

            def pool(context):
                pool = context.Pool(2)
                pool.apply_async(helper.waits)
                return pool

            def executor(context):
                executor = ProcessPoolExecutor(1, mp_context=context)
                executor.submit(helper.waits)
                return executor

            def manager(context):
                return context.Manager()

            @pytest.mark.parametrize("start", [process, pool, executor, manager])
            def test_leaves(mp_context, start):
                KEPT.append(start(mp_context))
                PIDS.extend(child.pid for child in multiprocessing.active_children())
                assert all(map(helper.is_alive, PIDS[-1:]))

            def test_next():
                assert len(PIDS) == 5
                assert not any(map(helper.is_alive, PIDS))
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=5, warnings=4)
    leaks = [line for line in result.outlines if "ChildProcessLeakWarning: still alive" in line]
    assert len(leaks) == 4


def test_a_child_that_fails_to_be_pickled_leaves_no_process_and_no_word_in_the_next_test(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            def test_cannot_be_pickled(mp_context):
                process = mp_context.Process(target=lambda: None)
                with pytest.raises(AttributeError):
                    process.start()

            def test_next(mp_context):
                process = mp_context.Process(target=helper.exits, args=[1])
                process.start()
                process.join()
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=2, warnings=1)
    assert ") ended with exit code 1: let the test check" in result.stdout.str()


def test_a_fault_of_a_child_is_warned_of_by_its_name(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            def run(context, target, *args):
                process = context.Process(target=target, args=args)
                process.start()
                process.join()
                return process.exitcode

            def test_reads_address_0(mp_context):
                assert run(mp_context, helper.reads_address_0) == 0xC0000005

            def test_fail_fast(mp_context):
                assert run(mp_context, helper.ends, 0xC0000409) == 0xC0000409

            def test_exits(mp_context):
                assert run(mp_context, helper.exits, -1) == 0xFFFFFFFF

            def test_ctrl_c(mp_context):
                assert run(mp_context, helper.ends, 0xC000013A) == 0xC000013A
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=4, warnings=2)
    text = result.stdout.str()
    assert text.count(") ended with exit code 0xC0000005 (access violation): let") == 1
    assert text.count(") ended with exit code 0xC0000409 (fail-fast): let") == 1


def test_the_last_line_of_a_child_is_quoted_on_one_line(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper

            def test_it(mp_context):
                process = mp_context.Process(target=helper.ends, args=["no number"])
                process.start()
                process.join()
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=1, warnings=1)
    [line] = [line for line in result.outlines if "ended with exit code 1 (TypeError: " in line]
    assert line.endswith(
        "let the test check its children, or allow this by a filterwarnings marker"
    )


def test_more_children_than_one_wait_takes_are_ended(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import time

        def test_leaves(mp_context):
            for _ in range(65):
                mp_context.Process(target=time.sleep, args=[3600]).start()

        def test_next():
            pass
    """)
    result = run_watched("-o", "start_method_stall_timeout=0")
    result.assert_outcomes(passed=2, warnings=1)


def test_a_wait_for_the_dead_ends(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper="""
            import os

            def dies(*_):
                os._exit(3)
        """,
        test_it="""
            import helper

            def test_pool(mp_context):
                with mp_context.Pool(1) as pool:
                    pool.apply(helper.dies)

            def test_map(mp_context):
                with mp_context.Pool(1) as pool:
                    pool.map(helper.dies, [1, 2])

            def test_queue(mp_context):
                queue = mp_context.Queue()
                mp_context.Process(target=helper.dies).start()
                queue.get()

            def test_pipe(mp_context):
                receiver, sender = mp_context.Pipe()
                mp_context.Process(target=helper.dies).start()
                receiver.recv()

            def test_answers(mp_context):
                with mp_context.Pool(1) as pool:
                    assert pool.apply(abs, [-1]) == 1
        """,
    )
    result = run_watched("-o", "start_method_stall_timeout=2", "--start-method=spawn")
    result.assert_outcomes(failed=4, passed=1)
    failures = [line for line in result.outlines if line.startswith("E ")]
    assert len(failures) == 4
    assert all("blocked for 2 s in a wait" in line for line in failures)
    assert all("exit code 3" in line for line in failures)
