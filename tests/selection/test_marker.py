"""The marker start_methods."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_marker_names_the_only_methods_and_the_closest_one_wins(
    pytester: pytest.Pytester, collected: Callable[..., list[str]]
) -> None:
    pytester.makepyfile("""
        import pytest

        pytestmark = pytest.mark.start_methods("spawn", "fork")

        def test_module(start_method):
            pass

        @pytest.mark.start_methods("forkserver")
        class TestClass:
            def test_class(self, mp_context):
                pass

            @pytest.mark.start_methods("fork")
            def test_function(self, default_start_method):
                pass

            @pytest.mark.start_methods
            def test_all(self, mp_context):
                pass
    """)
    supported = multiprocessing.get_all_start_methods()
    assert collected("--strict-markers") == [
        "test_module[fork]",
        "test_module[spawn]",
        "TestClass::test_class[forkserver]",
        "TestClass::test_function[fork]",
        *(
            f"TestClass::test_all[{name}]"
            for name in ("fork", "spawn", "forkserver")
            if name in supported
        ),
    ]
    assert collected("-m", "start_methods", "-k", "test_function") == [
        "TestClass::test_function[fork]"
    ]


@pytest.mark.usefixtures("child_module")
def test_a_marked_test_that_asks_for_no_fixture_gets_the_default_start_method(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        @pytest.fixture
        def method_at_set_up():
            return multiprocessing.get_start_method()

        @pytest.mark.start_methods("spawn", "forkserver")
        @pytest.mark.parametrize("number", [1, 2])
        def test_marked(number, request, method_at_set_up):
            assert child.by_process() == method_at_set_up
            assert request.node.name == f"test_marked[{number}-{method_at_set_up}]"

        @pytest.mark.start_methods("fork")
        @pytest.mark.parametrize("fixture", ["mp_context", "start_method"])
        def test_with_a_fixture(fixture, request, start_method):
            request.getfixturevalue(fixture)
            assert multiprocessing.get_start_method(allow_none=True) is None

        def test_unmarked():
            assert multiprocessing.get_start_method(allow_none=True) is None
    """)
    result = pytester.runpytest_subprocess()
    skipped = 2 * len({"fork", "forkserver"} - {*multiprocessing.get_all_start_methods()})
    result.assert_outcomes(passed=2 * 2 + 2 + 1 - skipped, skipped=skipped)


def test_methods_of_the_marker_that_are_not_selected_are_deselected_and_counted(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.start_methods("spawn", "forkserver")
        def test_marked():
            pass

        @pytest.mark.start_methods("forkserver", reason="nothing is skipped")
        def test_one(mp_context):
            pass

        def test_unmarked(mp_context):
            pass
    """)
    result = pytester.runpytest_subprocess("--start-method=fork,spawn")
    skipped = "fork" not in multiprocessing.get_all_start_methods()
    result.assert_outcomes(passed=3 - skipped, deselected=2, skipped=int(skipped))
    result = pytester.runpytest_subprocess("--start-method=spawn", "-k", "test_one")
    result.assert_outcomes(deselected=4)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.needs("fork")
def test_a_name_may_carry_marks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.start_methods(
            "fork",
            pytest.param("spawn", marks=pytest.mark.xfail(reason="inherits a global", strict=True)),
            pytest.param("forkserver", marks=[pytest.mark.skip(reason="slow"), pytest.mark.slow]),
        )
        def test_marked(start_method):
            assert start_method == "fork"
    """)
    result = pytester.runpytest_inprocess("-ra", "-W", "ignore::pytest.PytestUnknownMarkWarning")
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED [[]1[]] *: slow",
            "XFAIL test_a_name_may_carry_marks.py::test_marked[[]spawn[]] - inherits a global",
        ]
    )


