"""Each process that a test starts is recorded, whatever starts it."""

from __future__ import annotations

import multiprocessing
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod.guard import Guard
from pytest_startmethod.leaks import reaper
from pytest_startmethod.load_hooks import LoadHooks
from pytest_startmethod.processes.owners import Owner
from pytest_startmethod.watch.recorder import Recorder
from pytest_startmethod.watch.wrappers import Wrappers

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()

HELPER = """
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

def exits(code, *_):
    sys.exit(code)

class Subclass(multiprocessing.Process):
    def __init__(self, **kwargs):
        super().__init__(target=exits, args=[4], **kwargs)

    def start(self):
        super().start()

def note(process, ending):
    with Path("started.txt").open("a") as file:
        print(f"{process.name} (pid {process.pid}, {process._popen.method}): {ending}", file=file)

def note_all(ending):
    for process in multiprocessing.active_children():
        note(process, ending)
"""


def test_the_report_of_a_failure_lists_what_started_by_process_pool_executor_and_manager(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import pytest

            def run(process, ending):
                process.start()
                helper.note(process, ending)
                process.join()

            def test_process(mp_context):
                run(mp_context.Process(target=helper.exits, args=[3], name="me"), "exit code 3")
                run(mp_context.Process(target=helper.exits, args=[0]), "exit code 0")
                raise AssertionError

            def test_subclass(default_start_method):
                run(helper.Subclass(name="sub"), "exit code 4")
                raise AssertionError

            def test_closed(mp_context):
                process = mp_context.Process(target=helper.exits, args=[6])
                run(process, "exit code 6")
                process.close()
                raise AssertionError

            def test_pool(mp_context):
                with mp_context.Pool(2) as pool:
                    pool.map(abs, [1, 2, 3])
                    helper.note_all("exit code 0")
                    pool.close()
                    pool.join()
                raise AssertionError

            def test_executor(mp_context):
                with ProcessPoolExecutor(2, mp_context=mp_context) as executor:
                    assert list(executor.map(abs, [1, 2, 3])) == [1, 2, 3]
                    helper.note_all("exit code 0")
                raise AssertionError

            def test_manager(mp_context):
                with mp_context.Manager() as manager:
                    assert manager.list([1])[0] == 1
                    helper.note_all("exit code 0")
                raise AssertionError

            def test_alive(mp_context):
                receiver, sender = mp_context.Pipe()
                process = mp_context.Process(target=receiver.recv)
                process.start()
                helper.note(process, "alive")
                raise AssertionError
        """,
    )
    result = run_watched()
    result.assert_outcomes(failed=7 * len(METHODS))
    line = re.compile(r".* \(pid \d+, \w+\): .*")
    listed = [text for text in result.outlines if line.fullmatch(text)]
    started = (pytester.path / "started.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(listed) == sorted(started)
    assert sum("(pid" in text and "fork)" in text for text in listed) == (
        len(listed) // len(METHODS) if "fork" in METHODS else 0
    )


def test_classes_and_contexts_stay_the_standard_librarys_own(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import concurrent.futures
        import inspect
        import multiprocessing
        import multiprocessing.pool

        PROCESS, POOL = multiprocessing.Process, multiprocessing.pool.Pool
        EXECUTOR = concurrent.futures.ProcessPoolExecutor

        def test_identity(mp_context, start_method):
            assert mp_context is multiprocessing.get_context(start_method)
            assert multiprocessing.Process is PROCESS
            assert multiprocessing.pool.Pool is POOL
            assert concurrent.futures.ProcessPoolExecutor is EXECUTOR
            assert type(mp_context.Process()).__module__ == "multiprocessing.context"
            assert vars(mp_context) == {}

        def test_signatures(mp_context):
            assert "target" in inspect.signature(PROCESS).parameters
            assert "initializer" in inspect.signature(POOL).parameters
            assert "mp_context" in inspect.signature(EXECUTOR).parameters
    """)
    run_watched().assert_outcomes(passed=2 * len(METHODS))


