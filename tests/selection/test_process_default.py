"""The selected start method is the process-wide default of a suite that uses no fixture."""

from __future__ import annotations

import multiprocessing

import pytest

FORK = pytest.mark.needs("fork")


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_it_holds_in_conftests_and_modules_and_in_tests_of_every_kind(
    pytester: pytest.Pytester, method: str
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        import pytest

        AT_IMPORT = multiprocessing.get_context().get_start_method()

        @pytest.fixture
        def in_conftest():
            return AT_IMPORT
    """)
    pytester.makepyfile(f"""
        import multiprocessing
        import unittest

        import child
        import pytest

        CONTEXT = multiprocessing.get_context()

        def test_import(in_conftest):
            assert in_conftest == CONTEXT.get_start_method() == {method!r}
            assert child.by_process(CONTEXT) == {method!r}

        @pytest.mark.parametrize("ask", [child.by_process, child.by_pool, child.by_executor])
        def test_function(ask):
            assert ask() == {method!r}

        class TestCase(unittest.TestCase):
            def test_unittest(self):
                self.assertEqual(child.by_process(), {method!r})
                self.assertEqual(child.by_executor(), {method!r})

        def test_session():
            assert multiprocessing.get_start_method() == {method!r}
    """)
    result = pytester.runpytest_subprocess(f"--start-method={method}")
    result.assert_outcomes(passed=6)


@pytest.mark.needs("forkserver")
@pytest.mark.usefixtures("child_module")
def test_with_several_selected_other_tests_run_under_the_first_and_then_under_the_others(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child

        def test_process():
            assert child.by_process() == multiprocessing.get_start_method()

        def test_quiet():
            assert multiprocessing.get_start_method(allow_none=True) is None
    """)
    result = pytester.runpytest_subprocess("--start-method=forkserver,spawn")
    result.assert_outcomes(passed=3)


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize(
    "conftest",
    [
        *(
            pytest.param(f"{sets}multiprocessing.set_start_method({arguments})", marks=FORK)
            for sets, arguments in (
                ("", "'fork'"),
                ("def pytest_configure(): ", "'fork'"),
                ("def pytest_sessionstart(): ", "'fork'"),
                ("def pytest_collection_finish(): ", "'fork', force=True"),
            )
        ),
        "multiprocessing.get_context()",
    ],
)
def test_a_conftest_that_sets_another_method_neither_breaks_nor_wins(
    pytester: pytest.Pytester, conftest: str
) -> None:
    pytester.makeconftest(f"import multiprocessing\n{conftest}")
    pytester.makepyfile("""
        import child

        def test_process():
            assert child.by_process() == "spawn"
    """)
    result = pytester.runpytest_subprocess("--start-method=spawn")
    result.assert_outcomes(passed=1)


@FORK
@pytest.mark.usefixtures("child_module")
def test_a_module_that_sets_another_neither_breaks_nor_wins_and_a_second_one_fails(
    pytester: pytest.Pytester,
) -> None:
    for name in ("first", "second"):
        pytester.makepyfile(
            **{
                f"test_{name}": """
                    import multiprocessing

                    import child

                    multiprocessing.set_start_method("fork")

                    def test_process():
                        assert child.by_process() == "spawn"
                """
            }
        )
    for args, passed in ((["--start-method=spawn"], 1), (["-p", "no:startmethod"], 0)):
        result = pytester.runpytest_subprocess("--continue-on-collection-errors", *args)
        result.stdout.fnmatch_lines(["E   RuntimeError: context has already been set"])
        result.assert_outcomes(passed=passed, failed=1 - passed, errors=1)


@pytest.mark.needs("fork", "forkserver")
def test_a_test_that_sets_another_method_neither_fails_nor_disturbs_the_next(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        @pytest.mark.parametrize("number", [1, 2])
        def test_sets(number):
            assert multiprocessing.get_start_method() == "spawn"
            multiprocessing.set_start_method("forkserver", force=True)

        def test_acts_as_the_platforms_own_default_would():
            assert multiprocessing.get_start_method(allow_none=True) is None
            multiprocessing.set_start_method("fork")
            assert multiprocessing.get_start_method() == "fork"
    """)
    result = pytester.runpytest_subprocess("--start-method=spawn")
    result.assert_outcomes(passed=3)


@FORK
@pytest.mark.usefixtures("child_module")
def test_the_fixtures_override_the_selected_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        def test_context(mp_context, start_method):
            assert child.by_process(mp_context) == start_method
            assert child.by_process() == "fork"

        def test_default(default_start_method):
            assert child.by_process() == default_start_method

        def test_other():
            assert child.by_process() == multiprocessing.get_start_method()
    """)
    result = pytester.runpytest_subprocess("--start-method=fork,spawn")
    result.assert_outcomes(passed=6)


@pytest.mark.parametrize(
    "before", [None, pytest.param("forkserver", marks=pytest.mark.needs("forkserver"))]
)
@pytest.mark.parametrize(
    ("arguments", "conftest", "ret"),
    [
        (["--start-method=spawn"], "", 0),
        (["--start-method=spawn,frok"], "", 4),
        (["--start-method=spawn", "--co"], "", 0),
        (["--start-method=spawn", "--version"], "", 0),
        (["--start-method=spawn"], "1 / 0", 4),
        (["--start-method=spawn"], "def pytest_sessionstart(): 1 / 0", 3),
        (["--start-method=spawn"], "multiprocessing.set_start_method('spawn', force=True)", 0),
    ],
)
def test_pytest_main_restores_the_default(
    pytester: pytest.Pytester, arguments: list[str], conftest: str, ret: int, before: str | None
) -> None:
    pytester.makeconftest(f"import multiprocessing\n{conftest}")
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            def test_it():
                assert multiprocessing.get_start_method() == "spawn"
        """
    )
    script = pytester.makepyfile(
        script=f"""
            import multiprocessing

            import pytest

            default = multiprocessing.get_all_start_methods()[0]
            multiprocessing.set_start_method({before!r}, force=True)
            ret = pytest.main({arguments!r})
            assert multiprocessing.get_start_method(allow_none=True) == {before!r}
            assert multiprocessing.get_start_method() == ({before!r} or default)
            assert ret == {ret}, ret
        """
    )
    assert pytester.runpython(script).ret == 0


@FORK
@pytest.mark.usefixtures("child_module")
def test_what_a_wider_fixture_sets_holds_while_it_is_there(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import unittest

        import child
        import pytest

        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.before = multiprocessing.get_start_method(allow_none=True)
                multiprocessing.set_start_method("spawn", force=True)

            @classmethod
            def tearDownClass(cls):
                multiprocessing.set_start_method(cls.before, force=True)

            def test_first(self):
                assert child.by_process() == "spawn"

            test_second = test_first

        class TestFixture:
            @pytest.fixture(scope="class", autouse=True)
            def spawn(self):
                multiprocessing.set_start_method("spawn", force=True)

            def test_first(self):
                assert child.by_process() == "spawn"

            test_second = test_first

            def test_asks(self, default_start_method):
                assert child.by_process() == default_start_method

        def test_after():
            assert child.by_process() == "fork"

        def test_sets():
            multiprocessing.set_start_method("spawn")

        test_after_a_test = test_after
    """)
    result = pytester.runpytest_subprocess("--start-method=fork", "-v")
    result.assert_outcomes(passed=8)
    # Under another start method they would do the same.
    result = pytester.runpytest_subprocess(
        "--start-method=fork,spawn", "-v", "-k", "first or second"
    )
    result.assert_outcomes(passed=4)