def test_a_marker_error_in_one_file_leaves_other_files_running(
    pytester: pytest.Pytester, assert_one_line: Callable[..., None]
) -> None:
    known = "(known: fork, spawn, forkserver)"
    takes = "takes the names of start methods (fork, spawn, forkserver), not"
    errors = {
        "'frok'": f"unknown start method 'frok', did you mean 'fork'? {known}",
        "'spawn', ''": f"empty name of a start method {known}",
        "'fork,spawn'": "'fork,spawn' is no start method: give each name as an argument of its "
        'own, start_methods("fork", "spawn")',
        "'all'": f"unknown start method 'all' {known}",
        "3": f"{takes} int 3",
        "None": f"{takes} NoneType None",
        "['fork', 'spawn']": f"{takes} list ['fork', 'spawn']",
        "pytest.param('fork', 'spawn')": f"{takes} tuple ('fork', 'spawn')",
        "pytest.param('frok')": f"unknown start method 'frok', did you mean 'fork'? {known}",
        "reason=3": "takes a str as reason, not int 3",
    }
    for number, arguments in enumerate(errors):
        pytester.makepyfile(
            **{
                f"test_{number}": f"""
                    import pytest

                    @pytest.mark.start_methods({arguments})
                    def test_bad():
                        pass

                    def test_not_run():
                        pass
                """
            }
        )
    pytester.makepyfile(test_good="def test_runs(): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=len(errors))
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for number, error in enumerate(errors.values()):
        line = f"test_{number}.py::test_bad: @pytest.mark.start_methods: {error}"
        assert_one_line(result, line)


def test_a_context_or_an_unknown_keyword_in_the_marker_is_one_line(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_context="""
            import multiprocessing

            import pytest

            pytestmark = pytest.mark.start_methods(multiprocessing.get_context("spawn"))

            def test_bad(mp_context):
                pass
        """,
        test_keyword="""
            import pytest

            @pytest.mark.start_methods("fork", reasons="")
            def test_bad():
                pass
        """,
        test_good="def test_runs(): pass",
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(
        [
            "test_context.py::test_bad: @pytest.mark.start_methods: takes *, not SpawnContext <*>",
            "test_keyword.py::test_bad: @pytest.mark.start_methods: *'reasons'*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*plugin.py*")


@pytest.mark.parametrize(
    ("decorator", "arguments"),
    [
        ("by_mark_and_marked", "start_method"),
        ("by_mark", "start_method, mp_context"),
        ("by_mark", "default_start_method, start_method"),
        ("by_mark", "default_start_method"),
        ("by_mark_indirectly", "start_method"),
        ("by_hook_and_marked", "start_method"),
        ("by_hook", "start_method, mp_context"),
    ],
)
def test_a_test_that_parametrizes_start_method_and_asks_for_ours_is_one_line(
    pytester: pytest.Pytester,
    assert_one_line: Callable[..., None],
    decorator: str,
    arguments: str,
) -> None:
    pytester.makepyfile(
        test_bad=f"""
            import pytest

            by_mark = pytest.mark.parametrize("start_method", ["fork"])
            by_mark_indirectly = pytest.mark.parametrize("start_method", ["fork"], indirect=True)

            def by_mark_and_marked(test):
                return by_mark(pytest.mark.start_methods("fork")(test))

            def by_hook(test):
                test.by_hook = True
                return test

            def by_hook_and_marked(test):
                return by_hook(pytest.mark.start_methods("fork")(test))

            def pytest_generate_tests(metafunc):
                if hasattr(metafunc.function, "by_hook"):
                    metafunc.parametrize("start_method", ["fork"])

            @{decorator}
            def test_own({arguments}):
                pass
        """,
        test_good="def test_runs(): pass",
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    [line] = [line for line in result.outlines if line.startswith("test_bad.py::test_own: ")]
    assert "parametrizes start_method" in line
    assert_one_line(result, line)


@pytest.mark.needs("fork")
def test_a_marked_unittest_runs_under_each_named_method(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import unittest

        import pytest

        @pytest.mark.start_methods("spawn", "fork")
        class TestCase(unittest.TestCase):
            def test_it(self):
                pass
    """)
    result = pytester.runpytest_inprocess("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["*::TestCase::test_it?fork? PASSED *", "*::TestCase::test_it?spawn? PASSED *"]
    )


def test_the_fixtures_of_a_marked_unittest_may_ask_for_ours(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import unittest

        import pytest

        @pytest.mark.start_methods
        class TestCase(unittest.TestCase):
            @pytest.fixture(autouse=True)
            def context(self, mp_context, start_method):
                self.context, self.method = mp_context, start_method

            def test_it(self):
                with self.context.Pool(1) as pool:
                    assert pool.apply(multiprocessing.get_start_method) == self.method
                assert multiprocessing.get_start_method() == self.method
    """)
    result = pytester.runpytest_subprocess("-v", "-W", "ignore:This process:DeprecationWarning")
    result.assert_outcomes(passed=len(multiprocessing.get_all_start_methods()))


@pytest.mark.parametrize("name", ["mp_context", "default_start_method"])
def test_a_fixture_of_ours_that_is_parametrized_is_refused(
    pytester: pytest.Pytester, assert_one_line: Callable[..., None], name: str
) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.parametrize("{name}", ["spawn"], indirect=True)
        def test_it({name}):
            pass
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    assert_one_line(
        result,
        f"test_a_fixture_of_ours_that_is_parametrized_is_refused.py::test_it: parametrizes {name} "
        "itself, but the plugin does that for its fixtures and marker: name the start methods by "
        "@pytest.mark.start_methods instead",
    )
