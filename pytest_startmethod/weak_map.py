"""Maps the user's objects to what is known of them, and keeps none of them alive."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class _Entry(weakref.ref[object]):
    """A weak reference that knows its place in the map, and what is known of its object."""

    __slots__ = ("number", "value")

    number: int
    value: object


class WeakMap(Generic[T]):
    """A mapping by identity: how objects are compared and hashed is the test's business."""

    def __init__(self) -> None:
        self._by_id: dict[int, _Entry] = {}

    def __contains__(self, key: object) -> bool:
        """Tell whether something is known of an object."""
        return id(key) in self._by_id

    def set(self, key: object, value: T) -> bool:
        """Keep a value as long as its key lives; return False where that can't be told."""
        try:
            entry = _Entry(key, self._forget)
        except TypeError:  # a class of a C extension, or with __slots__, may have none
            self._by_id.pop(id(key), None)
            return False
        entry.number, entry.value = id(key), value
        self._by_id[entry.number] = entry
        return True

    def get(self, key: object) -> T | None:
        """Return what is known of an object, or None."""
        found = self._by_id.get(id(key))
        return None if found is None else found.value  # type: ignore[return-value]  # of `set`

    def living(self) -> Iterator[object]:
        """Return the keys that are alive."""
        for entry in tuple(self._by_id.values()):
            key = entry()
            if key is not None:
                yield key

    def _forget(self, entry: weakref.ref[object]) -> None:
        number = entry.number  # type: ignore[attr-defined]  # of `set`
        if self._by_id.get(number) is entry:
            del self._by_id[number]
