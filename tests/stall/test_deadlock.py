"""A test whose living children can't go on fails, and says where they are and why."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from pytest_startmethod.explain import stack_hints, stacks

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(not stacks.AVAILABLE, reason="children can't be asked here")

METHODS = multiprocessing.get_all_start_methods()
ALLOWED = ("-W", "ignore::pytest_startmethod.ChildProcessLeakWarning")
BLOCKED = "Failed: blocked for 0.3 s in a wait that no process or thread can end any more: "


@pytest.fixture
def run_blocked(run_watched: Callable[..., pytest.RunResult]) -> Callable[..., pytest.RunResult]:
    """Run a suite as `run_watched` does, with a short time-out for stalls."""

    def run(*args: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        return run_watched("-o", "start_method_stall_timeout=0.3", *ALLOWED, *args, plugins=plugins)

    return run


def blocked(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if line.startswith("E  ") and BLOCKED in line]


def hints(result: pytest.RunResult) -> list[str]:
    return [line.removeprefix("hint: ") for line in result.outlines if line.startswith("hint: ")]


@pytest.mark.needs("fork")
@pytest.mark.parametrize("release", ["threading.Event().wait", "lambda: time.sleep(60)"])
def test_a_lock_that_another_thread_held_at_the_fork(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult], release: str
) -> None:
    pytester.makepyfile(f"""
        import threading
        import time

        LOCK = threading.Lock()
        release = {release}

        def hold(held):
            with LOCK:
                held.set()
                release()

        def work():
            with LOCK:
                pass

        def test_it(mp_context):
            held = threading.Event()
            threading.Thread(target=hold, args=[held], name="holder", daemon=True).start()
            held.wait()
            process = mp_context.Process(target=work, name="worker")
            process.start()
            process.join()
    """)
    result = run_blocked("--start-method=fork")
    result.assert_outcomes(failed=1, warnings=result.parseoutcomes().get("warnings", 0))
    [message] = blocked(result)
    assert "worker (pid " in message
    assert (
        ", fork) is alive, and waits without end at test_it.py:13 in work, forked " in message
        or (
            ", fork) is alive, and waits without end at " in message
            and ":13 in work, forked while 1 other thread ran: holder at " in message
        )
    )
    assert ":10 in hold" in message or ":5 in <lambda>" in message
    assert hints(result) == [stack_hints.AT_THE_FORK]


def test_a_test_that_has_stalled_waits_no_second_time_so_long(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    """As ``with`` an executor does, whose worker is deadlocked: it waits for that to end."""
    pytester.makepyfile(
        helper="""
            import threading

            def locks_itself():
                lock = threading.Lock()
                lock.acquire()
                lock.acquire()
        """,
        test_it="""
            import time
            from concurrent.futures import ProcessPoolExecutor
            from pathlib import Path

            import helper

            def test_it(mp_context):
                times = []
                try:
                    with ProcessPoolExecutor(1, mp_context) as executor:
                        times.append(time.monotonic())
                        try:
                            executor.submit(helper.locks_itself).result()
                        finally:
                            times.append(time.monotonic())
                finally:
                    times.append(time.monotonic())
                    Path("times.txt").write_text(" ".join(map(str, times)))

            def test_next(mp_context):
                process = mp_context.Process(target=int)
                process.start()
                process.join()
        """,
    )
    args = ("-o", "start_method_stall_timeout=10", *ALLOWED, f"--start-method={METHODS[0]}")
    result = run_watched(*args)
    times = (pytester.path / "times.txt").read_text(encoding="utf-8").split()
    began, first, second = map(float, times)
    assert second - first < (first - began) / 2
    result.assert_outcomes(failed=1, passed=1, warnings=result.parseoutcomes().get("warnings", 0))
    message = "Failed: blocked for 10 s in a wait that no process or thread can end any more: "
    found = [line for line in result.outlines if line.startswith("E  ") and message in line]
    assert len(found) == 2


def test_a_child_is_joined_before_its_queue_is_read(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper="""
            def puts(queue):
                queue.put("x" * 1_000_000)
        """,
        test_it="""
            import helper

            def test_join(mp_context):
                queue = mp_context.Queue()
                process = mp_context.Process(target=helper.puts, args=[queue])
                process.start()
                process.join()

            def test_read_first(mp_context):
                queue = mp_context.Queue()
                process = mp_context.Process(target=helper.puts, args=[queue])
                process.start()
                assert len(queue.get()) == 1_000_000
                process.join()
        """,
    )
    result = run_blocked()
    result.assert_outcomes(failed=len(METHODS), passed=len(METHODS))
    assert len(blocked(result)) == len(METHODS)
    assert hints(result) == [stack_hints.UNREAD] * len(METHODS)
    names = [line for line in result.outlines if line.startswith("  QueueFeeder")]
    assert len(names) == len(METHODS)


def test_a_child_waits_for_a_message_that_only_the_test_could_send(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper="""
            def receives(connection):
                connection.recv()

            def gets(queue):
                queue.get()
        """,
        test_it="""
            import helper

            def test_recv(mp_context):
                ours, theirs = mp_context.Pipe()
                process = mp_context.Process(target=helper.receives, args=[theirs])
                process.start()
                process.join()

            def test_get(mp_context):
                queue = mp_context.Queue()
                process = mp_context.Process(target=helper.gets, args=[queue])
                process.start()
                process.join()

            def test_both(mp_context):
                ours, theirs = mp_context.Pipe()
                mp_context.Process(target=helper.receives, args=[theirs]).start()
                ours.recv()
        """,
    )
    result = run_blocked()
    result.assert_outcomes(failed=3 * len(METHODS))
    assert len(blocked(result)) == 3 * len(METHODS)
    assert all(" waits without end at helper.py:" in line for line in blocked(result))
    assert hints(result) == [stack_hints.UNSENT] * 3 * len(METHODS)


@pytest.mark.needs("fork")
def test_hints_of_locks_of_the_standard_library(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        slow="""
            import blocker

            blocker.importing.set()
            blocker.done.wait()
        """,
        blocker="""
            import threading

            importing, done = threading.Event(), threading.Event()
        """,
        test_it="""
            import logging
            import threading
            from multiprocessing import resource_tracker

            import blocker
            import pytest

            class Handler(logging.Handler):
                def createLock(self):  # not one that logging makes anew in children
                    self.lock = threading.RLock()

            HANDLER = Handler()

            def joins(context, target):
                process = context.Process(target=target)
                process.start()
                process.join()

            def imports():
                import slow

            def logs():
                HANDLER.handle(logging.makeLogRecord({"msg": "here"}))

            def hold(lock, held, done):
                with lock:
                    held.set()
                    done.wait()

            @pytest.fixture
            def held():
                held, done, threads = threading.Event(), threading.Event(), []

                def begin(lock):
                    threads.append(threading.Thread(target=hold, args=[lock, held, done]))
                    threads[0].start()
                    held.wait()

                yield begin
                done.set()
                threads[0].join()

            def test_import(mp_context):
                thread = threading.Thread(target=imports)
                thread.start()
                blocker.importing.wait()
                try:
                    joins(mp_context, imports)
                finally:
                    blocker.done.set()
                    thread.join()

            def test_logging(mp_context, held):
                held(HANDLER.lock)
                joins(mp_context, logs)

            @pytest.mark.skipif(
                hasattr(resource_tracker.ResourceTracker, "_after_fork_in_child"),
                reason="this Python makes the lock anew in a child",
            )
            def test_tracker(mp_context, held):
                held(resource_tracker._resource_tracker._lock)
                joins(mp_context, resource_tracker.ensure_running)
        """,
    )
    result = run_blocked("--start-method=fork")
    counts = result.parseoutcomes()
    skipped = counts.get("skipped", 0)
    result.assert_outcomes(failed=3 - skipped, skipped=skipped, warnings=counts.get("warnings", 0))
    assert len(blocked(result)) == 3 - skipped
    known = {hint.file: hint.text for hint in stack_hints.HINTS}
    assert (
        hints(result)
        == [
            known["<frozen importlib._bootstrap>"],
            known["logging/__init__.py"],
            known["multiprocessing/resource_tracker.py"],
        ][: 3 - skipped]
    )


@pytest.mark.needs("forkserver")
def test_hint_a_forkserver_that_does_not_answer(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        endless="""
            import sys
            import time

            if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
                time.sleep(60)
        """,
        test_it="""
            import pytest

            @pytest.mark.timeout(2, method="signal")
            def test_it(mp_context):
                mp_context.Process(target=print).start()
        """,
    )
    preload = ("-o", "start_method_preload=endless")
    result = run_blocked("--start-method=forkserver", *preload, plugins=("pytest_timeout",))
    result.assert_outcomes(failed=1)
    assert blocked(result) == []
    [hint] = hints(result)
    assert hint.startswith("the forkserver doesn't answer: ")


def test_a_living_child_that_may_go_on_fails_no_test_of_ours_and_has_no_hint(
    pytester: pytest.Pytester, run_blocked: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        helper="""
            import time

            def works():
                while True:
                    time.sleep(0.01)
        """,
        test_it="""
            import helper
            import pytest

            @pytest.mark.timeout(2, method="signal")
            def test_it(mp_context):
                process = mp_context.Process(target=helper.works)
                process.start()
                process.join()

            def test_idle_workers(mp_context):
                with mp_context.Pool(2) as pool:
                    pool.map(abs, range(4))
                    raise AssertionError
        """,
    )
    result = run_blocked(plugins=("pytest_timeout",))
    result.assert_outcomes(failed=2 * len(METHODS))
    assert blocked(result) == hints(result) == []
    assert sum(line == "    helper.py:5 in works" for line in result.outlines) == len(METHODS)
