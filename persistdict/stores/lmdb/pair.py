"""Entries as users see them: the recent writes over the data.

Reading one key asks the recent writes first and the data afterwards, in a snapshot that is begun after theirs: what
was drained in between is in the data then. Reading several keys takes a pair of snapshots that belong together: the
data's first, and it must still be the newest when that of the recent writes was begun.

Writing goes to the recent writes only. Whether an entry is there is looked up under their lock, in a snapshot of the
data that is begun behind it: a drain may go on, but takes nothing away before the data have it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError
from persistdict.spans import Span
from persistdict.store import ANY, Condition, Receipt, Record
from persistdict.stores.lmdb.recent import RESERVED, Row, parse_row, recent_key
from persistdict.stores.lmdb.record import (
    COUNTER_BITS,
    EXPIRES,
    GONE,
    HEADER,
    HEADER_SIZE,
    PREFIX,
    RESIDUE,
    is_number,
    pack_record,
    parse_record,
    seq_bytes,
    seq_number,
)
from persistdict.stores.lmdb.rows import Place, Rows, deadline_of, has_label, holds
from persistdict.stores.lmdb.walk import walk

__all__ = ["Pair"]

_receipt: Callable[..., Receipt] = partial(tuple.__new__, Receipt)
_header, _pack, _prefix = HEADER.unpack_from, HEADER.pack, PREFIX.unpack_from
_FIRST_KEY = b"\x01"  # behind the reserved rows


class Pair(Rows):
    """Reading and writing entries across the two environments. `r` is a transaction of the recent writes, or None where
    there are none; `d` one of the data.

    Attributes:
        interval: 0 where each write is confirmed to be durable.
        undo: what the commits that are to be confirmed have replaced: id -> key -> row.
    """

    interval: float
    undo: dict[int, dict[bytes, bytes | None]]

    def snapshots(self) -> tuple[Any, Any]:
        """A snapshot of the data and one of the recent writes (None: nothing is there) that belong together."""
        while True:
            d = self.begin_data(self.e)
            r = self.begin()
            if self.begin_data().id() == d.id():
                return d, None if self.is_settled(r) else r

    def is_settled(self, r: Any) -> bool:
        """Whether the recent writes hold nothing in this snapshot."""
        env, now = self.env, r.id()
        if now != env.settled and now != env.examined:
            env.examined = now
            if r.stat()["entries"] == RESERVED:
                env.settled = now
        return bool(now == env.settled)

    # Reading

    def row(self, r: Any, kb: bytes) -> Row | None:
        """The recent write of a key. Raises CorruptEntryError."""
        if r is None:
            return None
        raw = r.get(recent_key(kb))
        if raw is None:
            return None
        try:
            row = parse_row(raw)
        except CorruptEntryError:
            raise self.damaged(kb) from None
        return row if row.record.kb == kb else None

    def locate(self, r: Any, d: Any, kb: bytes) -> Place | None:
        """Where a key is, over or not; None if it is deleted or was never there."""
        row = self.row(r, kb)
        if row is None:
            return self.find(d, kb)
        return None if row.gone else Place([], (row.seq, row.record.deadline), row.record)

    def get_in(self, r: Any, d: Any, kb: bytes) -> Record | None:
        """The entry of a key that is there and not over."""
        place = self.locate(r, d, kb)
        return None if place is None else self.entry_of(d, kb, place)

    def entry_of(self, d: Any, kb: bytes, place: Place) -> Record | None:
        """The entry that was located; None if it is over."""
        if place.record is None:
            raise self.damaged(kb)
        return self.whole(d, place.slot, place.record, self.clock())

    def rows(self, r: Any, flag: int = 0) -> Iterator[Row]:
        """All recent writes that can be read, in order of keys; or those whose records have a flag."""
        cursor = r.cursor()
        more = cursor.set_range(_FIRST_KEY)
        while more:
            raw = cursor.value()
            try:
                if not flag or (len(raw) > 9 and raw[9] & flag):
                    yield parse_row(raw)
            except CorruptEntryError:
                pass  # a read of the key raises it, and so does the drain
            more = cursor.next()

    # Writing

    def put_plain(self, r: Any, kb: bytes, hint: bytes, tag: int, blob: bytes) -> Receipt | None:
        """`put_recent` for the common case, in one body: a short key, no time limit, label or condition."""
        row = r.get(kb)
        now = self.clock()
        commit = r.id()
        version = (self.base + commit) << COUNTER_BITS
        if row is None:
            d = self.begin_data(self.k)
            seq = d.get(kb)
            if seq is None:
                seq = seq_bytes(version)
                head = _pack(tag, 0, len(hint), len(kb), version, now, now) + hint + kb
                r.put(kb, b"".join((seq, head, blob, crc32(blob, crc32(head)).to_bytes(4, "little"))))
                return _receipt((seq, version, None, commit))
            old = d.get(seq, b"", self.e) if len(seq) == 8 else b""
        else:
            seq, old = row[:8], row[8:]
        if len(old) > HEADER_SIZE and crc32(old) == RESIDUE and not old[1] & (GONE | EXPIRES):
            _, _, hint_size, key_size, _, ctime, _ = _header(old)
            kept = old[HEADER_SIZE : HEADER_SIZE + hint_size + key_size]
            if kept[hint_size:] == kb:  # a damaged row of the index may lead to another key's entry
                head = _pack(tag, 0, hint_size, key_size, version, ctime, now) + kept
                r.put(kb, b"".join((seq, head, blob, crc32(blob, crc32(head)).to_bytes(4, "little"))))
                return _receipt((seq, version, None, commit))
        return self.put_recent(r, 0, kb, hint, tag, blob, None, ANY)

    def put_recent(
        self, r: Any, n: int, kb: bytes, hint: bytes, tag: int, blob: bytes, ttl: float | None, when: Condition,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        """Set an entry as the `n`-th write of this transaction. None if the condition does not hold."""
        d = self.begin_data(self.k)
        now = self.clock()
        commit: int = r.id()
        version = (self.base + commit) << COUNTER_BITS | n
        place = self._locate_to_write(r, d, kb)
        alive = place is not None and self.alive(d, place, now)
        if not holds(when, place if alive else None):
            return None
        deadline = deadline_of(now, ttl, place.slot[1] if place is not None and alive else 0)
        seq, ctime, key = seq_bytes(version), now, kb
        if place is not None and alive:
            seq = place.slot[0]
            if place.record is not None:
                ctime, key, hint = place.record.ctime, place.record.kb, place.record.hint
        raw = pack_record(tag, key, hint, version, ctime, now, blob, deadline, 0, label)
        self.write(r, recent_key(kb), seq + raw)
        return Receipt(seq, version, self.ends(kb, now, deadline), commit)

    def write(self, r: Any, key: bytes, row: bytes) -> None:
        """Write a row; where writes are confirmed one by one, after noting what it replaces."""
        if not self.interval:
            self.undo.setdefault(r.id(), {}).setdefault(key, r.get(key))
        r.put(key, row)

    def _locate_to_write(self, r: Any, d: Any, kb: bytes) -> Place | None:
        """`locate`, but a recent write that is damaged is taken for one that may be replaced."""
        try:
            return self.locate(r, d, kb)
        except CorruptEntryError:
            raw = r.get(recent_key(kb))
            if raw is None:
                raise  # it is the index
            return Place([], (raw[:8], 0), None)

    def delete_recent(
        self, r: Any, n: int, kb: bytes, when: Condition = ANY, label: bytes | None = None
    ) -> Place | None:
        """Remove an entry. None if it is absent, over, the condition does not hold, or it has not the label.

        The deletion is noted even if the data do not have the entry: a drain may be about to bring it there.
        """
        d = self.begin_data(self.k)
        now = self.clock()
        place = self._locate_to_write(r, d, kb)
        if place is None or not self.alive(d, place, now) or not holds(when, place) or not has_label(place, label):
            return None
        self.note_gone(r, n, kb, place, now, confirmed=True)
        return place

    def delete_plain(self, r: Any, kb: bytes) -> Receipt | None:
        """`delete_one` for the common case, in one body: a short key, whose entry has no time limit."""
        row = r.get(kb)
        if row is None:
            d = self.begin_data(self.k)
            seq = d.get(kb)
            if seq is None:
                return None
            old = d.get(seq, b"", self.e) if len(seq) == 8 else b""
        else:
            seq, old = row[:8], row[8:]
        if len(old) > HEADER_SIZE and crc32(old) == RESIDUE and not old[1] & (GONE | EXPIRES):
            _, _, hint_size, key_size = _prefix(old)
            key_at = HEADER_SIZE + hint_size
            if old[key_at : key_at + key_size] == kb:
                now, commit = self.clock(), r.id()
                raw = _pack(0, GONE, 0, key_size, (self.base + commit) << COUNTER_BITS, now, now) + kb
                r.put(kb, b"".join((seq, raw, crc32(raw).to_bytes(4, "little"))))
                self.touched.pop(seq, None)
                return _receipt((seq, 0, None, commit))
        return self.delete_one(r, kb)

    def delete_one(self, r: Any, kb: bytes, when: Condition = ANY) -> Receipt | None:
        """`delete_recent` as the only write of its transaction."""
        place = self.delete_recent(r, 0, kb, when)
        return None if place is None else Receipt(place.slot[0], 0, None, r.id())

    def remove_over(self, r: Any, n: int, kb: bytes, seq: bytes) -> bool:
        """Remove the entry `seq` of a key if it is over as this transaction sees it."""
        d = self.begin_data(self.k)
        place = self.locate(r, d, kb)
        now = self.clock()
        if place is None or place.slot[0] != seq or self.alive(d, place, now):
            return False
        self.note_gone(r, n, kb, place, now)
        return True

    def note_gone(self, r: Any, n: int, kb: bytes, place: Place, now: float, *, confirmed: bool = False) -> None:
        """Write that an entry is gone; `confirmed` if somebody will ask for that to be durable."""
        version = (self.base + r.id()) << COUNTER_BITS | n
        raw = pack_record(0, kb, b"", version, now, now, b"", 0, GONE)
        if confirmed:
            self.write(r, recent_key(kb), place.slot[0] + raw)
        else:
            r.put(recent_key(kb), place.slot[0] + raw)
        self.touched.pop(place.slot[0], None)

    # In order of creation

    def entry_at(self, r: Any, d: Any, seq: bytes, raw: bytes, now: float, values: bool) -> Record | None:
        """The entry of a record in the data; None if it is over, gone or made anew. Raises CorruptEntryError."""
        row = None
        try:
            record = parse_record(raw)
        except CorruptEntryError:
            row = next((row for row in self.rows(r) if row.seq == seq), None) if r is not None else None
            if row is None:
                raise
        else:
            row = self.row(r, record.kb)
        if row is not None:
            if row.gone or row.seq != seq:
                return None
            record = row.record
        return self.whole(d, (seq, record.deadline), record, now, values)

    def created_recently(self, r: Any, d: Any, *, reverse: bool = False) -> Iterator[Row]:
        """The recent writes of entries that the data do not have, in order of creation. Only what is used is parsed."""
        if r is None:
            return
        newest = -1
        for cursor in walk(self, d, "e", reverse=True):
            if is_number(cursor.key(), cursor.value()):  # else it is damaged, and out of order
                newest = seq_number(cursor.key())
                break
        rows = [raw for key, raw in r.cursor() if key >= _FIRST_KEY and len(raw) > 9 and not raw[9] & GONE]
        numbered = [(number, raw) for raw in rows if (number := seq_number(raw[:8])) > newest]
        for _, raw in sorted(numbered, reverse=reverse):
            with contextlib.suppress(CorruptEntryError):  # a read of the key raises it, and so does the drain
                yield parse_row(raw)

    def last_in(self, r: Any, d: Any, values: bool, span: Span) -> Record | None:
        """The entry of a span that was created last, is readable and not over."""
        now = self.clock()
        for seq, record in self.created_recently(r, d, reverse=True):
            entry = self.whole(d, (seq, record.deadline), record, now, values) if record.kb in span else None
            if entry is not None:
                return entry
        gone = set() if r is None else {raw[:8] for _, raw in r.cursor() if len(raw) > 9 and raw[9] & GONE}
        for cursor in walk(self, d, "e", reverse=True):
            if cursor.key() in gone:
                continue
            with contextlib.suppress(CorruptEntryError):  # the integrity pass reports it; it stays where it is
                entry = self.entry_at(r, d, cursor.key(), cursor.value(), now, values)
                if entry is not None and entry.kb in span:
                    return entry
        return None
