"""Fixtures, marker and option work in the workers of pytest-xdist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("xdist", reason="this run has no pytest-xdist")


@pytest.mark.usefixtures("child_module")
def test_the_selected_method_is_the_process_wide_default_of_every_worker(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        AT_IMPORT = multiprocessing.get_context().get_start_method()

        def pytest_sessionstart():
            assert AT_IMPORT == "spawn"
            if "fork" in multiprocessing.get_all_start_methods():
                multiprocessing.set_start_method("fork", force=True)
    """)
    pytester.makepyfile("""
        import os
        import unittest

        import child
        import pytest

        @pytest.mark.parametrize("ask", [child.by_process, child.by_pool, child.by_executor])
        def test_function(ask):
            assert os.environ["PYTEST_XDIST_WORKER"] in ("gw0", "gw1")
            assert ask() == "spawn"

        class TestCase(unittest.TestCase):
            def test_unittest(self):
                self.assertEqual(child.by_process(), "spawn")
    """)
    result = pytester.runpytest_subprocess("-n", "2", "--start-method=spawn")
    result.assert_outcomes(passed=4)


@pytest.mark.needs("fork", "forkserver")
@pytest.mark.usefixtures("child_module")
def test_fixtures_marker_and_hooks_serve_workers_too(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nstart_method_scope = module\nstart_methods = spawn, forkserver, x")
    pytester.makeconftest("""
        import multiprocessing

        multiprocessing.set_start_method("fork")

        def pytest_startmethod_contexts(config):
            return {"x": multiprocessing.get_context("spawn")}

        def pytest_startmethod_unavailable(config, start_method):
            return "no x today" if start_method == "x" else None
    """)
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        def test_context(mp_context, start_method):
            assert child.by_process(mp_context) == start_method

        def test_default(default_start_method):
            assert child.by_process() == default_start_method

        @pytest.mark.start_methods("fork", "forkserver")
        def test_marked():
            assert child.by_process() == "forkserver"

        def test_other():
            assert child.by_process() == multiprocessing.get_start_method()
    """)
    result = pytester.runpytest_subprocess("-n", "2", "-rs")
    result.assert_outcomes(passed=7, skipped=1)  # xdist doesn't count what workers deselect
    result.stdout.fnmatch_lines(
        [
            "start methods: spawn, forkserver (platform default: *; x unavailable: no x today)",
            "SKIPPED *: no x today",
        ]
    )


def test_without_autoload_workers_load_it_by_its_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("""
        import multiprocessing

        AT_IMPORT = multiprocessing.get_context().get_start_method()

        def test_context(mp_context):
            assert mp_context is multiprocessing.get_context("spawn")

        def test_other():
            assert AT_IMPORT == multiprocessing.get_start_method() == "spawn"
    """)
    args = ["-p", "xdist", "-p", "startmethod", "-n", "2", "--start-method=spawn"]
    pytester.runpytest_subprocess(*args).assert_outcomes(passed=2)


def test_a_marker_error_in_one_file_leaves_other_files_running(
    pytester: pytest.Pytester, assert_one_line: Callable[..., None]
) -> None:
    pytester.makepyfile(
        test_bad="""
            import pytest

            @pytest.mark.start_methods("frok")
            def test_x():
                pass
        """,
        test_good="def test_runs(): pass",
    )
    result = pytester.runpytest_subprocess("-n", "2")
    result.assert_outcomes(passed=1, errors=2)  # xdist shows each worker's
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert_one_line(
        result,
        "test_bad.py::test_x: @pytest.mark.start_methods: unknown start method 'frok', "
        "did you mean 'fork'? (known: fork, spawn, forkserver)",
        times=2,
    )


def test_a_usage_error_is_one_and_starts_no_worker(
    pytester: pytest.Pytester, assert_usage_error: Callable[[pytest.RunResult, str], None]
) -> None:
    pytester.makeconftest("""
        def pytest_configure_node(node):
            raise AssertionError("a worker is started")
    """)
    assert_usage_error(
        pytester.runpytest_subprocess("-n", "2", "--start-method=frok"),
        "--start-method: unknown start method 'frok', did you mean 'fork'? "
        "(known: fork, spawn, forkserver, all, default)",
    )


def test_a_suite_that_uses_none_of_it_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        @pytest.mark.parametrize("start_method", ["a", "b"])
        def test_own(start_method):
            assert multiprocessing.get_start_method(allow_none=True) is None
    """)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=2)
