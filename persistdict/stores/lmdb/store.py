"""The store contract on LMDB. What happens within a transaction is in rows.py; here it gets its transaction.

`read` and `contains` are the hot paths: they repeat, for the common case, what `Rows.find` does in general.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar
from zlib import crc32

import lmdb

from persistdict.errors import MismatchError, StoreError
from persistdict.keys import MAX_KEY_SIZE
from persistdict.store import ANY, Capability, Condition, Found, Receipt, Record, Store, Transaction
from persistdict.stores.lmdb.environment import CLOSED, open_environment
from persistdict.stores.lmdb.record import COUNTER_BITS, HEADER_SIZE, PREFIX, RESIDUE
from persistdict.stores.lmdb.rows import DEADLINE, LARGE_VALUE, Rows
from persistdict.stores.lmdb.scan import scan_by_creation, scan_by_key
from persistdict.stores.lmdb.upkeep import check_entries, expire_entries, write_access_times

__all__ = ["LmdbStore"]

T = TypeVar("T")

MAX_TOUCHED = 1 << 16
_prefix = PREFIX.unpack_from


class LmdbStore(Rows, Store):
    """A handle on the entries in one folder.

    Args:
        path: the folder; made if missing.
        key_size_limit: encoded keys of so many bytes and more are cropped for the index (1-511).
        idle: seconds after which an entry ends that is neither read nor written; None for never.
        clock: tells the time, seconds since the epoch.
        map_size: the size of the memory map to begin with; None for as large as the system allows.

    Raises:
        UnsafePathError, NotAStoreError, OpenError: see `open_environment`.
        MismatchError: if the store was made with another key_size_limit.
    """

    capabilities = Capability.ORDERED | Capability.CAS | Capability.TRANSACTIONS | Capability.SHARED | Capability.TTL
    max_batch = 1 << COUNTER_BITS

    def __init__(
        self,
        path: str,
        *,
        key_size_limit: int = MAX_KEY_SIZE,
        idle: float | None = None,
        clock: Callable[[], float] = time.time,
        map_size: int | None = None,
    ) -> None:
        self.limit = key_size_limit
        self.idle = idle
        self.clock = clock
        self._closed = False
        self.env = open_environment(path, map_size)
        self.touched = self.env.touched
        self.shared = self.env
        self.place = self.env.folder
        self.env.follow(self)
        try:
            self.bind()
            self._check_limit()
        except BaseException:
            self.close()
            raise

    def _check_limit(self) -> None:
        """Keep the limit in the store, or compare: another one would look for keys in the wrong place."""
        asked = str(self.limit)

        def work(txn: Transaction) -> str:
            stored = txn.get_info("key_size_limit")
            if stored is None:
                txn.set_info("key_size_limit", asked)
            return stored or asked

        stored = self.info().get("key_size_limit") or self.update(work)
        if stored != asked:
            raise MismatchError(
                f"{self.place} was made with key_size_limit={stored} and must be opened with it, not with {asked}"
            )

    # Reading

    def read(self, kb: bytes) -> Found | None:
        try:
            if self.idle is None and len(kb) < self.limit:
                txn = self.begin(self.k)
                seq = txn.get(kb)
                if seq is None:
                    return None
                if len(seq) == 8:
                    raw = txn.get(seq, b"", self.e)
                    if crc32(raw) == RESIDUE:
                        tag, flags, hint_size, key_size = _prefix(raw)
                        if not flags and len(self.touched) < MAX_TOUCHED:
                            self.touched[seq] = None
                            return tag, raw[HEADER_SIZE + hint_size + key_size : -4], seq, None, txn.id()
        except lmdb.Error:
            pass  # the general way meets it again, and knows what to do
        return self.env.attempt(self._read, kb)

    def _read(self, kb: bytes) -> Found | None:
        txn = self.begin(self.k)
        record = self.get_in(txn, kb)
        if record is None:
            return None
        self._note(record.seq, self.clock())
        return record.tag, record.blob, record.seq, record.expires_at, txn.id()

    def _note(self, seq: bytes, now: float) -> None:
        """Note a read. The list is bounded; what is lost costs an access time that is older than it should be."""
        if len(self.touched) >= MAX_TOUCHED:
            with contextlib.suppress(StopIteration, RuntimeError, KeyError):  # other threads change it too
                del self.touched[next(iter(self.touched))]
        self.touched[seq] = None if self.idle is None else now

    def get(self, kb: bytes) -> Record | None:
        return self.env.attempt(lambda: self.get_in(self.begin(self.k), kb))

    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        def work() -> list[Record | None]:
            txn = self.begin(self.k)
            return [self.get_in(txn, kb) for kb in kbs]

        records = self.env.attempt(work)
        now = self.clock()
        for record in records:
            if record is not None:
                self._note(record.seq, now)
        return records

    def contains(self, kb: bytes) -> bool:
        try:
            if self.idle is None and len(kb) < self.limit:
                index = self.begin(self.k).get(kb)
                if index is None:
                    return False
                if len(index) == 8:
                    return True
        except lmdb.Error:
            pass  # the general way meets it again, and knows what to do
        return self.env.attempt(self._contains, kb)

    def _contains(self, kb: bytes) -> bool:
        txn = self.begin(self.k)
        place = self.find(txn, kb)
        return place is not None and self._alive(txn, place, self.clock())

    def last(self, *, values: bool = True) -> Record | None:
        return self.env.attempt(lambda: self.last_in(self.begin(self.e), values))

    def count(self) -> int:
        return self.env.attempt(self._count)

    def _count(self) -> int:
        txn = self.begin(self.x)
        total: int = txn.stat(self.e)["entries"]
        now = int(self.clock() * 1e6)
        cursor = txn.cursor()
        more = cursor.first()
        while more and DEADLINE.unpack(cursor.key())[0] <= now:
            total -= cursor.count()
            more = cursor.next_nodup()
        return total

    def scan(
        self,
        *,
        reverse: bool = False,
        values: bool = True,
        by_key: bool = False,
        start: bytes | None = None,
        stop: bytes | None = None,
    ) -> Iterator[Record]:
        if by_key:
            return scan_by_key(self, reverse=reverse, values=values, start=start, stop=stop)
        return scan_by_creation(self, reverse=reverse, values=values)

    def info(self) -> dict[str, str]:
        def work() -> dict[str, str]:
            return {name.decode(): text.decode() for name, text in self.begin(self.meta).cursor()}

        return self.env.attempt(work)

    # Writing

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY
    ) -> Receipt | None:
        if ttl is None and when is ANY and self.idle is None and len(kb) < self.limit and len(blob) < LARGE_VALUE:
            return self.env.update(self.put_plain, 0, kb, hint, tag, blob)
        return self.env.update(self.put_in, 0, kb, hint, tag, blob, ttl, when)

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        def work(txn: Any) -> Receipt | None:
            place = self.delete_in(txn, kb, when)
            return None if place is None else Receipt(place.slot[0], 0, None, txn.id())

        return self.env.update(work)

    def update(self, work: Callable[[Transaction], T]) -> T:
        return self.env.update(lambda txn: work(LmdbTransaction(self, txn)))

    # Upkeep

    def touch(self, batch: Mapping[bytes, float]) -> None:
        write_access_times(self, dict(batch))

    def expire(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        return expire_entries(self, budget, after)

    def check(self, budget: int, after: bytes = b"") -> tuple[list[str], bytes | None]:
        return check_entries(self, budget, after)

    def tidy(self) -> None:
        self.env.attempt(self.env.tidy)

    def on_reopen(self, call: Callable[[], None]) -> None:
        self.env.reopened.append(call)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.env.unfollow(self)
        self.env.release()
        # What a write under way still uses, the databases and the base, stays as it is.
        self.env = CLOSED
        self.begin = CLOSED.begin


class LmdbTransaction(Transaction):
    """A transaction of `LmdbStore.update`; counts its writes, for sequence numbers."""

    def __init__(self, store: LmdbStore, txn: Any) -> None:
        self._store = store
        self._txn = txn
        self._n = -1

    def _next(self) -> int:
        self._n += 1
        if self._n >= LmdbStore.max_batch:
            raise StoreError(f"one transaction can write {LmdbStore.max_batch:,} entries; split the batch")
        return self._n

    def get(self, kb: bytes) -> Record | None:
        return self._store.get_in(self._txn, kb)

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY
    ) -> Receipt | None:
        store = self._store
        if ttl is None and when is ANY and store.idle is None and len(kb) < store.limit and len(blob) < LARGE_VALUE:
            return store.put_plain(self._txn, self._next(), kb, hint, tag, blob)
        return store.put_in(self._txn, self._next(), kb, hint, tag, blob, ttl, when)

    def delete(self, kb: bytes, when: Condition = ANY) -> Record | None:
        record = self._store.get_in(self._txn, kb)
        if record is None or self._store.delete_in(self._txn, kb, when) is None:
            return None
        return record

    def discard(self, kb: bytes) -> bool:
        return self._store.delete_in(self._txn, kb) is not None

    def clear(self) -> int:
        return self._store.clear_in(self._txn)

    def get_info(self, name: str) -> str | None:
        text = self._txn.get(name.encode(), None, self._store.meta)
        return None if text is None else text.decode()

    def set_info(self, name: str, text: str) -> None:
        self._txn.put(name.encode(), text.encode(), db=self._store.meta)

    def id(self) -> int:
        return int(self._txn.id())
