"""What a suite nobody touched keeps serves its exit hooks, and ends as Python exits."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Gone = Callable[[int], None]

pytestmark = [
    pytest.mark.posix("os.kill(pid, 0), by which they ask who lives, ends a process there"),
    pytest.mark.usefixtures("helper"),
]

METHODS = multiprocessing.get_all_start_methods()
WARNING = "ChildProcessLeakWarning: still alive at the end of the session"

HELPER = """
import os
import signal
import time
from pathlib import Path

def note(pid):
    with Path("pids.txt").open("a") as file:
        print(pid, file=file)
    return pid

def waits(event):
    note(os.getpid())
    event.wait()

def pauses(ready=None):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(os.getpid())
    if ready is not None:
        ready.set()
    while True:
        signal.pause()

def naps(number):
    import notes

    time.sleep(0.1)
    notes.note(number)
"""


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_exit_hooks_find_what_the_suite_keeps_as_in_plain_python(
    pytester: pytest.Pytester,
    run_watched: Run,
    assert_gone: Gone,
    notes: Callable[[], list[str]],
    arguments: list[str],
) -> None:
    if arguments:
        pytest.importorskip("xdist", reason="it runs under xdist")
    pytester.makepyfile(
        service="""
            import atexit
            import multiprocessing
            import os
            from concurrent.futures import ProcessPoolExecutor

            import helper
            import notes

            class Service:
                def __init__(self):
                    self.event = multiprocessing.Event()
                    self.processes = [
                        multiprocessing.Process(
                            target=helper.waits, args=[self.event], daemon=daemon
                        )
                        for daemon in (True, False)
                    ]
                    for process in self.processes:
                        process.start()
                    self.pool = multiprocessing.Pool(1)
                    self.manager = multiprocessing.Manager()
                    self.numbers = self.manager.list()
                    self.executor = ProcessPoolExecutor(1)
                    self.pids = self.ask()
                    self.pids[0] = helper.note(self.pids[0])
                    helper.note(self.executor.submit(os.getpid).result())
                    atexit.register(self.stop)

                def ask(self):
                    self.numbers.append(1)
                    alive = [process.is_alive() for process in self.processes]
                    return [self.pool.apply(os.getpid), *alive]

                def stop(self):
                    assert self.ask() == self.pids, "at exit"
                    self.event.set()
                    for process in self.processes:
                        process.join()
                        assert process.exitcode == 0, "at exit"
                    notes.note(f"{len(self.numbers)} at exit")
        """,
        conftest="""
            import sys

            def pytest_unconfigure():
                service = sys.modules["test_it"].SERVICE if "test_it" in sys.modules else []
                for one in service:
                    assert one.ask() == one.pids, "unconfigured"
                    assert one.executor.submit(abs, -1).result() == 1, "unconfigured"
        """,
        test_it="""
            import pytest

            SERVICE = []

            def test_starts():
                from service import Service

                SERVICE.append(Service())
        """,
    )
    methods = METHODS[:1] if arguments else METHODS
    for method in methods:
        result = run_watched(
            f"--start-method={method}", *arguments, plugins=("xdist",) if arguments else ()
        )
        result.assert_outcomes(passed=1, warnings=1)
        [warning] = [line for line in result.outlines if WARNING in line]
        assert warning.count("(pid ") == 1
        assert "unconfigured" not in result.stdout.str() + result.stderr.str()
    assert notes() == ["3 at exit"] * len(methods)
    assert_gone(4 * len(methods))


KEPT = {
    "process": """
        KEPT.append(multiprocessing.Process(target=helper.pauses, args=[ready]))
        KEPT[0].start()
        ready.wait()
    """,
    "daemon": """
        KEPT.append(multiprocessing.Process(target=helper.pauses, args=[ready], daemon=True))
        KEPT[0].start()
        ready.wait()
    """,
    "process that a thread waits for": """
        KEPT.append(multiprocessing.Process(target=helper.pauses, args=[ready]))
        KEPT[0].start()
        ready.wait()
        threading.Thread(target=KEPT[0].join).start()
    """,
    "executor": """
        KEPT.append(ProcessPoolExecutor(1))
        KEPT[0].submit(helper.pauses)
        while not Path("pids.txt").exists():
            time.sleep(0.01)
    """,
    "pool whose worker was killed with its lock": """
        KEPT.append(multiprocessing.Pool(1))
        pid = KEPT[0].apply(os.getpid)
        helper.note(pid)
        os.kill(pid, signal.SIGKILL)
    """,
}


@pytest.mark.parametrize("kept", KEPT)
def test_python_exits_whatever_the_suite_keeps(
    pytester: pytest.Pytester, run_impatient: Run, assert_gone: Gone, kept: str
) -> None:
    head = """
        import multiprocessing
        import os
        import signal
        import threading
        import time
        from concurrent.futures import ProcessPoolExecutor
        from pathlib import Path

        import helper

        KEPT = []

        def test_it():
            ready = multiprocessing.Event()
    """
    pytester.makepyfile(test_it=head + KEPT[kept].replace("\n", "\n    "))
    result = run_impatient("--start-method=fork")
    blocks = not kept.startswith(("daemon", "pool"))
    result.assert_outcomes(passed=1, warnings=int(blocks))
    assert result.stdout.str().count(WARNING) == blocks
    assert "ChildProcessLeakWarning" not in result.stderr.str()
    assert_gone(1)


def test_a_process_that_was_made_at_import_is_watched_once_a_test_starts_it(
    pytester: pytest.Pytester, run_impatient: Run
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import helper

        AT_IMPORT = multiprocessing.Process(target=helper.pauses)

        def test_it():
            AT_IMPORT.start()
    """)
    result = run_impatient("--start-method=all")
    result.assert_outcomes(passed=len(METHODS), warnings=len(METHODS))
    assert result.stdout.str().count(WARNING) == len(METHODS)


def test_tasks_that_wait_at_the_end_of_the_session_are_run_as_in_plain_python(
    pytester: pytest.Pytester, run_watched: Run, notes: Callable[[], list[str]]
) -> None:
    pytester.makepyfile("""
        from concurrent.futures import ProcessPoolExecutor

        import helper

        EXECUTOR = ProcessPoolExecutor(1)

        def test_it():
            for number in range(4):
                EXECUTOR.submit(helper.naps, number)
    """)
    result = run_watched("--start-method=spawn")
    result.assert_outcomes(passed=1, warnings=0)
    assert notes() == ["0", "1", "2", "3"]
