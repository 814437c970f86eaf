"""The memory store: the contract without a disk. For tests, for copies, and to prove that the contract is not LMDB.

Entries live as long as a handle on them. Handles with the same name share their entries within the process.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from persistdict.errors import ClosedError, NestedWriteError
from persistdict.forking import hold_over_fork
from persistdict.store import (
    ABSENT,
    ANY,
    Capability,
    Condition,
    Found,
    Moment,
    Receipt,
    Record,
    Store,
    Transaction,
)

__all__ = ["MemoryStore"]

T = TypeVar("T")

MAX_TOUCHED = 1 << 16


class _Row(NamedTuple):
    hint: bytes
    tag: int
    blob: bytes
    seq: bytes
    version: int
    ctime: float
    mtime: float
    deadline: float | None


class _Entries:
    """What handles of one name share. Also the `Moment` of all of them.

    `rows` is in order of creation, which is the order of seq. `lock` guards everything, readers included: a transaction
    changes the rows in place.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rows: dict[bytes, _Row] = {}
        self.atimes: dict[bytes, float] = {}
        self.touched: dict[bytes, float | None] = {}
        self.info: dict[str, str] = {}
        self.commit = 0
        self.writing = False
        hold_over_fork(self)

    def after_fork(self) -> None:
        """In the child: as it was, with a new lock."""
        self.lock = threading.RLock()

    def id(self) -> int:
        return self.commit


_named: weakref.WeakValueDictionary[str, _Entries] = weakref.WeakValueDictionary()
_named_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _named_lock
    _named_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


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
        with _named_lock:
            entries = _named.get(name) if name else None
            if entries is None:
                entries = _Entries()
                if name:
                    _named[name] = entries
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
        return next(self.scan(reverse=True, values=values), None)

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
        return Record(kb, row.hint, row.tag, row.blob, row.seq, row.version, row.ctime, row.mtime, atime, ends)

    def _atime(self, seq: bytes) -> float:
        pending = self.touched.get(seq, 0.0)
        return max(self._entries.atimes.get(seq, 0.0), self.clock() if pending is None else pending)

    def _ends(self, row: _Row) -> float | None:
        if self.idle is None:
            return row.deadline
        idle_end = max(row.mtime, self._atime(row.seq)) + self.idle
        return idle_end if row.deadline is None else min(row.deadline, idle_end)

    # Writing

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None = None, when: Condition = ANY
    ) -> Receipt | None:
        return self.update(lambda txn: txn.put(kb, hint, tag, blob, ttl=ttl, when=when))

    def delete(self, kb: bytes, when: Condition = ANY) -> Receipt | None:
        def work(txn: Transaction) -> Receipt | None:
            record = txn.delete(kb, when=when)
            return None if record is None else Receipt(record.seq, record.version, None, txn.id())

        return self.update(work)

    def update(self, work: Callable[[Transaction], T]) -> T:
        self._check_open()
        entries = self._entries
        with entries.lock:
            if entries.writing:
                raise NestedWriteError("a write was begun within another write of the same thread")
            txn = _MemoryTransaction(self, entries)
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


class _MemoryTransaction(Transaction):
    """Changes the rows in place, and knows how to take its changes back."""

    def __init__(self, store: MemoryStore, entries: _Entries) -> None:
        self._store = store
        self._entries = entries
        self._before: dict[bytes, _Row | None] = {}
        self._info_before = dict(entries.info)
        self._id = entries.commit + 1
        self._n = 0

    def undo(self) -> None:
        for kb, row in self._before.items():
            if row is None:
                self._entries.rows.pop(kb, None)
            else:
                self._entries.rows[kb] = row
        self._entries.rows = dict(sorted(self._entries.rows.items(), key=lambda item: item[1].seq))
        self._entries.info = self._info_before

    def forget_atimes(self) -> None:
        """Drop the access times of what this transaction has removed for good."""
        for kb, row in self._before.items():
            if row is not None and getattr(self._entries.rows.get(kb), "seq", None) != row.seq:
                self._entries.atimes.pop(row.seq, None)

    def _holds(self, kb: bytes, when: Condition) -> bool:
        if when is ANY:
            return True
        record = self.get(kb)
        return record is None if when is ABSENT else record is not None and record.version == when

    def get(self, kb: bytes) -> Record | None:
        return self._store._record(kb)

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY
    ) -> Receipt | None:
        if not self._holds(kb, when):
            return None
        now = self._store.clock()
        version = self._id << 20 | self._n
        self._n += 1
        rows = self._entries.rows
        old = rows.get(kb)
        self._before.setdefault(kb, old)
        alive = self.get(kb)
        seq, ctime = version.to_bytes(8, "big"), now
        if alive is not None:
            seq, ctime, hint = alive.seq, alive.ctime, alive.hint
        else:
            rows.pop(kb, None)
        row = _Row(hint, tag, blob, seq, version, ctime, now, None if ttl is None else now + ttl)
        rows[kb] = row
        return Receipt(seq, version, self._store._ends(row), self._id)

    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        record = self.get(kb)
        if record is None or not self._holds(kb, when):
            return None
        row = self._entries.rows.pop(kb)
        self._before.setdefault(kb, row)
        self._entries.touched.pop(row.seq, None)
        return record

    def discard(self, kb: bytes) -> bool:
        return self.delete(kb) is not None

    def clear(self) -> int:
        rows = self._entries.rows
        for kb, row in rows.items():
            self._before.setdefault(kb, row)
        total = len(rows)
        self._entries.rows = {}
        self._entries.touched.clear()
        return total

    def get_info(self, name: str) -> str | None:
        return self._entries.info.get(name)

    def set_info(self, name: str, text: str) -> None:
        self._entries.info[name] = text

    def id(self) -> int:
        return self._id
