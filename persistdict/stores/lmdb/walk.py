"""Going through the rows of a database, with a look at the pages ahead."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from persistdict.stores.lmdb.engine import NotOpen
from persistdict.stores.lmdb.record import seq_number
from persistdict.stores.lmdb.rows import Rows

__all__ = ["beyond", "stretches", "walk"]

STRETCH = 512  # rows between two looks ahead; fewer at first, as most callers need only few
SHORTEST = 8
AT_ONCE = 128  # rows that are taken at a time


def walk(
    rows: Rows, d: Any, name: str, start: bytes = b"", *, reverse: bool = False, nodup: bool = False
) -> Iterator[Any]:
    """A cursor of the snapshot `d` that stands on one row after the other, from `start` on. Raises Damaged.

    `start` is a key; for deadlines ("x") a key, or a key and a seq; b"" for all. `nodup`: only the first row of each
    key. `reverse`: from the last row on, backwards.
    """
    db = rows.database(name)
    if db is None:
        if rows.env.dbs:
            return  # an older store that cannot be written to, see layout.py
        raise NotOpen("the databases are being opened")
    cursor = d.cursor(db)
    looked, left, stretch = start[:8] if name == "x" else start, 0, SHORTEST
    if start:  # to go to the first or the last row is safe: it is looked for, and never stepped to
        left = stretch = STRETCH
        rows.look_ahead(d, name, looked, stretch)
    more = cursor.last() if reverse else _enter(cursor, name, start)
    step = cursor.prev if reverse else cursor.next_nodup if nodup else cursor.next
    while more:
        yield cursor
        left -= 1
        if left <= 0 and cursor.key() != looked:  # what belongs to one key is looked at as a whole
            looked, left, stretch = cursor.key(), stretch, min(2 * stretch, STRETCH)
            rows.look_ahead(d, name, looked, left, reverse)
        more = step()


def stretches(rows: Rows, d: Any, name: str, start: bytes = b"") -> Iterator[list[tuple[bytes, bytes]]]:
    """The rows of a database without duplicates from `start` on, some at a time; quicker than `walk` if all are used.

    Raises Damaged.
    """
    cursor = d.cursor(rows.database(name))
    more = _enter(cursor, name, start)
    while more:
        rows.look_ahead(d, name, cursor.key(), AT_ONCE)
        yield list(islice(cursor.iternext(), AT_ONCE))
        more = cursor.next()


def _enter(cursor: Any, name: str, start: bytes) -> bool:
    if not start:
        return bool(cursor.first())
    if name != "x":
        return bool(cursor.set_range(start))
    if not cursor.set_range(start[:8]):
        return False
    if start[8:] and cursor.key() == start[:8]:
        return bool(cursor.set_range_dup(start[:8], start[8:]) or cursor.next_nodup())
    return True


def beyond(name: str, start: bytes, key: bytes) -> bool:
    """Whether a step that began at `start` may end before `key`: positions grow, even if rows are out of order.

    So a pass ends, whatever the tree is like.
    """
    if name == "x":
        return (seq_number(key[:8]), key[8:]) > (seq_number(start[:8]), start[8:])
    return key > start if name in ("k", "p", "q", "r", "t") else seq_number(key) > seq_number(start)
