"""What dict has beside its entries: comparison, text, copies, and the operators that merge."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from itertools import islice
from reprlib import Repr
from typing import Any, TypeVar

from persistdict.core import MISSING
from persistdict.errors import ClosedError
from persistdict.lifecycle import Unopened
from persistdict.many import Many, pairs_of

__all__ = ["DictLike"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound="DictLike[Any, Any]")

_SHOWN = 6  # entries in a repr
_repr = Repr()
_repr.maxstring = _repr.maxother = 60


class DictLike(Many[K, V], MutableMapping[K, V]):
    """The part of a dictionary that makes it one to look at."""

    def __eq__(self, other: object) -> bool:
        """Equal to any mapping with equal entries, in any order."""
        if other is self:
            return True
        if not isinstance(other, Mapping):
            return NotImplemented
        count = 0
        for key, value in self.items():
            theirs = other.get(key, MISSING)
            if theirs is MISSING or (theirs is not value and theirs != value):
                return False
            count += 1
        return count == len(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """The first few entries, abbreviated."""
        label = f"{type(self).__name__}({self._options.path!r}"
        if isinstance(self._store, Unopened):
            return f"{label}, not open)"
        try:
            shown = [f"{_repr.repr(key)}: {_repr.repr(value)}" for key, value in islice(self.items(), _SHOWN)]
            more = len(self) - len(shown)
        except ClosedError:
            return f"{label}, closed)"
        if more > 0:
            shown.append(f"... {more} more")
        return f"{label}, {{{', '.join(shown)}}})"

    def copy(self: S) -> S:
        """An independent dictionary in memory with the same entries and options."""
        return self._in_memory(self)

    __copy__ = copy

    def __deepcopy__(self: S, memo: dict[int, Any]) -> S:
        return self.copy()

    def __or__(self: S, other: Any) -> S:
        """A dictionary in memory with the entries of both; those of `other` win."""
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self: S, other: Any) -> S:
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self._in_memory(other)
        new.update(self)
        return new

    def __ior__(self: S, other: Any) -> S:
        self.update(other)
        return self

    def _in_memory(self: S, other: Mapping[Any, Any]) -> S:
        """A dictionary in memory with this one's options and the entries of `other`."""
        new = type(self).__new__(type(self))
        options = self._options._replace(
            database_path="memory://", background_thread="disabled", caching=bool(self._options.caching is not False)
        )
        new._configure(options, self._codec)
        new.__dict__.update(self._extras())
        new._set_pairs(pairs_of(other, {}), self._ttl)
        new._tally.reset()
        return new
