"""The bytes of an entry and of the index. Format 1; little-endian; numbers are on disk, never change or reuse one.

record   := tag u8, flags u8, hint length u16, key length u32, version u64,      one record per entry,
            ctime f64, mtime f64,                         (32 bytes so far)       in database "e" under its seq
            hint, key, [deadline u64], body, checksum u32
flags    := 1 large: body is (size u64, CRC-32 u32) of the value in database "v" under the same seq
            2 expires: a deadline is there
            4 gone: the entry was deleted (only among recent writes, see recent.py)
deadline := microseconds since the epoch, UTC
checksum := CRC-32 of all that stands before it, so that the CRC-32 of a whole record is always RESIDUE

index    := seq                          8 bytes: one entry without a deadline
          | (seq, deadline u64) +        else; deadline 0 means none; several where cropped keys collide

seq      := u64 in the machine's byte order (MDB_INTEGERKEY): number << 20 | n, for the n-th write of the transaction
            that created the entry; grows in order of creation; never used twice. How transactions are numbered
            is said in recent.py.
version  := the same for the transaction that wrote the value last.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple
from zlib import crc32

from persistdict.errors import CorruptEntryError

__all__ = [
    "COUNTER_BITS",
    "EXPIRES",
    "GONE",
    "HEADER",
    "HEADER_SIZE",
    "LARGE",
    "PREFIX",
    "RESIDUE",
    "Parsed",
    "Slot",
    "check_large",
    "is_number",
    "large_body",
    "large_size",
    "pack_index",
    "pack_record",
    "parse_index",
    "parse_record",
    "seq_bytes",
    "seq_number",
]

LARGE, EXPIRES, GONE = 1, 2, 4
RESIDUE = 0x2144DF1C
COUNTER_BITS = 20
HEADER = struct.Struct("<BBHIQdd")
PREFIX = struct.Struct("<BBHI")
HEADER_SIZE = HEADER.size
_DEADLINE = struct.Struct("<Q")
_LARGE_BODY = struct.Struct("<QI")
_SEQ = struct.Struct("=Q")
_SLOT = 16

seq_bytes = _SEQ.pack
Slot = tuple[bytes, int]  # seq, deadline


def seq_number(seq: bytes) -> int:
    """A seq as a number, which is larger the later the entry was created."""
    return int.from_bytes(seq, sys.byteorder)


def is_number(seq: bytes, raw: bytes) -> bool:
    """Whether a seq can be that of this record: it is not larger than the version."""
    return len(raw) >= HEADER_SIZE and 0 < seq_number(seq) <= int(HEADER.unpack_from(raw)[4])


class Parsed(NamedTuple):
    """A record taken apart. `body` is the value, or what describes a large one."""

    tag: int
    flags: int
    version: int
    ctime: float
    mtime: float
    hint: bytes
    kb: bytes
    deadline: int
    body: bytes


def pack_record(
    tag: int,
    kb: bytes,
    hint: bytes,
    version: int,
    ctime: float,
    mtime: float,
    body: bytes,
    deadline: int = 0,
    flags: int = 0,
) -> bytes:
    """The bytes of a record."""
    if deadline:
        flags |= EXPIRES
        body = _DEADLINE.pack(deadline) + body
    front = HEADER.pack(tag, flags, len(hint), len(kb), version, ctime, mtime) + hint + kb + body
    return front + crc32(front).to_bytes(4, "little")


def parse_record(raw: bytes) -> Parsed:
    """Take a record apart. Raises CorruptEntryError if its checksum or its lengths are wrong."""
    if len(raw) < HEADER_SIZE + 4 or crc32(raw) != RESIDUE:
        raise CorruptEntryError("an entry is damaged: its checksum does not fit")
    tag, flags, hint_size, key_size, version, ctime, mtime = HEADER.unpack_from(raw)
    key_at = HEADER_SIZE + hint_size
    body_at = key_at + key_size
    deadline = 0
    if body_at + (8 if flags & EXPIRES else 0) + (_LARGE_BODY.size if flags & LARGE else 0) > len(raw) - 4:
        raise CorruptEntryError("an entry is damaged: its lengths do not fit")
    if flags & EXPIRES:
        (deadline,) = _DEADLINE.unpack_from(raw, body_at)
        body_at += 8
    return Parsed(
        tag, flags, version, ctime, mtime, raw[HEADER_SIZE:key_at], raw[key_at : key_at + key_size], deadline,
        raw[body_at:-4],
    )  # fmt: skip


def large_body(blob: bytes) -> bytes:
    """What a record says of a value that lies in "v"."""
    return _LARGE_BODY.pack(len(blob), crc32(blob))


def large_size(body: bytes) -> int:
    """The size of the large value that a record describes."""
    return int(_LARGE_BODY.unpack(body)[0])


def check_large(body: bytes, blob: bytes | None) -> bytes:
    """The large value, if it is the one that the record describes. Raises CorruptEntryError."""
    if blob is None or body != large_body(blob):
        raise CorruptEntryError("an entry is damaged: its large value is missing or changed")
    return blob


def parse_index(raw: bytes) -> list[Slot]:
    """The entries under one index key."""
    if len(raw) == 8:
        return [(raw, 0)]
    if not raw or len(raw) % _SLOT:
        raise CorruptEntryError("the index is damaged: an entry of it has an impossible length")
    return [(raw[at : at + 8], _DEADLINE.unpack_from(raw, at + 8)[0]) for at in range(0, len(raw), _SLOT)]


def pack_index(slots: list[Slot]) -> bytes:
    """The bytes of an index entry."""
    if len(slots) == 1 and not slots[0][1]:
        return slots[0][0]
    return b"".join(seq + _DEADLINE.pack(deadline) for seq, deadline in slots)
