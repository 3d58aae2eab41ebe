"""Reruns that end differently are checked in a session under the first start method."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = "--start-method=fork,spawn,forkserver"


@pytest.mark.usefixtures("child_module")
def test_a_test_that_needs_one_before_it_is_no_difference(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile(
        test_it="""
            import multiprocessing

            import child
            import pytest

            state = {}

            def test_sets_state():
                state["set"] = True

            def test_needs_it():
                child.by_process()
                assert state["set"]

            def test_skips_without_it():
                child.by_process()
                if not state:
                    pytest.skip("no state")

            def test_differs():
                child.by_process()
                state["seen"] = True
                assert multiprocessing.get_start_method() != "spawn"

            def test_needs_a_concerned_one():
                child.by_process()
                assert state["seen"]
                assert multiprocessing.get_start_method() != "forkserver"

            def test_fails_everywhere():
                child.by_process()
                raise AssertionError
        """
    )
    result = run_watched(ALL, "-v", "--tb=no")
    result.assert_outcomes(passed=7, failed=7, skipped=2)
    place = result.outlines.index("doesn't run alone: under fork it fails there, too (2 runs)")
    assert result.outlines[place + 1 : place + 6] == [
        "    test_it.py::test_needs_it[spawn]",
        "    test_it.py::test_needs_it[forkserver]",
        "doesn't run alone: under fork it is skipped there, too (2 runs)",
        "    test_it.py::test_skips_without_it[spawn]",
        "    test_it.py::test_skips_without_it[forkserver]",
    ]
    assert (
        "test_it.py::test_differs    passed: fork, forkserver    failed: spawn" in result.outlines
    )
    place = result.outlines.index("test_it.py::test_needs_a_concerned_one")
    assert result.outlines[place + 1] == "    passed: fork, spawn    failed: forkserver"
    assert len([line for line in result.outlines if "passed: " in line]) == 2


@pytest.mark.usefixtures("child_module")
def test_the_control_session_shows_and_counts_nothing(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makepyfile("""
        import multiprocessing
        import warnings

        import child

        def test_fails():
            child.by_process()
            warnings.warn("in the test")
            print("printed under", multiprocessing.get_start_method())
            assert multiprocessing.get_start_method() == "fork"
    """)
    result = run_watched("--start-method=fork,spawn", "-s", "-v")
    result.assert_outcomes(passed=1, failed=1, warnings=2)
    assert result.stdout.str().count("printed under fork") == 1
    # The first failure ends the run, and is checked all the same.
    result = run_watched("--start-method=fork,spawn", "-x")
    result.assert_outcomes(passed=1, failed=1, warnings=2)
    assert "passed: fork    failed: spawn" in result.stdout.str()


@pytest.mark.usefixtures("child_module")
def test_there_is_no_control_session_if_nothing_ends_differently(
    pytester: pytest.Pytester, run_watched: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest("open('imported.txt', 'a').write('x')")
    pytester.makepyfile("""
        import child

        def test_passes():
            child.by_process()

        def test_fails():
            child.by_process()
            raise AssertionError
    """)
    run_watched("--start-method=fork,spawn").assert_outcomes(passed=2, failed=2)
    assert (pytester.path / "imported.txt").read_text(encoding="utf-8") == "xx"
