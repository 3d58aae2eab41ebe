"""What do people type, and what does pytest call? The hooks stand in the order of their calls."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_startmethod import contexts, hookspecs, selection, summary

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    from pytest_startmethod.watch import Watch

SCOPES = ("function", "class", "module", "session")

MARKER_HELP = (
    "start_methods(*names, reason=''): run the test under these multiprocessing start methods "
    "only; no names: under all. A name may be a pytest.param(name, marks=...). A test that asks "
    "for none of the fixtures mp_context, start_method, default_start_method gets the last of them."
)

# Among a test's fixtures where its start_method, or what follows from it, is the plugin's own, and
# not a fixture or parameter of the suite's by that name: with those the plugin has no business.
OURS = "_startmethod"
FOLLOWS = "_startmethod_follows"
INJECTED = (OURS, "start_method", "default_start_method")

# What a plugin's hook may raise: pytest's own outcomes are no Exceptions.
OF_A_HOOK = (Exception, pytest.skip.Exception, pytest.fail.Exception)

PARAMETRIZED_TWICE = (
    "parametrizes start_method itself, which the plugin does for its fixtures and marker: name the "
    "start methods by @pytest.mark.start_methods instead"
)

ParameterSet = type(pytest.param())


@dataclass(frozen=True)
class State:
    """What a pytest run knows from ``pytest_configure`` on."""

    contexts: Mapping[str, Any]
    selection: selection.Selection


PLATFORM = pytest.StashKey[contexts.Platform]()
STATE = pytest.StashKey[State]()


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
    platform = early_config.stash.setdefault(PLATFORM, contexts.platform())
    methods = _methods(platform, {})
    _, values = _written(early_config, early_config.known_args_namespace)
    early = selection.expand_known(values or [], methods)
    if early:
        _set_default_of_the_run(early_config, early[0])


def pytest_configure(config: pytest.Config) -> None:
    """Find out what there is and what is selected: a user's mistake ends the run here."""
    config.addinivalue_line("markers", MARKER_HELP)
    # Not there yet in an xdist worker that gets the plugin by -p alone: it loads it only now.
    platform = config.stash.setdefault(PLATFORM, contexts.platform())
    try:
        offers = _ask_plugins(config, "pytest_startmethod_contexts")
        by_name = contexts.merge(platform.contexts(), offers)
        chosen = _select(config, _methods(platform, by_name))
    except (contexts.ContextError, selection.SelectionError) as error:
        raise pytest.UsageError(str(error)) from None
    _check_scope(config)
    _stall_timeout(config)
    _check_preload(config)
    config.stash[STATE] = State(by_name, chosen)
    if chosen.process_default not in (None, contexts.fallback()):
        _set_default_of_the_run(config, chosen.process_default)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which start methods tests run under."""
    return summary.header(config.stash[STATE].selection)


@pytest.hookimpl(trylast=True)  # so that the start method is the last part of a test's id
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one run of a test for each of its start methods."""
    test = metafunc.definition
    marked = test.get_closest_marker("start_methods") is not None
    by_suite = _parametrized(metafunc)
    names = metafunc.fixturenames
    if "start_method" in by_suite:
        if marked or OURS in names or FOLLOWS in names:
            _fail_collection(test, PARAMETRIZED_TWICE)
    elif marked or OURS in names:
        if OURS not in names:
            names[:0] = INJECTED
        runs = _runs(test, needs_default="default_start_method" in names)
        scope = _scope("start_method", test.config)
        metafunc.parametrize("start_method", runs, indirect=True, scope=scope)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Give a marked test that asks for none of the fixtures what it was parametrized with.

    pytest drops a name that only ``pytest_generate_tests`` added (seen on pytest 8.0 to 9.2).
    """
    if (
        item.get_closest_marker("start_methods")
        and "start_method" in _params(item)
        and OURS not in _fixtures(item)
    ):
        _fixtures(item)[:0] = INJECTED


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what a marker names and the user didn't select."""
    chosen = config.stash[STATE].selection
    # Where the user selects nothing, what isn't selected isn't supported: those runs are skipped.
    selected = chosen.selected if chosen.by_user else chosen.methods.known
    kept: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        own = _start_method(item)
        (kept if own is None or own in selected else deselected).append(item)
        if own is None and chosen.unmarked_skip_reason:
            item.add_marker(pytest.mark.skip(reason=chosen.unmarked_skip_reason))
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = kept


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let a test run with its process-wide default, whatever was done to it before."""
    chosen = item.config.stash[STATE].selection
    own, default = _start_method(item), chosen.process_default
    if own in chosen.methods.standard and "default_start_method" in _fixtures(item):
        default = own
    context = item.config.stash[STATE].contexts.get(own or default or "")
    if context is None and "default_start_method" not in _fixtures(item):
        return (yield)
    with contexts.default_restored(), _watch(item.config).test(item, contexts.starts_by(context)):
        if default is not None:
            contexts.set_default(default)
        return (yield)


def _scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ANN401, ARG001 (pytest names them)
    return config.getini("start_method_scope")


@pytest.fixture(scope="session", name=OURS)
def _startmethod() -> None:
    """Tell by its name among a test's fixtures that start_method is the plugin's own."""


@pytest.fixture(scope="session", name=FOLLOWS)
def _follows() -> None:
    """Tell by its name that mp_context or default_start_method is the plugin's own."""


