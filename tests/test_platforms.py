"""Platforms that support other start methods, imitated by a plugin."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOWS = ["spawn"]
ILLUMOS = ["spawn", "fork"]
MACOS = ["spawn", "fork", "forkserver"]  # multiprocessing names the default first


@pytest.fixture
def on(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run pytest on a platform with these start methods: no other can be asked for there."""

    def run(platform: list[str], *args: str) -> pytest.RunResult:
        pytester.makepyfile(
            fakeplatform=f"""
                import multiprocessing
                from multiprocessing import context

                PLATFORM = {platform!r}
                multiprocessing.get_all_start_methods = lambda: PLATFORM

                # Private, the same from Python 3.4 to 3.15: what get_context() and
                # set_start_method() know, and what they fall back to. Each platform fills it
                # with what it has, so where it goes missing it can't be played.
                for name in {{*context._concrete_contexts}} - {{*PLATFORM}}:
                    del context._concrete_contexts[name]
                context._default_context._default_context = context._concrete_contexts[PLATFORM[0]]
            """
        )
        return pytester.runpytest_subprocess("-p", "fakeplatform", "-vrs", *args)

    return run


@pytest.fixture
def suite(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import pytest

            def test_context(mp_context, start_method):
                assert mp_context is multiprocessing.get_context(start_method)

            @pytest.mark.start_methods("forkserver", "fork", reason="shares a global")
            def test_marked(default_start_method):
                assert multiprocessing.get_start_method() == default_start_method

            @pytest.mark.start_methods
            def test_all(start_method):
                pass
        """
    )


def runs(result: pytest.RunResult) -> list[str]:
    """Return tests and outcomes: ``["test_x[fork] PASSED", ...]``."""
    lines = (line.partition("::")[2] for line in result.outlines if line.startswith("test_it.py::"))
    return [" ".join(line.split()[:2]) for line in lines]


def not_supported(name: str, supported: str) -> str:
    return f"start method {name!r} is not supported on {sys.platform} (supported: {supported})"


def test_a_played_platform_refuses_what_it_lacks_as_the_real_one_does(
    pytester: pytest.Pytester, on: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import pytest

            @pytest.mark.parametrize("name", ["fork", "forkserver"])
            def test_it(name):
                assert multiprocessing.get_all_start_methods() == ["spawn"]
                with pytest.raises(ValueError, match=f"cannot find context for '{name}'"):
                    multiprocessing.get_context(name)
                with pytest.raises(ValueError, match=f"cannot find context for '{name}'"):
                    multiprocessing.set_start_method(name, force=True)
                assert multiprocessing.get_context().get_start_method() == "spawn"
        """
    )
    on(WINDOWS, "-p", "no:startmethod").assert_outcomes(passed=2)


@pytest.mark.usefixtures("suite")
def test_windows_has_spawn_and_skips_what_a_marker_names_besides(
    on: Callable[..., pytest.RunResult],
) -> None:
    result = on(WINDOWS)
    assert "start methods: spawn (platform default: spawn)" in result.outlines
    assert runs(result) == [
        "test_context[spawn] PASSED",
        "test_marked[fork] SKIPPED",
        "test_marked[forkserver] SKIPPED",
        "test_all[spawn] PASSED",
    ]
    for name in ("fork", "forkserver"):
        reason = f"{not_supported(name, 'spawn')}: shares a global"
        assert [line for line in result.outlines if line.endswith(f": {reason}")]


@pytest.mark.needs("fork")  # a platform can be played where there is what it has
@pytest.mark.usefixtures("suite")
def test_illumos_has_no_forkserver(on: Callable[..., pytest.RunResult]) -> None:
    result = on(ILLUMOS)
    assert "start methods: fork, spawn (platform default: spawn)" in result.outlines
    assert runs(result) == [
        "test_context[fork] PASSED",
        "test_context[spawn] PASSED",
        "test_marked[fork] PASSED",
        "test_marked[forkserver] SKIPPED",
        "test_all[fork] PASSED",
        "test_all[spawn] PASSED",
    ]


@pytest.mark.needs("fork", "forkserver")
@pytest.mark.usefixtures("suite")
def test_macos_has_all_three_in_the_order_of_every_platform(
    on: Callable[..., pytest.RunResult],
) -> None:
    result = on(MACOS)
    assert "start methods: fork, spawn, forkserver (platform default: spawn)" in result.outlines
    assert runs(result) == [
        "test_context[fork] PASSED",
        "test_context[spawn] PASSED",
        "test_context[forkserver] PASSED",
        "test_marked[fork] PASSED",
        "test_marked[forkserver] PASSED",
        "test_all[fork] PASSED",
        "test_all[spawn] PASSED",
        "test_all[forkserver] PASSED",
    ]


