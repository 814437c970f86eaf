"""Modes: what a dictionary refuses to do with its entries.

"r" is a handle's own. "append" and "write_once" are kept in the store when it is made, and every handle obeys: an entry
that is there stays as it is. They are about entries of the dictionary and its spaces; what lies beside them, such as
queues, goes on as ever.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from persistdict.errors import ImmutableError, ReadOnlyError
from persistdict.records import ABSENT, ANY, Condition, Receipt, Record, Transaction
from persistdict.routing import Routed
from persistdict.spans import ALL, KEPT_FROM, Span

__all__ = ["IMMUTABLE", "MODES", "Appending", "Reading", "bare_store", "refuse_to_write"]

T = TypeVar("T")

IMMUTABLE = ("append", "write_once")
MODES = ("rw", "r", *IMMUTABLE)


class _Guarded:
    """A store in front of which something is refused. What is not refused is the store's own."""

    def __init__(self, bare: Any) -> None:
        self.bare = bare

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class Reading(_Guarded):
    """A store of which nothing is changed."""

    def put(self, *_: Any, **__: Any) -> Any:
        """Raises ReadOnlyError; so do all that change entries."""
        refuse_to_write(self.bare.place)

    delete = update = evict = put


class Appending(_Guarded):
    """A store to which entries are only added.

    Args:
        bare: the store.
        again: whether an entry may be written once more with the value that it has.
        decode: a tag and a blob to a value.
    """

    def __init__(self, bare: Any, again: bool, decode: Callable[[int, bytes], Any]) -> None:
        super().__init__(bare)
        self._again, self._decode = again, decode

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        if ttl is None and kb < KEPT_FROM and when in (ANY, ABSENT):
            receipt: Receipt | None = self.bare.put(kb, hint, tag, blob, None, ABSENT, label)
            if receipt is not None or when is ABSENT:
                return receipt
        return self.update(lambda txn: txn.put(kb, hint, tag, blob, ttl=ttl, when=when, label=label))

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        if kb >= KEPT_FROM:
            done: Receipt | None = self.bare.delete(kb, when)
            return done
        record = self.bare.get(kb)
        if record is not None and when in (ANY, record.version):
            raise _refusal(self.bare.place)
        return None

    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        equal: set[tuple[bytes, int, bytes]] = set()
        while True:
            try:
                return self._update(work, equal, size, whole)
            except _AgainError as again:
                tag, blob = again.attempt[1:]
                before = again.before
                same = (before.tag, before.blob) == (tag, blob) or (
                    self._again and self._decode(before.tag, before.blob) == self._decode(tag, blob)
                )
                if not self._again or not same:
                    raise _refusal(self.bare.place) from None
                equal.add(again.attempt)

    def _update(self, work: Callable[[Transaction], T], equal: Any, size: int, whole: bool) -> T:
        def within(txn: Transaction) -> T:
            return work(_Appending(txn, self.bare.place, equal))

        done: T = self.bare.update(within, size=size, whole=whole)
        return done


class _AgainError(Exception):
    """An entry that is there was to be written; outside of the transaction it can be told whether with its own value.

    Attributes:
        before: the entry.
        attempt: key, tag and blob.
    """

    def __init__(self, before: Record, attempt: tuple[bytes, int, bytes]) -> None:
        super().__init__()
        self.before, self.attempt = before, attempt


class _Appending(Transaction):
    """The inside of `Appending.update`. `equal`: what may be written again, as it is known to be what is there."""

    def __init__(self, txn: Transaction, place: str, equal: set[tuple[bytes, int, bytes]]) -> None:
        self._txn, self._place, self._equal = txn, place, equal

    def get(self, kb: bytes) -> Record | None:
        return self._txn.get(kb)

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        if kb < KEPT_FROM:
            before = self._txn.get(kb)
            if ttl is not None:
                raise ImmutableError(f"{self._place}: entries stay for good in this mode; give no ttl")
            if before is not None:
                if when is ABSENT or when not in (ANY, before.version):
                    return None
                if (kb, tag, blob) not in self._equal:
                    raise _AgainError(before, (kb, tag, blob))
                return Receipt(before.seq, before.version, before.expires_at, -1)
        return self._txn.put(kb, hint, tag, blob, ttl=ttl, when=when, label=label)

    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        record = self._txn.get(kb)
        if kb < KEPT_FROM and record is not None and when in (ANY, record.version):
            raise _refusal(self._place)
        return self._txn.delete(kb, when=when)

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        record = self._txn.get(kb) if kb < KEPT_FROM else None
        if record is not None and label in (None, record.label):
            raise _refusal(self._place)
        return self._txn.discard(kb, label)

    def clear(self, span: Span = ALL) -> int:
        total = self._txn.clear(span)
        if total and span.start < KEPT_FROM:
            raise _refusal(self._place)
        return total

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        return self._txn.first(span, reverse=reverse)

    def get_info(self, name: str) -> str | None:
        return self._txn.get_info(name)

    def set_info(self, name: str, text: str) -> None:
        self._txn.set_info(name, text)

    def id(self) -> int:
        return self._txn.id()


def refuse_to_write(place: str) -> NoReturn:
    """Raise ReadOnlyError."""
    raise ReadOnlyError(errno.EROFS, 'the dictionary was opened with mode="r"; nothing was changed', place)


def _refusal(place: str) -> ImmutableError:
    return ImmutableError(
        f'{place} was made with mode="append" or "write_once": an entry that is there is neither changed nor removed'
    )


def bare_store(store: Any) -> Any:
    """The store itself, whatever stands before it."""
    while isinstance(store, (Routed, _Guarded)):
        store = store.bare
    return store
