"""Iteration in order of keys.

Cropped keys sort by their first bytes and then by digest. So those that agree in the first bytes, a group, are read
together and sorted: a group costs memory for its keys, and with a limit of 16 or less all keys are one group.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from persistdict.errors import CorruptEntryError
from persistdict.keys import DIGEST_SIZE, MAX_KEY_SIZE
from persistdict.spans import Span
from persistdict.store import Item
from persistdict.stores.lmdb.guard import Damaged
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import parse_index, seq_number
from persistdict.stores.lmdb.scan import BATCH, Place, item_of, load, newest_allowed, scan_by_creation, warn

__all__ = ["scan_by_key", "scan_span"]


FEW = 1 << 16  # keys of a span that are put in order of creation in memory


class Range(NamedTuple):
    """Which keys are asked for: `start` is in it, `stop` is not."""

    start: bytes
    stop: bytes
    reverse: bool
    bound: int  # the largest seq
    head: int  # how many bytes make a group

    def __contains__(self, kb: object) -> bool:
        assert isinstance(kb, bytes)
        return self.start <= kb < self.stop


def scan_by_key(rows: Pair, *, reverse: bool, values: bool, span: Span) -> Iterator[Item]:
    """All entries whose keys are in a span, in order of their whole keys."""
    for found in _groups(rows, span, reverse):
        places = sorted(((seq, kb) for kb, seq in found.items()), key=lambda place: place[1], reverse=reverse)
        while places:
            batch, places = rows.env.attempt(load, rows, places, values)
            yield from batch


def scan_span(rows: Pair, *, reverse: bool, values: bool, span: Span) -> Iterator[Item]:
    """The same in order of creation. If there are many, all entries of the store are gone through instead."""
    places: list[Place] = []
    for found in _groups(rows, span, False):
        places += [(seq, kb) for kb, seq in found.items()]
        if len(places) > FEW:
            yield from scan_by_creation(rows, reverse=reverse, values=values, span=span)
            return
    places.sort(key=lambda place: seq_number(place[0]), reverse=reverse)
    while places:
        batch, places = rows.env.attempt(load, rows, places, values)
        yield from batch


def _groups(rows: Pair, span: Span, reverse: bool) -> Iterator[dict[bytes, bytes]]:
    """The keys of a span and their seqs, some at a time, in order of their groups."""
    bound = seq_number(rows.env.attempt(newest_allowed, rows))
    asked = Range(*span, reverse, bound, max(0, rows.limit - DIGEST_SIZE))
    position: bytes | None = b""
    while position is not None:
        found, position = rows.env.attempt(_batch, rows, asked, position)
        yield found


def _batch(rows: Pair, asked: Range, position: bytes) -> tuple[dict[bytes, bytes], bytes | None]:
    """The keys behind `position`, up to where a group ends, with their seqs; and the position behind them."""
    d, r = rows.snapshots()
    rows.look_ahead(d, "k", position or _edge(asked), BATCH, asked.reverse)
    cursor = d.cursor(rows.k)
    now, head = rows.clock(), asked.head
    found: dict[bytes, bytes] = {}
    more = _enter(cursor, asked, position)
    step = cursor.prev if asked.reverse else cursor.next
    seen, last = 0, b""
    while more:
        index_key, index = cursor.item()
        if seen >= BATCH and (len(last) < head or index_key[:head] != last[:head]):
            break
        if _beyond(index_key[:head], asked):
            more = False
            break
        for seq in _seqs(rows, index):
            item = item_of(rows, r, d, seq, d.get(seq, b"", rows.e), now, False)
            if item is not None and item.kb in asked and seq_number(seq) <= asked.bound:
                found[item.kb] = seq
        last = index_key
        seen += 1
        if not seen % BATCH:
            rows.look_ahead(d, "k", last, BATCH, asked.reverse)
        more = step()
    if more and position and (last >= position if asked.reverse else last <= position):
        raise Damaged("rows of the index are out of order")
    if r is not None:
        edges = (position[:head] if position else None, last[:head] if more else None)
        _add_recent(rows, r, asked, edges, found)
    return found, (last if more else None)


def _add_recent(
    rows: Pair, r: Any, asked: Range, edges: tuple[bytes | None, bytes | None], found: dict[bytes, bytes]
) -> None:
    """Add the recent writes whose groups lie behind the first edge and up to the second."""
    for seq, record in rows.rows(r):
        group = record.kb[: asked.head]
        low, high = edges[::-1] if asked.reverse else edges
        behind = low is None or (group >= low if asked.reverse else group > low)
        before = high is None or (group < high if asked.reverse else group <= high)
        if behind and before and record.kb in asked and seq_number(seq) <= asked.bound:
            found[record.kb] = seq  # gone, over or not: `load` looks again


def _seqs(rows: Pair, index: bytes) -> list[bytes]:
    """The entries under an index key; none, with a warning, if the index is damaged there."""
    try:
        return [seq for seq, _ in parse_index(index)]
    except CorruptEntryError as error:
        warn(rows, error)
        return []


def _enter(cursor: Any, asked: Range, position: bytes) -> bool:
    """To the first index key of a batch: behind `position`, or where the range begins."""
    if position:
        if not cursor.set_range(position):
            return bool(cursor.last()) if asked.reverse else False
        if asked.reverse:
            return bool(cursor.prev())
        return bool(cursor.next()) if cursor.key() == position else True
    edge = _edge(asked)
    if not edge:
        return bool(cursor.last() if asked.reverse else cursor.first())
    if asked.reverse:
        found = cursor.set_range(edge)
        return bool(cursor.prev() if found else cursor.last())
    return bool(cursor.set_range(edge))


def _edge(asked: Range) -> bytes:
    """The index key where a range begins; empty for the end of all."""
    edge = (asked.stop if asked.reverse else asked.start)[: asked.head]
    return edge.ljust(MAX_KEY_SIZE, b"\xff") if edge and asked.reverse else edge


def _beyond(group: bytes, asked: Range) -> bool:
    """Whether the range is over at a group."""
    if asked.reverse:
        return group < asked.start[: asked.head]
    return group > asked.stop[: asked.head]
