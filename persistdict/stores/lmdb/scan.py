"""Iteration: batches of entries, each read in a pair of snapshots of its own.

A snapshot that stays open makes the file grow with every write, so none outlives a batch. Entries that were created
after the first step are passed over: a loop that adds entries ends.

A damaged entry does not end the iteration, nor does a damaged page (LMDB's cursors must not step onto one, see
guard.py). It is passed over with a warning (DamagedEntryWarning); the integrity pass reports it as well, and nothing is
deleted. Where rows are out of order, a batch must end behind where it began: so every iteration ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from sys import byteorder
from typing import Any

from persistdict.checksum import crc32
from persistdict.errors import CorruptEntryError, CorruptStoreError, DamagedEntryWarning
from persistdict.spans import Span
from persistdict.store import Item
from persistdict.stores.lmdb.guard import Damaged
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import COUNTER_BITS, HEADER_SIZE, PREFIX, RESIDUE, is_number, seq_bytes, seq_number

__all__ = ["BATCH", "BATCH_BYTES", "Place", "item_of", "load", "newest_allowed", "scan_by_creation", "warn"]

BATCH = 512
BATCH_BYTES = 4 << 20
UNREADABLE = (CorruptEntryError, CorruptStoreError)  # the latter where pages are damaged, see plain.py

_item: Callable[..., Item] = partial(tuple.__new__, Item)
_prefix = PREFIX.unpack_from
from_bytes = int.from_bytes

Place = tuple[bytes, bytes]  # seq, key


def newest_allowed(rows: Pair) -> bytes:
    """The largest seq of what has been created until now."""
    return seq_bytes((rows.base + rows.begin().id() + 1 << COUNTER_BITS) - 1)


def scan_by_creation(rows: Pair, *, reverse: bool, values: bool, span: Span) -> Iterator[Item]:
    """The entries with keys in a span, oldest first or newest first. Goes through all entries."""
    bound = rows.env.attempt(newest_allowed, rows)
    if reverse:
        recent, position = rows.env.attempt(_end, rows, bound, span)
        yield from _visit(rows, recent[::-1], values)
        while position is not None:
            batch, position = rows.env.attempt(_batch_back, rows, position, values, span)
            yield from batch
        return
    after: bytes | None = b""
    recent = []
    while after is not None:
        batch, after, recent = rows.env.attempt(_batch, rows, after, bound, values, span)
        yield from batch
    yield from _visit(rows, recent, values)


def _batch(
    rows: Pair, after: bytes, bound: bytes, values: bool, span: Span
) -> tuple[list[Item], bytes | None, list[Place]]:
    """The entries of the data behind `after`; the position behind them; at the end None, and what is only recent."""
    d, r = rows.snapshots()
    rows.look_ahead(d, "e", after, BATCH)
    cursor = d.cursor(rows.e)
    if not _go_behind(cursor, after):
        return [], None, _recent_until(rows, r, d, bound, span)
    batch, seq, good, beyond = _some_items(rows, r, d, cursor, (after, seq_number(bound)), values, span)
    if beyond:
        return batch, None, []
    if cursor.next() if cursor.key() == seq else cursor.key():
        if seq_number(good) <= seq_number(after):
            raise Damaged("rows are out of order")
        return batch, good, []
    return batch, None, _recent_until(rows, r, d, bound, span)


def _some_items(
    rows: Pair, r: Any, d: Any, cursor: Any, places: tuple[bytes, int], values: bool, span: Span
) -> tuple[list[Item], bytes, bytes, bool]:
    """The next entries; the seq of the last row, and of the last in order; and whether what follows was made later.

    `places`: the seq behind which it begins, and the last number that is visited.
    """
    (seq, last), size, now = places, 0, rows.clock()
    good = seq
    batch: list[Item] = []
    plain, (start, stop) = r is None and rows.idle is None, span
    for seq, raw in islice(cursor.iternext(), BATCH):
        if from_bytes(seq, byteorder) > last:
            if is_number(seq, raw):
                return batch, seq, good, True
            warn(rows, CorruptEntryError("it is out of order"))
            continue
        good, item = seq, None
        if plain and len(raw) > HEADER_SIZE and not raw[1] and crc32(raw) == RESIDUE:  # as `_item_at`, without a call
            tag, _, hint_size, key_size = _prefix(raw)
            key_at = HEADER_SIZE + hint_size
            body_at = key_at + key_size
            if body_at <= len(raw) - 4:
                kb = raw[key_at:body_at]
                if not start <= kb < stop:
                    continue
                item = _item((kb, raw[HEADER_SIZE:key_at], tag, raw[body_at:-4] if values else b""))
        item = item or _item_at(rows, r, d, seq, raw, now, values, span)
        if item is not None:
            batch.append(item)
            size += len(item[3])
            if size > BATCH_BYTES:
                break
    return batch, seq, good, False


def _batch_back(rows: Pair, position: bytes, values: bool, span: Span) -> tuple[list[Item], bytes | None]:
    """The entries of the data at `position` and before it, newest first; and the position of the rest."""
    d, r = rows.snapshots()
    rows.look_ahead(d, "e", position, BATCH, reverse=True)
    cursor = d.cursor(rows.e)
    batch: list[Item] = []
    more = cursor.set_range(position)
    more = (True if cursor.key() == position else cursor.prev()) if more else cursor.last()
    size, now = 0, rows.clock()
    for _ in range(BATCH):
        if not more:
            return batch, None
        item = _item_at(rows, r, d, cursor.key(), cursor.value(), now, values, span)
        if item is not None:
            batch.append(item)
            size += len(item.blob)
        more = cursor.prev()
        if size > BATCH_BYTES:
            break
    if more and seq_number(cursor.key()) >= seq_number(position):
        raise Damaged("rows are out of order")
    return batch, (cursor.key() if more else None)


def _end(rows: Pair, bound: bytes, span: Span) -> tuple[list[Place], bytes | None]:
    """What is only recent, and the newest seq of the data."""
    d, r = rows.snapshots()
    cursor = d.cursor(rows.e)
    return _recent_until(rows, r, d, bound, span), (cursor.key() if cursor.last() else None)


def _recent_until(rows: Pair, r: Any, d: Any, bound: bytes, span: Span) -> list[Place]:
    last = seq_number(bound)
    places = [(row.seq, row.record.kb) for row in rows.created_recently(r, d) if seq_number(row.seq) <= last]
    return [place for place in places if place[1] in span]


def _visit(rows: Pair, places: list[Place], values: bool) -> Iterator[Item]:
    """The entries of these keys, if they are still those."""
    while places:
        batch, places = rows.env.attempt(load, rows, places, values)
        yield from batch


def load(rows: Pair, places: list[Place], values: bool) -> tuple[list[Item], list[Place]]:
    """The first of the entries, up to some megabytes; and the places of the rest."""
    d, r = rows.snapshots()
    now, size = rows.clock(), 0
    batch: list[Item] = []
    for number, (seq, kb) in enumerate(places):
        try:
            place = rows.locate(r, d, kb)
            if place is None or place.slot[0] != seq:
                continue  # deleted meanwhile
            if place.record is None:
                raise rows.damaged(kb)
            entry = rows.whole(d, place.slot, place.record, now, values)
        except UNREADABLE as error:
            warn(rows, error)
            continue
        if entry is not None:
            batch.append(_item(entry[:4]))
            size += len(entry.blob)
        if size > BATCH_BYTES or number >= BATCH:
            return batch, places[number + 1 :]
    return batch, []


def _go_behind(cursor: Any, after: bytes) -> bool:
    """To the first key behind `after` (empty: the first)."""
    if not after:
        return bool(cursor.first())
    if not cursor.set_range(after):
        return False
    return bool(cursor.next()) if cursor.key() == after else True


def _item_at(rows: Pair, r: Any, d: Any, seq: bytes, raw: bytes, now: float, values: bool, span: Span) -> Item | None:
    """The entry of a record of the data, or None if it is over, gone, damaged or of another span."""
    if r is None and rows.idle is None and len(raw) > HEADER_SIZE and crc32(raw) == RESIDUE:
        tag, flags, hint_size, key_size = _prefix(raw)
        key_at = HEADER_SIZE + hint_size
        body_at = key_at + key_size
        if not flags and body_at <= len(raw) - 4:
            kb = raw[key_at:body_at]
            if not span.start <= kb < span.stop:
                return None
            return _item((kb, raw[HEADER_SIZE:key_at], tag, raw[body_at:-4] if values else b""))
    item = item_of(rows, r, d, seq, raw, now, values)
    return item if item is not None and item.kb in span else None


def item_of(
    rows: Pair, r: Any, d: Any, seq: bytes, raw: bytes, now: float, values: bool, label: bytes | None = None
) -> Item | None:
    """The same, in general. With a `label`: only if the entry has that one."""
    try:
        entry = rows.entry_at(r, d, seq, raw, now, values)
    except UNREADABLE as error:
        warn(rows, error)
        return None
    return None if entry is None or label not in (None, entry.label) else _item(entry[:4])


def warn(rows: Pair, error: Exception) -> None:
    """Tell that an entry was passed over."""
    warnings.warn(f"an entry of {rows.place} was passed over: {error}", DamagedEntryWarning, stacklevel=3)
