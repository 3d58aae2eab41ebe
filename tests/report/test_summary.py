"""The lines of the summary, tested by plain calls."""

from __future__ import annotations

import pytest

from pytest_startmethod.record import NotRun, Run
from pytest_startmethod.report.results import Results
from pytest_startmethod.report.summary import header, lines, markdown
from pytest_startmethod.selection.table import Methods, Selection

THREE = ("fork", "spawn", "forkserver")
LINUX = Methods(THREE, THREE, THREE, platform_default="fork")
WINDOWS = Methods(THREE, ("spawn",), ("spawn",), platform_default="spawn")


@pytest.mark.parametrize(
    ("selection", "line"),
    [
        (
            Selection(LINUX, THREE, by_user=False),
            "start methods: fork, spawn, forkserver (platform default: fork)",
        ),
        (
            Selection(LINUX, ("spawn",), by_user=True),
            "start methods: spawn (platform default: fork)",
        ),
        (
            Selection(WINDOWS, THREE, by_user=True),
            "start methods: spawn (platform default: spawn; not supported: fork, forkserver)",
        ),
        (
            Selection(LINUX, ("fork", "spawn"), True, {"fork": "CUDA is initialised"}),
            "start methods: spawn (platform default: fork; fork unavailable: CUDA is initialised)",
        ),
        (
            Selection(LINUX, ("fork",), True, {"fork": "CUDA is initialised"}),
            "start methods: none (platform default: fork; fork unavailable: CUDA is initialised)",
        ),
    ],
)
def test_the_header_says_what_tests_run_under_and_what_they_cannot(
    selection: Selection, line: str
) -> None:
    assert header(selection) == line


FULL = Run("fork", "a.py::test_x", "a.py::test_x[fork]", processes=1, proven=True)


def results(*ended: tuple[Run, str], why: str = "ValueError: no") -> Results:
    made = Results(THREE)
    for run, outcome in ended:
        made.add(run, outcome, 0.25, why if outcome == "failed" else "")
    return made


def told(results: Results, verbosity: int = 0, width: int = 80) -> list[str]:
    """Return the lines as they are shown, those of separators by their text."""
    return [line.text for line in lines(results, verbosity, width)]


def test_the_table_has_a_row_for_each_method_and_a_column_for_each_outcome() -> None:
    passed = (FULL, "passed"), (FULL._replace(start_method="forkserver", processes=2), "skipped")
    assert told(results(*passed)) == [
        "start methods",
        "             passed   failed  skipped  processes     time",
        "fork              1                            1    0.25s",
        "forkserver                          1          2    0.25s",
    ]
    assert told(results((FULL, "xfailed")))[1:] == [
        "       passed   failed  skipped  xfailed  processes     time",
        "fork                                   1          1    0.25s",
    ]
    assert told(Results(THREE)) == []


def test_colours_mark_what_the_lines_say() -> None:
    spawn = FULL._replace(start_method="spawn", hint="move it")
    made = results((FULL, "passed"), (spawn, "failed"))
    marked = {line.text: line.markup for line in lines(made, 0, 80) if line.markup}
    assert [*marked.values()] == [{"green": True}, {"red": True}, {"bold": True}, {"red": True}]
    assert told(made)[4:] == [
        "outcome depends on the start method",
        "a.py::test_x    passed: fork    failed: spawn",
        "    ValueError: no",
        "    move it",
    ]
    assert [line.separator for line in lines(made, 0, 80) if line.separator] == ["=", "-"]


def test_quiet_shows_only_what_differs() -> None:
    spawn = FULL._replace(start_method="spawn")
    unproven = FULL._replace(test="a.py::test_y", proven=False)
    assert told(results((FULL, "passed"), (spawn, "passed")), verbosity=-1) == []
    differing = results((FULL, "passed"), (spawn, "failed"), (unproven, "passed"))
    assert told(differing, verbosity=-1) == [
        "start methods",
        "outcome depends on the start method",
        "a.py::test_x    passed: fork    failed: spawn",
        "    ValueError: no",
    ]


