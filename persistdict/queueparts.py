"""What the rows of items and leases hold, see the grammar in queuerows.py: taken apart, and found to be possible.

A checksum tells that a row is as somebody wrote it; not that it was a queue that did.
"""

from __future__ import annotations

import struct

from persistdict.errors import CorruptEntryError
from persistdict.queuestate import ID, MOST
from persistdict.store import Record

__all__ = ["HELD", "LEASE", "LEASED", "READY", "check_row", "parse_lease"]

READY, LEASED = b"\x02", b"\x03"
HELD = struct.Struct(">IB")
LEASE = struct.Struct(">QH")
ATTEMPTS = (1 << 32) - 1  # no item is handed out so often


def parse_lease(record: Record) -> tuple[int, bytes, bytes]:
    """When it was given, the place, and what the ready row held."""
    begun, size = LEASE.unpack_from(record.blob)
    at = LEASE.size + size
    return begun, record.blob[LEASE.size : at], record.blob[at:]


def check_row(record: Record, at: int) -> None:
    """Raise CorruptEntryError for the row of an item or a lease that cannot be one; `at`: the size of its head."""
    name, held = record.kb[at + 1 :], record.blob
    sound, is_lease = len(name) >= ID.size, record.kb[at : at + 1] == LEASED
    if sound and is_lease:
        sound = len(name) == 2 * ID.size and len(held) >= LEASE.size
        if sound:
            _, place, held = parse_lease(record)
            sound = place[-ID.size :] == name[-ID.size :]
    if sound and len(held) >= HELD.size and ID.unpack(name[-ID.size :])[0] <= MOST:
        attempts, where = HELD.unpack_from(held)
        if is_lease <= attempts < ATTEMPTS and where <= 1:
            return
    error = CorruptEntryError("a row of a queue is damaged: its lengths or numbers are impossible")
    error.kb = record.kb
    raise error
