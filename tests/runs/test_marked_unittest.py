"""The marker on a `unittest.TestCase`, whose tests pytest doesn't parametrize."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]
    Runs = Callable[[pytest.RunResult], list[str]]

ALL = "--start-method=fork,spawn,forkserver"


@pytest.mark.usefixtures("child_module")
@pytest.mark.parametrize("select", [[], [ALL]], ids=["unselected", "selected"])
def test_the_marker_works_on_a_unittest(
    pytester: pytest.Pytester,
    run_watched: Run,
    runs: Runs,
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
                note(f"setUpClass {multiprocessing.get_context().get_start_method()}")

            def setUp(self):
                note(f"setUp {multiprocessing.get_context().get_start_method()}")

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
    # They are tests like any other.
    [file] = pytester.path.glob("test_*.py")
    result = run_watched("-v", f"{file.name}::TestCase::test_class[spawn]")
    assert runs(result) == ["TestCase::test_class[spawn] PASSED"]
    assert runs(run_watched("-v", "-k", "test_class and spawn")) == runs(result)