@pytest.fixture(scope=_scope)
def start_method(request: pytest.FixtureRequest, _startmethod: None) -> str:
    """Name of the multiprocessing start method that the test runs under: "fork", for instance."""
    if not hasattr(request, "param"):
        pytest.fail(
            "this test has no start method, as request.getfixturevalue() comes too late to make a "
            "run for each: name the fixture among the arguments of the test",
            pytrace=False,
        )
    return str(request.param)


@pytest.fixture(scope=_scope)
def mp_context(
    request: pytest.FixtureRequest, start_method: str, _startmethod_follows: None
) -> Any:  # noqa: ANN401 (a plugin's context is no BaseContext)
    """Return the multiprocessing context of the test's start method.

    It is what multiprocessing.get_context(start_method) returns, or what a plugin offers under that
    name. The process-wide default stays as it is.
    """
    state = request.config.stash[STATE]
    if start_method not in state.contexts:
        reason = selection.unsupported([start_method], state.selection.methods.supported)
        pytest.fail(f"{request.node.nodeid}: {reason}", pytrace=False)
    return state.contexts[start_method]


@pytest.fixture(scope=_scope)
def default_start_method(start_method: str, _startmethod_follows: None) -> str:
    """Make the test's start method the process-wide default while the test runs; return its name.

    For code that calls multiprocessing.Process(), Pool() or ProcessPoolExecutor() itself. What was
    the default before, or that none was set, is so again afterwards; a test that doesn't ask for
    this fixture never sees it, whatever its scope.
    """
    # Once more, for request.getfixturevalue(); pytest_runtest_protocol() above puts it back.
    contexts.set_default(start_method)
    return start_method


def _stall_timeout(config: pytest.Config) -> float:
    written = config.getini("start_method_stall_timeout")
    try:
        seconds = float(written)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise pytest.UsageError(
            f"ini-option start_method_stall_timeout: {written!r} is no number of seconds (0: off)"
        )
    return seconds


def _check_preload(config: pytest.Config) -> None:
    preload = config.getini("start_method_preload")
    if preload:
        from pytest_startmethod.launch import import_error

        problem = import_error(preload)
        if problem:
            raise pytest.UsageError(f"ini-option start_method_preload: {problem}")


def _check_scope(config: pytest.Config) -> None:
    scope = config.getini("start_method_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(
            f"ini-option start_method_scope: {scope!r} is no scope (known: {', '.join(SCOPES)})"
        )


def _watch(config: pytest.Config) -> Watch:
    """Return what watches the tests, registered with the first of them: till then nothing is."""
    from pytest_startmethod.watch import Watch

    watch = config.pluginmanager.get_plugin("startmethod-watch")
    if watch is None:
        watch = Watch(config, config.stash[STATE].contexts.values(), _stall_timeout(config))
        config.pluginmanager.register(watch, "startmethod-watch")
    assert isinstance(watch, Watch)
    return watch


def _set_default_of_the_run(config: pytest.Config, name: str) -> None:
    restored = ExitStack()
    restored.enter_context(contexts.default_restored())
    config.add_cleanup(restored.close)
    contexts.set_default(name)


def _methods(platform: contexts.Platform, by_name: Iterable[str]) -> selection.Methods:
    return selection.Methods(
        known=tuple(contexts.in_run_order([*contexts.RUN_ORDER, *platform.supported, *by_name])),
        supported=tuple(contexts.in_run_order([*platform.supported, *by_name])),
        standard=platform.supported,
        platform_default=platform.default,
    )