def test_odd_processes_start_as_without_the_record(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper="def nothing(): pass",
        test_it="""
            import multiprocessing.dummy

            import helper

            def test_started_by_code_without_a_file(mp_context):
                process = mp_context.Process(target=helper.nothing)
                exec("process.start()", {"process": process, "__name__": None})
                process.join()
                assert process.exitcode == 0

            def test_closed(mp_context):
                process = mp_context.Process(target=helper.nothing)
                process.start()
                process.join()
                process.close()

            def test_with_a_hash_of_its_own(mp_context):
                class Process(mp_context.Process):
                    def __hash__(self):
                        return hash(self.name)  # not there before __init__

                assert Process().name

            def test_never_started(mp_context):
                assert mp_context.Process(target=helper.nothing).exitcode is None

            def test_threads_that_look_like_processes(mp_context):
                process = multiprocessing.dummy.Process(target=helper.nothing)
                process.start()
                process.join()

            def test_children_of_children(mp_context):
                with mp_context.Pool(1) as pool:
                    assert pool.apply(abs, [-1]) == 1
        """,
    )
    run_watched().assert_outcomes(passed=6 * len(METHODS))


def test_contexts_of_plugins_are_recorded_too(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        import multiprocessing
        import multiprocessing.dummy
        import multiprocessing.process

        class Process(multiprocessing.get_context("spawn").Process):
            pass

        class Mine(type(multiprocessing.get_context("spawn"))):
            Process = Process

        def pytest_startmethod_contexts():
            return {"mine": Mine(), "threads": multiprocessing.dummy}
    """)
    pytester.makepyfile(
        helper="import sys\ndef exits(): sys.exit(7)",
        test_it="""
            import helper
            import pytest

            @pytest.mark.start_methods("mine", "threads")
            def test_it(mp_context):
                process = mp_context.Process(target=helper.exits)
                process.start()
                process.join()
                raise AssertionError
        """,
    )
    result = run_watched()
    result.assert_outcomes(failed=2)
    result.stdout.re_match_lines([r".*processes under .*", r"Process-1 \(pid \d+, spawn\): .* 7"])
    assert result.stdout.str().count("exit code 7") == 1


# A worker of xdist has a thread of its own.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_recorder_records_for_the_owner_of_the_moment_and_puts_everything_back(
    method: str,
) -> None:
    context: Any = multiprocessing.get_context(method)
    patched = multiprocessing.process.BaseProcess
    before = patched.start, patched.__init__
    owner: Owner | None = None
    guard = Guard()
    recorder = Recorder(lambda: owner, guard)
    wrappers = Wrappers(recorder, LoadHooks(guard))
    wrappers.install([context])
    try:
        nobodys = context.Process(target=os.getpid)
        owner = me = Owner("me")
        mine = context.Process(target=os.getpid)
        owner = None
        nobodys.start()
        mine.start()
        here = "test_record.py"
        assert [(c.name, c.pid, c.start_method, c.owner) for c in recorder.children] == [
            (mine.name, mine.pid, method, me)
        ]
        assert here in recorder.children[0].place
        nobodys.join()
        mine.join()
        assert recorder.children[0].has_ended()
        assert recorder.children[0].exit_code == 0
        assert recorder.of_ended_owners() == []
        me.ended = True
        assert reaper.stop(recorder.of_ended_owners) == []
        recorder.forget(recorder.of_ended_owners())
        assert recorder.children == []
    finally:
        wrappers.uninstall()
    assert (patched.start, patched.__init__) == before


# A worker of xdist has a thread of its own.
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_pool_that_has_served_the_test_is_asked_for_nothing_by_its_further_calls() -> None:
    asked: list[object] = []

    def is_expected(context: object) -> bool:
        asked.append(context)
        return False

    guard = Guard()
    recorder = Recorder(lambda: None, guard, is_expected=is_expected)
    wrappers = Wrappers(recorder, LoadHooks(guard))
    context: Any = multiprocessing.get_context(METHODS[0])
    with context.Pool(1) as older, context.Pool(1) as other:
        wrappers.install([context])
        try:
            assert [older.apply(abs, [-number]) for number in range(3)] == [0, 1, 2]
            assert len(asked) == 1
            assert [other.apply(abs, [-number]) for number in range(3)] == [0, 1, 2]
            assert len(asked) == 2
            recorder.test_changes()
            assert older.apply(abs, [-1]) == 1
        finally:
            wrappers.uninstall()
    assert asked == [context] * 3
    assert not guard.error
