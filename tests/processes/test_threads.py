"""Processes are made in several threads at once, as the pools' own threads do."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_threads_make_processes_while_a_fixture_is_set_up(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import sys
        import threading

        import pytest

        @pytest.fixture(autouse=True, scope="session")
        def threads_in_quick_turns():
            before = sys.getswitchinterval()
            sys.setswitchinterval(1e-6)
            yield
            sys.setswitchinterval(before)

        @pytest.fixture(params=range(300))
        def processes():
            barrier = threading.Barrier(8)

            def make():
                barrier.wait()
                multiprocessing.Process()

            threads = [threading.Thread(target=make) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        def test_it(processes):
            pass
    """)
    run_watched("--start-method=spawn").assert_outcomes(passed=300)


def test_a_process_is_started_while_another_thread_starts_one(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import threading

        class Argument:
            started = None

            def __reduce__(self):  # called in start(), under spawn and forkserver
                self.started = multiprocessing.Process(target=print)
                thread = threading.Thread(target=self.started.start)
                thread.start()
                thread.join()
                return int, ()

        def test_it():
            argument = Argument()
            process = multiprocessing.Process(target=print, args=[argument])
            process.start()
            for process in (process, argument.started):
                process.join()
                assert process.exitcode == 0
    """)
    run_watched("--start-method=spawn").assert_outcomes(passed=1)
    if "forkserver" in multiprocessing.get_all_start_methods():
        run_watched("--start-method=forkserver").assert_outcomes(passed=1)
