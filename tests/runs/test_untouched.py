"""A suite that doesn't use the plugin behaves as without it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def assert_untouched(pytester: pytest.Pytester) -> Callable[..., None]:
    """Check that a run prints the same with the plugin and without, but for our header line."""

    def run(*args: str) -> tuple[list[str], int]:
        # No cache: its "failed first" is no business of ours. The times differ, and the plugins.
        result = pytester.runpytest_subprocess("-vra", "-p", "no:cacheprovider", *args)
        lines = [line for line in result.outlines if not line.startswith("plugins: ")]
        return [re.sub(r"=* ?in \d+\.\d+s ?=*", "", line) for line in lines], int(result.ret)

    def check(**outcomes: int) -> None:
        with_us, ret = run()
        without, ret_without = run("-p", "no:startmethod")
        headers = [line for line in with_us if line.startswith("start methods: ")]
        assert len(headers) == 1
        assert [line for line in with_us if line not in headers] == without
        assert ret == ret_without
        pytester.runpytest_subprocess().assert_outcomes(**outcomes)

    return check


def test_fixtures_of_our_names_are_the_suites_own(
    pytester: pytest.Pytester, assert_untouched: Callable[..., None]
) -> None:
    pytester.makeconftest("""
        import pytest

        @pytest.fixture(params=["x", "y"])
        def start_method(request):
            return request.param

        @pytest.fixture(scope="session")
        def mp_context():
            return "mine"

        @pytest.fixture
        def default_start_method(start_method, mp_context):
            return start_method + mp_context
    """)
    pytester.makepyfile("""
        def test_fixtures(start_method, mp_context, default_start_method):
            assert default_start_method == start_method + "mine"

        def test_late(request):
            assert request.getfixturevalue("mp_context") == "mine"
    """)
    assert_untouched(passed=3)


def test_parameters_of_our_names_are_the_suites_own(
    pytester: pytest.Pytester, assert_untouched: Callable[..., None]
) -> None:
    pytester.makeconftest("""
        import inspect

        def pytest_generate_tests(metafunc):
            if metafunc.module.__name__ == "test_generated":
                for name in inspect.signature(metafunc.function).parameters:
                    metafunc.parametrize(name, ["a", "b"])
    """)
    pytester.makepyfile(
        test_marked="""
            import pytest

            @pytest.mark.parametrize("start_method", ["fork", "x"])
            def test_one(start_method):
                assert start_method in ("fork", "x")

            @pytest.mark.parametrize("number, start_method", [(1, "spawn")])
            def test_two(start_method, number):
                assert start_method == "spawn"

            @pytest.mark.parametrize(["start_method", "number"], [(None, 1)])
            class TestClass:
                def test_three(self, start_method, number):
                    assert start_method is None

            @pytest.mark.parametrize(argnames="start_method", argvalues=[1])
            def test_four(start_method):
                assert start_method == 1

            @pytest.mark.parametrize("mp_context", ["mine"])
            def test_five(mp_context):
                assert mp_context == "mine"

            @pytest.mark.parametrize("default_start_method", ["mine"])
            def test_six(default_start_method):
                assert default_start_method == "mine"
        """,
        test_generated="""
            def test_method(start_method):
                assert start_method in "ab"

            def test_context(mp_context):
                assert mp_context in "ab"

            def test_default(default_start_method):
                assert default_start_method in "ab"

            def test_two(start_method, mp_context):
                assert start_method + mp_context in ("aa", "ab", "ba", "bb")
        """,
    )
    assert_untouched(passed=7 + 3 * 2 + 4)


@pytest.mark.needs("fork")
def test_a_conftest_that_does_by_hand_what_the_plugin_does_goes_on_to_do_it(
    pytester: pytest.Pytester, assert_untouched: Callable[..., None]
) -> None:
    pytester.makeconftest("""
        import multiprocessing

        import pytest

        @pytest.fixture
        def mp_context(start_method):
            return multiprocessing.get_context(start_method)

        @pytest.fixture
        def default_start_method(monkeypatch, start_method):
            monkeypatch.setattr(multiprocessing, "Process", start_method)

        def pytest_generate_tests(metafunc):
            if "generated" in metafunc.function.__name__:
                metafunc.parametrize("start_method", ["spawn"])
    """)
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        by_hand = pytest.mark.parametrize("start_method", ["spawn", "fork"])

        @by_hand
        def test_context(mp_context, start_method):
            assert mp_context is multiprocessing.get_context(start_method)

        @by_hand
        def test_only_context(mp_context):
            assert mp_context.get_start_method() in ("spawn", "fork")

        @by_hand
        def test_default(default_start_method, start_method):
            assert multiprocessing.Process == start_method

        def test_generated(mp_context, default_start_method):
            assert multiprocessing.Process == mp_context.get_start_method() == "spawn"
    """)
    assert_untouched(passed=3 * 2 + 1)


