"""Writing many entries in a few calls of LMDB, instead of three for each.

What is new, short and plain goes this way: its records are appended together, and its index rows are put in order of
the keys, so that pages are filled one after the other. The rest (what is there already, occurs twice in the batch, or
is large) is left to the general way, which comes after: it concerns other keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any

from persistdict.checksum import crc32
from persistdict.spans import OUTSIDE
from persistdict.stores.lmdb.record import HEADER, seq_bytes
from persistdict.stores.lmdb.rows import LARGE_VALUE, Rows

__all__ = ["put_new_ones"]

CHUNK, CHUNK_BYTES = 1 << 13, 8 << 20  # records that are in memory twice

Encoded = tuple[bytes, bytes, int, bytes]  # key, hint, tag, blob
KEY = itemgetter(0)


def put_new_ones(rows: Rows, txn: Any, version: int, batch: Sequence[Encoded]) -> list[tuple[int, Encoded]]:
    """Write what is new, short and plain. Gives the others, and how many come before each in the batch.

    `version`: of the first; the next ones have the following numbers. Entries have no time limit and no label.
    """
    index, entries = txn.cursor(rows.k), txn.cursor(rows.e)
    seqs = dict(zip(map(KEY, batch), map(seq_bytes, range(version, version + len(batch))), strict=True))
    kbs = sorted(seqs)
    follow = not index.last() or index.key() < kbs[0]
    left = _for_the_general_way(rows, batch, kbs, set() if follow else _present(index, kbs, rows.limit))
    passed = {at for at, _ in left}
    for records, size in _records(version, batch, passed, rows.clock()):
        _put(entries, records, append=True)
        rows.growth += size
    elsewhere = {row[0] for _, row in left}
    _put(index, [(kb, seqs[kb]) for kb in kbs if kb not in elsewhere], append=follow)
    return left


def _put(cursor: Any, pairs: list[tuple[bytes, bytes]], append: bool) -> None:
    """Write all; behind what is there if that works, which it does unless the last key is damaged, and too large."""
    if cursor.putmulti(pairs, append=append)[1] < len(pairs) and append:
        cursor.putmulti(pairs)


def _present(index: Any, kbs: list[bytes], limit: int) -> set[bytes]:
    """Which of the keys are there."""
    return {kb for kb, _ in index.getmulti([kb for kb in kbs if len(kb) < limit])}


def _for_the_general_way(
    rows: Rows, batch: Sequence[Encoded], kbs: list[bytes], present: set[bytes]
) -> list[tuple[int, Encoded]]:
    """What is not new, short and plain; each with its place in the batch. `kbs`: its keys, sorted, each once."""
    limit = rows.limit
    if len(kbs) < len(batch):
        present |= _repeated(batch)
    longest, largest = max(map(len, kbs)), max([len(row[3]) for row in batch])
    if not present and kbs[-1] < OUTSIDE and longest < limit and largest < LARGE_VALUE:
        return []
    return [
        (at, row)
        for at, row in enumerate(batch)
        if row[0] in present or len(row[0]) >= limit or len(row[3]) >= LARGE_VALUE or row[0] >= OUTSIDE
    ]


def _records(
    version: int, batch: Sequence[Encoded], passed: set[int], now: float
) -> Iterator[tuple[list[tuple[bytes, bytes]], int]]:
    """Numbers with their records, and the bytes of these; some at a time. `passed`: places that have no part."""
    records: list[tuple[bytes, bytes]] = []
    size, pack = 0, HEADER.pack
    for at, (kb, hint, tag, blob) in enumerate(batch):
        if at in passed:
            continue
        number = version + at
        head = pack(tag, 0, len(hint), len(kb), number, now, now) + hint + kb
        records.append((seq_bytes(number), b"".join((head, blob, crc32(blob, crc32(head)).to_bytes(4, "little")))))
        size += len(head) + len(blob) + 4
        if size > CHUNK_BYTES or len(records) == CHUNK:
            yield records, size
            records, size = [], 0
    yield records, size


def _repeated(batch: Sequence[Encoded]) -> set[bytes]:
    """The keys that occur more than once."""
    once: set[bytes] = set()
    return {row[0] for row in batch if row[0] in once or once.add(row[0])}  # type: ignore[func-returns-value]
