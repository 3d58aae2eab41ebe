"""Which start methods does a test run under?"""

from __future__ import annotations

import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class SelectionError(Exception):
    """A user named start methods that can't be used; its text is the whole message."""


class Methods(NamedTuple):
    """The start methods that there are, each tuple in run order."""

    known: tuple[str, ...]
    """What a user may name: the standard library's on any platform, and plugins' contexts."""
    supported: tuple[str, ...]
    """Those that this platform and the plugins have a context for."""
    standard: tuple[str, ...]
    """Those of them that can be the process-wide default: the standard library's own."""
    platform_default: str

    @property
    def words(self) -> Mapping[str, tuple[str, ...]]:
        """What may be written for ``--start-method`` and what each word stands for."""
        names = {name: (name,) for name in self.known}
        return {**names, "all": self.supported, "default": (self.platform_default,)}


class Marker(NamedTuple):
    """What ``@pytest.mark.start_methods(*names, reason=...)`` says; no names: all."""

    names: tuple[str, ...]
    reason: str = ""


class Run(NamedTuple):
    """One run of a test: its start method, and why it is skipped where it is."""

    start_method: str
    skip_reason: str | None


class Selection(NamedTuple):
    """The start methods that this pytest run selects."""

    methods: Methods
    selected: tuple[str, ...]
    by_user: bool
    """Whether the option or the ini selected them; else all that is supported is selected."""
    unavailable: Mapping[str, str] = MappingProxyType({})
    """Why a supported start method isn't to be used here, from a plugin's hook."""

    @property
    def process_defaults(self) -> tuple[str, ...]:
        """The selected that can be the process-wide default here; none where none is selected."""
        usable = set(self.methods.standard) - set(self.unavailable)
        return tuple(name for name in self.selected if name in usable) if self.by_user else ()

    @property
    def process_default(self) -> str | None:
        """The process-wide default of tests that don't ask for one of their own."""
        return next(iter(self.process_defaults), None)

    @property
    def not_deselected(self) -> tuple[str, ...]:
        """What a marker may name without its run being deselected; what's missing is skipped."""
        return self.selected if self.by_user else self.methods.known

    @property
    def unmarked_skip_reason(self) -> str | None:
        """Why no test can run under the selected default, where a plugin forbids each one."""
        if not self.by_user or self.process_default is not None:
            return None
        return next(reason for name, reason in self.unavailable.items() if name in self.selected)

    def runs(self, marker: Marker | None, *, needs_default: bool) -> list[Run]:
        """Return the runs of a test, in run order, unselected ones of its marker included.

        `needs_default` says that the test's start method becomes the process-wide default.
        Raises `SelectionError` where the marker leaves no run that could do so.
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

    Each value is a word or several with commas between them.
    Raises `SelectionError` for a word nobody knows, and where none of the named is supported or
    can be the process-wide default, so that no run silently tests nothing.
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
    """Return what `expand` does, passing over the words that aren't known (yet)."""
    words = [word.strip() for value in values for word in value.split(",")]
    named = {name for word in words for name in methods.words.get(word, ())}
    return tuple(name for name in methods.known if name in named)


def start_methods(*names: object, reason: object = "", known: Sequence[str]) -> Marker:
    """Return the marker's arguments, bound as Python binds those of a call.

    Raises `SelectionError` for what is no name of a start method, `TypeError` for other arguments.
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
    """Say that the platform has none of these start methods."""
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
