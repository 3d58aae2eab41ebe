"""The fixtures mp_context, start_method and default_start_method, and their scope."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = [
    m for m in ("fork", "spawn", "forkserver") if m in multiprocessing.get_all_start_methods()
]


@pytest.mark.usefixtures("child_module")
def test_mp_context_is_the_standard_librarys_own_and_works_wherever_one_is_taken(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        from multiprocessing.managers import SyncManager

        import child
        import pytest

        def test_identity(mp_context, start_method):
            assert mp_context is multiprocessing.get_context(start_method)
            assert mp_context.get_start_method() == start_method

        @pytest.mark.parametrize("ask", [child.by_process, child.by_pool, child.by_executor])
        def test_child(ask, mp_context, start_method):
            assert ask(mp_context) == start_method

        def test_manager(mp_context):
            with mp_context.Manager() as manager:
                numbers = manager.list([1, 2])
                numbers.append(3)
                assert list(numbers) == [1, 2, 3]

        class Asked(SyncManager):
            pass

        Asked.register("method", child.method)

        def test_library_that_takes_a_context(mp_context, start_method):
            with Asked(ctx=mp_context) as manager:
                assert manager.method()._getvalue() == start_method
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=6 * len(METHODS))


@pytest.mark.usefixtures("child_module")
def test_mp_context_leaves_the_process_wide_default_as_it_is(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child

        def test_child(mp_context):
            assert multiprocessing.get_start_method(allow_none=True) is None
            child.by_process(mp_context)  # by spawn: multiprocessing itself pins its default

        def test_next():
            assert multiprocessing.get_start_method(allow_none=True) is None

        def test_pinned_by_a_test():
            multiprocessing.set_start_method("spawn")

        def test_still_pinned(mp_context):
            assert multiprocessing.get_start_method() == "spawn"
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2 * len(METHODS) + 2)


@pytest.mark.usefixtures("child_module")
def test_default_start_method_works_for_code_without_a_context(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        @pytest.mark.parametrize("ask", [child.by_process, child.by_pool, child.by_executor])
        def test_child(ask, default_start_method):
            assert ask() == default_start_method
            assert multiprocessing.get_start_method() == default_start_method
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=3 * len(METHODS))


@pytest.mark.parametrize("before", [None, "spawn"])
def test_default_start_method_applies_to_fixtures_and_is_restored(
    pytester: pytest.Pytester, before: str | None
) -> None:
    pytester.makeconftest(f"""
        import multiprocessing

        import pytest

        if {before!r}:
            multiprocessing.set_start_method({before!r})

        def default():
            return multiprocessing.get_start_method(allow_none=True)

        @pytest.fixture(autouse=True)
        def no_trace_of_other_tests(request):
            if "default_start_method" not in request.fixturenames:
                assert default() == {before!r}

        @pytest.fixture
        def default_at_set_up():
            name = multiprocessing.get_start_method()
            yield name
            assert multiprocessing.get_start_method() == name
    """)
    pytester.makepyfile("""
        def test_asks_first(default_start_method, default_at_set_up):
            assert default_at_set_up == default_start_method

        def test_between():
            pass

        def test_asks_last(default_at_set_up, default_start_method):
            assert default_at_set_up == default_start_method

        def test_asks_late(start_method, request):
            assert request.getfixturevalue("default_start_method") == start_method
            assert request.getfixturevalue("default_at_set_up") == start_method

        def test_at_the_end():
            pass
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=3 * len(METHODS) + 2)


