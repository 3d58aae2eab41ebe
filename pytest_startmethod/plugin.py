"""Defines the options and the hooks, in the order in which pytest calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_startmethod import (
    hookspecs,
    importer,
    invocation,  # noqa: F401 (which copies how pytest was started, before a conftest changes that)
)

if TYPE_CHECKING:
    import warnings
    from collections.abc import Generator, Sequence

# The hooks import what only a run of tests needs: "pytest --version" stays as fast as without the
# plugin.


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that other plugins and conftests may implement."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini-options."""
    group = parser.getgroup("startmethod", "multiprocessing start methods")
    group.addoption(
        "--start-method",
        action="append",
        metavar="METHOD[,METHOD...]",
        help="Run tests under these multiprocessing start methods: fork, spawn, forkserver, a name "
        "from a plugin, 'all' (what this platform supports) or 'default' (the platform's default). "
        "May be repeated. Tests that use none of the fixtures mp_context, start_method and "
        "default_start_method run with the first one as the process-wide default.",
    )
    group.addoption(
        "--start-method-report",
        metavar="PATH",
        help="Write how each test ended under each start method to a file: Markdown if its name "
        "ends in .md, else JSON.",
    )
    parser.addini(
        "start_methods",
        type="linelist",
        default=(),  # getini() returns this if the ini-option is unset, and [] if it is empty
        help="Start methods to select if the command line has no --start-method.",
    )
    parser.addini(
        "start_method_scope",
        default="function",
        help="Scope of the fixtures mp_context, start_method and default_start_method: function "
        "(the default), class, module or session.",
    )

    parser.addini(
        "start_method_preload",
        type="args",
        help="Modules, besides pytest, that the forkserver imports before it forks: those that are "
        "slow to import.",
    )
    parser.addini(
        "start_method_stall_timeout",
        default="10",
        help="Seconds that a test may be blocked in a wait that nothing can end any more, before "
        "it fails (default: 10); 0 turns that off.",
    )


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: Sequence[str]
) -> Generator[None, object, object]:
    """Set the process-wide default before conftests are imported, and check options after it."""
    with importer.own_modules():
        if not early_config.known_args_namespace.version:
            from pytest_startmethod import system  # noqa: F401 (before a conftest may replace it)
        if early_config.known_args_namespace.start_method or early_config.getini("start_methods"):
            from pytest_startmethod import settings

            settings.set_default_early(early_config)
    result = yield  # conftests may add options
    if any(str(arg).startswith("--start") for arg in args):
        with importer.own_modules():
            from pytest_startmethod import spelling
        spelling.check_options(parser, args)
    return result


@importer.own_modules()
def pytest_configure(config: pytest.Config) -> None:
    """Read the settings and register the other hooks; a mistake of the user's ends the run here."""
    from pytest_startmethod import registration, settings
    from pytest_startmethod.selection import collection, fixtures, marker

    config.addinivalue_line("markers", marker.MARKER_HELP)
    known = config.stash[settings.SETTINGS] = settings.read(config)
    config.pluginmanager.register(fixtures.plugin(known), "startmethod-fixtures")
    hooks = collection.Collection(known.selection, _prepare_runs)
    registration.register(config, hooks, "startmethod-collection")
    if len(known.selection.process_defaults) > 1:
        from pytest_startmethod.runs import sessions

        sessions.register(config, known.selection.process_defaults)
    if (
        getattr(config.option, "dist", "no") != "no"
        or config.option.start_method_report is not None
    ):
        from pytest_startmethod.report import collector

        collector.register(config)  # now: pytest-xdist collects the tests in other processes


@pytest.hookimpl(tryfirst=True)  # and so shown below the lines of other plugins
@importer.own_modules()
def pytest_report_header(config: pytest.Config) -> str:
    """Show which start methods tests run under."""
    from pytest_startmethod import settings
    from pytest_startmethod.report import summary

    return summary.header(config.stash[settings.SETTINGS].selection)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """Suggest the marker for a misspelled one."""
    if warning_message.category is pytest.PytestUnknownMarkWarning:
        from pytest_startmethod import spelling

        spelling.suggest_in_warning(warning_message)


@pytest.hookimpl(tryfirst=True)
def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Suggest the marker for a misspelled one, where that is an error."""
    if report.failed:
        from pytest_startmethod import spelling

        spelling.suggest_in_error(report)


@importer.own_modules()
def _prepare_runs(config: pytest.Config, tests: list[pytest.Item]) -> None:
    from pytest_startmethod.runs import base_run

    base_run.prepare(config, tests)