def test_remarks_name_their_runs_with_verbose() -> None:
    spawn, forkserver = (
        FULL._replace(start_method=name, nodeid=f"a.py::test_x[{name}]", made_under="fork")
        for name in ("spawn", "forkserver")
    )
    other = spawn._replace(test="a.py::test_y", nodeid="a.py::test_y[spawn]")
    untouched = Run(
        "fork", "a.py::test_z", "a.py::test_z", asked=False, concerned=True, proven=True
    )
    rerun = untouched._replace(start_method="spawn", nodeid="a.py::test_z[spawn]")
    made = results(
        (FULL._replace(proven=False), "passed"),
        *((spawn, "failed"), (forkserver, "failed"), (other, "failed")),
        *((untouched._replace(other_processes=2), "passed"), (rerun, "failed")),
    )
    made.notes.control["a.py::test_z"] = "failed"
    why, command = "--pdb needs the terminal", "pytest --start-method=spawn --pdb"
    made.notes.not_run.append(NotRun("spawn", why, ("a.py::test_w",), command))
    assert told(made)[5:] == [
        "passed, and used no process of the start method (1 run, -v names them)",
        "lock or queue made under fork: run --start-method=spawn alone",
        "    (2 runs, -v names them)",
        "lock or queue made under fork: run --start-method=forkserver alone",
        "    (1 run, -v names them)",
        "doesn't run alone: under fork it fails there, too (1 run, -v names them)",
        "2 processes by a start method that the test chose (1 run, -v names them)",
        "not run under spawn: --pdb needs the terminal (1 run, -v names them)",
        "    pytest --start-method=spawn --pdb",
    ]
    assert told(made, verbosity=1)[5:] == [
        "passed, and used no process of the start method (1 run)",
        "    a.py::test_x[fork]",
        "lock or queue made under fork: run --start-method=spawn alone (2 runs)",
        "    a.py::test_x[spawn]",
        "    a.py::test_y[spawn]",
        "lock or queue made under fork: run --start-method=forkserver alone (1 run)",
        "    a.py::test_x[forkserver]",
        "doesn't run alone: under fork it fails there, too (1 run)",
        "    a.py::test_z[spawn]",
        "2 processes by a start method that the test chose (1 run)",
        "    a.py::test_z",
        "not run under spawn: --pdb needs the terminal (1 run)",
        "    pytest --start-method=spawn --pdb",
        "    a.py::test_w",
    ]


def test_no_line_is_wider_than_the_terminal_and_the_outcomes_are_never_cut_off() -> None:
    test = f"tests/{'very_' * 20}long.py::test_x"
    fork, spawn, unproven = (
        FULL._replace(
            start_method=name, test=test, nodeid=test, hint="move it " * 20, proven=bool(name)
        )
        for name in ("fork", "spawn", "")
    )
    for width in (60, 70, 80):
        made = results((fork, "passed"), (spawn, "failed"), why="E" * 100)
        shown = told(made, 1, width)
        assert "    passed: fork    failed: spawn" in shown
        assert max(map(len, shown)) <= width
        made = results((unproven._replace(start_method="fork"), "passed"))
        assert max(map(len, told(made, 1, width))) <= width


def test_twenty_differing_tests_are_shown_in_full() -> None:
    made = Results(THREE)
    for number in range(23):
        run = FULL._replace(test=f"a.py::test_x[{number}]")
        made.add(run, "passed", 0, "")
        made.add(run._replace(start_method="spawn"), "failed", 0, "why")
    shown = told(made)
    names = [line.split()[0] for line in shown if line.startswith("a.py")]
    assert names == [f"a.py::test_x[{number}]" for number in range(20)]
    assert shown[-1] == "... and 3 more"


def test_markdown_says_the_same_and_shows_texts_unchanged() -> None:
    spawn = FULL._replace(start_method="spawn", hint='if __name__ == "__main__"')
    made = results(
        *((FULL, "passed"), (spawn, "failed")),
        (FULL._replace(test="test_y", nodeid="test_y[a|`b`-fork]", proven=False), "passed"),
        (spawn._replace(test="test_z", nodeid="test_z[spawn]", made_under="fork"), "failed"),
        why="Can't get local object 'f.<locals>.work' | *",
    )
    assert markdown(made).splitlines() == [
        "## Start methods",
        "",
        "| | passed | failed | skipped | xfailed | processes | time |",
        "|---|--:|--:|--:|--:|--:|--:|",
        "| fork | 2 | 0 | 0 | 0 | 2 | 0.50 s |",
        "| spawn | 0 | 2 | 0 | 0 | 2 | 0.50 s |",
        "",
        "### Passed, and used no process of the start method",
        "",
        "- `` test_y[a|`b`-fork] ``",
        "",
        "### Lock or queue made under fork: run --start-method=spawn alone",
        "",
        "- `test_z[spawn]`",
        "",
        "### Outcome depends on the start method",
        "",
        "| test | outcome | |",
        "|---|---|---|",
        (
            "| `a.py::test_x` | passed: fork<br>failed: spawn "
            "| `Can't get local object 'f.<locals>.work' \\| *`<br>`if __name__ == \"__main__\"` |"
        ),
    ]
