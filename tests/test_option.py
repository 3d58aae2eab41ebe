"""The option --start-method and the ini-options start_methods and start_method_scope."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PLATFORM_DEFAULT = multiprocessing.get_all_start_methods()[0]
SUPPORTED = [
    name
    for name in ("fork", "spawn", "forkserver")
    if name in multiprocessing.get_all_start_methods()
]
KNOWN = "(known: fork, spawn, forkserver, all, default)"

UNUSABLE = [
    ("frok", f"unknown start method 'frok', did you mean 'fork'? {KNOWN}"),
    ("fork,spwan", f"unknown start method 'spwan', did you mean 'spawn'? {KNOWN}"),
    ("xyz", f"unknown start method 'xyz' {KNOWN}"),
    ("", f"empty name of a start method {KNOWN}"),
    ("spawn,,fork", f"empty name of a start method {KNOWN}"),
]


@pytest.fixture
def methods(pytester: pytest.Pytester, collected: Callable[..., list[str]]) -> Callable[..., str]:
    """Return the methods that a test runs under: ``"fork spawn"``."""
    pytester.makepyfile("def test_x(start_method): pass")

    def collect(*args: str) -> str:
        names = collected(*args)
        return " ".join(name.removeprefix("test_x[").removesuffix("]") for name in names)

    return collect


def test_the_option_takes_names_and_lists_and_words_once_or_repeatedly(
    methods: Callable[..., str],
) -> None:
    assert methods() == " ".join(SUPPORTED)
    assert methods("--start-method=spawn") == "spawn"
    assert methods("--start-method", "forkserver, spawn") == "spawn forkserver"
    assert methods("--start-method=spawn", "--start-method=fork,spawn") == "fork spawn"
    assert methods("--start-method=all") == " ".join(SUPPORTED)
    assert methods("--start-method=default") == PLATFORM_DEFAULT


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("pytest.ini", "[pytest]\nstart_methods = spawn", "spawn"),
        ("pytest.ini", "[pytest]\nstart_methods = forkserver,spawn", "spawn forkserver"),
        ("pytest.ini", "[pytest]\nstart_methods =\n  spawn\n  fork", "fork spawn"),
        ("pytest.ini", "[pytest]\nstart_methods = all", " ".join(SUPPORTED)),
        ("tox.ini", "[pytest]\nstart_methods = default", PLATFORM_DEFAULT),
        (
            "pyproject.toml",
            "[tool.pytest.ini_options]\nstart_methods = ['spawn', 'fork']",
            "fork spawn",
        ),
        ("pyproject.toml", "[tool.pytest.ini_options]\nstart_methods = 'spawn'", "spawn"),
    ],
)
def test_the_ini_option_means_the_same_and_the_option_overrides_it(
    pytester: pytest.Pytester, methods: Callable[..., str], file: str, text: str, expected: str
) -> None:
    (pytester.path / file).write_text(text)
    assert methods() == expected
    assert methods("--start-method=forkserver,spawn,fork") == "fork spawn forkserver"


def test_addopts_and_the_environment_select_as_the_command_line_does(
    pytester: pytest.Pytester, methods: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\naddopts = --start-method=spawn\nstart_methods = forkserver")
    assert methods() == "spawn"
    monkeypatch.setenv("PYTEST_ADDOPTS", "--start-method=fork")
    assert methods() == "fork spawn"


def test_the_header_says_what_is_selected(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess()
    assert (
        f"start methods: {', '.join(SUPPORTED)} (platform default: {PLATFORM_DEFAULT})"
        in result.outlines
    )
    result = pytester.runpytest_inprocess("--start-method=spawn")
    assert f"start methods: spawn (platform default: {PLATFORM_DEFAULT})" in result.outlines


@pytest.mark.parametrize(("value", "message"), UNUSABLE)
def test_an_unusable_word_is_a_usage_error_that_says_where_it_stands(
    pytester: pytest.Pytester,
    assert_usage_error: Callable[[pytest.RunResult, str], None],
    value: str,
    message: str,
) -> None:
    pytester.makepyfile("def test_never_run(): raise AssertionError")
    assert_usage_error(
        pytester.runpytest_inprocess(f"--start-method={value}"), f"--start-method: {message}"
    )
    pytester.makeini(f"[pytest]\nstart_methods = {value}")
    assert_usage_error(pytester.runpytest_inprocess(), f"ini-option start_methods: {message}")
    # What the command line overrides is not looked at.
    assert pytester.runpytest_inprocess("--start-method=spawn").ret == pytest.ExitCode.TESTS_FAILED


def test_a_word_that_is_no_scope_is_a_usage_error(
    pytester: pytest.Pytester, assert_usage_error: Callable[[pytest.RunResult, str], None]
) -> None:
    pytester.makeini("[pytest]\nstart_method_scope = modul")
    pytester.makepyfile("def test_never_run(): raise AssertionError")
    assert_usage_error(
        pytester.runpytest_inprocess(),
        "ini-option start_method_scope: 'modul' is no scope "
        "(known: function, class, module, session)",
    )
