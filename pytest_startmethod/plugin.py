"""What do people type, and what does pytest call? The hooks stand in the order of their calls."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from pytest_startmethod import contexts, hookspecs, items, selection, settings
from pytest_startmethod.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

# What only a run of tests needs is imported where it is used: "pytest --version" is to be as fast
# as without the plugin.


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Tell pytest of the hooks that others may implement."""
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
        "May be given several times. The first is the process-wide default of tests that use none "
        "of the fixtures mp_context, start_method and default_start_method.",
    )
    group.addoption(
        "--start-method-report",
        metavar="PATH",
        help="Write how each test ended under each start method to a file: as Markdown where its "
        "name ends in .md, else as JSON.",
    )
    parser.addini(
        "start_methods",
        type="linelist",
        default=(),  # what getini() returns where it is unset; where it is set and empty: []
        help="What --start-method selects where the command line doesn't give it.",
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
        help="Modules that the forkserver imports before it forks, besides pytest: what takes long "
        "to import, and is the same for all tests.",
    )
    parser.addini(
        "start_method_stall_timeout",
        default="10",
        help="Seconds that a test may wait for child processes that are dead, before it fails; 0 "
        "turns that off.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Set the process-wide default before a conftest can look at it."""
    settings.set_default_early(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Find out what there is and what is selected: a user's mistake ends the run here."""
    config.addinivalue_line("markers", items.MARKER_HELP)
    config.stash[SETTINGS] = settings.read(config)
    if getattr(config.option, "dist", "no") != "no" or config.option.start_method_report:
        from pytest_startmethod import reporting

        reporting.register(config)  # here, as pytest-xdist has the tests in other processes


def pytest_report_header(config: pytest.Config) -> str:
    """Say which start methods tests run under."""
    from pytest_startmethod import summary

    return summary.header(config.stash[SETTINGS].selection)


@pytest.hookimpl(trylast=True)  # so that the start method is the last part of a test's id
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one run of a test for each of its start methods."""
    items.parametrize(metafunc)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Find bad markers on a `unittest.TestCase`, whose tests pytest doesn't parametrize."""
    report = yield
    imported = sys.modules.get("unittest")  # as it is wherever there is a TestCase
    if (
        imported
        and isinstance(collector, pytest.Class)
        and issubclass(collector.obj, imported.TestCase)
    ):
        try:
            for test in report.result:
                if isinstance(test, pytest.Function) and items.is_marked(test):
                    items.runs(test, needs_default=True)
        except pytest.fail.Exception as error:
            report.outcome, report.longrepr, report.result = "failed", str(error), []
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(
    config: pytest.Config,
    items: list[pytest.Item],  # the hook's name for them hides the module
) -> None:
    """Deselect what a marker names and the user didn't select, and prepare the runs."""
    if _any_concerned(config, items):
        from pytest_startmethod import reporting, running

        running.deselect(config, items)
        running.register(config, items)
        reporting.register(config)


def _any_concerned(config: pytest.Config, tests: list[pytest.Item]) -> bool:
    return config.stash[SETTINGS].selection.by_user or any(map(items.is_concerned, tests))


@pytest.fixture(scope="session", name=items.OURS)
def _startmethod() -> None:
    """Tell by its name among a test's fixtures that start_method is the plugin's own."""


@pytest.fixture(scope="session", name=items.FOLLOWS)
def _startmethod_follows(pytestconfig: pytest.Config) -> Mapping[str, Any]:
    """Return the contexts by name, and tell by its own that mp_context is the plugin's."""
    return pytestconfig.stash[SETTINGS].contexts


@pytest.fixture(scope=settings.scope)
def start_method(request: pytest.FixtureRequest, _startmethod: None) -> str:
    """Name of the multiprocessing start method that the test runs under: "fork", for instance."""
    if not hasattr(request, "param"):
        pytest.fail(
            "this test has no start method, as request.getfixturevalue() comes too late to make a "
            "run for each: name the fixture among the arguments of the test",
            pytrace=False,
        )
    return str(request.param)


@pytest.fixture(scope=settings.scope)
def mp_context(start_method: str, _startmethod_follows: Mapping[str, Any]) -> Any:  # noqa: ANN401 (a plugin's context is no BaseContext)
    """Return the multiprocessing context of the test's start method.

    It is what multiprocessing.get_context(start_method) returns, or what a plugin offers under that
    name. The process-wide default stays as it is.
    """
    if start_method not in _startmethod_follows:  # a start_method of the suite's own
        reason = selection.unsupported([start_method], list(_startmethod_follows))
        pytest.fail(reason, pytrace=False)
    return _startmethod_follows[start_method]


@pytest.fixture(scope=settings.scope)
def default_start_method(start_method: str, _startmethod_follows: Mapping[str, Any]) -> str:
    """Make the test's start method the process-wide default while the test runs; return its name.

    For code that calls multiprocessing.Process(), Pool() or ProcessPoolExecutor() itself. What was
    the default before, or that none was set, is so again afterwards; a test that doesn't ask for
    this fixture never sees it, whatever its scope.
    """
    # Once more, for request.getfixturevalue(); the hook around the test's run puts it back.
    contexts.set_default(start_method)
    return start_method
