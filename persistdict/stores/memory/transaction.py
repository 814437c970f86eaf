"""A transaction on entries in memory."""

from __future__ import annotations

from typing import Any

from persistdict.records import holds
from persistdict.spans import ALL, Span
from persistdict.store import (
    ANY,
    KEPT,
    Condition,
    Receipt,
    Record,
    Transaction,
)
from persistdict.stores.memory.entries import Entries, Row

__all__ = ["MemoryTransaction"]


class MemoryTransaction(Transaction):
    """Changes the rows in place, and knows how to take its changes back."""

    def __init__(self, store: Any, entries: Entries) -> None:
        self._store = store
        self._entries = entries
        self._before: dict[bytes, Row | None] = {}
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

    def forget_reads(self) -> None:
        """Drop what is known of reads of what this transaction has removed for good."""
        for kb, row in self._before.items():
            if row is not None and getattr(self._entries.rows.get(kb), "seq", None) != row.seq:
                self._entries.forget(row.seq)

    def _holds(self, kb: bytes, when: Condition) -> bool:
        record = self.get(kb)
        return holds(when, record and record.version)

    def get(self, kb: bytes) -> Record | None:
        record: Record | None = self._store._record(kb)
        return record

    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
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
        deadline = None if ttl is None else now + ttl
        if ttl == KEPT:
            deadline = None if alive is None else alive.deadline
        row = Row(hint, tag, blob, seq, version, ctime, now, deadline, label)
        rows[kb] = row
        return Receipt(seq, version, self._store._ends(kb, row), self._id)

    def rewrite(self, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bool:
        row = self._entries.rows.get(kb)
        if row is None:
            return False
        self._before.setdefault(kb, row)
        version = self._id << 20 | self._n
        self._n += 1
        self._entries.rows[kb] = row._replace(hint=hint, tag=tag, blob=blob, version=version)
        return True

    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        record = self.get(kb)
        if record is None or not self._holds(kb, when):
            return None
        row = self._entries.rows.pop(kb)
        self._before.setdefault(kb, row)
        self._entries.touched.pop(row.seq, None)
        return record

    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        record = self.get(kb)
        return record is not None and label in (None, record.label) and self.delete(kb) is not None

    def clear(self, span: Span = ALL) -> int:
        rows = self._entries.rows
        gone = {kb: row for kb, row in rows.items() if kb in span}
        for kb, row in gone.items():
            self._before.setdefault(kb, row)
            self._entries.touched.pop(row.seq, None)
        self._entries.rows = {kb: row for kb, row in rows.items() if kb not in gone}
        return len(gone)

    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        pick = max if reverse else min
        kbs = {kb for kb in self._entries.rows if kb in span}
        while kbs:
            record = self.get(pick(kbs))
            if record is not None:
                return record
            kbs.remove(pick(kbs))
        return None

    def get_info(self, name: str) -> str | None:
        return self._entries.info.get(name)

    def set_info(self, name: str, text: str) -> None:
        self._entries.info[name] = text

    def id(self) -> int:
        return self._id
