"""A misspelled option or marker gets a line that names the right one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

HINT = "did you mean @pytest.mark.start_methods?"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--start-methods=fork", "--start-method=fork"),
        ("--start_method=spawn", "--start-method=spawn"),
        ("--startmethod", "--start-method"),
        ("--start-methods-report=out.md", "--start-method-report=out.md"),
    ],
)
def test_an_option_that_resembles_one_of_the_plugins_is_a_usage_error_with_the_right_one(
    pytester: pytest.Pytester,
    assert_usage_error: Callable[[pytest.RunResult, str], None],
    typed: str,
    meant: str,
) -> None:
    result = pytester.runpytest_subprocess(typed)
    assert_usage_error(result, f"unrecognized arguments: {typed}, did you mean {meant}?")


def test_other_unknown_options_are_left_to_pytest(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--start-server")
    result.stderr.fnmatch_lines(["*error: unrecognized arguments: --start-server"])
    assert "did you mean" not in result.stderr.str()


def test_a_suite_may_have_an_option_and_a_marker_of_such_names(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("""
        def pytest_addoption(parser):
            parser.addoption("--start-methods")

        def pytest_configure(config):
            config.addinivalue_line("markers", "start_method(name): the suite's own")
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.start_method("fork")
        def test_it(request):
            assert request.config.getoption("--start-methods") == "fork"
    """)
    result = pytester.runpytest_subprocess(
        "--start-methods=fork", "--strict-markers", "-W", "error"
    )
    result.assert_outcomes(passed=1)
    assert "did you mean" not in result.stdout.str()


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["alone", "xdist"])
@pytest.mark.parametrize("strict", [(), ("--strict-markers",), ("-W", "error")], ids=str)
def test_the_singular_of_the_marker_is_an_unknown_one_with_a_hint(
    pytester: pytest.Pytester, workers: tuple[str, ...], strict: tuple[str, ...]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    pytester.makepyfile("""
        import pytest

        @pytest.mark.start_method("spawn")
        def test_it():
            pass
    """)
    result = pytester.runpytest_subprocess(*strict, *workers)
    if strict:
        result.assert_outcomes(errors=1)
        assert result.outlines.count(HINT) == 1
    else:
        result.assert_outcomes(passed=1, warnings=1)
        result.stdout.fnmatch_lines([f"*Unknown pytest.mark.start_method - {HINT}"])
    assert result.stdout.str().count(HINT) == 1
