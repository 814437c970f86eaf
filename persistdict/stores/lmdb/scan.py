"""Iteration: batches of entries, each read in a snapshot of its own.

A snapshot that stays open makes the file grow with every write, so none outlives a batch. Entries that were created
after the first step are passed over: a loop that adds entries ends.

A damaged entry does not end the iteration. It is passed over with a warning (DamagedEntryWarning); the integrity pass
reports it as well, and nothing is deleted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from persistdict.errors import CorruptEntryError, DamagedEntryWarning
from persistdict.keys import DIGEST_SIZE, MAX_KEY_SIZE
from persistdict.store import Record
from persistdict.stores.lmdb.record import parse_index, parse_record, seq_number
from persistdict.stores.lmdb.rows import Rows

__all__ = ["scan_by_creation", "scan_by_key"]

BATCH = 512
BATCH_BYTES = 4 << 20

Batch = tuple[list[Record], "bytes | None"]  # entries, the position behind them (None: the end)


def _newest(rows: Rows) -> bytes:
    cursor = rows.begin(rows.e).cursor()
    return cursor.key() if cursor.last() else b""


def _entry(rows: Rows, txn: Any, seq: bytes, raw: bytes, now: float, values: bool) -> Record | None:
    """The entry of one record, or None if it is over or damaged."""
    try:
        record = parse_record(raw)
        return rows.whole(txn, (seq, record.deadline), record, now, values)
    except CorruptEntryError as error:
        _warn(rows, error)
        return None


def _warn(rows: Rows, error: CorruptEntryError) -> None:
    warnings.warn(f"an entry of {rows.place} was passed over: {error}", DamagedEntryWarning, stacklevel=3)


# In order of creation


def scan_by_creation(rows: Rows, *, reverse: bool, values: bool) -> Iterator[Record]:
    """All entries, oldest first or newest first."""
    bound = rows.env.attempt(_newest, rows)
    position: bytes | None = b""
    while bound and position is not None:
        batch, position = rows.env.attempt(_batch_by_creation, rows, position, bound, reverse, values)
        yield from batch


def _batch_by_creation(rows: Rows, position: bytes, bound: bytes, reverse: bool, values: bool) -> Batch:
    """The entries behind `position`, in a snapshot that ends with the batch."""
    txn = rows.begin(rows.e)
    cursor = txn.cursor()
    now = rows.clock()
    batch: list[Record] = []
    size = 0
    step = cursor.prev if reverse else cursor.next
    more = _go_back_to(cursor, position or bound, bool(position)) if reverse else _go_behind(cursor, position)
    for _ in range(BATCH):
        if not more:
            return batch, None
        seq, raw = cursor.item()
        if not reverse and seq_number(seq) > seq_number(bound):
            return batch, None
        entry = _entry(rows, txn, seq, raw, now, values)
        if entry is not None:
            batch.append(entry)
            size += len(entry.blob)
        position = seq
        if size > BATCH_BYTES:
            break
        more = step()
    return batch, position


def _go_behind(cursor: Any, position: bytes) -> bool:
    """To the first key behind `position` (empty: the first)."""
    if not position:
        return bool(cursor.first())
    if not cursor.set_range(position):
        return False
    return bool(cursor.next()) if cursor.key() == position else True


def _go_back_to(cursor: Any, position: bytes, excluded: bool) -> bool:
    """To the last key before `position`, or at it if that is not excluded."""
    if not cursor.set_range(position):
        return bool(cursor.last())
    return True if cursor.key() == position and not excluded else bool(cursor.prev())


# In order of keys


def scan_by_key(
    rows: Rows, *, reverse: bool, values: bool, start: bytes | None, stop: bytes | None
) -> Iterator[Record]:
    """All entries whose keys are in [start, stop), in order of their whole keys.

    Cropped keys sort by their first bytes and then by digest. So those that agree in the first bytes are read
    together and sorted: a group costs memory for its keys, and with a limit of 16 or less all keys are one group.
    """
    bound = rows.env.attempt(_newest, rows)
    position: bytes | None = b""
    while bound and position is not None:
        batch, position = rows.env.attempt(_batch_by_key, rows, position, seq_number(bound), reverse, start, stop)
        while batch:
            some, batch = rows.env.attempt(_with_values, rows, batch) if values else (batch, [])
            yield from some


def _batch_by_key(
    rows: Rows, position: bytes, bound: int, reverse: bool, start: bytes | None, stop: bytes | None
) -> Batch:
    """The entries behind `position`, up to where a group ends, without their values."""
    head = max(0, rows.limit - DIGEST_SIZE)
    txn = rows.begin(rows.k)
    cursor = txn.cursor()
    now = rows.clock()
    batch: list[Record] = []
    more = _enter(cursor, position, reverse, (stop if reverse else start), head)
    step = cursor.prev if reverse else cursor.next
    seen = 0
    last = b""
    while more:
        index_key, index = cursor.item()
        if seen >= BATCH and (len(last) < head or index_key[:head] != last[:head]):
            break
        if _beyond(index_key[:head] if head else b"", start, stop, reverse, head):
            more = False
            break
        for seq in _seqs(rows, index):
            if seq_number(seq) > bound:
                continue
            entry = _entry(rows, txn, seq, txn.get(seq, b"", rows.e), now, False)
            if entry is not None and (start is None or entry.kb >= start) and (stop is None or entry.kb < stop):
                batch.append(entry)
        last = index_key
        seen += 1
        more = step()
    batch.sort(key=lambda entry: entry.kb, reverse=reverse)
    return batch, (last if more else None)


def _seqs(rows: Rows, index: bytes) -> list[bytes]:
    """The entries under an index key; none, with a warning, if the index is damaged there."""
    try:
        return [seq for seq, _ in parse_index(index)]
    except CorruptEntryError as error:
        _warn(rows, error)
        return []


def _with_values(rows: Rows, entries: list[Record]) -> tuple[list[Record], list[Record]]:
    """The first of the entries, read anew with their values, up to some megabytes; and the rest as they are."""
    txn = rows.begin(rows.e)
    now = rows.clock()
    loaded: list[Record] = []
    size = 0
    for number, entry in enumerate(entries):
        raw = txn.get(entry.seq)
        if raw is None:
            continue  # deleted meanwhile
        whole = _entry(rows, txn, entry.seq, raw, now, True)
        if whole is not None:
            loaded.append(whole)
            size += len(whole.blob)
        if size > BATCH_BYTES:
            return loaded, entries[number + 1 :]
    return loaded, []


def _enter(cursor: Any, position: bytes, reverse: bool, edge: bytes | None, head: int) -> bool:
    """To the first index key of a batch: behind `position`, or where the range begins."""
    if position:
        return _go_back_to(cursor, position, True) if reverse else _go_behind(cursor, position)
    edge = edge[:head] if edge is not None else b""
    if not edge:
        return bool(cursor.last() if reverse else cursor.first())
    if reverse:
        return _go_back_to(cursor, edge.ljust(MAX_KEY_SIZE, b"\xff"), False)
    return bool(cursor.set_range(edge))


def _beyond(index_head: bytes, start: bytes | None, stop: bytes | None, reverse: bool, head: int) -> bool:
    """Whether the range is over at an index key that begins with `index_head`."""
    if reverse:
        return start is not None and index_head < start[:head]
    return stop is not None and index_head > stop[:head]
