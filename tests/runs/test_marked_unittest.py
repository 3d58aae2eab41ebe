"""The marker on a `unittest.TestCase`, whose tests pytest doesn't parametrize."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

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
    # They are tests like any other.
    [file] = pytester.path.glob("test_*.py")
    result = run_watched("-v", f"{file.name}::TestCase::test_class[spawn]")
    assert runs(result) == ["TestCase::test_class[spawn] PASSED"]
    assert runs(run_watched("-v", "-k", "test_class and spawn")) == runs(result)