def test_nothing_is_patched_and_the_default_is_not_even_looked_at(
    pytester: pytest.Pytester, assert_untouched: Callable[..., None]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import os
        from multiprocessing import context, process, spawn

        def test_default():
            assert multiprocessing.get_start_method(allow_none=True) is None
            assert context._default_context._actual_context is None

        def test_patches():
            for cls in (process.BaseProcess, context.Process, context.SpawnProcess):
                assert cls.start.__module__ == "multiprocessing.process"
                assert cls.start.__code__.co_filename == process.__file__
            assert spawn.get_preparation_data.__code__.co_filename == spawn.__file__
            assert context.DefaultContext.__module__ == "multiprocessing.context"
            assert os.environ["PYTEST_CURRENT_TEST"]

        def test_pins():
            multiprocessing.set_start_method("spawn")

        def test_pin_stays():
            assert multiprocessing.get_start_method(allow_none=True) == "spawn"
    """)
    assert_untouched(passed=4)


def test_collectors_and_items_of_every_kind_stay_as_they_are(
    pytester: pytest.Pytester, assert_untouched: Callable[..., None]
) -> None:
    pytester.makeini("[pytest]\naddopts = --doctest-modules --doctest-glob=*.txt --strict-markers")
    pytester.maketxtfile(readme=">>> 1 + 1\n2")
    pytester.makepyfile(
        test_it='''
            """A module's doctest.

            >>> 1 + 1
            2
            """

            import unittest

            import pytest

            class TestCase(unittest.TestCase):
                def test_one(self):
                    pass

                @unittest.skip("no")
                def test_two(self):
                    pass

            @pytest.mark.parametrize("number", [1, 2], ids=["one", "two"])
            @pytest.mark.parametrize("letter", "ab")
            def test_function(number, letter):
                pass

            def test_fails():
                assert 1 == 2

            @pytest.mark.xfail
            def test_expected():
                raise AssertionError
        ''',
        test_broken="1 / 0",
    )
    assert_untouched(errors=2)  # once as a module, once for its doctests
    (pytester.path / "test_broken.py").unlink()
    assert_untouched(passed=7, failed=1, skipped=1, xfailed=1)


def test_a_process_of_a_fixture_that_the_test_asks_for_while_it_runs_counts(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        FLAGS = []

        def serve(connection):
            while connection.recv():
                connection.send(list(FLAGS))

        @pytest.fixture(scope="session")
        def server():
            FLAGS.append(1)
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=serve, args=(theirs,))
            process.start()
            yield ours
            ours.send(None)
            process.join()

        @pytest.fixture
        def client(request):
            return request.getfixturevalue("server")

        def test_first(server):
            server.send(1)
            assert server.recv() is not None

        def test_later(client):
            client.send(1)
            assert client.recv() == [1]

        def test_nothing():
            pass
    """)
    result = run_watched("--start-method=fork,spawn")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*::test_later*", "*passed: fork    failed: spawn"])


def test_a_test_that_is_skipped_for_the_default_at_import_runs_under_the_others(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import pytest

        METHOD = multiprocessing.get_start_method()

        @pytest.mark.skipif(METHOD == "fork", reason="its children must be clean")
        def test_skipped_under_fork():
            assert multiprocessing.get_start_method() == "spawn"

        @pytest.mark.xfail(METHOD == "fork", reason="its children must be clean", run=False)
        def test_not_run_under_fork():
            assert multiprocessing.get_start_method() == "spawn"

        @pytest.mark.skipif(METHOD == "spawn", reason="its children must be forks")
        def test_skipped_under_spawn():
            assert multiprocessing.get_start_method() == "fork"

        def test_nothing():
            pass
    """)
    result = run_watched("--start-method=fork,spawn")
    result.assert_outcomes(passed=5, skipped=2, xfailed=1)


def test_a_skipped_test_of_a_suite_that_never_asks_for_the_default_runs_once(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.skip
        def test_skipped():
            pass
    """)
    run_watched("--start-method=fork,spawn").assert_outcomes(skipped=1)