@pytest.mark.usefixtures("suite")
@pytest.mark.parametrize(
    "platform",
    [
        WINDOWS,
        pytest.param(ILLUMOS, marks=pytest.mark.needs("fork")),
        pytest.param(MACOS, marks=pytest.mark.needs("fork", "forkserver")),
    ],
)
def test_default_is_the_platforms_and_so_is_the_process_wide_one(
    pytester: pytest.Pytester, on: Callable[..., pytest.RunResult], platform: list[str]
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            CONTEXT = multiprocessing.get_context()

            def test_context(start_method):
                assert start_method == "spawn"

            def test_default():
                assert multiprocessing.get_start_method() == "spawn"
                assert CONTEXT.get_start_method() == "spawn"
        """
    )
    result = on(platform, "--start-method=default")
    assert runs(result) == ["test_context[spawn] PASSED", "test_default PASSED"]
    assert "start methods: spawn (platform default: spawn)" in result.outlines


@pytest.mark.needs("fork")
@pytest.mark.usefixtures("suite")
def test_all_is_what_the_platform_supports(on: Callable[..., pytest.RunResult]) -> None:
    result = on(ILLUMOS, "--start-method=all", "-k", "test_context")
    assert runs(result) == ["test_context[fork] PASSED", "test_context[spawn] PASSED"]


@pytest.mark.parametrize("unsupported", ["fork", "fork,forkserver"])
def test_nothing_but_unsupported_methods_selected_is_a_usage_error(
    pytester: pytest.Pytester,
    on: Callable[..., pytest.RunResult],
    assert_usage_error: Callable[[pytest.RunResult, str], None],
    unsupported: str,
) -> None:
    what = {
        "fork": "start method 'fork' is",
        "fork,forkserver": "start methods 'fork', 'forkserver' are",
    }[unsupported]
    message = f"{what} not supported on {sys.platform} (supported: spawn)"
    assert_usage_error(on(WINDOWS, f"--start-method={unsupported}"), f"--start-method: {message}")
    pytester.makeini(f"[pytest]\nstart_methods = {unsupported}")
    assert_usage_error(on(WINDOWS), f"ini-option start_methods: {message}")


@pytest.mark.parametrize("args", [[], ["--start-method=fork,spawn"]])
def test_beside_supported_methods_an_unsupported_one_is_skipped_so_one_ini_serves_all(
    pytester: pytest.Pytester, on: Callable[..., pytest.RunResult], args: list[str]
) -> None:
    pytester.makeini("[pytest]\nstart_methods = " + ("forkserver" if args else "fork, spawn"))
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import pytest

            AT_IMPORT = multiprocessing.get_context().get_start_method()

            def test_context(mp_context):
                pass

            @pytest.mark.start_methods("forkserver")
            def test_unselected():
                pass

            def test_other():
                assert AT_IMPORT == multiprocessing.get_start_method() == "spawn"
        """
    )
    result = on(WINDOWS, *args)
    result.assert_outcomes(passed=2, skipped=1, deselected=1)
    assert runs(result) == [
        "test_context[fork] SKIPPED",
        "test_context[spawn] PASSED",
        "test_other PASSED",
    ]
    result.stdout.fnmatch_lines(
        [
            "start methods: spawn (platform default: spawn; not supported: fork)",
            f"SKIPPED * {not_supported('fork', 'spawn')}".replace("[", "[[]"),
        ]
    )


def test_an_unsupported_name_is_known_and_a_misspelt_one_is_not(
    pytester: pytest.Pytester, on: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import pytest

            @pytest.mark.start_methods("fork")
            def test_known():
                raise AssertionError
        """,
        test_misspelt="""
            import pytest

            @pytest.mark.start_methods("forkserv")
            def test_unknown():
                raise AssertionError
        """,
    )
    result = on(WINDOWS)
    result.assert_outcomes(skipped=1, errors=1)
    assert (
        "test_misspelt.py::test_unknown: @pytest.mark.start_methods: unknown start method "
        "'forkserv', did you mean 'forkserver'? (known: fork, spawn, forkserver)"
    ) in result.outlines
