"""The bytes of an entry and of the index. Format 1; little-endian; numbers are on disk, never change or reuse one.

record   := tag u8, flags u8, hint length u16, key length u32, version u64,      one record per entry,
            ctime f64, mtime f64,                         (32 bytes so far)       in database "e" under its seq
            hint, key, [deadline u64], [label length u8, label], body, checksum u32
flags    := 1 large: body is (size u64, CRC-32 u32) of the value in database "v" under the same seq
            16 pieces: of a large value, which lies in database "p", see pieces.py
            2 expires: a deadline is there
            4 gone: the entry was deleted (only among recent writes, see recent.py)
            8 labelled: a label is there, of 1 to 255 bytes
            A record with any other flag is refused: what stands in it would be taken for the value.
deadline := microseconds since the epoch, UTC
checksum := CRC-32 of all that stands before it, so that the CRC-32 of a whole record is always RESIDUE

index    := seq                          8 bytes: one entry without a deadline
          | (seq, deadline u64) +        else; deadline 0 means none; several where cropped keys collide

labelled := label length u8, label, seq u64 big-endian      a key of database "t", with nothing under it

seq      := u64 in the machine's byte order (MDB_INTEGERKEY): number << 20 | n, for the n-th write of the transaction
            that created the entry; grows in order of creation; never used twice. How transactions are numbered
            is said in recent.py.
version  := the same for the transaction that wrote the value last.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError

__all__ = [
    "COUNTER_BITS",
    "EXPIRES",
    "GONE",
    "HEADER",
    "HEADER_SIZE",
    "LABELLED",
    "LARGE",
    "PIECES",
    "PREFIX",
    "RESIDUE",
    "Parsed",
    "Slot",
    "check_large",
    "is_number",
    "label_key",
    "large_body",
    "large_size",
    "pack_index",
    "pack_record",
    "parse_index",
    "parse_label_key",
    "parse_record",
    "seq_bytes",
    "seq_number",
]

LARGE, EXPIRES, GONE, LABELLED, PIECES = 1, 2, 4, 8, 16
KNOWN = LARGE | EXPIRES | GONE | LABELLED | PIECES
RESIDUE = 0x2144DF1C
COUNTER_BITS = 20
HEADER = struct.Struct("<BBHIQdd")
PREFIX = struct.Struct("<BBHI")
HEADER_SIZE = HEADER.size
_DEADLINE = struct.Struct("<Q")
_LARGE_BODY = struct.Struct("<QI")
_SEQ = struct.Struct("=Q")
_SLOT = 16
_ORDERED = struct.Struct(">Q")

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
    label: bytes = b""


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
    label: bytes = b"",
) -> bytes:
    """The bytes of a record."""
    if label:
        flags |= LABELLED
        body = len(label).to_bytes(1, "little") + label + body
    if deadline:
        flags |= EXPIRES
        body = _DEADLINE.pack(deadline) + body
    front = HEADER.pack(tag, flags, len(hint), len(kb), version, ctime, mtime) + hint + kb + body
    return front + crc32(front).to_bytes(4, "little")


def parse_record(raw: bytes) -> Parsed:
    """Take a record apart. Raises CorruptEntryError if its checksum, its flags or its lengths are wrong."""
    if len(raw) < HEADER_SIZE + 4 or crc32(raw) != RESIDUE:
        raise CorruptEntryError("an entry is damaged: its checksum does not fit")
    tag, flags, hint_size, key_size, version, ctime, mtime = HEADER.unpack_from(raw)
    key_at = HEADER_SIZE + hint_size
    body_at = key_at + key_size
    end = len(raw) - 4 - (_LARGE_BODY.size if flags & LARGE else 0)
    deadline, label = 0, b""
    if flags > KNOWN or flags & (LARGE | PIECES) == PIECES or body_at + (8 if flags & EXPIRES else 0) > end:
        raise CorruptEntryError("an entry is damaged: its lengths do not fit")
    if flags & EXPIRES:
        (deadline,) = _DEADLINE.unpack_from(raw, body_at)
        body_at += 8
        if not deadline:
            raise CorruptEntryError("an entry is damaged: it ends, and does not say when")
    if flags & LABELLED:
        label, body_at = _label_at(raw, body_at, end)
    if flags & LARGE and body_at != end:
        raise CorruptEntryError("an entry is damaged: its lengths do not fit")
    return Parsed(
        tag, flags, version, ctime, mtime, raw[HEADER_SIZE:key_at], raw[key_at : key_at + key_size], deadline,
        raw[body_at:-4], label,
    )  # fmt: skip


def _label_at(raw: bytes, at: int, end: int) -> tuple[bytes, int]:
    """The label of a record, and where the body begins, which is not behind `end`."""
    body_at = at + 1 + raw[at]
    if body_at > end or not raw[at]:
        raise CorruptEntryError("an entry is damaged: its lengths do not fit")
    return raw[at + 1 : body_at], body_at


def large_body(blob: bytes) -> bytes:
    """What a record says of a value that lies elsewhere."""
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


def label_key(label: bytes, seq: bytes) -> bytes:
    """The key that says that an entry has a label. Those of one label are in order of creation.

    Not one key with several seqs (MDB_DUPFIXED): where these are many, LMDB 0.9.36 of py-lmdb 3.0.0 ends a compacting
    copy with SIGSEGV.
    """
    return bytes((len(label),)) + label + _ORDERED.pack(seq_number(seq))


def parse_label_key(key: bytes) -> tuple[bytes, bytes]:
    """The label and the seq. Raises CorruptEntryError."""
    if len(key) < 10 or len(key) != key[0] + 9:
        raise CorruptEntryError("the list of labels is damaged: a key of it has an impossible length")
    return key[1:-8], seq_bytes(_ORDERED.unpack(key[-8:])[0])
