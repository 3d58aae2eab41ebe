"""Reads and checks the options, the ini-options and the answers of the hooks."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pytest_startmethod.selection import contexts, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator, Mapping, Sequence

SCOPES = ("function", "class", "module", "session")

# Outcomes of pytest aren't subclasses of Exception.
HOOK_ERRORS = (Exception, pytest.skip.Exception, pytest.fail.Exception)


class Test:
    """What the plugin's fixtures know of the running test."""

    parameter: str | None = None
    """The value of the fixture `start_method`."""


class Settings(NamedTuple):
    """The settings of a pytest run, complete after ``pytest_configure``."""

    contexts: Mapping[str, Any]
    """By start method."""
    selection: table.Selection
    stall_timeout: float
    test: Test


# Not StashKey[...](): typing would keep the classes in a cache; see `registration.register`.
PLATFORM: pytest.StashKey[contexts.Platform] = pytest.StashKey()
SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()


def scope(fixture_name: str, config: pytest.Config) -> Any:  # noqa: ANN401, ARG001 (pytest asks so)
    """Return the scope of the plugin's fixtures."""
    return config.getini("start_method_scope")


def set_default_early(config: pytest.Config) -> None:
    """Set the process-wide default that the user selects, before conftests are imported."""
    _, values = _written(config, config.known_args_namespace)
    if values is not None:
        platform = config.stash.setdefault(PLATFORM, contexts.platform())
        methods = _methods(platform, {})
        # If no name is usable, `read` raises the error.
        for name in table.expand_known(values, methods):
            if name in methods.standard:
                _set_default_of_the_run(config, name)
                break


def read(config: pytest.Config) -> Settings:
    """Read and check all options and hooks, and set the process-wide default.

    Raises `pytest.UsageError` for a value that can't be used.
    """
    # A worker of pytest-xdist that gets the plugin only by -p loads it after the conftests.
    platform = config.stash.setdefault(PLATFORM, contexts.platform())
    try:
        offers = _ask_plugins(config, "pytest_startmethod_contexts")
        by_name = contexts.merge(platform.contexts(), offers)
        chosen = _select(config, _methods(platform, by_name))
    except (contexts.ContextError, table.SelectionError) as error:
        raise pytest.UsageError(str(error)) from None
    _check_scope(config)
    _check_preload(config)
    if chosen.process_default not in (None, contexts.fallback()):
        _set_default_of_the_run(config, chosen.process_default)
    return Settings(by_name, chosen, _stall_timeout(config), Test())


def _check_scope(config: pytest.Config) -> None:
    written = config.getini("start_method_scope")
    if written not in SCOPES:
        raise pytest.UsageError(
            f"ini-option start_method_scope: {written!r} is no scope (known: {', '.join(SCOPES)})"
        )


def _check_preload(config: pytest.Config) -> None:
    preload = config.getini("start_method_preload")
    if preload:
        from pytest_startmethod.launch.imports import import_error

        problem = import_error(preload)
        if problem:
            raise pytest.UsageError(f"ini-option start_method_preload: {problem}")


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


def _set_default_of_the_run(config: pytest.Config, name: str) -> None:
    config.add_cleanup(contexts.Default.current().restore)
    contexts.set_default(name)


def _methods(platform: contexts.Platform, by_name: Iterable[str]) -> table.Methods:
    return table.Methods(
        known=tuple(contexts.in_run_order([*contexts.RUN_ORDER, *platform.supported, *by_name])),
        supported=tuple(contexts.in_run_order([*platform.supported, *by_name])),
        standard=platform.supported,
        platform_default=platform.default,
    )


def _written(config: pytest.Config, options: Namespace) -> tuple[str, Sequence[str] | None]:
    """Return where the user selects start methods, and the values; None if nothing is selected."""
    if options.start_method is not None:
        return "--start-method", options.start_method
    ini = config.getini("start_methods")
    return "ini-option start_methods", None if ini == () else ini


def _select(config: pytest.Config, methods: table.Methods) -> table.Selection:
    where, values = _written(config, config.option)
    if values is None:
        selected = methods.supported
    else:
        try:
            selected = table.expand(values, methods)
        except table.SelectionError as error:
            raise table.SelectionError(f"{where}: {error}") from None
    unavailable: dict[str, str] = {}
    for name in selected:
        if name in methods.supported:
            answers = _ask_plugins(config, "pytest_startmethod_unavailable", start_method=name)
            for plugin, reason in itertools.islice(answers, 1):
                if not isinstance(reason, str) or not reason:
                    raise table.SelectionError(
                        f"pytest_startmethod_unavailable of {plugin} returned {reason!r} for "
                        f"{name!r}, not a reason or None"
                    )
                unavailable[name] = reason
    return table.Selection(methods, selected, values is not None, unavailable)


def _ask_plugins(config: pytest.Config, hook: str, **kwargs: object) -> Iterator[contexts.Offer]:
    """Call a hook in one plugin after another, so that an error can name the plugin."""
    implementations = getattr(config.hook, hook).get_hookimpls()
    for asked in reversed(implementations):  # as pluggy does
        others = [other.plugin for other in implementations if other is not asked]
        call = config.pluginmanager.subset_hook_caller(hook, others)
        try:
            answers = call(config=config, **kwargs)
        except HOOK_ERRORS as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())  # on one line
            raise pytest.UsageError(f"{hook} of {asked.plugin_name} raised {what}") from None
        for answer in answers:
            yield contexts.Offer(asked.plugin_name, answer)
