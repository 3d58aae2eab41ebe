"""A test that claims a start method has used it, or is told so."""

from __future__ import annotations

import multiprocessing
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = multiprocessing.get_all_start_methods()
WARNING = "pytest_startmethod.StartMethodMismatchWarning"

pytestmark = pytest.mark.skipif(len(METHODS) < 2, reason="there is no other start method here")

HELPER = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

PINNED = multiprocessing.get_context("spawn")

def other(context):
    method = "fork" if context.get_start_method() == "spawn" else "spawn"
    return multiprocessing.get_context(method)

def ignores(context):
    own = other(context)
    for _ in range(2):
        process = own.Process(target=abs, args=[1])
        process.start()  # here
        process.join()

def pool(context):
    with other(context).Pool(2) as pool:
        pool.map(abs, [1, 2])

def executor(context):
    with ProcessPoolExecutor(1, mp_context=other(context)) as executor:
        executor.submit(abs, 1).result()

def manager(context):
    with other(context).Manager() as manager:
        manager.list()
"""


def test_code_that_ignores_its_context_is_named_with_its_line(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper
            import pytest

            @pytest.mark.parametrize("start", ["ignores", "pool", "executor", "manager"])
            def test_it(mp_context, start):
                getattr(helper, start)(mp_context)
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=4 * len(METHODS), warnings=4 * len(METHODS))
    text = result.stdout.str()
    lines = HELPER.splitlines()
    place = next(n for n, line in enumerate(lines) if line.endswith("# here"))
    for method in METHODS:
        wrong = "fork" if method == "spawn" else "spawn"
        runs_under = f"StartMethodMismatchWarning: the test runs under {method}, but"
        assert f"{runs_under} 2 processes were started by {wrong}, at helper.py:{place}:" in text
        assert re.search(rf"{runs_under} 2 .* by {wrong}, at helper\.py:{place + 4}:", text)
        assert re.search(rf"{runs_under} 1 process was started by {wrong}, at helper\.py:", text)
    assert text.count("test_it.py: 4 warnings") + text.count("test_it.py::test_it[") >= 4


def test_what_was_pinned_at_import_keeps_its_method(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import helper

            def test_it(default_start_method):
                process = helper.PINNED.Process(target=abs, args=[1])
                process.start()
                process.join()
        """,
    )
    result = run_watched()
    result.assert_outcomes(passed=len(METHODS), warnings=len(METHODS) - 1)
    assert "runs under spawn, but" not in result.stdout.str()


def test_an_untouched_suite_may_start_processes_by_another_method(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it="""
            import multiprocessing

            import helper

            def test_it():
                helper.ignores(multiprocessing)
        """,
    )
    for method in METHODS:
        result = run_watched(f"--start-method={method}")
        result.assert_outcomes(passed=1, warnings=0)


def test_severity_is_the_users(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        helper=HELPER,
        test_it=f"""
            import helper
            import pytest

            def test_it(mp_context):
                helper.ignores(mp_context)

            @pytest.mark.filterwarnings("ignore::{WARNING}")
            def test_allowed(mp_context):
                helper.ignores(mp_context)
        """,
    )
    result = run_watched("-W", f"error::{WARNING}")
    result.assert_outcomes(failed=len(METHODS), passed=len(METHODS))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().count("Traceback") == 0
    result = run_watched("-o", f"filterwarnings=error::{WARNING}", "-k", "not allowed")
    result.assert_outcomes(failed=len(METHODS), deselected=len(METHODS))


def test_a_plugins_context_is_compared_with_what_it_starts(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        class Liar(type(multiprocessing.get_context("spawn"))):
            Process = multiprocessing.get_context("spawn").Process

            class Other(multiprocessing.get_context("fork").Process):
                pass

            def Pool(self, processes):
                return multiprocessing.get_context("fork").Pool(processes)

        def pytest_startmethod_contexts():
            return {"true": multiprocessing.get_context("spawn"), "liar": Liar()}
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.start_methods("true", "liar")
        def test_it(mp_context):
            with mp_context.Pool(1) as pool:
                pool.apply(abs, [1])
    """)
    result = run_watched()
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*::test_it[[]liar[]]"])


def test_a_context_may_start_its_processes_by_another_method_of_its_own(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        main_context="""
            import multiprocessing

            class MainProcess(multiprocessing.get_context("spawn").Process):
                _start_method = "spawn_main"

            class MainContext(type(multiprocessing.get_context("spawn"))):
                Process = MainProcess

            # As loky does: a child looks there for the method of its process.
            multiprocessing.context._concrete_contexts["spawn_main"] = MainContext()
        """,
        conftest="""
            import main_context

            def pytest_startmethod_contexts():
                return {"spawn_main": main_context.MainContext()}
        """,
    )
    pytester.makepyfile("""
        import multiprocessing
        import pytest

        @pytest.mark.start_methods("spawn_main")
        def test_it(mp_context):
            process = mp_context.Process(target=print)
            process.start()
            assert process._popen.method == "spawn"
            process.join()

        @pytest.mark.start_methods("spawn_main")
        def test_other(mp_context):
            process = multiprocessing.get_context("spawn").Process(target=print)
            process.start()
            process.join()
    """)
    result = run_watched()
    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(["*::test_other[[]spawn_main[]]"])
