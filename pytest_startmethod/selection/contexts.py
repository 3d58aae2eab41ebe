"""Holds the contexts by start method, and sets the process-wide default."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_startmethod.system import System

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

RUN_ORDER = ("fork", "spawn", "forkserver")


class ContextError(Exception):
    """A plugin or conftest offers contexts that can't be used; the text is the whole message."""


class Platform(NamedTuple):
    """The start methods that the standard library supports here, in run order, and its default."""

    supported: tuple[str, ...]
    default: str

    def contexts(self) -> dict[str, BaseContext]:
        """Return the standard library's own context of each supported start method."""
        return {name: multiprocessing.get_context(name) for name in self.supported}


class Offer(NamedTuple):
    """The answer of one plugin to a hook."""

    plugin: str
    contexts: object


def platform() -> Platform:
    """Return what the standard library supports: to be called before the default is changed.

    ``get_all_start_methods()`` names the default first. Since Python 3.14 it names the default that
    `set_default` has set.
    """
    names = multiprocessing.get_all_start_methods()
    return Platform(tuple(in_run_order(names)), names[0])


def in_run_order(names: Iterable[str]) -> list[str]:
    """Sort names as tests run: fork, spawn, forkserver, then the others in the given order."""
    known = {name: place for place, name in enumerate(RUN_ORDER)}
    return sorted(dict.fromkeys(names), key=lambda name: known.get(name, len(known)))


def fallback() -> str:
    """Return the start method of processes while no default is pinned."""
    return str(_fallback().get_start_method())


def merge(standard: Mapping[str, BaseContext], offers: Iterable[Offer]) -> dict[str, Any]:
    """Merge the standard contexts with those that plugins offer, by start method in run order.

    An offered context replaces the standard one of its name.
    Raises `ContextError` if an offer is no mapping of names to contexts, or if two share a name.
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
    """Raise `ContextError` for a name that users can't type, or a context without ``Process``."""
    if not isinstance(name, str) or not name.replace("_", "").isalnum():
        raise ContextError(
            f"{plugin} names a context {name!r}: use letters, digits and underscores"
        )
    if name in ("all", "default"):
        raise ContextError(
            f"{plugin} names a context {name!r}, which has another meaning: rename it"
        )
    if not callable(getattr(context, "Process", None)):
        raise ContextError(
            f"{plugin} offers {context!r} as {name!r}, which is no multiprocessing context"
        )


def starts_by(context: object) -> str:
    """Return the start method of a context's processes, whatever its name; "" if unknown.

    It is the `_start_method` of their class, private since Python 3.4; if that goes missing, it is
    what the context's ``get_start_method()`` returns.
    """
    method = getattr(getattr(context, "Process", None), "_start_method", None)
    ask = getattr(context, "get_start_method", str)
    return str(method or ask())


def set_default(name: str) -> None:
    """Make a standard start method the process-wide default, as if it were the platform's.

    It isn't pinned: ``set_start_method()`` may be called afterwards, and
    ``get_start_method(allow_none=True)`` still returns ``None``.
    """
    Default.of(name).restore()


class Default(NamedTuple):
    """A process-wide default: the pinned start method, and the context used if none is pinned."""

    pinned: str | None
    fallback: BaseContext

    @classmethod
    def of(cls, name: str) -> Default:
        """Return the default as it is if a standard start method is the platform's default."""
        return cls(None, multiprocessing.get_context(name))

    @classmethod
    def current(cls) -> Default:
        """Return the present default."""
        return cls(System.get_start_method(allow_none=True), _fallback())

    def restore(self) -> None:
        """Make this the process-wide default again, even if none was pinned."""
        pinned = System.get_start_method(allow_none=True)
        if pinned != self.pinned or _fallback() is not self.fallback:
            _set_fallback(self.fallback)
            System.set_start_method(self.pinned, force=True)


# The context that multiprocessing uses while none is pinned: private, and the same from Python 3.4
# to 3.15. No public API sets a default that set_start_method() can still change. If the attribute
# goes missing, the first use of these two raises AttributeError.


def _fallback() -> BaseContext:
    fallback: BaseContext = multiprocessing.context._default_context._default_context  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
    return fallback


def _set_fallback(fallback: BaseContext) -> None:
    multiprocessing.context._default_context._default_context = fallback  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
