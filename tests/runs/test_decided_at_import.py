"""What a test file decides at import by the default is decided anew under each start method."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is one start method")

ALL = "--start-method=fork,spawn"

SKIPS = """
    import multiprocessing

    import pytest

    if multiprocessing.get_start_method() == "{method}":
        pytest.skip("not here", allow_module_level=True)

    def test_one():
        pass

    def test_two():
        pass
"""

DECIDES = """
    import multiprocessing

    import pytest

    METHOD = multiprocessing.get_start_method()

    def test_constant():
        assert METHOD == "fork"

    @pytest.mark.parametrize("method", [METHOD])
    def test_parameter(method):
        pass

    if METHOD == "spawn":
        def test_only_under_spawn():
            pass

    def test_asks(mp_context):
        pass
"""


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_a_file_that_skips_itself_runs_where_it_does_not(
    pytester: pytest.Pytester,
    run_watched: Run,
    runs: Callable[[pytest.RunResult], list[str]],
    arguments: list[str],
) -> None:
    if arguments:
        pytest.importorskip("xdist", reason="it runs under xdist")
    pytester.makepyfile(
        test_first=SKIPS.format(method="fork"),
        test_last=SKIPS.format(method="spawn"),
        test_other="def test_it(): pass",
    )
    plugins = ("xdist",) if arguments else ()
    result = run_watched(ALL, "-v", *arguments, plugins=plugins)
    result.assert_outcomes(passed=5, skipped=3)
    shown = sorted(line for line in runs(result) if "spawn" in line)
    assert shown == [
        "test_one[spawn] PASSED",
        "test_one[spawn] SKIPPED",
        "test_two[spawn] PASSED",
        "test_two[spawn] SKIPPED",
    ]


def test_what_a_file_decides_is_as_in_a_run_under_one_start_method(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(test_it=DECIDES)
    run_watched("--start-method=spawn").assert_outcomes(passed=3, failed=1)
    result = run_watched(ALL, "-v")
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*::test_parameter[[]spawn-spawn[]] PASSED*",
            "*::test_only_under_spawn[[]spawn[]] PASSED*",
            "*::test_constant*passed: fork    failed: spawn",
        ]
    )


def test_a_run_of_few_tests_stays_one_of_few_tests(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(test_it=DECIDES)
    run_watched(ALL, "test_it.py::test_constant").assert_outcomes(passed=1, failed=1)
    run_watched(ALL, "-k", "constant").assert_outcomes(passed=1, failed=1, deselected=3)
    run_watched(ALL, "--lf").assert_outcomes(passed=1, failed=1)


def test_a_file_that_asks_in_a_test_alone_decides_nothing(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        def test_asks():
            assert multiprocessing.get_start_method()

        def test_nothing():
            pass
    """)
    run_watched(ALL).assert_outcomes(passed=3)


def test_a_file_that_fails_to_skip_is_an_error_of_that_start_method(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        if multiprocessing.get_start_method() == "fork":
            pytest.skip("not here", allow_module_level=True)
        raise RuntimeError("not there either")
    """)
    result = run_watched(ALL)
    result.assert_outcomes(skipped=1, errors=1)
    assert "not there either" in result.stdout.str()


def test_a_file_that_no_session_can_run_is_named(
    pytester: pytest.Pytester, run_watched: Run
) -> None:
    pytester.makepyfile(test_it=SKIPS.format(method="fork"))
    result = run_watched(ALL, "--pdb", "-v")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["not run under spawn: --pdb needs the terminal*", "*test_it.py"])
