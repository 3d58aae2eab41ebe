"""The results of runs, tested by plain calls."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_startmethod.record import ASKS, Run, with_method, without_method
from pytest_startmethod.report.results import Results

THREE = ("fork", "spawn", "forkserver")


def told(test: str, method: str, outcome: str = "passed", **kwargs: object) -> tuple[Run, str]:
    """Return a run that proved its method, unless told otherwise, and its outcome."""
    run = Run(method, test, with_method(test, method), processes=1, proven=True)
    return run._replace(**kwargs), outcome  # type: ignore[arg-type]


def results(*runs: tuple[Run, str]) -> Results:
    """Return the results of runs that have one phase of a second each."""
    made = Results(THREE)
    for run, outcome in runs:
        made.add(run, outcome, 1.0, "why" if outcome == "failed" else "")
    return made


@pytest.mark.parametrize(
    ("nodeid", "method", "shown"),
    [
        ("a.py::test_x", "spawn", "a.py::test_x[spawn]"),
        ("a.py::test_x[1]", "spawn", "a.py::test_x[1-spawn]"),
        ("a.py::test_x[fork]", "fork", "a.py::test_x[fork-fork]"),
        ("a.py::test_x[[]]", "fork", "a.py::test_x[[]-fork]"),
        # As pytest-xdist ends the ids of a group.
        ("a.py::test_x@a", "spawn", "a.py::test_x[spawn]@a"),
        ("a.py::test_x[1]@a", "spawn", "a.py::test_x[1-spawn]@a"),
        ("a.py::test_x[a@b]", "spawn", "a.py::test_x[a@b-spawn]"),
        ("a@b/c.py::test_x", "spawn", "a@b/c.py::test_x[spawn]"),
    ],
)
def test_a_run_is_shown_by_its_test_and_its_method(nodeid: str, method: str, shown: str) -> None:
    assert with_method(nodeid, method) == shown
    assert without_method(shown, method) == nodeid


def report(*keywords: str) -> pytest.TestReport:
    told, where, names = [("start_method", "fork")], ("x.py", 0, "x"), dict.fromkeys(keywords, 1)
    return pytest.TestReport("x[fork]", where, names, "passed", None, "call", user_properties=told)  # type: ignore[arg-type]


def test_a_run_is_sent_as_plain_values() -> None:
    run = Run("fork", "x", "x[1-fork]", processes=2)
    telling = report()
    run.tell(telling)
    assert type(vars(telling)["start_method"]) is tuple
    assert Run.told_by(telling) == run


def test_the_id_and_properties_of_a_report_describe_a_run_without_processes() -> None:
    assert Run.of(report(ASKS)) == Run("fork", "x", "x[fork]")
    assert Run.of(report()) is None
    assert Run.told_by(report()) is None


def test_the_worst_phase_is_the_outcome_and_its_first_failure_is_reported() -> None:
    made = Results(THREE)
    run = Run("fork", "x", "x[fork]")
    made.add(run, "passed", 0.5, "")
    made.add(run._replace(processes=2), "failed", 1.0, "at its call")
    made.add(run._replace(processes=2, proven=True), "failed", 0.5, "at its teardown")
    [[result]] = [runs.values() for runs in made.tests()]
    assert (result.outcome, result.seconds, result.last_line) == ("failed", 2.0, "at its call")
    assert (result.run.processes, result.run.proven) == (2, True)
    for earlier, later, outcome in (
        *(("passed", "skipped", "skipped"), ("skipped", "passed", "skipped")),
        *(("xfailed", "passed", "xfailed"), ("xfailed", "failed", "failed")),
        ("failed", "passed", "failed"),
    ):
        made = results((run, earlier), (run, later))
        assert made.tests()[0]["fork"].outcome == outcome


def test_a_test_that_rerunfailures_repeats_counts_once() -> None:
    run = Run("fork", "x", "x[fork]")
    made = results((run, "passed"), (run, "rerun"), (run, "passed"), (run, "passed"))
    [row] = made.table()
    assert (row.outcomes["passed"], row.seconds) == (1, 2.0)
    assert results((run, "passed"), (run, "rerun")).tests() == []


def test_the_order_is_that_of_collection_and_of_start_methods() -> None:
    made = Results(THREE)
    for place, (run, outcome) in {
        9: told("late", "fork", "failed"),
        4: told("early", "other"),
        3: told("early", "forkserver"),
        1: told("early", "fork"),
        8: told("late", "spawn"),
        5: told("middle", "spawn"),
    }.items():
        made.add(run, outcome, 0, place=place)
    assert [[*runs] for runs in made.tests()] == [
        ["fork", "forkserver", "other"],
        ["spawn"],
        ["fork", "spawn"],
    ]
    assert [row.start_method for row in made.table()] == [*THREE, "other"]


def test_the_table_counts_outcomes_processes_and_time() -> None:
    made = results(
        told("x", "fork"),
        told("x", "spawn", "failed"),
        told("y", "fork", "skipped", processes=0),
        told("y", "spawn", "xfailed", processes=3),
    )
    assert [(row.start_method, dict(row.outcomes), row.processes) for row in made.table()] == [
        ("fork", {"passed": 1, "skipped": 1}, 1),
        ("spawn", {"failed": 1, "xfailed": 1}, 4),
    ]
    assert Results(THREE).table() == []


@pytest.mark.parametrize(
    ("outcomes", "differs"),
    [
        (["passed", "passed", "passed"], False),
        (["failed", "failed"], False),
        (["failed"], False),
        (["passed", "failed"], True),
        (["passed", "skipped"], False),
        (["failed", "skipped"], False),
        (["skipped", "passed", "failed"], True),
        (["passed", "xfailed"], False),  # as somebody expects
        (["xfailed", "failed"], True),
    ],
)
def test_a_test_that_fails_under_one_method_only_differs(
    outcomes: list[str], differs: bool
) -> None:
    made = results(*(told("x", name, end) for name, end in zip(THREE, outcomes, strict=False)))
    assert bool(made.differing()) is differs


def test_a_failure_by_an_older_lock_is_no_difference() -> None:
    made_under = {"made_under": "fork"}
    made = results(told("x", "fork"), told("x", "spawn", "failed", **made_under))
    assert made.differing() == []
    assert [result.run.nodeid for result in made.made_before()] == ["x[spawn]"]
    made.add(*told("x", "forkserver", "failed"), 1.0, "its own")
    [runs] = made.differing()
    assert [*runs] == ["fork", "forkserver"]
    made = results(told("x", "fork"), told("x", "spawn", **made_under))  # rerun, and it passed
    assert made.made_before() == []


def test_a_run_that_passes_without_a_process_of_its_method_is_unproven() -> None:
    rerun: dict[str, Any] = {"asked": False, "concerned": True}
    made = results(
        told("proven", "fork"),
        told("without", "fork", proven=False),
        told("fails", "fork", "failed", proven=False),
        told("starts", "fork", nodeid="starts", **rerun),
        told("starts", "spawn", proven=False, **rerun),
        told("asks", "fork", proven=False, nodeid="asks", **rerun),
        told("asks", "spawn", proven=False, **rerun),
    )
    assert [result.run.nodeid for result in made.unproven()] == ["without[fork]", "starts[spawn]"]


def test_a_test_that_ends_alike_in_the_control_session_is_no_difference() -> None:
    rerun: dict[str, Any] = {"asked": False, "concerned": True}
    made = results(
        told("needs others", "fork", nodeid="needs others", **rerun),
        told("needs others", "spawn", "failed", **rerun),
        told("differs", "fork", nodeid="differs", **rerun),
        told("differs", "spawn", "failed", **rerun),
    )
    made.notes.control.update({"needs others": "failed", "differs": "passed"})
    assert [[*runs] for runs in made.differing()] == [["fork", "spawn"]]
    assert [result.run.nodeid for result in made.not_alone()] == ["needs others[spawn]"]


def test_a_test_that_asks_or_is_concerned_counts() -> None:
    other = Run("fork", "chooses", "chooses", asked=False, other_processes=2)
    made = results((other, "passed"), told("asks", "fork"))
    assert [row.outcomes["passed"] for row in made.table()] == [1]
    assert [result.run for result in made.others()] == [other]
