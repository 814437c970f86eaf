"""What dict has beside its entries: comparison, text, copies, and the operators that merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from itertools import islice
from reprlib import Repr
from typing import Any, TypeVar

from persistdict.core import MISSING
from persistdict.errors import ClosedError, CorruptEntryError
from persistdict.lifecycle import Unopened
from persistdict.many import Many
from persistdict.spans import OWN
from persistdict.store import Record, Transaction

__all__ = ["DictLike"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S", bound="DictLike[Any, Any]")

_SHOWN = 6  # entries in a repr
_BATCH, _MUCH = 1024, 8 << 20  # entries, and bytes of values, that are copied in one transaction
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
        if isinstance(self._store, Unopened):
            return self._shown("not open")
        try:
            shown = [f"{_repr.repr(key)}: {_repr.repr(value)}" for key, value in islice(self.items(), _SHOWN)]
            more = len(self) - len(shown)
        except ClosedError:
            return self._shown("closed")
        if more > 0:
            shown.append(f"... {more} more")
        return self._shown("{" + ", ".join(shown) + "}")

    def _shown(self, content: str) -> str:
        return f"{self._title()[:-1]}, {content})"

    def copy(self) -> Any:
        """An independent dictionary in memory with the same entries, their tags and times to live, and options.

        An entry that is damaged is passed over with a DamagedEntryWarning.
        """
        new = self._in_memory()
        records: list[Record] = []
        size = 0
        for item in self._store.scan(values=False, span=self._span):
            record = self._readable(item.kb)
            if record is not None:
                if self._span != OWN:  # a view; there its keys are others
                    kb, hint = new._keys.encode(self._keys.decode(record.kb, record.hint))
                    record = record._replace(kb=kb, hint=hint)
                records.append(record)
                size += len(record.blob)
            if size > _MUCH or len(records) == _BATCH:
                new._take(records)
                records, size = [], 0
        new._take(records)
        return new

    def _take(self, records: list[Record]) -> None:
        pairs = [(record.kb, record.blob) for record in records]
        self._write_many(partial(_put_again, records=records, clock=self._store.clock), [], len(records), pairs)

    def _readable(self, kb: bytes) -> Record | None:
        try:
            return self._store.get(kb)
        except CorruptEntryError as error:
            self._warn_passed_over(error)
            return None

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.copy()

    def __or__(self, other: Any) -> Any:
        """A dictionary in memory with the entries of both; those of `other` win."""
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new.update(other)
        return new

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self._in_memory()
        new.update(other)
        new.update(self)
        return new

    def __ior__(self: S, other: Any) -> S:
        self.update(other)
        return self

    def _in_memory(self) -> Any:
        """An empty dictionary in memory with this one's options."""
        root = self._root
        cls: Any = type(root)
        new = cls.__new__(cls)
        options = self._options._replace(
            database_path="memory://",
            mode="rw",
            background_thread="disabled",
            caching=bool(self._options.caching is not False),
        )
        new._configure(options, self._codec)
        for name, value in root._extras().items():
            object.__setattr__(new, name, value)
        return new


def _put_again(txn: Transaction, records: list[Record], clock: Callable[[], float]) -> int:
    for record in records:
        ttl = None if record.deadline is None else record.deadline - clock()
        txn.put(record.kb, record.hint, record.tag, record.blob, ttl=ttl, label=record.label)
    return txn.id()
