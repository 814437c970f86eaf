"""The handle on entries in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from persistdict.errors import ClosedError, NestedWriteError
from persistdict.store import (
    ANY,
    Capability,
    Condition,
    Found,
    Item,
    Moment,
    Receipt,
    Record,
    Store,
    Transaction,
)
from persistdict.stores.memory.entries import Row, entries_named
from persistdict.stores.memory.transaction import MemoryTransaction

__all__ = ["MemoryStore"]

T = TypeVar("T")

MAX_TOUCHED = 1 << 16


class MemoryStore(Store):
    """A handle on entries in memory.

    Args:
        name: handles with the same name share entries; None for entries of its own.
        idle: seconds after which an entry ends that is neither read nor written; None for never.
        clock: tells the time, seconds since the epoch.
    """

    capabilities = Capability.ORDERED | Capability.CAS | Capability.TRANSACTIONS | Capability.TTL

    def __init__(
        self, name: str | None = None, *, idle: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        entries = entries_named(name)
        self._entries = entries
        self.shared = entries
        self.place = f"memory://{name or ''}"
        self.idle = idle
        self.clock = clock
        self.touched = entries.touched
        self._closed = False

    def begin(self) -> Moment:
        self._check_open()
        return self._entries

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this dictionary was closed; open it again with PersistDict(path)")

    # Reading

    def read(self, kb: bytes) -> Found | None:
        self._check_open()
        with self._entries.lock:
            commit = self._entries.commit
            record = self._record(kb)
        if record is None:
            return None
        self._note(record.seq)
        return record.tag, record.blob, record.seq, record.expires_at, commit

    def _note(self, seq: bytes) -> None:
        if len(self.touched) >= MAX_TOUCHED:
            self.touched.clear()
        self.touched[seq] = None if self.idle is None else self.clock()

    def get(self, kb: bytes) -> Record | None:
        self._check_open()
        with self._entries.lock:
            return self._record(kb)

    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        self._check_open()
        with self._entries.lock:
            records = [self._record(kb) for kb in kbs]
        for record in records:
            if record is not None:
                self._note(record.seq)
        return records

    def contains(self, kb: bytes) -> bool:
        return self.get(kb) is not None

    def last(self, *, values: bool = True) -> Record | None:
        return next(self._scan(reverse=True, values=values), None)

    def count(self) -> int:
        self._check_open()
        now = self.clock()
        with self._entries.lock:
            return sum(row.deadline is None or row.deadline > now for row in self._entries.rows.values())

    def scan(
        self,
        *,
        reverse: bool = False,
        values: bool = True,
        by_key: bool = False,
        start: bytes | None = None,
        stop: bytes | None = None,
    ) -> Iterator[Item]:
        records = self._scan(reverse=reverse, values=values, by_key=by_key, start=start, stop=stop)
        return (Item(*record[:4]) for record in records)

    def _scan(
        self,
        *,
        reverse: bool,
        values: bool,
        by_key: bool = False,
        start: bytes | None = None,
        stop: bytes | None = None,
    ) -> Iterator[Record]:
        self._check_open()
        with self._entries.lock:
            kbs = list(self._entries.rows)
            newest = self._entries.commit
        if by_key:
            kbs = sorted(kb for kb in kbs if (start is None or kb >= start) and (stop is None or kb < stop))
        for kb in reversed(kbs) if reverse else kbs:
            record = self.get(kb)
            if record is not None and int.from_bytes(record.seq, "big") >> 20 <= newest:
                yield record if values else record._replace(blob=b"")

    def labelled(self, label: bytes) -> Iterator[Item]:
        return (Item(*record[:4]) for record in self._scan(reverse=False, values=False) if record.label == label)

    def labels(self) -> list[bytes]:
        return sorted({record.label for record in self._scan(reverse=False, values=False)} - {b""})

    def info(self) -> dict[str, str]:
        self._check_open()
        with self._entries.lock:
            return dict(self._entries.info)

    def _record(self, kb: bytes) -> Record | None:
        row = self._entries.rows.get(kb)
        if row is None:
            return None
        ends = self._ends(row)
        if ends is not None and ends <= self.clock():
            return None
        atime = max(row.mtime, self._atime(row.seq))
        return Record(
            kb, row.hint, row.tag, row.blob, row.seq, row.version, row.ctime, row.mtime, atime, ends, row.label
        )

    def _atime(self, seq: bytes) -> float:
        pending = self.touched.get(seq, 0.0)
        return max(self._entries.atimes.get(seq, 0.0), self.clock() if pending is None else pending)

    def _ends(self, row: Row) -> float | None:
        if self.idle is None:
            return row.deadline
        idle_end = max(row.mtime, self._atime(row.seq)) + self.idle
        return idle_end if row.deadline is None else min(row.deadline, idle_end)

    # Writing

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        return self.update(lambda txn: txn.put(kb, hint, tag, blob, ttl=ttl, when=when, label=label))

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        def work(txn: Transaction) -> Receipt | None:
            record = txn.delete(kb, when=when)
            return None if record is None else Receipt(record.seq, record.version, None, txn.id())

        return self.update(work)

    def update(self, work: Callable[[Transaction], T], *, size: int = 1, whole: bool = False) -> T:
        self._check_open()
        entries = self._entries
        with entries.lock:
            if entries.writing:
                raise NestedWriteError("a write was begun within another write of the same thread")
            txn = MemoryTransaction(self, entries)
            try:
                entries.writing = True
                result = work(txn)
                entries.commit = txn.id()
                txn.forget_atimes()
            except BaseException:
                txn.undo()
                raise
            finally:
                entries.writing = False
            return result

    # Upkeep

    def touch(self, batch: Mapping[bytes, float]) -> None:
        self._check_open()
        entries = self._entries
        with entries.lock:
            known = {row.seq for row in entries.rows.values()}
            for seq, at in batch.items():
                if seq in known:
                    entries.atimes[seq] = max(at, entries.atimes.get(seq, 0.0))

    def expire(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        def work(_: Transaction) -> int:
            now = self.clock()
            rows = self._entries.rows
            over = [kb for kb, row in rows.items() if (ends := self._ends(row)) is not None and ends <= now]
            for kb in over:
                self._entries.atimes.pop(rows.pop(kb).seq, None)
            return len(over)

        return self.update(work), None

    def check(self, budget: int, after: bytes = b"") -> tuple[list[str], bytes | None]:
        self._check_open()
        return [], None

    def close(self) -> None:
        self._closed = True
