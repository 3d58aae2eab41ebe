"""The plugin that makes a pytest process a session of another one."""

from __future__ import annotations

import argparse
import ast
import atexit
import contextlib
import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import importer
from pytest_startmethod.kernel import prctl

if TYPE_CHECKING:
    from collections.abc import Generator

OFF: dict[str, Any] = {
    # The first pytest counts failures, remembers them and writes the reports.
    "maxfail": 0,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "cacheclear": False,
    "pastebin": None,
    "start_method_report": None,
    # A session has no workers of its own.
    "numprocesses": None,
    "dist": "no",
    "tx": [],
    "looponfail": False,
}
ON: dict[str, Any] = {
    "continue_on_collection_errors": True,
    "no_header": True,
    "no_summary": True,
    "log_file_mode": "a",  # the first pytest holds the file open
    "cov_append": True,  # keep what was measured before
}

INPUT: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
REDIRECTED: pytest.StashKey[contextlib.ExitStack] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that passes the input of a session; users don't type it."""
    parser.addoption("--startmethod-session", type=int, help=argparse.SUPPRESS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config,
) -> Generator[None, object, object]:
    """Select the start method of the session, whatever else selects one."""
    given = _read_input(early_config.known_args_namespace.startmethod_session)
    _end_with(given["parent"])
    # After all exit hooks, as it is registered first. Most of what Python does as it exits is to
    # look for garbage, which ends with the process anyway.
    atexit.register(gc.freeze)
    for descriptor in (given["writer"], given["log"]):
        os.set_inheritable(descriptor, False)
    early_config.stash[INPUT] = given
    _change(early_config.known_args_namespace, given)  # pytest-cov reads it already
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Look like a worker of pytest-xdist, so that plugins write no reports of their own."""
    with importer.own_modules():
        from pytest_startmethod.session import relay, tests

    given = config.stash[INPUT]
    if not hasattr(config.option, "start_method"):
        raise pytest.UsageError("pytest-startmethod isn't loaded by the same command line")
    _change(config.option, given)
    config.workerinput = given["workerinput"]  # type: ignore[attr-defined]
    config.workeroutput = {}  # type: ignore[attr-defined]
    config.pluginmanager.register(
        relay.Relay(config, given["writer"], given["log"]), "startmethod-relay"
    )
    config.pluginmanager.register(
        tests.SessionTests(given["tests"], given["files"]), "startmethod-tests"
    )
    if not given["shows"]:
        return (yield)
    # Show what tests print, but not what the terminal reporter writes: it takes its file before
    # the session starts.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.ExitStack() as redirected:  # noqa: PTH123 (no path)
        redirected.enter_context(contextlib.redirect_stdout(nowhere))
        config.stash[REDIRECTED] = redirected
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Show what tests print."""
    if REDIRECTED in session.config.stash:
        session.config.stash[REDIRECTED].close()


def _change(options: argparse.Namespace, given: dict[str, Any]) -> None:
    """Set the options that a session doesn't take from the command line."""
    known = vars(options)
    changed = {**OFF, **ON, "start_method": [given["start_method"]]}
    if given["basetemp"]:
        changed["basetemp"] = given["basetemp"]
    known.update((name, value) for name, value in changed.items() if name in known)


def _read_input(descriptor: int) -> dict[str, Any]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(descriptor, encoding="ascii") as file:
        given: dict[str, Any] = ast.literal_eval(file.read())
    return given


def _end_with(parent: int) -> None:
    """Let the kernel end this process as soon as the first pytest ends.

    On other platforms than Linux this process ends at its next report.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a Python that is linked with no shared C library
            prctl.end_with_parent()
    if os.getppid() != parent:
        os._exit(1)
