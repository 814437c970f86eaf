"""Writing many entries in a few calls of LMDB, instead of three for each.

What is new, short and plain goes this way: its records are appended together, and its index rows are put in order of
the keys, so that pages are filled one after the other. The rest (what is there already, occurs twice in the batch, or
is large) is left to the general way, which comes after: it concerns other keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from persistdict.checksum import crc32
from persistdict.spans import OUTSIDE
from persistdict.stores.lmdb.record import HEADER, seq_bytes
from persistdict.stores.lmdb.rows import LARGE_VALUE, Rows

__all__ = ["put_new_ones"]

CHUNK, CHUNK_BYTES = 1 << 13, 8 << 20  # records that are in memory twice

Encoded = tuple[bytes, bytes, int, bytes]  # key, hint, tag, blob


def put_new_ones(rows: Rows, txn: Any, version: int, batch: Sequence[Encoded]) -> list[tuple[int, Encoded]]:
    """Write what is new, short and plain. Gives the others, and how many come before each in the batch.

    `version`: of the first; the next ones have the following numbers. Entries have no time limit and no label.
    """
    index, limit = txn.cursor(rows.k), rows.limit
    kbs = {row[0] for row in batch}
    others = {kb for kb, _ in index.getmulti([kb for kb in kbs if len(kb) < limit])}
    if len(kbs) < len(batch):
        others |= _repeated(batch)
    left: list[tuple[int, Encoded]] = []
    new: list[tuple[int, Encoded]] = []
    for at, row in enumerate(batch):
        kb = row[0]
        general = kb in others or len(kb) >= limit or len(row[3]) >= LARGE_VALUE or kb >= OUTSIDE
        (left if general else new).append((at, row))
    entries = txn.cursor(rows.e)
    for records in _records(version, new, rows.clock()):
        if entries.putmulti(records, append=True)[1] < len(records):  # the last number is damaged, and too large
            entries.putmulti(records)
        rows.growth += sum(len(raw) for _, raw in records)
    found = sorted((row[0], seq_bytes(version + at)) for at, row in new)
    last = index.key() if index.last() else b""
    index.putmulti(found, append=bool(found) and found[0][0] > last)
    return left


def _records(version: int, new: list[tuple[int, Encoded]], now: float) -> Iterator[list[tuple[bytes, bytes]]]:
    """Numbers and records, some at a time."""
    records: list[tuple[bytes, bytes]] = []
    size, pack = 0, HEADER.pack
    for at, (kb, hint, tag, blob) in new:
        head = pack(tag, 0, len(hint), len(kb), version + at, now, now) + hint + kb
        raw = b"".join((head, blob, crc32(blob, crc32(head)).to_bytes(4, "little")))
        records.append((seq_bytes(version + at), raw))
        size += len(raw)
        if size > CHUNK_BYTES or len(records) == CHUNK:
            yield records
            records, size = [], 0
    yield records


def _repeated(batch: Sequence[Encoded]) -> set[bytes]:
    """The keys that occur more than once."""
    once: set[bytes] = set()
    return {row[0] for row in batch if row[0] in once or once.add(row[0])}  # type: ignore[func-returns-value]
