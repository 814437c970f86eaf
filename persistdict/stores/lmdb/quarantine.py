"""The quarantine: where the repair moves what it cannot read, or what leads nowhere. Nothing is ever removed from it.

    q    number u64, big-endian, growing from 1 -> row                     a named database, made when it is needed

    row := format u8 (1), kind u8, reason length u16, key length u32, time f64,          16 bytes, little-endian
           reason, key, raw, CRC-32 u32 of all that stands before it
    kind   := "e" a record, "v" a large value, "p" a piece of one, "k" a row of the index: the database that it was in;
              "r" a recent write
    key    := its key there; raw: its bytes, as they were; reason: the kind of the fault (UTF-8)
    time   := when it was moved, seconds since the epoch, UTC

A large value is a row of its own, under the same key as the record that it belonged to; or several, its pieces.
"""

import struct
from collections.abc import Iterator
from typing import Any

from persistdict.checksum import crc32
from persistdict.reports import Quarantined
from persistdict.stores.lmdb.record import RESIDUE
from persistdict.stores.lmdb.rows import Rows

__all__ = ["put_away", "quarantined"]

NAME = b"q"
FORMAT = 1
_HEAD = struct.Struct("<BBHId")
_NUMBER = struct.Struct(">Q")


def put_away(rows: Rows, txn: Any, kind: str, key: bytes, raw: bytes, reason: str) -> None:
    """Put a row into the quarantine; the caller removes it from where it was, in the same transaction."""
    db = _open(rows, txn)
    cursor = txn.cursor(db)
    number = _NUMBER.unpack(cursor.key())[0] + 1 if cursor.last() else 1
    told = reason.encode()
    head = _HEAD.pack(FORMAT, ord(kind), len(told), len(key), rows.clock())
    front = b"".join((head, told, key, raw))
    txn.put(_NUMBER.pack(number), front + crc32(front).to_bytes(4, "little"), db=db, overwrite=False)


def _open(rows: Rows, d: Any) -> Any:
    """The database, made if it is missing. In a write transaction."""
    raw = rows.env.data.raw
    assert raw is not None
    return raw.open_db(NAME, txn=d)


def quarantined(rows: Rows) -> Iterator[Quarantined]:
    """All rows in the quarantine, oldest first, each read in a snapshot of its own. Unreadable ones have kind "?"."""
    dbs = rows.env.dbs
    if "q" not in dbs:
        if rows.env.attempt(lambda: rows.begin_data().get(NAME)) is None:
            return
        dbs["q"] = rows.env.data.update(lambda d: _open(rows, d))
    position: bytes | None = b""
    while position is not None:
        row, position = rows.env.attempt(_next, rows, position)
        if row is not None:
            yield row


def _next(rows: Rows, position: bytes) -> tuple[Quarantined | None, bytes | None]:
    """The row behind `position`, and its key; None at the end."""
    db = rows.env.dbs["q"]
    cursor = rows.begin_data(db).cursor(db)
    more = cursor.set_range(position) if position else cursor.first()
    if more and position and cursor.key() == position:
        more = cursor.next()
    if not more:
        return None, None
    key, raw = cursor.item()
    return _parsed(key, raw), key


def _parsed(number: bytes, raw: bytes) -> Quarantined:
    place = int.from_bytes(number, "big")
    if crc32(raw) != RESIDUE or len(raw) < _HEAD.size + 4 or raw[0] != FORMAT:
        return Quarantined(place, "?", 0.0, "unreadable", b"", raw)
    _, kind, reason_size, key_size, moved_at = _HEAD.unpack_from(raw)
    key_at = _HEAD.size + reason_size
    reason = raw[_HEAD.size : key_at].decode(errors="replace")
    return Quarantined(place, chr(kind), moved_at, reason, raw[key_at : key_at + key_size], raw[key_at + key_size : -4])