def test_a_test_that_pins_a_default_of_its_own_does_not_disturb_the_next(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        @pytest.mark.parametrize("method", ["spawn", "spawn"])
        def test_sets(method, default_start_method):
            multiprocessing.set_start_method(method)  # as in a program: only once
            with pytest.raises(RuntimeError, match="context has already been set"):
                multiprocessing.set_start_method(method)

        def test_next():
            assert multiprocessing.get_start_method(allow_none=True) is None
    """)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2 * len(METHODS) + 1)


@pytest.mark.needs("fork")
@pytest.mark.parametrize(
    ("scope", "set_ups"), [("function", 8), ("class", 6), ("module", 4), ("session", 2)]
)
def test_start_method_scope_is_how_long_fixtures_live_and_no_other_test_sees_the_default(
    pytester: pytest.Pytester, scope: str, set_ups: int
) -> None:
    pytester.makeini(f"[pytest]\nstart_method_scope = {scope}\nstart_methods = fork,spawn")
    pytester.makeconftest(f"""
        import pytest

        made = []

        @pytest.fixture(scope="{scope}")
        def shared(mp_context, default_start_method):
            assert mp_context.get_start_method() == default_start_method
            made.append(default_start_method)
            return default_start_method

        def pytest_unconfigure():
            print("\\nset-ups:", len(made))
    """)
    pytester.makepyfile(
        test_one="""
            import multiprocessing

            AT_IMPORT = multiprocessing.get_start_method()

            class TestClass:
                def test_one(self, shared):
                    assert multiprocessing.get_start_method() == shared

                def test_without(self):
                    assert multiprocessing.get_start_method() == AT_IMPORT

                def test_two(self, shared):
                    assert multiprocessing.get_start_method() == shared

            def test_function(shared):
                assert multiprocessing.get_start_method() == shared
        """,
        test_two="""
            import multiprocessing

            def test_function(shared):
                assert multiprocessing.get_start_method() == shared
        """,
    )
    result = pytester.runpytest_subprocess("-s")
    result.assert_outcomes(passed=2 * 4 + 2)  # one without, under each
    assert f"set-ups: {set_ups}" in result.outlines


def test_the_start_method_is_the_last_part_of_the_id(
    pytester: pytest.Pytester, collected: Callable[..., list[str]]
) -> None:
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(params=["a", "b"])
        def letter(request):
            return request.param

        def pytest_generate_tests(metafunc):
            if "size" in metafunc.fixturenames:
                metafunc.parametrize("size", ["S"])
    """)
    pytester.makepyfile("""
        import pytest

        def test_alone(start_method):
            pass

        @pytest.mark.parametrize("number", [1])
        def test_all(start_method, size, letter, number):
            pass
    """)
    tests = collected()
    assert tests[: len(METHODS)] == [f"test_alone[{method}]" for method in METHODS]
    rest = [test.removesuffix("]").rpartition("-") for test in tests[len(METHODS) :]]
    assert [method for _, _, method in rest] == METHODS * 2
    assert {before.partition("[")[0] for before, _, _ in rest} == {"test_all"}


def test_fixtures_of_fixtures_and_usefixtures_count_as_asking(
    pytester: pytest.Pytester, collected: Callable[..., list[str]]
) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def pool(mp_context):
            pass

        def test_through_a_fixture(pool):
            pass

        @pytest.mark.usefixtures("default_start_method")
        class TestClass:
            def test_used(self):
                pass
    """)
    assert collected("--start-method=spawn") == [
        "test_through_a_fixture[spawn]",
        "TestClass::test_used[spawn]",
    ]


@pytest.mark.parametrize("chosen", ["spawn", multiprocessing.get_all_start_methods()[0]])
def test_a_suite_that_overrides_start_method_chooses_for_itself(
    pytester: pytest.Pytester, collected: Callable[..., list[str]], chosen: str
) -> None:
    pytester.makepyfile(f"""
        import multiprocessing

        import pytest

        @pytest.fixture
        def start_method():
            return {chosen!r}

        def test_context(mp_context):
            assert mp_context is multiprocessing.get_context({chosen!r})

        def test_default(default_start_method):
            assert multiprocessing.get_start_method() == {chosen!r}  # and it is pinned

        def test_default_is_put_back():
            default = multiprocessing.get_all_start_methods()[0]
            assert multiprocessing.get_start_method(allow_none=True) is None
            assert multiprocessing.get_start_method() == default
    """)
    assert collected() == ["test_context", "test_default", "test_default_is_put_back"]
    pytester.runpytest_subprocess().assert_outcomes(passed=3)


@pytest.mark.skipif(
    pytest.version_tuple < (9, 0), reason="pytest 8 overlooks what an overridden fixture asks for"
)
@pytest.mark.parametrize("name", ["start_method", "mp_context"])
def test_a_fixture_that_overrides_ours_and_asks_for_it_keeps_the_runs(
    pytester: pytest.Pytester, collected: Callable[..., list[str]], name: str
) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.fixture
        def {name}({name}):
            return [{name}]

        def test_it({name}):
            assert len({name}) == 1
    """)
    assert collected() == [f"test_it[{method}]" for method in METHODS]
    pytester.runpytest_subprocess().assert_outcomes(passed=len(METHODS))


@pytest.mark.parametrize("scope", ["function", "session"])
def test_getfixturevalue_in_a_test_that_was_not_parametrized_is_one_line(
    pytester: pytest.Pytester, assert_one_line: Callable[..., None], scope: str
) -> None:
    pytester.makeini(f"[pytest]\nstart_method_scope = {scope}")
    pytester.makepyfile(
        test_it="""
            import pytest

            @pytest.mark.parametrize("name", ["mp_context", "start_method", "default_start_method"])
            class TestIt:
                def test_late(self, name, request):
                    request.getfixturevalue(name)

                def test_in_time(self, name, request, start_method):
                    request.getfixturevalue(name)
        """
    )
    result = pytester.runpytest_subprocess("--start-method=spawn")
    result.assert_outcomes(passed=3, failed=3)
    assert_one_line(
        result,
        "this test has no start method: request.getfixturevalue() comes too late to make a run for "
        "each. Name the fixture among the arguments of the test, or mark a unittest.TestCase with "
        "start_methods",
        times=3,
    )
