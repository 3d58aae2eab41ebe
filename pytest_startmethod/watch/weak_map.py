"""Maps the user's objects to what is known of them, and keeps none of them alive."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class WeakMap(Generic[T]):
    """A mapping by identity: how objects are compared and hashed is the test's business."""

    def __init__(self) -> None:
        self._by_id: dict[int, tuple[weakref.ref[object], T]] = {}

    def __contains__(self, key: object) -> bool:
        """Tell whether something is known of an object."""
        return id(key) in self._by_id

    def set(self, key: object, value: T) -> bool:
        """Keep a value as long as its key lives; return False where that can't be told."""
        number, known = id(key), self._by_id

        def forget(ref: weakref.ref[object]) -> None:
            if known.get(number, (None,))[0] is ref:
                del known[number]

        try:
            known[number] = weakref.ref(key, forget), value
        except TypeError:  # a class of a C extension, or with __slots__, may have none
            known.pop(number, None)
            return False
        return True

    def get(self, key: object) -> T | None:
        """Return what is known of an object, or None."""
        found = self._by_id.get(id(key))
        return None if found is None else found[1]

    def living(self) -> Iterator[object]:
        """Return the keys that are alive."""
        for ref, _ in tuple(self._by_id.values()):
            key = ref()
            if key is not None:
                yield key
