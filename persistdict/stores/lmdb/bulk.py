"""Writing many entries in a few calls of LMDB, instead of three for each.

What is new, short and plain goes this way: its records are appended together, and its index rows are put in order of
the keys, so that neighbours meet the same pages. The rest (what is there already, occurs twice in a batch, or is large)
is left to the general way, which comes after: so of two equal keys the later one is seen to be there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

from persistdict.spans import OUTSIDE
from persistdict.stores.lmdb.record import HEADER, seq_bytes
from persistdict.stores.lmdb.rows import LARGE_VALUE, Rows

__all__ = ["chunks_of", "put_new_ones"]

CHUNK, CHUNK_BYTES = 1 << 15, 16 << 20

Encoded = tuple[bytes, bytes, int, bytes]  # key, hint, tag, blob


def chunks_of(batch: Sequence[Encoded]) -> Iterator[Sequence[Encoded]]:
    """Parts of a batch of which each fits into memory once more."""
    start = size = 0
    for at, row in enumerate(batch):
        size += len(row[3])
        if at - start == CHUNK or size > CHUNK_BYTES:
            yield batch[start:at]
            start, size = at, len(row[3])
    yield batch[start:]


def put_new_ones(rows: Rows, txn: Any, version: int, chunk: Sequence[Encoded]) -> list[tuple[int, Encoded]]:
    """Write what is new, short and plain. Gives the others, and how many come before each in the chunk.

    `version`: of the first; the next ones have the following numbers. Entries have no time limit and no label.
    """
    index = txn.cursor(rows.k)
    kbs = {row[0] for row in chunk}
    others = {kb for kb, _ in index.getmulti([kb for kb in kbs if len(kb) < rows.limit])}
    if len(kbs) < len(chunk):
        others |= _repeated(chunk)
    now, limit, pack = rows.clock(), rows.limit, HEADER.pack
    left: list[tuple[int, Encoded]] = []
    found: list[tuple[bytes, bytes]] = []
    records: list[tuple[bytes, bytes]] = []
    for at, row in enumerate(chunk, version):
        kb, hint, tag, blob = row
        if kb in others or len(kb) >= limit or len(blob) >= LARGE_VALUE or kb >= OUTSIDE:
            left.append((at - version, row))
            continue
        seq = seq_bytes(at)
        head = pack(tag, 0, len(hint), len(kb), at, now, now) + hint + kb
        records.append((seq, b"".join((head, blob, crc32(blob, crc32(head)).to_bytes(4, "little")))))
        found.append((kb, seq))
    found.sort()
    last = index.key() if index.last() else b""
    index.putmulti(found, append=bool(found) and found[0][0] > last)
    entries = txn.cursor(rows.e)
    if entries.putmulti(records, append=True)[1] < len(records):  # the last number is damaged, and too large
        entries.putmulti(records)
    rows.growth += sum(len(raw) for _, raw in records)
    return left


def _repeated(chunk: Sequence[Encoded]) -> set[bytes]:
    """The keys that occur more than once."""
    once: set[bytes] = set()
    return {row[0] for row in chunk if row[0] in once or once.add(row[0])}  # type: ignore[func-returns-value]
