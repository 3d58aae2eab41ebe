"""The report of a failing test lists its children, and says why where the cause is known."""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()
FRESH = len(METHODS) - METHODS.count("fork")
"""How many of them start children that import what they need."""

HELPER = """
import os
import sys

import pytest

def run(context, target, *args):
    process = context.Process(target=target, args=args)
    process.start()
    process.join()
    assert process.exitcode == 0

def nothing(*_):
    pass

def exits(code):
    os._exit(code)

def faults():
    import faulthandler
    faulthandler.disable()
    if sys.platform == "win32":
        os._exit(0xC0000005 - 2**32)  # as Windows ends a process that reads address 0
    os.abort()

def skips():
    pytest.skip("no")

def fails():
    pytest.fail("no")

def exits_pytest():
    pytest.exit("no")

def receives(connection):
    connection.recv()
"""


@pytest.fixture
def hints_of(run_watched: Callable[..., pytest.RunResult]) -> Callable[..., list[str]]:
    """Run a suite whose tests all fail, and return the hints."""

    def run(*args: str, failed: int, passed: int = 0) -> list[str]:
        result = run_watched("-o", "start_method_stall_timeout=0.3", *args)
        outcomes = result.parseoutcomes()
        assert (outcomes.get("failed", 0), outcomes.get("passed", 0)) == (failed, passed)
        return [line.removeprefix("hint: ") for line in result.outlines if line[:6] == "hint: "]

    return run


def test_each_ending_has_its_name(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            @pytest.fixture
            def child(mp_context):
                def start(target, *args):
                    process = mp_context.Process(target=target, args=args, name="child")
                    process.start()
                    return process
                return start

            def test_it(mp_context, child):
                receiver, sender = mp_context.Pipe()
                child(helper.exits, 0).join()
                child(helper.exits, 9).join()
                child(helper.faults).join()
                for end in ("terminate", "kill"):
                    process = child(helper.receives, receiver)
                    getattr(process, end)()
                    process.join()
                child(helper.receives, receiver)
                raise AssertionError

            def test_set_up(child, broken):
                pass

            @pytest.fixture
            def broken(child):
                child(helper.exits, 5).join()
                raise AssertionError

            def test_no_children(mp_context):
                raise AssertionError
        """,
    )
    result = run_watched("-W", "ignore")
    result.assert_outcomes(failed=2 * len(METHODS), errors=len(METHODS))
    endings = ["exit code 0", "exit code 9", "SIGABRT", "SIGTERM", "SIGKILL", "alive"]
    if sys.platform == "win32":  # where kill() is terminate()
        fault = "exit code 0xC0000005 (access violation)"
        endings = ["exit code 0", "exit code 9", fault, "SIGTERM", "SIGTERM", "alive"]
    for method in METHODS:
        lines = [line for line in result.outlines if f", {method}): " in line]
        ends = [line.partition("): ")[2] for line in lines if line.startswith("child (pid ")]
        assert ends == ["exit code 5", *endings]  # errors are shown before failures
        assert sum(line.strip("- ") == f"processes under {method}" for line in result.outlines) == 2


@pytest.mark.posix("a process that has ended is looked at by its pid there")
@pytest.mark.parametrize("method", [m for m in METHODS if m != "forkserver"])
def test_the_ending_is_named_of_a_child_that_an_untouched_test_did_not_join(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult], method: str
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing
            import os

            import helper

            def test_it():
                receiver, _sender = multiprocessing.Pipe()
                process = multiprocessing.Process(target=helper.receives, args=[receiver])
                process.start()
                process.terminate()
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                assert False
        """,
    )
    result = run_watched(f"--start-method={method}")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([rf"Process-1 \(pid \d+, {method}\): SIGTERM"])


def test_many_children_make_a_short_list(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            def test_it(mp_context):
                for _ in range(60):
                    process = mp_context.Process(target=abs, args=[1])
                    process.start()
                    process.join()
                raise AssertionError
        """,
    )
    result = run_watched(f"--start-method={METHODS[0]}")
    result.stdout.fnmatch_lines(["60 in all, the last of them:"])
    assert sum(line.endswith(": exit code 0") for line in result.outlines) == 50


def test_hint_what_cannot_be_pickled(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile("""
        from concurrent.futures import ProcessPoolExecutor
        from threading import Lock

        def test_local_target(mp_context):
            def local():
                pass
            process = mp_context.Process(target=local)
            process.start()
            process.join()

        def test_argument(mp_context):
            process = mp_context.Process(target=print, args=[Lock()])
            process.start()
            process.join()

        def test_pool(mp_context):
            with mp_context.Pool(1) as pool:
                pool.map(lambda x: x, [1])

        def test_executor(mp_context):
            with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                executor.submit(lambda: 1).result()
    """)
    forks = len(METHODS) - FRESH
    # Pools pickle their tasks under fork, too.
    found = hints_of(failed=2 * FRESH + 2 * len(METHODS), passed=2 * forks)
    assert len(found) == 2 * FRESH + 2 * len(METHODS)
    assert {hint.partition(":")[0] for hint in found} == {"what goes to a child is pickled"}


def test_hint_set_start_method_at_import(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        multiprocessing.set_start_method("spawn")

        def work():
            pass

        def test_it(mp_context):
            process = mp_context.Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
    """)
    found = hints_of(failed=FRESH, passed=len(METHODS) - FRESH)
    assert len(found) == FRESH
    assert all(hint.startswith("set_start_method() runs when a child imports") for hint in found)


