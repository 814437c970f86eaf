"""The inside of `LmdbStore.update`: over the recent writes, or for many entries over the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from persistdict.errors import StoreError
from persistdict.spans import ALL, OUTSIDE, OWN, Span
from persistdict.store import ANY, Condition, Receipt, Record, Transaction
from persistdict.stores.lmdb.bulk import put_new_ones
from persistdict.stores.lmdb.failures import disk_full
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.population import any_outside, clear_in, first_in
from persistdict.stores.lmdb.record import COUNTER_BITS
from persistdict.stores.lmdb.reserve import refuse_without_room
from persistdict.stores.lmdb.rows import LARGE_VALUE

__all__ = ["ClearingTransaction", "DirectTransaction", "RecentTransaction"]


class _Counting(Transaction):
    """Counts writes, for sequence numbers."""

    def __init__(self) -> None:
        self._n = -1

    def _next(self, many: int = 1) -> int:
        """The number of the next write, of which there are so many."""
        first, self._n = self._n + 1, self._n + many
        if self._n >> COUNTER_BITS:
            raise StoreError(f"one transaction can write {1 << COUNTER_BITS:,} entries; split the batch")
        return first

    def delete(self, kb: bytes, when: Condition = ANY) -> Record | None:
        record = self.get(kb)
        if record is None or (when is not ANY and record.version != when):
            return None
        self.discard(kb)
        return record


class RecentTransaction(_Counting):
    """A few writes. `written` tells about how many bytes. Where the disk is `full`, nothing but deletions."""

    def __init__(self, rows: Pair, r: Any, full: bool = False) -> None:
        super().__init__()
        self._rows, self._r, self._full = rows, r, full
        self.written, self._changes = 0, False

    def get(self, kb: bytes) -> Record | None:
        return self._rows.get_in(self._r, self._rows.begin_data(self._rows.k), kb)

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        if self._full:
            raise disk_full(self._rows.place)
        self.written += len(blob) + 100
        if self.written > self._rows.env.much:
            refuse_without_room(self._rows.env, self.written)
        receipt = self._rows.put_recent(self._r, self._next(), kb, hint, tag, blob, ttl, when, label)
        self._changes |= receipt is not None
        return receipt

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        self.written += 100
        place = self._rows.delete_recent(self._r, self._next(), kb, ANY, label)
        self._changes |= place is not None
        return place is not None

    def clear(self, span: Span = ALL) -> int:
        raise RuntimeError("clear needs update(whole=True)")

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        return first_in(self._rows, self._r, self._rows.begin_data(self._rows.k), span, reverse)

    def get_info(self, name: str) -> str | None:
        text = self._rows.begin_data(self._rows.meta).get(name.encode())
        return None if text is None else text.decode()

    def set_info(self, name: str, text: str) -> None:
        raise RuntimeError("set_info needs update(whole=True)")

    def id(self) -> int:
        return int(self._r.id()) if self._changes else 0  # else LMDB gives that id to the next one


class DirectTransaction(_Counting):
    """Many writes, or such as concern the whole store."""

    def __init__(self, rows: Pair, d: Any, number: int) -> None:
        super().__init__()
        self._rows, self._d, self._number = rows, d, number

    def get(self, kb: bytes) -> Record | None:
        return self._rows.get_in(None, self._d, kb)

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        rows, version = self._rows, self._number << COUNTER_BITS | self._next()
        short = len(kb) < rows.limit and len(blob) < LARGE_VALUE and kb < OUTSIDE
        if short and ttl is None and when is ANY and rows.idle is None and not label:
            seq = rows.put_new(self._d, version, kb, hint, tag, blob)
            if seq is not None:
                return Receipt(seq, version, None, self.id())
        done = rows.put_in(self._d, version, kb, hint, tag, blob, ttl, when, label)
        return None if done is None else Receipt(done[0], version, done[1], self.id())

    def put_many(
        self, batch: Sequence[tuple[bytes, bytes, int, bytes]], *, ttl: float | None = None, label: bytes = b""
    ) -> None:
        rows = self._rows
        if ttl is not None or label or rows.idle is not None:
            super().put_many(batch, ttl=ttl, label=label)
            return
        if batch:
            first = self._number << COUNTER_BITS | self._next(len(batch))
            for at, row in put_new_ones(rows, self._d, first, batch):
                rows.put_in(self._d, first + at, *row, None, ANY)

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        return self._rows.delete_in(self._d, kb, label) is not None

    def clear(self, span: Span = ALL) -> int:
        return clear_in(self._rows, self._d, span)

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        return first_in(self._rows, None, self._d, span, reverse)

    def rewrite(self, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bool:
        version = self._number << COUNTER_BITS | self._next()
        return self._rows.rewrite_in(self._d, version, kb, hint, tag, blob)

    def get_info(self, name: str) -> str | None:
        text = self._d.get(name.encode(), None, self._rows.meta)
        return None if text is None else text.decode()

    def set_info(self, name: str, text: str) -> None:
        self._d.put(name.encode(), text.encode(), db=self._rows.meta)

    def id(self) -> int:
        return self._number - self._rows.base + 1  # the mark is taken away by the transaction after it


class ClearingTransaction(DirectTransaction):
    """On a full disk, where the recent writes could not be drained: everything must be cleared first."""

    def __init__(self, rows: Pair, d: Any, number: int) -> None:
        super().__init__(rows, d, number)
        self._cleared = False

    def clear(self, span: Span = ALL) -> int:
        if span != ALL and (span != OWN or any_outside(self._rows, self._d, self._rows.begin())):
            raise disk_full(self._rows.place)  # what stays was not drained
        self._cleared = True
        return super().clear()

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        self._refuse()
        return super().first(span, reverse=reverse)

    def _next(self, many: int = 1) -> int:
        self._refuse()
        return super()._next(many)

    def get(self, kb: bytes) -> Record | None:
        self._refuse()
        return super().get(kb)

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        self._refuse()
        return super().discard(kb, label)

    def set_info(self, name: str, text: str) -> None:
        self._refuse()
        super().set_info(name, text)

    def _refuse(self) -> None:
        if not self._cleared:
            raise disk_full(self._rows.place)
