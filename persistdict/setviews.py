"""What `keys()`, `items()` and `values()` return: live views in order of insertion, as dict has them.

Threads and processes: a view sees every change, whoever makes it. An iteration yields each entry once that stays in
the dictionary while it runs; entries added meanwhile are not visited; it holds no lock and no snapshot.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, cast

__all__ = ["Items", "Keys", "Values"]

K = TypeVar("K")
V = TypeVar("V")
K_co = TypeVar("K_co", covariant=True)
V_co = TypeVar("V_co", covariant=True)


class _Viewed(Protocol[K_co, V_co]):
    """What a view needs of its dictionary beside the mapping."""

    def _iter_keys(self, reverse: bool) -> Iterator[K_co]: ...

    def _iter_items(self, reverse: bool) -> Iterator[tuple[K_co, V_co]]: ...


class _View:
    _mapping: Any

    @property
    def mapping(self) -> MappingProxyType[Any, Any]:
        """The dictionary, read-only."""
        return MappingProxyType(self._mapping)

    def __bool__(self) -> bool:
        return bool(self._mapping)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._mapping!r})"


class Keys(_View, KeysView[K]):
    """The keys of a dictionary; a set in all but name."""

    def __iter__(self) -> Iterator[K]:
        return cast("_Viewed[K, Any]", self._mapping)._iter_keys(False)

    def __reversed__(self) -> Iterator[K]:
        return cast("_Viewed[K, Any]", self._mapping)._iter_keys(True)


class Items(_View, ItemsView[K, V]):
    """The (key, value) pairs of a dictionary."""

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return cast("_Viewed[K, V]", self._mapping)._iter_items(False)

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return cast("_Viewed[K, V]", self._mapping)._iter_items(True)


class Values(_View, ValuesView[V]):
    """The values of a dictionary."""

    def __contains__(self, value: object) -> bool:
        return any(known is value or known == value for known in self)

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._iter_items(False))

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._iter_items(True))
