"""Mending one fault, within a write transaction of the data; see repair.py.

Each fault is looked at again: it may be mended by now, by the mending of another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.keys import MAX_KEY_SIZE
from persistdict.stores.lmdb.access import parse_access
from persistdict.stores.lmdb.drain import is_taken
from persistdict.stores.lmdb.leads import head_asked_for, index_key, leads_to_labelled, record_at
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.pieces import HEAD, large_rows, large_value, put_large, remove_large
from persistdict.stores.lmdb.quarantine import put_away
from persistdict.stores.lmdb.recent import parse_row, recent_key
from persistdict.stores.lmdb.record import (
    EXPIRES,
    HEADER,
    HEADER_SIZE,
    LABELLED,
    LARGE,
    PIECES,
    Parsed,
    Slot,
    check_large,
    is_number,
    label_key,
    pack_index,
    parse_index,
    parse_record,
    seq_bytes,
    seq_number,
)
from persistdict.stores.lmdb.rows import DEADLINE
from persistdict.stores.lmdb.verify import Found

__all__ = ["Mender"]


class Mender:
    """Mends, in one write transaction of the data. Each method tells whether it changed anything.

    Attributes:
        moved: rows that were moved to the quarantine.
        settled: recent writes, key and row, that are to be taken away once this transaction is durable.
    """

    def __init__(self, rows: Pair, txn: Any) -> None:
        self.rows, self.txn = rows, txn
        self.moved = 0
        self.settled: list[tuple[bytes, bytes]] = []

    def put_away(self, kind: str, key: bytes, raw: bytes, reason: str) -> None:
        put_away(self.rows, self.txn, kind, key, raw, reason)
        self.moved += 1

    def recent(self, key: bytes, _: bytes) -> bool:
        """Bring a recent write into the data that lies under a wrong key; move it away if it cannot be read."""
        rows, txn = self.rows, self.txn
        raw = rows.begin().get(key)
        if raw is None:
            return False
        try:
            row = parse_row(raw)
        except CorruptEntryError:
            self.put_away("r", key, raw, "record")
            self.supersede(key, raw)
        else:
            record = row.record
            place = rows.find(txn, record.kb)
            possible = is_number(row.seq, raw[8:]) and not is_taken(rows, txn, row, place)
            if recent_key(record.kb) == key and possible:
                return False
            if place is not None and place.record is not None and place.record.version >= record.version:
                self.put_away("r", key, raw, "order")
            elif not row.gone:
                seq = row.seq if possible else place.slot[0] if place is not None else seq_bytes(record.version)
                rows.store(txn, place, seq, record)
            elif place is not None:
                rows.remove(txn, record.kb, place)
        self.settled.append((key, raw))
        return True

    def supersede(self, key: bytes, raw: bytes) -> None:
        """Move the version in the data away that a recent write has replaced which cannot be read."""
        kb, *_ = _likely(raw[8:])
        if not kb or recent_key(kb) != key:
            kb = key if len(key) < MAX_KEY_SIZE else b""
        try:
            place = self.rows.find(self.txn, kb) if kb else None
        except CorruptEntryError:  # the index is damaged there, which is a fault of its own
            return
        old = self.txn.get(place.slot[0], None, self.rows.e) if place is not None else None
        if place is not None and old is not None:
            self.remove(place.slot[0], old, "replaced")

    def entry(self, seq: bytes, _: bytes = b"") -> bool:
        """Have everything lead to the entry; or move it away, if it cannot be read."""
        rows, txn = self.rows, self.txn
        raw = txn.get(seq, None, rows.e)
        if raw is None:
            return False
        try:
            record = parse_record(raw)
            if record.flags & LARGE:
                check_large(record.body, large_value(rows, txn, seq, record))
        except CorruptEntryError:
            self.remove(seq, raw, "record")
            return True
        if len(seq) != 8 or not is_number(seq, raw):
            return self.renumber(seq, raw, record)
        if not self.wins(seq, raw, record):
            return True
        changed = False
        slots = self.slots(record.kb)
        wanted = [slot for slot in slots if slot[0] != seq]
        if (seq, record.deadline) not in slots or len(wanted) != len(slots) - 1:
            txn.put(index_key(rows, record.kb), pack_index([*wanted, (seq, record.deadline)]), db=rows.k)
            changed = True
        if record.deadline:
            changed |= txn.put(DEADLINE.pack(record.deadline), seq, dupdata=False, db=rows.x)
        if record.label:
            changed |= txn.put(label_key(record.label, seq), b"", overwrite=False, db=rows.t)
        return changed

    def slots(self, kb: bytes) -> list[Slot]:
        """The row of the index for a key; empty if it is missing or damaged: its entries come back one by one."""
        row = self.txn.get(index_key(self.rows, kb), None, self.rows.k)
        try:
            return parse_index(row) if row is not None else []
        except CorruptEntryError:
            return []

    def wins(self, seq: bytes, raw: bytes, record: Parsed) -> bool:
        """Whether this is the newest entry of its key; older ones, be it this one, are moved away."""
        for other_seq, _ in self.slots(record.kb):
            other = record_at(self.rows, self.txn, other_seq) if other_seq != seq else None
            if not isinstance(other, Parsed) or other.kb != record.kb:
                continue
            if other.version >= record.version:
                self.remove(seq, raw, "twice")
                return False
            self.remove(other_seq, self.txn.get(other_seq, None, self.rows.e), "twice")
        return True

    def remove(self, seq: bytes, raw: bytes, reason: str) -> None:
        """Move an entry to the quarantine, with its large value."""
        rows, txn = self.rows, self.txn
        self.put_away("e", seq, raw, reason)
        for name, key, value in large_rows(rows, txn, seq):
            self.put_away(name, key, value, reason)
        remove_large(rows, txn, seq)
        for db in (rows.e, rows.a):
            txn.delete(seq, db=db)
        kb, deadline, label = _likely(raw)
        slots = self.slots(kb) if kb else []
        if any(slot[0] == seq for slot in slots):
            self.keep_slots(index_key(rows, kb), [slot for slot in slots if slot[0] != seq])
        if deadline:
            txn.delete(DEADLINE.pack(deadline), seq, db=rows.x)
        if label:
            txn.delete(label_key(label, seq), db=rows.t)

    def keep_slots(self, key: bytes, slots: list[Slot]) -> None:
        if slots:
            self.txn.put(key, pack_index(slots), db=self.rows.k)
        else:
            self.txn.delete(key, db=self.rows.k)

    def renumber(self, seq: bytes, raw: bytes, record: Parsed) -> bool:
        """Give an entry a possible sequence number: the one that the index has for it, or that of its version."""
        rows, txn = self.rows, self.txn
        new = seq_bytes(record.version)
        for slot_seq, deadline in self.slots(record.kb):
            if deadline == record.deadline and record_at(rows, txn, slot_seq) is None:
                new = slot_seq
        if new == seq or txn.get(new, None, rows.e) is not None or not is_number(new, raw):
            self.remove(seq, raw, "number")
            return True
        blob = large_value(rows, txn, seq, record) if record.flags & LARGE else None
        for db in (rows.e, rows.a):
            txn.delete(seq, db=db)
        txn.put(new, raw, db=rows.e)
        if blob is not None:
            remove_large(rows, txn, seq)
        if blob is not None and next(large_rows(rows, txn, new), None) is None:
            put_large(rows, txn, new, record.version, blob, record.flags)
        self.entry(new)
        return True

    def row(self, key: bytes, _: bytes) -> bool:
        """Keep of a row of the index what leads to entries of its key; if nothing is left, move it away."""
        rows, txn = self.rows, self.txn
        raw = txn.get(key, None, rows.k)
        if raw is None:
            return False
        try:
            slots = parse_index(raw)
        except CorruptEntryError:
            slots = []
        good: dict[bytes, Slot] = {}
        for slot in slots:
            record = record_at(rows, txn, slot[0])
            if isinstance(record, CorruptEntryError) or (record and index_key(rows, record.kb) == key):
                good[slot[0]] = slot
        if list(good.values()) == slots and slots:
            return False
        if not good:
            self.put_away("k", key, raw, "dangling")
        self.keep_slots(key, list(good.values()))
        return True

    def deadline(self, key: bytes, seq: bytes) -> bool:
        record = record_at(self.rows, self.txn, seq)
        if isinstance(record, Parsed) and record.deadline and DEADLINE.pack(record.deadline) == key:
            return False
        return bool(self.txn.delete(key, seq, db=self.rows.x))

    def label(self, key: bytes, _: bytes) -> bool:
        if leads_to_labelled(self.rows, self.txn, key):
            return False
        return bool(self.txn.delete(key, db=self.rows.t))

    def access(self, seq: bytes, _: bytes) -> bool:
        if parse_access(self.txn.get(seq, None, self.rows.a)) and record_at(self.rows, self.txn, seq) is not None:
            return False
        return bool(self.txn.delete(seq, db=self.rows.a))

    def value(self, seq: bytes, _: bytes) -> bool:
        """Move a large value away that belongs to no entry."""
        record = record_at(self.rows, self.txn, seq)
        raw = self.txn.get(seq, None, self.rows.v)
        if raw is None or isinstance(record, CorruptEntryError):
            return False
        if record is not None and record.flags & (LARGE | PIECES) == LARGE:
            return False
        self.put_away("v", seq, raw, "dangling")
        return bool(self.txn.delete(seq, db=self.rows.v))

    def piece(self, key: bytes, _: bytes) -> bool:
        """Likewise a piece of one."""
        raw = self.txn.get(key, None, self.rows.p)
        head = head_asked_for(self.rows, self.txn, key)
        if raw is None or (head is not None and raw.startswith(head)):
            return False
        if head is not None:  # the checksum of the value says whether the rest is right
            self.put_away("p", key, raw, "piece")
            return bool(self.txn.put(key, head + raw[HEAD:], db=self.rows.p))
        self.put_away("p", key, raw, "dangling")
        return bool(self.txn.delete(key, db=self.rows.p))

    def misplaced(self, name: str, key: bytes) -> bool:
        """Take out a row that is out of order, where searching does not find it; put it back where it belongs."""
        cursor = self.txn.cursor(self.rows.database(name))
        before: bytes | None = None
        more = cursor.first()
        while more:
            here = cursor.key()
            if here == key and before is not None and _behind(name, before, here):
                break
            before, more = here, cursor.next()
        if not more:
            return False
        raw = cursor.value()
        cursor.delete()
        if name == "e":
            self.put_back(key, raw)
        elif name in ("k", "p", "v"):
            self.put_away(name, key, raw, "order")
        return True  # what is gone of the others is made anew from the entries

    def put_back(self, seq: bytes, raw: bytes) -> None:
        try:
            record = parse_record(raw)
        except CorruptEntryError:
            self.put_away("e", seq, raw, "order")
            return
        if self.txn.get(seq, None, self.rows.e) is None:
            self.txn.put(seq, raw, db=self.rows.e)
            self.renumber(seq, raw, record)
        else:
            self.put_away("e", seq, raw, "order")

    def mend(self, found: Found) -> bool:
        """Mend what the integrity pass found, if it is there still."""
        if found.fault.kind == "order" and found.name != "r":
            return self.misplaced(found.name, found.key)
        return MENDERS[found.name](self, found.key, found.value)


def _behind(name: str, before: bytes, key: bytes) -> bool:
    return key <= before if name in ("k", "p", "t") else seq_number(key) <= seq_number(before)


def _likely(raw: bytes) -> tuple[bytes, int, bytes]:
    """The key, the deadline and the label that a record names, which may be damaged."""
    try:
        record = parse_record(raw)
        return record.kb, record.deadline, record.label
    except CorruptEntryError:
        pass
    if len(raw) < HEADER_SIZE + 4:
        return b"", 0, b""
    _, flags, hint_size, key_size, *_ = HEADER.unpack_from(raw)
    at = HEADER_SIZE + hint_size
    behind = at + key_size
    kb = raw[at:behind]
    deadline = int.from_bytes(raw[behind : behind + 8], "little") if flags & EXPIRES else 0
    label_at = behind + 8 if flags & EXPIRES else behind
    label = raw[label_at + 1 : label_at + 1 + raw[label_at]] if flags & LABELLED and label_at < len(raw) else b""
    return (kb, deadline, label) if len(kb) == key_size else (b"", 0, b"")


MENDERS: dict[str, Callable[[Mender, bytes, bytes], bool]] = {
    "r": Mender.recent, "e": Mender.entry, "k": Mender.row, "x": Mender.deadline, "a": Mender.access, "v": Mender.value,
    "t": Mender.label, "p": Mender.piece,
}  # fmt: skip
