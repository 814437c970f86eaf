"""Reading several keys at once, from one pair of snapshots."""

from __future__ import annotations

from persistdict.checksum import crc32
from persistdict.store import Found
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import HEADER_SIZE, PREFIX, RESIDUE

__all__ = ["read_many"]

_prefix = PREFIX.unpack_from


def read_many(rows: Pair, kbs: list[bytes]) -> tuple[list[Found | None], int]:
    """What `Store.read_many` answers, and how many entries are there but over."""
    d, r = rows.snapshots()
    get, k, e, over = d.get, rows.k, rows.e, 0
    limit = rows.limit if rows.idle is None else 0
    answers: list[Found | None] = []
    for kb in kbs:
        if len(kb) < limit:  # what follows, for most, without a call
            row = None if r is None else r.get(kb)
            if row is not None:
                seq, raw = row[:8], row[8:]
            else:
                seq = get(kb, None, k)
                if seq is None:
                    answers.append(None)
                    continue
                raw = get(seq, b"", e) if len(seq) == 8 else b""
            if len(raw) > HEADER_SIZE and crc32(raw) == RESIDUE:
                tag, flags, hint_size, key_size = _prefix(raw)
                key_at = HEADER_SIZE + hint_size
                if not flags and raw[key_at : key_at + key_size] == kb:
                    answers.append((tag, raw[key_at + key_size : -4], seq, None, -1))
                    continue
        place = rows.locate(r, d, kb)
        record = None if place is None else rows.entry_of(d, kb, place)
        if record is None:
            over += place is not None
            answers.append(None)
        else:
            answers.append(record.found())
    return answers, over
