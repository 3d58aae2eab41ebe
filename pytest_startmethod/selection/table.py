"""Computes the start methods that a test runs under, from what is known and selected."""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class SelectionError(Exception):
    """A user named start methods that can't be used; the text is the whole message."""


class Methods(NamedTuple):
    """The existing start methods; each tuple is in run order."""

    known: tuple[str, ...]
    """The names that a user may type: the standard library's on any platform, and plugins'."""
    supported: tuple[str, ...]
    """Those for which this platform or a plugin has a context."""
    standard: tuple[str, ...]
    """The supported ones of the standard library: these can be the process-wide default."""
    platform_default: str

    @property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """The words that ``--start-method`` takes, and what each stands for."""
        names = {name: (name,) for name in self.known}
        return {**names, "all": self.supported, "default": (self.platform_default,)}


class Marker(NamedTuple):
    """The arguments of ``@pytest.mark.start_methods(*names, reason=...)``; no names: all."""

    names: tuple[str, ...]
    reason: str = ""


class Run(NamedTuple):
    """One run of a test: its start method, and why it is skipped, if it is."""

    start_method: str
    skip_reason: str | None


class Selection(NamedTuple):
    """The start methods that are selected for this pytest run."""

    methods: Methods
    selected: tuple[str, ...]
    by_user: bool
    """Whether the user selects them; else all supported ones are selected."""
    unavailable: Mapping[str, str] = MappingProxyType({})
    """The reasons of plugins not to use a supported start method."""

    @property
    def process_defaults(self) -> tuple[str, ...]:
        """The start methods that the user selects and that can be the process-wide default."""
        usable = set(self.methods.standard) - set(self.unavailable)
        return tuple(name for name in self.selected if name in usable) if self.by_user else ()

    @property
    def process_default(self) -> str | None:
        """The process-wide default of tests that don't ask for a start method."""
        return next(iter(self.process_defaults), None)

    @property
    def not_deselected(self) -> tuple[str, ...]:
        """The start methods of a marker that aren't deselected; unsupported ones are skipped."""
        return self.selected if self.by_user else self.methods.known

    @property
    def unmarked_skip_reason(self) -> str | None:
        """Why tests that ask for no start method can't run, if plugins forbid all selected."""
        if not self.by_user or self.process_default is not None:
            return None
        return next(reason for name, reason in self.unavailable.items() if name in self.selected)

    def runs(self, marker: Marker | None, *, needs_default: bool) -> list[Run]:
        """Return the runs of a test, in run order, also unselected ones that its marker names.

        `needs_default`: whether the test's start method becomes the process-wide default.
        Raises `SelectionError` if no start method of the marker can.
        """
        named = marker.names if marker else ()
        wanted = [name for name in self.methods.known if name in named] or (
            self.methods.supported if marker else self.selected
        )
        plugins = set(self.methods.supported) - set(self.methods.standard)
        possible = [name for name in wanted if not (needs_default and name in plugins)]
        if not possible:
            raise SelectionError(
                f"{_quoted(wanted)} can't be the process-wide default, "
                "only the standard library's start methods can: ask for mp_context in the test"
            )
        return [Run(name, self._skip_reason(name, marker)) for name in possible]

    def _skip_reason(self, name: str, marker: Marker | None) -> str | None:
        if name not in self.methods.supported:
            reason = marker.reason if marker else ""
            return unsupported([name], self.methods.supported) + (f": {reason}" if reason else "")
        return self.unavailable.get(name)


def expand(values: Sequence[str], methods: Methods) -> tuple[str, ...]:
    """Return the start methods that the option's values name, in run order.

    Each value is a word, or several separated by commas.
    Raises `SelectionError` for an unknown word. Also if none of the start methods is supported or
    can be the process-wide default: the run would silently test nothing.
    """
    for value in values or [""]:
        for word in value.split(","):
            _check_word(word.strip(), methods.words)
    selected = expand_known(values, methods)
    if not set(selected) & set(methods.supported):
        raise SelectionError(unsupported(selected, methods.supported))
    if not set(selected) & set(methods.standard):
        raise SelectionError(
            f"{_quoted(selected)} can't be the process-wide default that other tests run with: "
            f"select it beside one of {', '.join(methods.standard)}"
        )
    return selected


def expand_known(values: Sequence[str], methods: Methods) -> tuple[str, ...]:
    """Return the same as `expand`, but ignore words that aren't known (yet)."""
    words = [word.strip() for value in values for word in value.split(",")]
    named = {name for word in words for name in methods.words.get(word, ())}
    return tuple(name for name in methods.known if name in named)


def start_methods(*names: object, reason: object = "", known: Sequence[str]) -> Marker:
    """Return the marker's arguments, bound by Python as those of a call.

    Raises `SelectionError` for anything but names of start methods, `TypeError` for unknown
    arguments.
    """
    for name in names:
        if not isinstance(name, str):
            raise SelectionError(
                f"takes the names of start methods ({', '.join(known)}), not {_described(name)}"
            )
        if "," in name:
            names_apart = ", ".join(f'"{word.strip()}"' for word in name.split(","))
            raise SelectionError(
                f"{name!r} is no start method: give each name as an argument of its own, "
                f"start_methods({names_apart})"
            )
        _check_word(name, known)
    if not isinstance(reason, str):
        raise SelectionError(f"takes a str as reason, not {_described(reason)}")
    return Marker(tuple(str(name) for name in names), reason)


def unsupported(names: Sequence[str], supported: Sequence[str]) -> str:
    """Return the message that the platform supports none of these start methods."""
    are = "is" if len(names) == 1 else "are"
    has = f"(supported: {', '.join(supported)})"
    return f"{_quoted(names)} {are} not supported on {sys.platform} {has}"


def _check_word(word: str, known: Collection[str]) -> None:
    if word in known:
        return
    what = f"unknown start method {word!r}" if word else "empty name of a start method"
    from difflib import get_close_matches  # seldom needed

    close = get_close_matches(word.lower(), known, n=1)
    suggestion = f", did you mean {close[0]!r}?" if close else ""
    raise SelectionError(f"{what}{suggestion} (known: {', '.join(known)})")


def _quoted(names: Sequence[str]) -> str:
    noun = "start method" if len(names) == 1 else "start methods"
    return f"{noun} {', '.join(map(repr, names))}"


def _described(value: object) -> str:
    return f"{type(value).__name__} {value!r}"
