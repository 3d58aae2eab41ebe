"""A test that knows nothing of us and starts a process runs again under each other start method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs("fork", "forkserver")

ALL = "--start-method=fork,spawn,forkserver"

NOTES = """
import multiprocessing
from pathlib import Path

def note(text):
    with Path("notes.txt").open("a") as file:
        print(text, multiprocessing.get_context().get_start_method(), file=file)
"""


def runs(result: pytest.RunResult) -> list[str]:
    """Return what ``-v`` shows of each run: ``["test_x PASSED", "test_x[spawn] FAILED", ...]``."""
    lines = [line.partition("::")[2].split() for line in result.outlines if "::" in line]
    return [f"{words[0]} {words[1]}" for words in lines if words[1:] and words[1].isupper()]


@pytest.fixture
def notes(pytester: pytest.Pytester) -> Callable[[], list[str]]:
    """Return what the tests of a run noted, by ``from notes import note``, and forget it."""
    pytester.makepyfile(notes=NOTES)

    def read() -> list[str]:
        path = pytester.path / "notes.txt"
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return text.splitlines()

    return read


@pytest.mark.usefixtures("child_module")
def test_only_what_starts_a_process_by_the_default_runs_again_and_really_by_each(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    notes: Callable[[], list[str]],
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest
        from notes import note

        def test_quiet():
            note("quiet")

        def test_process():
            note(f"process {child.by_process()}")

        @pytest.mark.parametrize("ask", [child.by_pool, child.by_executor], ids=["pool", "x"])
        def test_each(ask):
            note(f"each {ask()}")

        @pytest.mark.parametrize("name", ["spawn"])
        def test_explicit(name):
            note(f"explicit {child.by_process(multiprocessing.get_context(name))}")

        def test_fixture(mp_context):
            note(f"fixture {child.by_process(mp_context)}")

        def test_skips():
            child.by_process()
            pytest.skip()

        @pytest.mark.xfail(reason="planted", strict=True)
        def test_expected():
            child.by_process()
            raise AssertionError

        def test_last_fails_first():
            child.by_process()
            assert multiprocessing.get_start_method() != "fork"
    """)
    # explicit contexts: under the default that has the same name, a mismatch elsewhere
    result = run_watched("-v", ALL, "-W", "ignore::pytest_startmethod.StartMethodMismatchWarning")
    assert runs(result) == [
        "test_quiet PASSED",
        *("test_process PASSED", "test_process[spawn] PASSED", "test_process[forkserver] PASSED"),
        "test_each[pool] PASSED",
        *("test_each[pool-spawn] PASSED", "test_each[pool-forkserver] PASSED"),
        *("test_each[x] PASSED", "test_each[x-spawn] PASSED", "test_each[x-forkserver] PASSED"),
        "test_explicit[spawn] PASSED",
        *(f"test_fixture[{method}] PASSED" for method in ("fork", "spawn", "forkserver")),
        *("test_skips SKIPPED", "test_skips[spawn] SKIPPED", "test_skips[forkserver] SKIPPED"),
        "test_expected XFAIL",
        *("test_expected[spawn] XFAIL", "test_expected[forkserver] XFAIL"),
        "test_last_fails_first FAILED",
        "test_last_fails_first[spawn] PASSED",
        "test_last_fails_first[forkserver] PASSED",
    ]
    result.assert_outcomes(passed=16, skipped=3, xfailed=3, failed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "[100%]" in [line for line in result.outlines if "::" in line and "%]" in line][-1]
    by_each = ("fork", "spawn", "forkserver")
    assert notes() == [
        "quiet fork",
        *(f"process {method} {method}" for method in by_each),
        *(f"each {method} {method}" for method in by_each * 2),
        "explicit spawn fork",
        *(f"fixture {method} fork" for method in by_each),
    ]


@pytest.mark.usefixtures("child_module")
def test_wider_fixtures_last_over_all_runs_and_narrow_ones_are_made_for_each(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    notes: Callable[[], list[str]],
) -> None:
    pytester.makeconftest("""
        import pytest
        from notes import note

        def fixture(scope):
            @pytest.fixture(scope=scope)
            def made(request):
                note(f"+{scope}")
                yield request.node
                note(f"-{scope}")
            return made

        in_session = fixture("session")
        in_module = fixture("module")
        in_class = fixture("class")
        in_function = fixture("function")
    """)
    test = """
        import child
        import pytest
        from notes import note

        class TestClass:
            def setup_method(self):
                assert not hasattr(self, "seen")
                self.made = []

            def teardown_method(self):
                [made] = self.made
                note(made)

            def test_not_last(self, in_session, in_module, in_class):
                self.seen = True
                self.made.append("test_not_last")
                child.by_process()

            def test_last(self, in_session, in_module, in_class, in_function):
                self.seen = True
                self.made.append("test_last")
                child.by_process()
    """
    pytester.makepyfile(test_a=test, test_b=test)
    result = run_watched("--start-method=fork,spawn", "--setup-show")
    result.assert_outcomes(passed=8)
    each = [
        "+module fork",
        "+class fork",
        "test_not_last fork",
        "test_not_last spawn",
        *("+function fork", "-function fork", "test_last fork"),
        *("+function spawn", "-function spawn", "test_last spawn"),
        "-class spawn",
        "-module spawn",
    ]
    assert notes() == [
        "+session fork",
        *each,
        *each,
        "-session spawn",
    ]


@pytest.mark.usefixtures("child_module")
def test_neither_what_a_wider_fixture_starts_nor_what_it_pins_makes_a_test_run_again(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child
        import pytest

        @pytest.fixture(scope="module")
        def answer():
            return child.by_process()

        @pytest.fixture(scope="module")
        def pool():
            with multiprocessing.Pool(1) as pool:
                yield pool

        @pytest.fixture
        def own_answer():
            return child.by_process()

        def test_answer(answer):
            assert answer == "fork"
            assert multiprocessing.get_start_method(allow_none=True) is None

        def test_pool(pool):
            assert pool.apply(child.method) == "fork"

        def test_both(answer, own_answer):
            assert own_answer == multiprocessing.get_start_method()
            assert answer == "fork"
    """)
    result = run_watched("-v", ALL)
    assert runs(result) == [
        "test_answer PASSED",
        "test_pool PASSED",
        *("test_both PASSED", "test_both[spawn] PASSED", "test_both[forkserver] PASSED"),
    ]


@pytest.mark.usefixtures("child_module")
def test_a_unittest_runs_again_with_all_that_belongs_to_it(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    notes: Callable[[], list[str]],
) -> None:
    pytester.makepyfile("""
        import unittest

        import child
        from notes import note

        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                note("setUpClass")

            @classmethod
            def tearDownClass(cls):
                note("tearDownClass")

            def setUp(self):
                self.made = []
                self.addCleanup(note, "cleanup")

            def test_1(self):
                self.made.append(child.by_process())
                note(self.made)

            def test_2_skips(self):
                child.by_process()
                self.skipTest("no")

            def test_3_quiet(self):
                pass

            def test_4_subtests(self):
                for number in range(2):
                    with self.subTest(number=number):
                        note(child.by_process())
    """)
    result = run_watched("-v", "--start-method=fork,spawn")
    assert [run for run in runs(result) if "SUB" not in run] == [
        *("TestCase::test_1 PASSED", "TestCase::test_1[spawn] PASSED"),
        *("TestCase::test_2_skips SKIPPED", "TestCase::test_2_skips[spawn] SKIPPED"),
        "TestCase::test_3_quiet PASSED",
        *("TestCase::test_4_subtests PASSED", "TestCase::test_4_subtests[spawn] PASSED"),
    ]
    assert notes() == [
        "setUpClass fork",
        *("['fork'] fork", "cleanup fork", "['spawn'] spawn", "cleanup spawn"),
        *("cleanup fork", "cleanup spawn"),
        "cleanup fork",
        *("fork fork", "fork fork", "cleanup fork"),
        *("spawn spawn", "spawn spawn", "cleanup spawn"),
        "tearDownClass spawn",
    ]


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("select", [[], [ALL]], ids=["unselected", "selected"])
def test_the_marker_works_on_a_unittest(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
    notes: Callable[[], list[str]],
    select: list[str],
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import unittest

        import child
        import pytest
        from notes import note

        @pytest.mark.start_methods(
            "spawn", pytest.param("fork", marks=pytest.mark.xfail(reason="planted", strict=True))
        )
        class TestCase(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                note("setUpClass")

            def setUp(self):
                note("setUp")

            def test_class(self):
                self.assertEqual(child.by_process(), multiprocessing.get_start_method())
                self.assertNotEqual(multiprocessing.get_start_method(), "fork")

            @pytest.mark.start_methods("forkserver")
            def test_closer(self):
                self.assertEqual(child.by_executor(), "forkserver")

        class TestOther(unittest.TestCase):
            @pytest.mark.start_methods
            def test_all_and_starts_nothing(self):
                pass

            @pytest.mark.start_methods("spawn", reason="planted")
            def test_not_selected(self):
                raise AssertionError
    """)
    deselect = ["-k", "not not_selected"]
    result = run_watched("-v", *select, *deselect)
    assert runs(result) == [
        *("TestCase::test_class[fork] XFAIL", "TestCase::test_class[spawn] PASSED"),
        "TestCase::test_closer[forkserver] PASSED",
        *(
            f"TestOther::test_all_and_starts_nothing[{method}] PASSED"
            for method in ("fork", "spawn", "forkserver")
        ),
    ]
    assert [line.split()[0] for line in notes()] == ["setUpClass", "setUp", "setUp", "setUp"]
    result.assert_outcomes(passed=5, xfailed=1, deselected=1)
    result = run_watched("-v", "--start-method=fork")
    # As many as runs: one each of three tests, and two of the one that names all.
    result.assert_outcomes(passed=1, xfailed=1, deselected=5)


def test_doctests_run_once(
    pytester: pytest.Pytester,
    run_watched: Callable[..., pytest.RunResult],
) -> None:
    pytester.makepyfile(
        counted='''
            """A module.

            >>> import multiprocessing, os
            >>> process = multiprocessing.Process(target=os.getpid)
            >>> process.start()
            >>> process.join()
            >>> process.exitcode
            0
            """
        '''
    )
    result = run_watched("-v", ALL, "--doctest-modules", "counted.py")
    result.assert_outcomes(passed=1)


@pytest.mark.usefixtures("child_module")
def test_what_a_test_sets_does_not_outlive_its_run(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing

        import child

        def test_sets():
            multiprocessing.set_start_method("spawn", force=True)
            assert child.by_process() == "spawn"

        def test_pins(record_property):
            assert multiprocessing.get_start_method(allow_none=True) is None
            record_property("own", multiprocessing.get_start_method())
            assert child.by_process() == multiprocessing.get_start_method()

        def test_default():
            assert multiprocessing.get_start_method(allow_none=True) is None
            assert multiprocessing.get_start_method() == "fork"
    """)
    result = run_watched(
        *("--start-method=forkserver,fork", "--junitxml=junit.xml", "-o", "junit_family=xunit1"),
        *("-W", "ignore::pytest_startmethod.StartMethodMismatchWarning"),
    )
    result.assert_outcomes(passed=4)
    text = Path(pytester.path, "junit.xml").read_text(encoding="utf-8")
    assert text.count('<property name="own"') == 2


def test_the_report_of_a_further_run_shows_what_that_run_printed(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import os

        def test_it():
            multiprocessing.Process(target=os.getpid).start()
            method = multiprocessing.get_start_method()
            print(f"printed under {method}")
            assert method == "spawn"
    """)
    result = pytester.runpytest_subprocess("--start-method=fork,spawn", timeout=60)
    result.assert_outcomes(passed=1, failed=1)
    assert result.stdout.str().count("printed under fork") == 1
    pytester.runpytest_subprocess("--start-method=spawn,fork", timeout=60).stdout.no_fnmatch_line(
        "printed under spawn"
    )
