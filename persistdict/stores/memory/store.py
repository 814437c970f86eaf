"""The handle on entries in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypeVar

from persistdict.bounded import NO_USES, Access, Usage, Uses
from persistdict.clocked import SLACK, Clocks, next_clocks
from persistdict.errors import ClosedError, NestedWriteError
from persistdict.spans import ALL, KEPT_FROM, Span
from persistdict.statistics import Counts, Sizes
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
from persistdict.turn import Wish

__all__ = ["MemoryStore"]

T = TypeVar("T")

MAX_TOUCHED = 1 << 16
TIMEOUT = 60.0  # seconds to wait for the transaction of another thread


class MemoryStore(Store):
    """A handle on entries in memory.

    Args:
        name: handles with the same name share entries; None for entries of its own.
        idle: seconds after which an entry ends that is neither read nor written; None for never.
        counting: whether to note how often entries are read.
        clock: tells the time, seconds since the epoch.
    """

    capabilities = Capability.ORDERED | Capability.CAS | Capability.TRANSACTIONS | Capability.TTL

    def __init__(
        self,
        name: str | None = None,
        *,
        idle: float | None = None,
        counting: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        entries = entries_named(name)
        self._entries = entries
        self.shared = entries
        self.counts = Counts(entries.removed)
        self.place = f"memory://{name or ''}"
        self.idle = idle
        self.clock = clock
        self.touched = Uses() if counting else entries.touched
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
            over = record is None and kb in self._entries.rows
        if over:
            next(self.counts.expired)
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
            over = records.count(None) - sum(kb not in self._entries.rows for kb in kbs)
        self.counts.expired.add(over)
        for record in records:
            if record is not None:
                self._note(record.seq)
        return records

    def contains(self, kb: bytes) -> bool:
        return self.get(kb) is not None

    def last(self, *, values: bool = True, span: Span = ALL) -> Record | None:
        self._check_open()
        with self._entries.lock:
            for kb in reversed(self._entries.rows):
                record = self._record(kb) if kb in span else None
                if record is not None:
                    return record if values else record._replace(blob=b"")
        return None

    def count(self, span: Span = ALL) -> int:
        self._check_open()
        now = self.clock()
        with self._entries.lock:
            deadlines = [row.deadline for kb, row in self._entries.rows.items() if kb in span]
        return sum(deadline is None or deadline > now for deadline in deadlines)

    def scan(
        self,
        *,
        reverse: bool = False,
        values: bool = True,
        by_key: bool = False,
        span: Span = ALL,
    ) -> Iterator[Item]:
        records = self._scan(reverse=reverse, values=values, by_key=by_key, span=span)
        return (Item(*record[:4]) for record in records)

    def _scan(self, *, reverse: bool, values: bool, by_key: bool = False, span: Span = ALL) -> Iterator[Record]:
        self._check_open()
        with self._entries.lock:
            kbs = [kb for kb in self._entries.rows if kb in span]
            newest = self._entries.commit
        if by_key:
            kbs.sort()
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
        ends = self._ends(kb, row)
        if ends is not None and ends <= self.clock():
            return None
        atime = max(row.mtime, self._atime(row.seq))
        return Record(
            kb, row.hint, row.tag, row.blob, row.seq, row.version, row.ctime, row.mtime, atime, ends, row.label,
            row.deadline,
        )  # fmt: skip

    def _atime(self, seq: bytes) -> float:
        pending = self.touched.get(seq, 0.0)
        return max(self._entries.atimes.get(seq, 0.0), self.clock() if pending is None else pending)

    def _ends(self, kb: bytes, row: Row) -> float | None:
        if self.idle is None or kb >= KEPT_FROM:
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
        return self.update(lambda txn: self._delete(txn, kb, when))

    @staticmethod
    def _delete(txn: Transaction, kb: bytes, when: Condition) -> Receipt | None:
        record = txn.delete(kb, when=when)
        return None if record is None else Receipt(record.seq, record.version, None, txn.id())

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
                entries.clocks = next_clocks(entries.clocks, self.clock())
                txn.forget_reads()
            except BaseException:
                txn.undo()
                raise
            finally:
                entries.writing = False
            return result

    def turn(self) -> Generator[None, None, None]:
        turn, wish = self._entries.turn, Wish()
        try:
            turn.take(wish, TIMEOUT, self.place)
            yield
        finally:
            turn.give(wish)

    # Upkeep

    def touch(self, batch: Mapping[bytes, float], uses: Mapping[bytes, int] = NO_USES) -> None:
        self._check_open()
        entries = self._entries
        with entries.lock:
            known = {row.seq for row in entries.rows.values()}
            for seq, at in batch.items():
                if seq in known:
                    entries.atimes[seq] = max(at, entries.atimes.get(seq, 0.0))
                    entries.uses[seq] = entries.uses.get(seq, 0) + uses.get(seq, 0)
            entries.clocks = next_clocks(entries.clocks, self.clock())

    def expire(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        def work(_: Transaction) -> int:
            now = self.clock()
            rows = self._entries.rows
            over = [kb for kb, row in rows.items() if (ends := self._ends(kb, row)) is not None and ends <= now]
            for kb in over:
                self._entries.forget(rows.pop(kb).seq)
            return len(over)

        return self.update(work), None

    def usage(self, *, exact: bool = False) -> Usage:
        """Bytes of the keys and values. Costs a look at every entry."""
        self._check_open()
        with self._entries.lock:
            sizes = [_size(kb, row) for kb, row in self._entries.rows.items() if kb < KEPT_FROM]
        return Usage(len(sizes), sum(sizes))

    def accesses(
        self, budget: int, after: bytes = b"", *, before: float = float("inf")
    ) -> tuple[list[Access], bytes | None]:
        self._check_open()
        entries = self._entries
        with entries.lock:
            all_of_them = [
                Access(kb, row.seq, row.version, self._used_at(row), entries.uses.get(row.seq, 0), _size(kb, row))
                for kb, row in entries.rows.items()
                if kb < KEPT_FROM
            ]
        return [access for access in all_of_them if access.used_at < before], None

    def _used_at(self, row: Row) -> float:
        return max(row.mtime, self._atime(row.seq))

    def evict(self, batch: list[Access], *, unless: str = "used") -> Usage:
        def work(txn: Transaction) -> Usage:
            gone = [access for access in batch if self._may_go(access, unless) and txn.discard(access.kb)]
            return Usage(len(gone), sum(access.size for access in gone))

        return self.update(work)

    def _may_go(self, access: Access, unless: str) -> bool:
        row = self._entries.rows.get(access.kb)
        if row is None or row.seq != access.seq:
            return False
        if unless and row.version != access.version:
            return False
        return unless != "used" or self._used_at(row) <= access.used_at

    def clocks(self) -> Clocks:
        return self._entries.clocks

    def set_clocks(self, clocks: Clocks) -> None:
        self._entries.clocks = clocks

    def rebase(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        def work(_: Transaction) -> int:
            now, entries = self.clock(), self._entries
            late = [kb for kb, row in entries.rows.items() if self._used_at(row) > now + SLACK]
            for kb in late:
                row = entries.rows[kb]
                if row.mtime > now + SLACK:
                    entries.rows[kb] = row.begun_at(now)
                if row.seq in entries.atimes:
                    entries.atimes[row.seq] = min(entries.atimes[row.seq], now)
            return len(late)

        return self.update(work), None

    def check(self, budget: int, after: bytes = b"") -> tuple[list[str], bytes | None]:
        self._check_open()
        return [], None

    def sizes(self) -> Sizes:
        self._check_open()
        with self._entries.lock:
            return Sizes(sum(len(kb) + len(row.hint) + len(row.blob) for kb, row in self._entries.rows.items()))

    def close(self) -> None:
        self._closed = True


def _size(kb: bytes, row: Row) -> int:
    return len(kb) + len(row.hint) + len(row.blob)
