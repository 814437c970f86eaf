"""Counting and removing what has its key in a span."""

from __future__ import annotations

from typing import Any

from persistdict.errors import CorruptEntryError
from persistdict.keys import DIGEST_SIZE
from persistdict.spans import ALL, OUTSIDE, OWN, Span, head_of
from persistdict.store import Record
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.recent import RESERVED
from persistdict.stores.lmdb.record import GONE, Parsed, parse_index, parse_record
from persistdict.stores.lmdb.rows import DEADLINE, Place, Rows
from persistdict.stores.lmdb.totals import outside_total, reset_totals, total_of
from persistdict.stores.lmdb.walk import walk

__all__ = ["any_outside", "clear_in", "count_in", "first_in"]


def count_in(rows: Pair, span: Span) -> int | None:
    """The number of entries of a span that are not past their deadline; None if no total is kept for it."""
    d, r = rows.snapshots()
    outside = outside_total(rows, d).entries
    total: int = d.stat(rows.e)["entries"]
    if span == OWN:
        total -= outside
    elif span != ALL:
        if not span.start or head_of(span.start) != span.start or span.stop != span.start + b"\xff":
            return None
        total = total_of(rows, d, span.start).entries
    now = int(rows.clock() * 1e6)
    total -= _ended(rows, d, now, ALL if not outside and span == OWN else span)
    for _, record in rows.rows(r) if r is not None else ():
        if record.kb in span:
            before = rows.find(d, record.kb)
            if before is not None and not 0 < before.slot[1] <= now:
                total -= 1
            if not record.flags & GONE and not 0 < record.deadline <= now:
                total += 1
    return total


def _ended(rows: Pair, d: Any, now: int, span: Span) -> int:
    """How many entries of the data are past their deadline."""
    ended = 0
    for cursor in walk(rows, d, "x", nodup=span == ALL):
        if DEADLINE.unpack(cursor.key())[0] > now:
            break
        if span == ALL:
            ended += cursor.count()
            continue
        record = _record(rows, d, cursor.value())
        ended += record is not None and record.kb in span
    return ended


def any_outside(rows: Pair, d: Any, r: Any) -> bool:
    """Whether there is any entry, or a recent write of one, that is not the dictionary's own."""
    if outside_total(rows, d).entries:
        return True
    return r.stat()["entries"] > RESERVED and bool(r.cursor().set_range(OUTSIDE))


def clear_in(rows: Rows, d: Any, span: Span) -> int:
    """Remove all entries of a span from the data, readable or not."""
    inside = rows.population
    if span == ALL or (span == OWN and not outside_total(rows, d).entries and not any(n for n, _ in inside.values())):
        total: int = d.stat(rows.e)["entries"]
        reset_totals(rows, d)
        for db in (rows.k, rows.e, rows.v, rows.p, rows.x, rows.a, rows.t):
            d.drop(db, delete=False)
        rows.touched.clear()
        return total
    found = _slots_in(rows, d, span)
    for key, seq in found:
        slots = parse_index(d.get(key, b"", rows.k))
        slot = next(slot for slot in slots if slot[0] == seq)
        record = _record(rows, d, seq)
        rows.remove_at(d, key, key if record is None else record.kb, Place(slots, slot, record))
    return len(found)


def _slots_in(rows: Rows, d: Any, span: Span) -> list[tuple[bytes, bytes]]:
    """The index keys and seqs of a span. A long key whose record is damaged is in it if its cropped key is."""
    head = max(0, rows.limit - DIGEST_SIZE)
    found = []
    for cursor in walk(rows, d, "k", span.start[:head]):
        key, raw = cursor.item()
        if key[:head] > span.stop[:head]:
            break
        for seq, _ in parse_index(raw):
            record = _record(rows, d, seq)
            if (key if record is None else record.kb) in span:
                found.append((key, seq))
    return found


def _record(rows: Rows, d: Any, seq: bytes) -> Parsed | None:
    """The record of an entry; None if it is damaged."""
    try:
        return parse_record(d.get(seq, b"", rows.e))
    except CorruptEntryError:
        return None


def first_in(rows: Pair, r: Any, d: Any, span: Span, reverse: bool) -> Record | None:
    """The entry of a span with the first, or last, key that is shorter than the limit."""
    kb = _next(rows, r, d, span, reverse)
    while kb is not None:
        if len(kb) < rows.limit:
            try:
                record = rows.get_in(r, d, kb)
            except CorruptEntryError as error:
                error.kb = kb
                raise
            if record is not None:
                return record
        span = Span(span.start, kb) if reverse else Span(kb + b"\0", span.stop)
        kb = _next(rows, r, d, span, reverse)
    return None


def _next(rows: Pair, r: Any, d: Any, span: Span, reverse: bool) -> bytes | None:
    """The first, or last, key of a span in the index or the recent writes."""
    rows.look_ahead(d, "k", span.stop if reverse else span.start, 1, reverse)
    cursors = [d.cursor(rows.k), *([] if r is None else [r.cursor()])]
    found = [key for cursor in cursors if (key := _edge(cursor, span, reverse)) is not None]
    return (max(found) if reverse else min(found)) if found else None


def _edge(cursor: Any, span: Span, reverse: bool) -> bytes | None:
    if reverse:
        more = cursor.prev() if cursor.set_range(span.stop) else cursor.last()
    else:
        more = cursor.set_range(span.start)
    return cursor.key() if more and cursor.key() in span else None