def _written(config: pytest.Config, options: Namespace) -> tuple[str, Sequence[str] | None]:
    """Return where the user selects start methods, and the values; None where nobody does."""
    if options.start_method is not None:
        return "--start-method", options.start_method
    ini = config.getini("start_methods")
    return "ini-option start_methods", None if ini == () else ini


def _select(config: pytest.Config, methods: selection.Methods) -> selection.Selection:
    where, values = _written(config, config.option)
    if values is None:
        selected = methods.supported
    else:
        try:
            selected = selection.expand(values, methods)
        except selection.SelectionError as error:
            raise selection.SelectionError(f"{where}: {error}") from None
    unavailable: dict[str, str] = {}
    for name in selected:
        if name in methods.supported:
            answers = _ask_plugins(config, "pytest_startmethod_unavailable", start_method=name)
            for plugin, reason in itertools.islice(answers, 1):
                if not isinstance(reason, str) or not reason:
                    raise selection.SelectionError(
                        f"pytest_startmethod_unavailable of {plugin} returned {reason!r} for "
                        f"{name!r}, not a reason or None"
                    )
                unavailable[name] = reason
    return selection.Selection(methods, selected, values is not None, unavailable)


def _ask_plugins(config: pytest.Config, hook: str, **kwargs: object) -> Iterator[contexts.Offer]:
    """Call a hook of one plugin after another, so that a message can name the plugin."""
    implementations = getattr(config.hook, hook).get_hookimpls()
    for asked in reversed(implementations):  # the order of a call of all
        others = [other.plugin for other in implementations if other is not asked]
        call = config.pluginmanager.subset_hook_caller(hook, others)
        try:
            answers = call(config=config, **kwargs)
        except OF_A_HOOK as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())  # on one line
            raise pytest.UsageError(f"{hook} of {asked.plugin_name} raised {what}") from None
        for answer in answers:
            yield contexts.Offer(asked.plugin_name, answer)


def _runs(test: pytest.Function, *, needs_default: bool) -> list[Any]:
    """Return what start_method is parametrized with; a bad marker fails the collection."""
    chosen = test.config.stash[STATE].selection
    mark = test.get_closest_marker("start_methods")
    params = (
        [p if isinstance(p, ParameterSet) else pytest.param(p) for p in mark.args] if mark else []
    )
    try:
        marker = mark and selection.start_methods(
            *(p.values[0] if len(p.values) == 1 else p.values for p in params),
            known=chosen.methods.known,
            **mark.kwargs,
        )
        runs = chosen.runs(marker, needs_default=needs_default)
    except (selection.SelectionError, TypeError) as error:
        problem = str(error)
    else:
        marks = {p.values[0]: p.marks for p in params}
        return [
            pytest.param(name, id=name, marks=[*marks.get(name, ()), *_skip(reason)])
            for name, reason in runs
        ]
    _fail_collection(test, f"@pytest.mark.start_methods {problem}")


def _skip(reason: str | None) -> list[pytest.MarkDecorator]:
    return [] if reason is None else [pytest.mark.skip(reason=reason)]


def _fail_collection(test: pytest.Function, problem: str) -> NoReturn:
    """End the collection of the test's file with one line, and let other files run."""
    test.config.option.continue_on_collection_errors = True
    pytest.fail(f"{test.nodeid}: {problem}", pytrace=False)


def _parametrized(metafunc: pytest.Metafunc) -> set[str]:
    """Return the names that the suite itself gives parameters, and drop what those replace.

    pytest drops the fixtures behind such a name too, but only after its hook. There is no public
    way to either (pytest 8.0 to 9.2): where the attributes go missing, what a pytest_generate_tests
    of the suite's parametrizes isn't seen, and pytest refuses to do so twice.
    """
    calls = getattr(metafunc, "_calls", ())
    fixtures = getattr(metafunc.definition, "_fixtureinfo", None)
    if calls and fixtures is not None:
        fixtures.prune_dependency_tree()
    return {name for call in calls for name in call.params}


def _start_method(item: pytest.Item) -> str | None:
    """Return the start method that the plugin parametrized a test with."""
    return _params(item).get("start_method") if OURS in _fixtures(item) else None


def _fixtures(item: pytest.Item) -> list[str]:
    return getattr(item, "fixturenames", [])  # doctests and plugins' own items may have none


def _params(item: pytest.Item) -> Mapping[str, Any]:
    callspec = getattr(item, "callspec", None)  # only where the test is parametrized
    return callspec.params if callspec else {}
