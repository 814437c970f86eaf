"""What a library under test can do, and the list of them.

Every method takes a batch and loops over it, so that what is timed holds no call of ours per operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["Library", "count"]

Steps = Sequence[tuple[Any, Any]]  # a key and the value to set, or None to get it


class Library:
    """A mapping under test. Subclasses say how it is opened, and what they do otherwise.

    A store is opened as the library's documentation shows it, with its default options. Keys and values are given to it
    as `key` and `value` have made them, which is never timed.
    """

    name: str
    package: str  # the distribution that has it
    durability: str  # what a power cut takes of it
    on_disk = True
    bulk = True  # whether there is a faster way to write many
    most = 1_000_000_000  # entries beyond which it is left out
    only: frozenset[str] | None = None  # the operations to measure; None for all
    lacking: ClassVar[dict[str, str]] = {}  # operation -> why it is not measured
    store: Any

    def open(self, path: Path) -> None:
        """Open or make the store."""
        raise NotImplementedError

    def close(self) -> None:
        self.store.close()

    def sync(self) -> bool:
        """Bring to the disk what was written; False if there is no call for it."""
        return False

    def compact(self, path: Path) -> bool:
        """Give back the space in the closed store that nothing takes; False if there is no call for it."""
        return False

    def key(self, key: str) -> Any:
        return key

    def value(self, value: Any) -> Any:
        return value

    def set(self, entries: Iterable[tuple[Any, Any]]) -> None:
        store = self.store
        for key, value in entries:
            store[key] = value

    def load(self, entries: Mapping[Any, Any]) -> None:
        """All at once, by the fastest way that the library offers."""
        self.store.update(entries)

    def get(self, keys: Sequence[Any]) -> Any:
        """Read all; returns the last value."""
        store, value = self.store, None
        for key in keys:
            value = store[key]
        return value

    def get_many(self, keys: Sequence[Any]) -> int:
        """Read all at once, if the library can; returns how many were found."""
        self.get(keys)
        return len(keys)

    def contains(self, keys: Sequence[Any]) -> int:
        store, found = self.store, 0
        for key in keys:
            if key in store:
                found += 1
        return found

    def delete(self, keys: Sequence[Any]) -> None:
        store = self.store
        for key in keys:
            del store[key]

    def keys(self, most: int) -> int:
        return count(islice(self.store.keys(), most))

    def items(self, most: int) -> int:
        return count(islice(self.store.items(), most))

    def length(self) -> int:
        return len(self.store)

    def mixed(self, steps: Steps) -> None:
        """Gets and sets as they come."""
        store = self.store
        for key, value in steps:
            if value is None:
                store[key]
            else:
                store[key] = value

    def memoize(self, function: Callable[..., Any]) -> Callable[..., Any] | None:
        """The function with its results kept in the store; None if the library has no such thing."""
        return None


def count(iterable: Iterable[Any]) -> int:
    number = 0
    for _ in iterable:
        number += 1
    return number