def test_hint_processes_that_start_at_import(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile(
        unguarded="""
            import multiprocessing

            def work():
                pass

            process = multiprocessing.get_context("spawn").Process(target=work)
            if multiprocessing.current_process().name != "MainProcess":
                process.start()
                process.join()
        """,
        test_it="""
            import pytest
            import unguarded

            @pytest.mark.start_methods("spawn", "forkserver")
            def test_it(mp_context):
                process = mp_context.Process(target=unguarded.work)
                process.start()
                process.join()
                assert process.exitcode == 0
        """,
    )
    found = hints_of(failed=FRESH)
    assert len(found) == FRESH
    assert all('below `if __name__ == "__main__":`' in hint for hint in found)


@pytest.mark.skipif("fork" not in METHODS, reason="the lock is one of fork's")
@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 lets the child have it, without a word"
)
def test_hint_a_lock_of_another_context(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing

            import helper
            import pytest

            FORK = multiprocessing.get_context("fork")
            AT_IMPORT = {"Lock": FORK.Lock(), "Queue": FORK.Queue(), "Event": FORK.Event()}

            @pytest.mark.parametrize("name", AT_IMPORT)
            def test_it(mp_context, name):
                helper.run(mp_context, helper.nothing, AT_IMPORT[name])
        """,
    )
    found = hints_of(failed=3 * FRESH, passed=3)
    assert len(found) == 3 * FRESH
    assert all(hint.startswith("a lock or queue made under one start") for hint in found)


def test_hint_a_lock_or_queue_that_is_sent(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            @pytest.mark.parametrize("name", ["Lock", "Queue", "Condition"])
            def test_it(mp_context, name):
                with mp_context.Pool(1) as pool:
                    pool.apply(helper.nothing, [getattr(mp_context, name)()])
        """,
    )
    found = hints_of(failed=3 * len(METHODS))
    assert len(found) == 3 * len(METHODS)
    assert all(hint.startswith("a lock or queue can be given to") for hint in found)


def test_hint_a_module_that_the_child_cannot_import(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile("""
        import sys
        import types

        import pytest

        @pytest.fixture
        def late(monkeypatch):
            late = types.ModuleType("late")
            exec("def target(): pass", vars(late))
            monkeypatch.setitem(sys.modules, "late", late)
            return late

        def test_process(mp_context, late):
            process = mp_context.Process(target=late.target)
            process.start()
            process.join()
            assert process.exitcode == 0

        def test_name_that_is_not_in_the_module(mp_context, monkeypatch, late):
            monkeypatch.setattr(types, "target", late.target, raising=False)
            late.target.__module__ = "types"
            process = mp_context.Process(target=types.target)
            process.start()
            process.join()
            assert process.exitcode == 0

        def test_pool(mp_context, late):
            with mp_context.Pool(1) as pool:
                sys.modules["later"] = types.ModuleType("later")
                exec("def target(): pass", vars(sys.modules["later"]))
                try:
                    pool.apply(sys.modules["later"].target)
                finally:
                    del sys.modules["later"]
    """)
    forks = len(METHODS) - FRESH
    failed = 2 * FRESH + len(METHODS)
    found = hints_of(failed=failed, passed=2 * forks)
    assert len(found) == failed
    assert all(hint.startswith("a child finds its target by importing") for hint in found)


def test_hint_outcomes_of_pytest_in_a_child(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import sys

            import helper
            import pytest

            @pytest.mark.parametrize("target", [helper.skips, helper.fails, helper.exits_pytest])
            def test_process(mp_context, target):
                helper.run(mp_context, target)

            def test_pool(mp_context):
                with mp_context.Pool(1) as pool:
                    pool.apply(helper.skips)
        """,
    )
    tests = 4 * len(METHODS)
    found = hints_of(failed=tests)
    assert len(found) == tests
    assert all(hint.startswith("pytest.skip() and pytest.fail() end a child") for hint in found)


def test_no_hint_where_the_cause_is_the_tests_own(
    pytester: pytest.Pytester, hints_of: Callable[..., list[str]]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            def test_own_errors(mp_context):
                helper.run(mp_context, helper.nothing)
                raise AttributeError("Can't pickle local object")

            def test_own_import(mp_context):
                import there_is_no_such_module

            def test_errors_of_children(mp_context):
                helper.run(mp_context, len, 1)

            def test_own_lock(mp_context):
                raise RuntimeError("context has already been set")
        """,
    )
    assert hints_of(failed=4 * len(METHODS)) == []


@pytest.mark.posix("managers listen at a pipe there, whose name is no path")
@pytest.mark.skipif(
    hasattr(multiprocessing.util, "_get_base_temp_dir"), reason="this Python finds a shorter path"
)
def test_hint_a_folder_for_temporary_files_whose_path_is_too_long(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    hints_of: Callable[..., list[str]],
) -> None:
    folder = pytester.path.joinpath(*["long" * 10] * 4)
    folder.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder))
    pytester.makepyfile("""
        def test_it(mp_context):
            with mp_context.Manager() as manager:
                manager.list()
    """)
    found = hints_of(failed=len(METHODS))
    assert len(found) == len(METHODS)
    assert all(hint.startswith("the forkserver and managers listen at a") for hint in found)
