"""How rows of one database lead to those of another; for the integrity pass, the repair and salvage."""

from __future__ import annotations

from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.keys import crop
from persistdict.stores.lmdb.pieces import belongs, head_of, parse_piece_key
from persistdict.stores.lmdb.record import Parsed, parse_label_key, parse_record
from persistdict.stores.lmdb.rows import Rows

__all__ = ["head_asked_for", "index_key", "leads_to_labelled", "record_at"]


def index_key(rows: Rows, kb: bytes) -> bytes:
    """Under what a key lies in the index."""
    return kb if len(kb) < rows.limit else crop(kb, rows.limit)


def record_at(rows: Rows, txn: Any, seq: bytes) -> Parsed | CorruptEntryError | None:
    """The record of a seq; the error if it is damaged, None if there is none."""
    raw = txn.get(seq, None, rows.e) if len(seq) == 8 else None
    try:
        return parse_record(raw) if raw is not None else None
    except CorruptEntryError as error:
        return error


def leads_to_labelled(rows: Rows, txn: Any, key: bytes) -> bool:
    """Whether a row of the labels belongs to an entry with that label, or to one that cannot be read."""
    try:
        label, seq = parse_label_key(key)
    except CorruptEntryError:
        return False
    record = record_at(rows, txn, seq)
    return isinstance(record, CorruptEntryError) or (record is not None and record.label == label)


def head_asked_for(rows: Rows, txn: Any, key: bytes) -> bytes | None:
    """What a piece must begin with, as its entry says; b"" if that cannot be read, None if it belongs to none."""
    place = parse_piece_key(key)
    if place is None:
        return None
    record = record_at(rows, txn, place[0])
    if isinstance(record, CorruptEntryError):
        return b""
    return head_of(record.version, place[1]) if record is not None and belongs(record, place[1]) else None
