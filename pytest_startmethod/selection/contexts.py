"""Which contexts exist, by start method, and which of them is the process-wide default?"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

RUN_ORDER = ("fork", "spawn", "forkserver")


class ContextError(Exception):
    """A plugin or conftest offers contexts that can't be used; its text is the whole message."""


class Platform(NamedTuple):
    """What the standard library supports here: start methods in run order, and its default."""

    supported: tuple[str, ...]
    default: str

    def contexts(self) -> dict[str, BaseContext]:
        """Return the standard library's own context of each supported start method."""
        return {name: multiprocessing.get_context(name) for name in self.supported}


class Offer(NamedTuple):
    """What one plugin's ``pytest_startmethod_contexts`` returned."""

    plugin: str
    contexts: object


def platform() -> Platform:
    """Ask the standard library what it supports, before anything changes its default.

    ``get_all_start_methods()`` names the default first; since Python 3.14 that is whatever the
    process-wide default falls back to, so later it would name the one that is set here.
    """
    names = multiprocessing.get_all_start_methods()
    return Platform(tuple(in_run_order(names)), names[0])


def in_run_order(names: Iterable[str]) -> list[str]:
    """Sort names as tests run: fork, spawn, forkserver, then the others as they come."""
    known = {name: place for place, name in enumerate(RUN_ORDER)}
    return sorted(dict.fromkeys(names), key=lambda name: known.get(name, len(known)))


def fallback() -> str:
    """Return the start method that a process gets while nothing is pinned."""
    return str(_fallback().get_start_method())


def merge(standard: Mapping[str, BaseContext], offers: Iterable[Offer]) -> dict[str, Any]:
    """Join the standard contexts and those that plugins offer, by start method in run order.

    An offered context takes the place of the standard one of its name.
    Raises `ContextError` where an offer is no mapping of names to contexts, or two share a name.
    """
    merged: dict[str, Any] = dict(standard)
    offered_by: dict[str, str] = {}
    for plugin, contexts in offers:
        if not isinstance(contexts, Mapping):
            raise ContextError(
                f"{plugin} returned {contexts!r}, not a dict of contexts by start method"
            )
        for name, context in contexts.items():
            _check(plugin, name, context)
            if name in offered_by:
                raise ContextError(
                    f"{offered_by[name]} and {plugin} both offer a context named {name!r}: "
                    "rename one of them"
                )
            offered_by[name] = plugin
            merged[name] = context
    return {name: merged[name] for name in in_run_order(merged)}


def _check(plugin: str, name: object, context: object) -> None:
    """Raise `ContextError` where a name can't be typed by a user or a context starts nothing."""
    if not isinstance(name, str) or not name.replace("_", "").isalnum():
        raise ContextError(
            f"{plugin} names a context {name!r}: use letters, digits and underscores"
        )
    if name in ("all", "default"):
        raise ContextError(
            f"{plugin} names a context {name!r}, which means something else: rename it"
        )
    if not callable(getattr(context, "Process", None)):
        raise ContextError(
            f"{plugin} offers {context!r} as {name!r}, which is no multiprocessing context"
        )


def starts_by(context: object) -> str:
    """Return the method that a context starts processes by, whatever its name; "" if unknown.

    The class of its processes says so as `_start_method`, since Python 3.4; where that goes missing
    the context's own word counts.
    """
    method = getattr(getattr(context, "Process", None), "_start_method", None)
    ask = getattr(context, "get_start_method", str)
    return str(method or ask())


def set_default(name: str) -> None:
    """Make a standard start method the process-wide default, as if it were the platform's own.

    So it isn't pinned: ``set_start_method()`` may be called after it, and
    ``get_start_method(allow_none=True)`` is still ``None``.
    """
    Default.of(name).restore()


class Default(NamedTuple):
    """What the process-wide default is at a time: what was pinned, and else what is fallen to."""

    pinned: str | None
    fallback: BaseContext

    @classmethod
    def of(cls, name: str) -> Default:
        """Return what a standard start method is as the platform's own default."""
        return cls(None, multiprocessing.get_context(name))

    @classmethod
    def current(cls) -> Default:
        """Take note of it."""
        return cls(System.get_start_method(allow_none=True), _fallback())

    def restore(self) -> None:
        """Make it so again, "not set yet" too."""
        pinned = System.get_start_method(allow_none=True)
        if pinned != self.pinned or _fallback() is not self.fallback:
            _set_fallback(self.fallback)
            System.set_start_method(self.pinned, force=True)


# What multiprocessing falls back to while nothing is pinned: private, and the same from Python 3.4
# to 3.15. There is no public way to choose a default that set_start_method() may still follow.
# Where it goes missing these two raise AttributeError, at the first use and not in silence.


def _fallback() -> BaseContext:
    fallback: BaseContext = multiprocessing.context._default_context._default_context  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
    return fallback


def _set_fallback(fallback: BaseContext) -> None:
    multiprocessing.context._default_context._default_context = fallback  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
