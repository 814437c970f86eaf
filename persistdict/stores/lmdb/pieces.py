"""Large values, whole or in pieces.

A value that lies whole needs its pages in a row, and of free pages long rows are rare: what is smaller gets in between,
and the file grows for each value that finds none. So what is longer than WHOLE lies in pieces of PIECE bytes: 8 pages
(of 4 KB), a row as it is left by many. The last takes the rest, SHORT bytes at least, so that none lies on a leaf,
where damage would take it along, see finds.py. Shorter values are as quick to read as can be.

    v     seq -> value                         up to WHOLE bytes; stores that were made before hold longer ones, too
    p     seq, number -> piece                 both big-endian, u64 and u32; the first number is 0

    piece := version u64, number u32, CRC-32 of the two u32, bytes         little-endian

The version is that of the record whose value it is: so a piece tells where it belongs, whatever is left around it. The
bytes are covered by the checksum of the whole, in the record.

`rows` is the store, see rows.py; an older one that cannot be written to has no `p`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import count, repeat
from typing import Any

from persistdict.checksum import crc32
from persistdict.stores.lmdb.record import PIECES, Parsed, large_size, seq_bytes, seq_number

__all__ = [
    "HEAD",
    "PIECE",
    "WHOLE",
    "belongs",
    "head_of",
    "joined",
    "large_rows",
    "large_value",
    "parse_head",
    "parse_piece_key",
    "piece_key",
    "piece_size",
    "pieces_of",
    "put_large",
    "remove_large",
]

HEAD = 16
WHOLE = (1 << 16) - 16  # bytes; a page's header comes on top
PIECE = (1 << 15) - 16 - HEAD
SHORT = 8192
MOST = 1 << 32  # pieces of a value
_KEY = struct.Struct(">QI")
_HEAD = struct.Struct("<QI")


def pieces_of(size: int) -> int:
    """How many pieces a value has."""
    return max(1, -(-(size - SHORT) // PIECE))


def piece_size(size: int, number: int) -> int:
    """The bytes of a piece of a value of this size."""
    return PIECE if number < pieces_of(size) - 1 else size - number * PIECE


def piece_key(seq: bytes, number: int) -> bytes:
    """The key of a piece."""
    return _KEY.pack(seq_number(seq), number)


def parse_piece_key(key: bytes) -> tuple[bytes, int] | None:
    """The seq and the number; None for what is no key of a piece."""
    if len(key) != _KEY.size:
        return None
    seq, number = _KEY.unpack(key)
    return seq_bytes(seq), number


def head_of(version: int, number: int) -> bytes:
    """What a piece begins with."""
    head = _HEAD.pack(version, number)
    return head + crc32(head).to_bytes(4, "little")


def parse_head(raw: bytes) -> tuple[int, int] | None:
    """The version and the number that a piece names; None if it is none."""
    if len(raw) < HEAD or crc32(raw[: _HEAD.size]) != int.from_bytes(raw[_HEAD.size : HEAD], "little"):
        return None
    version, number = _HEAD.unpack_from(raw)
    return version, number


def belongs(record: Parsed, number: int) -> bool:
    """Whether an entry has a piece of this number."""
    return bool(record.flags & PIECES) and number < pieces_of(large_size(record.body))


def joined(pieces: Iterable[bytes | memoryview | None]) -> bytes | None:
    """The value that pieces make; None if one is missing."""
    parts: list[memoryview] = []
    for raw in pieces:
        if raw is None:
            return None
        parts.append(memoryview(raw)[HEAD:])
    return b"".join(parts)


def large_value(rows: Any, txn: Any, seq: bytes, record: Parsed) -> bytes | None:
    """The large value of an entry, which may be damaged; None if it is not there."""
    if not record.flags & PIECES:
        whole: bytes | None = txn.get(seq, None, rows.v)
        return whole
    if rows.p is None:
        return None
    many = pieces_of(large_size(record.body))
    if many > MOST:
        return None
    keys = map(_KEY.pack, repeat(seq_number(seq)), range(many))  # not at once: how many there are, a file may say
    begin = rows.begin_data
    if not rows.env.damage:  # else it is not LMDB's
        light = begin(rows.p, buffers=True)  # of it a piece need not be copied before it is joined
        if light.id() == txn.id():
            return joined(map(light.get, keys))
    return joined(txn.get(key, None, rows.p) for key in keys)


def large_rows(rows: Any, txn: Any, seq: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """What is there of the large value of an entry: the names of databases, keys and rows."""
    whole = txn.get(seq, None, rows.v)
    if whole is not None:
        yield "v", seq, whole
    for number in count() if rows.p is not None else ():
        raw = txn.get(piece_key(seq, number), None, rows.p)
        if raw is None:
            return
        yield "p", piece_key(seq, number), raw


def put_large(rows: Any, txn: Any, seq: bytes, version: int, blob: bytes, flags: int) -> None:
    """Write a large value where there is none; where, is said by the flags of its record."""
    if not flags & PIECES:
        txn.put(seq, blob, db=rows.v)
        return
    view = memoryview(blob)
    for number in range(pieces_of(len(blob))):
        part = view[number * PIECE :][: piece_size(len(blob), number)]
        txn.put(piece_key(seq, number), b"".join((head_of(version, number), part)), db=rows.p)


def remove_large(rows: Any, txn: Any, seq: bytes) -> int:
    """Remove the large value of an entry, if it has one. Its size."""
    size = 0
    for name, key, raw in large_rows(rows, txn, seq):
        size += len(raw) - (HEAD if name == "p" else 0)
        txn.delete(key, db=rows.v if name == "v" else rows.p)
    return size
