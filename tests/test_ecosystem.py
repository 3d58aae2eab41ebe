"""Other libraries' contexts work like the standard ones, and their pools take the plugin's."""

from __future__ import annotations

import multiprocessing
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()

HELPER = """
import os

import child

def double(number):
    return 2 * number

def crash():
    raise ValueError("on purpose")

def send_parent(connection):
    connection.send(os.getppid())

async def method():
    return child.method()
"""

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SHOWN = re.compile(r"<!-- \w+: (\w+) -->\n```python\n(.*?)```", re.DOTALL)
IN_README = dict(SHOWN.findall(README))

# These two are used as multiprocess is.
CONTEXTS = {
    "multiprocess": IN_README["multiprocess"],
    "billiard": IN_README["multiprocess"].replace("multiprocess ", "billiard ", 1),
    "torch": IN_README["multiprocess"].replace("multiprocess ", "torch.multiprocessing ", 1),
    "loky": IN_README["loky"],
}
RUNS = {"loky": 2}

# Each asks the child how it was started.
CONSUMERS = {
    "concurrent.futures": """
        from concurrent.futures import ProcessPoolExecutor

        def test_it(mp_context, start_method):
            with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                assert executor.submit(child.method).result() == start_method
    """,
    "asyncio": """
        import asyncio
        from concurrent.futures import ProcessPoolExecutor

        def test_it(mp_context, start_method):
            async def work():
                loop = asyncio.get_running_loop()
                with ProcessPoolExecutor(1, mp_context=mp_context) as executor:
                    return await loop.run_in_executor(executor, child.method)

            assert asyncio.run(work()) == start_method
    """,
    "pebble": """
        import pebble

        def test_it(mp_context, start_method):
            with pebble.ProcessPool(max_workers=1, context=mp_context) as pool:
                assert pool.schedule(child.method).result() == start_method
    """,
    "mpire": """
        import mpire

        def test_it(start_method):
            with mpire.WorkerPool(n_jobs=1, start_method=start_method) as pool:
                assert pool.apply(child.method) == start_method
    """,
    "joblib": """
        import joblib

        def test_it(default_start_method):
            with joblib.parallel_config("multiprocessing", n_jobs=2):
                answers = joblib.Parallel()(joblib.delayed(child.method)() for _ in range(2))
            assert answers == [default_start_method] * 2
    """,
    # Its loky starts by a method of its own till it is told another, and of fork it warns.
    "joblib.externals.loky": """
        import joblib
        import pytest
        from joblib.externals.loky import get_reusable_executor
        from joblib.externals.loky.backend import context

        @pytest.fixture
        def carry_over(start_method):
            context.set_start_method(start_method, force=True)
            yield
            context.set_start_method(None, force=True)
            get_reusable_executor(reuse=True).shutdown()  # it is kept, and made by this method

        @pytest.mark.filterwarnings("ignore:`fork` start method:UserWarning")
        @pytest.mark.usefixtures("carry_over")
        def test_it(start_method):
            answers = joblib.Parallel(n_jobs=2)(joblib.delayed(child.method)() for _ in range(2))
            assert answers == [start_method] * 2
    """,
    "aiomultiprocess": """
        import asyncio

        import aiomultiprocess
        import helper

        def test_it(start_method):
            async def work():
                return await aiomultiprocess.Worker(target=helper.method)

            assert asyncio.run(work()) == start_method
    """,
}


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("library", CONTEXTS)
def test_a_librarys_contexts_are_recorded_and_watched_as_the_standard_ones(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult], library: str
) -> None:
    pytest.importorskip(library)
    pytester.makeconftest(CONTEXTS[library])
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import time

            import helper

            def test_process(mp_context):
                receiver, sender = mp_context.Pipe()
                process = mp_context.Process(target=helper.send_parent, args=[sender])
                process.start()
                assert receiver.recv()
                process.join()
                assert process.exitcode == 0

            def test_pool(mp_context):
                with mp_context.Pool(1) as pool:
                    assert pool.map(helper.double, [1, 2]) == [2, 4]

            def test_crash(mp_context):
                process = mp_context.Process(target=helper.crash)
                process.start()
                process.join()
                assert process.exitcode == 1

            def test_leak(mp_context):
                mp_context.Process(target=time.sleep, args=[1000]).start()
        """,
    )
    result = run_watched()
    runs = len(METHODS) + RUNS.get(library, len(METHODS))
    result.assert_outcomes(passed=4 * runs, warnings=2 * runs)
    for warning in ("ChildProcessCrashWarning", "ChildProcessLeakWarning"):
        assert result.stdout.str().count(f": {warning}: ") == runs
    assert "used no process" not in result.stdout.str()


def test_lokys_executor_is_kept_for_tests_that_ask_for_nothing(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("joblib")
    pytester.makepyfile("""
        import os

        import joblib
        import pytest

        PIDS = set()

        @pytest.mark.parametrize("number", range(3))
        def test_it(number):
            PIDS.update(joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(2)))
            assert os.getpid() not in PIDS
            assert len(PIDS) <= 2
    """)
    for selected in (*METHODS, "all"):
        result = run_watched(f"--start-method={selected}", "-W", "error::UserWarning")
        # loky asks multiprocessing, so that the tests are run again under each start method.
        result.assert_outcomes(passed=9 if selected == "all" else 3)


def test_a_pebble_pool_that_is_kept_ends_with_python_and_nobody_is_warned(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("pebble")
    pytester.makepyfile("""
        import pebble
        import pytest

        POOL = pebble.ProcessPool(max_workers=1)

        @pytest.mark.parametrize("number", range(3))
        def test_it(number):
            assert POOL.schedule(abs, args=[-number]).result() == number
    """)
    for method in METHODS:
        result = run_watched(f"--start-method={method}")
        result.assert_outcomes(passed=3, warnings=0)
        assert "ChildProcessLeakWarning" not in result.stderr.str()


def test_what_a_copy_of_multiprocessing_started_is_ended_before_that_waits_for_it(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("multiprocess")
    # Whose exit hook is called first, as it is imported last.
    pytester.makeconftest("import multiprocessing.util\n" + CONTEXTS["multiprocess"])
    pytester.makepyfile("""
        import signal

        import multiprocess

        KEPT = multiprocess.get_context("fork").Process(target=signal.pause)

        def test_it():
            KEPT.start()
    """)
    result = run_watched("--start-method=fork")
    result.assert_outcomes(passed=1, warnings=1)
    assert "ChildProcessLeakWarning" in result.stdout.str()


def test_lokys_executor_is_kept_for_tests_under_a_start_method(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytest.importorskip("joblib")
    pytester.makepyfile("""
        import joblib
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_it(start_method, number):
            joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(number) for _ in range(2))
    """)
    # The test that starts the workers is told that they aren't started by its method.
    run_watched().assert_outcomes(passed=3 * len(METHODS), warnings=1)


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("library", CONSUMERS)
def test_a_librarys_pool_starts_its_processes_by_the_tests_start_method(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult], library: str
) -> None:
    pytest.importorskip(library)
    source = "import child\n" + textwrap.dedent(CONSUMERS[library])
    pytester.makepyfile(helper=HELPER, test_it=source)
    pytester.makeconftest(IN_README.get(library, ""))
    result = run_watched("-W", "error::UserWarning")
    result.assert_outcomes(passed=len(METHODS))
