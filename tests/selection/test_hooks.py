"""The hooks pytest_startmethod_contexts and pytest_startmethod_unavailable."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXTS = """
    import multiprocessing

    class Mine(multiprocessing.context.SpawnContext):
        pass

    MINE = Mine()

    def pytest_startmethod_contexts(config):
        return {names}
"""

FIRST = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
UNAVAILABLE = "pytest_startmethod_unavailable of {conftest}"


@pytest.mark.usefixtures("child_module")
def test_a_plugins_context_is_one_more_run_and_the_very_object(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(plugin=CONTEXTS.format(names="{'mine': MINE}"))
    pytester.makepyfile(
        test_it="""
            import child
            import plugin
            import pytest

            def test_context(mp_context, start_method):
                assert (mp_context is plugin.MINE) == (start_method == "mine")
                assert child.by_process(mp_context) == start_method.replace("mine", "spawn")

            @pytest.mark.start_methods("mine", "fork")
            def test_marked(start_method):
                pass

            def test_default(default_start_method):
                assert default_start_method != "mine"

            def test_unmarked():
                assert child.by_process() == "spawn"
        """
    )
    result = pytester.runpytest_subprocess("-p", "plugin", "-v", "--start-method=spawn,mine")
    result.assert_outcomes(passed=5, deselected=1)
    result.stdout.fnmatch_lines(
        [
            "start methods: spawn, mine (platform default: *)",
            "test_it.py::test_context[[]spawn[]] PASSED*",
            "test_it.py::test_context[[]mine[]] PASSED*",
            "test_it.py::test_marked[[]mine[]] PASSED*",
            "test_it.py::test_default[[]spawn[]] PASSED*",
            "test_it.py::test_unmarked PASSED*",
        ]
    )


@pytest.mark.needs("fork", "forkserver")
def test_without_a_selection_a_conftests_contexts_run_last(
    pytester: pytest.Pytester, collected: Callable[..., list[str]]
) -> None:
    pytester.makeconftest(CONTEXTS.format(names="{'zebra': MINE, 'ape': MINE}"))
    pytester.makepyfile("""
        def test_all(start_method):
            pass

        def test_standard(default_start_method):
            pass
    """)
    three = ["fork", "spawn", "forkserver"]
    assert collected() == [
        *(f"test_all[{name}]" for name in [*three, "zebra", "ape"]),
        *(f"test_standard[{name}]" for name in three),
    ]


def test_a_plugin_may_serve_another_context_under_a_standard_name(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(plugin=CONTEXTS.format(names="{'spawn': MINE}"))
    pytester.makepyfile("""
        import multiprocessing

        import plugin

        def test_context(mp_context):
            assert mp_context is plugin.MINE

        def test_unmarked():
            assert multiprocessing.get_start_method() == "spawn"
            assert multiprocessing.get_context() is not plugin.MINE
    """)
    result = pytester.runpytest_subprocess("-p", "plugin", "--start-method=spawn")
    result.assert_outcomes(passed=2)


@pytest.mark.needs("fork", "forkserver")
def test_a_hook_that_answers_none_offers_nothing(
    pytester: pytest.Pytester, collected: Callable[..., list[str]]
) -> None:
    pytester.makeconftest("""
        def pytest_startmethod_contexts(config):
            return None

        def pytest_startmethod_unavailable(config, start_method):
            return None
    """)
    pytester.makepyfile("def test_all(start_method): pass")
    assert collected() == ["test_all[fork]", "test_all[spawn]", "test_all[forkserver]"]


@pytest.mark.needs("fork", "forkserver")
def test_selecting_only_a_plugins_context_is_a_usage_error(
    pytester: pytest.Pytester, assert_usage_error: Callable[[pytest.RunResult, str], None]
) -> None:
    pytester.makeconftest(CONTEXTS.format(names="{'mine': MINE}"))
    assert_usage_error(
        pytester.runpytest_inprocess("--start-method=mine"),
        "--start-method: start method 'mine' can't be the process-wide default that other tests "
        "run with: select it beside one of fork, spawn, forkserver",
    )


def test_a_marker_that_asks_a_plugins_context_to_be_the_process_wide_default_is_one_line(
    pytester: pytest.Pytester, assert_one_line: Callable[..., None]
) -> None:
    pytester.makeconftest(CONTEXTS.format(names="{'mine': MINE}"))
    pytester.makepyfile(
        test_bad="""
            import pytest

            @pytest.mark.start_methods("mine")
            def test_default():
                pass
        """,
        test_good="def test_runs(): pass",
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    assert_one_line(
        result,
        "test_bad.py::test_default: @pytest.mark.start_methods: start method 'mine' can't be the "
        "process-wide default, only the standard library's start methods can: "
        "ask for mp_context in the test",
    )


def test_two_plugins_that_offer_one_name_are_a_usage_error_naming_both(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(plugin=CONTEXTS.format(names="{'mine': MINE}"))
    conftest = pytester.makeconftest(CONTEXTS.format(names="{'mine': MINE}"))
    result = pytester.runpytest_subprocess("-p", "plugin")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    [line] = [line for line in result.errlines if line]
    assert line in {
        f"ERROR: {first} and {second} both offer a context named 'mine': rename one of them"
        for first, second in (("plugin", conftest), (conftest, "plugin"))
    }


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (
            "contexts(config): return ['mine']",
            "{conftest} returned ['mine'], not a dict of contexts by start method",
        ),
        (
            "contexts(config): return 3",
            "{conftest} returned 3, not a dict of contexts by start method",
        ),
        (
            "contexts(config): return {3: config}",
            "{conftest} names a context 3: use letters, digits and underscores",
        ),
        (
            "contexts(config): return {'default': config}",
            "{conftest} names a context 'default', which has another meaning: rename it",
        ),
        (
            "contexts(config): return {'mine': 'spawn'}",
            "{conftest} offers 'spawn' as 'mine', which is no multiprocessing context",
        ),
        (
            "contexts(config): return {'mine': 1 / 0}",
            "pytest_startmethod_contexts of {conftest} raised ZeroDivisionError: division by zero",
        ),
        (
            "contexts(config): __import__('pytest').skip('no torch')",
            "pytest_startmethod_contexts of {conftest} raised Skipped: no torch",
        ),
        (
            "unavailable(config, start_method): return 3",
            f"{UNAVAILABLE} returned 3 for '{FIRST}', not a reason or None",
        ),
        (
            "unavailable(config, start_method): return ''",
            f"{UNAVAILABLE} returned '' for '{FIRST}', not a reason or None",
        ),
        (
            "unavailable(config, start_method): raise OSError('no GPU')",
            f"{UNAVAILABLE} raised OSError: no GPU",
        ),
        (
            "unavailable(config, start_method): raise OSError('no GPU\\n  but two lines')",
            f"{UNAVAILABLE} raised OSError: no GPU but two lines",
        ),
        (
            "unavailable(config, start_method): __import__('pytest').fail('no GPU')",
            f"{UNAVAILABLE} raised Failed: no GPU",
        ),
    ],
)
def test_a_hook_that_answers_wrongly_or_raises_is_a_usage_error_naming_its_plugin(
    pytester: pytest.Pytester,
    assert_usage_error: Callable[[pytest.RunResult, str], None],
    hook: str,
    message: str,
) -> None:
    conftest = pytester.makeconftest(f"def pytest_startmethod_{hook}")
    pytester.makepyfile("def test_never_run(): raise AssertionError")
    assert_usage_error(pytester.runpytest_inprocess(), message.format(conftest=conftest))


@pytest.mark.needs("fork", "forkserver")
def test_an_unavailable_methods_runs_are_skipped_with_the_first_reason_asked_for_once(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("""
        def pytest_startmethod_unavailable(config, start_method):
            print("asked:", start_method)
            return "CUDA is initialised" if start_method == "fork" else None
    """)
    pytester.makepyfile(
        second="""
            import pytest

            @pytest.hookimpl(trylast=True)
            def pytest_startmethod_unavailable(config, start_method):
                return {"fork": "another reason", "spawn": "no spawn here"}.get(start_method)
        """
    )
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import pytest

            @pytest.fixture
            def never_set_up():
                raise AssertionError

            @pytest.mark.start_methods("fork", "spawn")
            def test_skipped(never_set_up):
                pass

            def test_context(mp_context):
                assert mp_context.get_start_method() == "forkserver"

            def test_other():
                assert multiprocessing.get_start_method() == "forkserver"
        """
    )
    result = pytester.runpytest_subprocess("-p", "second", "-srs", "--start-method=all")
    result.assert_outcomes(passed=2, skipped=4)
    asked = [line for line in result.outlines if line.startswith("asked:")]
    assert asked == ["asked: fork", "asked: spawn", "asked: forkserver"]
    reasons = "fork unavailable: CUDA is initialised; spawn unavailable: no spawn here"
    result.stdout.fnmatch_lines([f"start methods: forkserver (platform default: *; {reasons})"])
    for reason in ("CUDA is initialised", "no spawn here"):
        skips = [line for line in result.outlines if line.endswith(reason)]
        assert sum(int(line[len("SKIPPED [") :].partition("]")[0]) for line in skips) == 2


def test_if_every_selected_method_is_unavailable_nothing_runs_under_another(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("""
        def pytest_startmethod_unavailable(start_method):
            return "CUDA is initialised"
    """)
    pytester.makepyfile("""
        def test_context(mp_context):
            pass

        def test_other():
            pass
    """)
    pytester.runpytest_inprocess("--start-method=spawn").assert_outcomes(skipped=2)
    count = len(multiprocessing.get_all_start_methods())
    pytester.runpytest_inprocess().assert_outcomes(passed=1, skipped=count)
