"""The start methods that a test runs under: the whole table, tested by plain calls."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pytest_startmethod.selection.table import (
    Marker,
    Methods,
    Selection,
    SelectionError,
    expand,
    expand_known,
    start_methods,
)

THREE = ("fork", "spawn", "forkserver")
LINUX = Methods(known=THREE, supported=THREE, standard=THREE, platform_default="fork")
LINUX_314 = Methods(known=THREE, supported=THREE, standard=THREE, platform_default="forkserver")
WINDOWS = Methods(THREE, supported=("spawn",), standard=("spawn",), platform_default="spawn")
TORCH = Methods((*THREE, "torch"), (*THREE, "torch"), standard=THREE, platform_default="fork")

NOT_SUPPORTED = f"not supported on {sys.platform} (supported: spawn)"
NO_FORK = f"start method 'fork' is {NOT_SUPPORTED}"
NO_DEFAULT = (
    "can't be the process-wide default that other tests run with: "
    "select it beside one of fork, spawn, forkserver"
)


@pytest.mark.parametrize(
    ("methods", "values", "selected"),
    [
        (LINUX, ["spawn"], ["spawn"]),
        (LINUX, ["forkserver,fork"], ["fork", "forkserver"]),
        (LINUX, ["forkserver", "spawn, fork "], ["fork", "spawn", "forkserver"]),
        (LINUX, ["spawn,spawn", "spawn"], ["spawn"]),
        (LINUX, ["all"], ["fork", "spawn", "forkserver"]),
        (LINUX, ["default"], ["fork"]),
        (LINUX, ["spawn,default"], ["fork", "spawn"]),
        (LINUX_314, ["default"], ["forkserver"]),
        (WINDOWS, ["all"], ["spawn"]),
        (WINDOWS, ["spawn,fork"], ["fork", "spawn"]),
        (TORCH, ["all"], ["fork", "spawn", "forkserver", "torch"]),
        (TORCH, ["torch,spawn"], ["spawn", "torch"]),
    ],
)
def test_words_select_methods_in_run_order(
    methods: Methods, values: list[str], selected: list[str]
) -> None:
    assert list(expand(values, methods)) == selected
    assert list(expand_known([*values, "nobody"], methods)) == selected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["frok"], "unknown start method 'frok', did you mean 'fork'?"),
        (["SPAWN"], "unknown start method 'SPAWN', did you mean 'spawn'?"),
        (["spawn,xyz"], "unknown start method 'xyz'"),
        ([""], "empty name of a start method"),
        (["spawn,"], "empty name of a start method"),
        ([], "empty name of a start method"),
    ],
)
def test_an_unknown_word_is_an_error_that_lists_the_known_ones(
    values: list[str], message: str
) -> None:
    with pytest.raises(SelectionError) as error:
        expand(values, TORCH)
    assert str(error.value) == f"{message} (known: fork, spawn, forkserver, torch, all, default)"


@pytest.mark.parametrize(
    ("methods", "values", "message"),
    [
        (WINDOWS, ["fork"], NO_FORK),
        (
            WINDOWS,
            ["forkserver,fork"],
            f"start methods 'fork', 'forkserver' are {NOT_SUPPORTED}",
        ),
        (
            TORCH,
            ["torch"],
            f"start method 'torch' {NO_DEFAULT}",
        ),
    ],
)
def test_a_selection_that_no_test_could_run_under_is_an_error(
    methods: Methods, values: list[str], message: str
) -> None:
    with pytest.raises(SelectionError) as error:
        expand(values, methods)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("methods", "selected", "marker", "runs"),
    [
        (LINUX, THREE, None, {"fork": None, "spawn": None, "forkserver": None}),
        (LINUX, THREE, Marker(()), {"fork": None, "spawn": None, "forkserver": None}),
        (LINUX, THREE, Marker(("spawn", "fork")), {"fork": None, "spawn": None}),
        (LINUX, ("spawn",), None, {"spawn": None}),
        # A marker's methods that aren't selected are runs too: to be deselected, and counted.
        (LINUX, ("spawn",), Marker(()), {"fork": None, "spawn": None, "forkserver": None}),
        (LINUX, ("spawn",), Marker(("fork",)), {"fork": None}),
        (WINDOWS, ("spawn",), None, {"spawn": None}),
        (WINDOWS, ("spawn",), Marker(()), {"spawn": None}),
        (WINDOWS, ("spawn",), Marker(("fork",)), {"fork": NO_FORK}),
        (WINDOWS, ("spawn",), Marker(("fork",), "inherits"), {"fork": f"{NO_FORK}: inherits"}),
        (WINDOWS, ("fork", "spawn"), None, {"fork": NO_FORK, "spawn": None}),
        (TORCH, ("spawn", "torch"), None, {"spawn": None, "torch": None}),
    ],
)
def test_a_test_runs_under_the_methods_of_its_marker_else_under_the_selected_ones(
    methods: Methods,
    selected: tuple[str, ...],
    marker: Marker | None,
    runs: dict[str, str | None],
) -> None:
    selection = Selection(methods, selected, by_user=selected != methods.supported)
    assert selection.runs(marker, needs_default=False) == list(runs.items())


def test_an_unavailable_method_stays_selected_and_its_runs_are_skipped() -> None:
    selection = Selection(LINUX, ("fork", "spawn"), True, {"fork": "CUDA is initialised"})
    expected = [("fork", "CUDA is initialised"), ("spawn", None)]
    assert selection.runs(None, needs_default=False) == expected
    assert selection.process_default == "spawn"
    assert selection.unmarked_skip_reason is None


def test_if_all_is_unavailable_other_tests_are_skipped_with_a_reason() -> None:
    selection = Selection(LINUX, ("fork",), True, {"fork": "CUDA is initialised"})
    assert selection.process_default is None
    assert selection.unmarked_skip_reason == "CUDA is initialised"


@pytest.mark.parametrize(
    ("methods", "selected", "default"),
    [
        (LINUX, ("spawn",), "spawn"),
        (LINUX, ("spawn", "forkserver"), "spawn"),
        (WINDOWS, ("fork", "spawn"), "spawn"),
        (TORCH, ("spawn", "torch"), "spawn"),
    ],
)
def test_the_first_usable_selected_method_is_the_process_wide_default(
    methods: Methods, selected: tuple[str, ...], default: str
) -> None:
    assert Selection(methods, selected, by_user=True).process_default == default


def test_if_the_user_selects_nothing_there_is_no_default_for_other_tests() -> None:
    assert Selection(LINUX, THREE, by_user=False).process_default is None


def test_a_plugins_context_is_no_run_of_a_test_that_needs_the_process_wide_default() -> None:
    selection = Selection(TORCH, TORCH.supported, by_user=False)
    runs = selection.runs(None, needs_default=True)
    assert [run.start_method for run in runs] == ["fork", "spawn", "forkserver"]
    with pytest.raises(SelectionError, match=r"^start method 'torch' can't be the process-wide"):
        selection.runs(Marker(("torch",)), needs_default=True)


def test_a_marker_is_its_names_and_its_reason() -> None:
    assert start_methods(known=THREE) == Marker(())
    assert start_methods("spawn", "fork", known=THREE) == Marker(("spawn", "fork"))
    assert start_methods("fork", reason="inherits", known=THREE) == Marker(("fork",), "inherits")


@pytest.mark.parametrize(
    ("arguments", "reason", "message"),
    [
        (["frok"], "", "unknown start method 'frok', did you mean 'fork'? (known: {known})"),
        (["all"], "", "unknown start method 'all' (known: {known})"),
        ([""], "", "empty name of a start method (known: {known})"),
        ([3], "", "takes the names of start methods ({known}), not int 3"),
        ([["fork"]], "", "takes the names of start methods ({known}), not list ['fork']"),
        (["fork"], 3, "takes a str as reason, not int 3"),
    ],
)
def test_a_marker_argument_that_is_no_name_is_an_error(
    arguments: list[Any], reason: object, message: str
) -> None:
    with pytest.raises(SelectionError) as error:
        start_methods(*arguments, reason=reason, known=THREE)
    assert str(error.value) == message.format(known="fork, spawn, forkserver")
