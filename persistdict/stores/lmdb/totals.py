"""How many bytes all entries take, their records and large values; and how many entries lie outside of the dictionary.

These totals are kept in the info, and brought up to date by every transaction that changes entries in the data:

    "size" -> bytes                         of all entries
    "in <head in hexadecimal>" -> entries bytes   of those with one head, see spans.py; not there if there are none
    "outside", "kept" -> entries bytes      of all that have a head; of those that are no cache

While such a transaction runs, `rows.growth` and `rows.population` count what it adds and removes; both are guarded by
the lock of the data.
"""

from __future__ import annotations

from typing import Any

from persistdict.bounded import Usage
from persistdict.spans import KEPT_FROM, OUTSIDE, head_of
from persistdict.stores.lmdb.layout import SIZE, parse_number
from persistdict.stores.lmdb.pieces import HEAD
from persistdict.stores.lmdb.record import HEADER, HEADER_SIZE, LARGE, large_size
from persistdict.stores.lmdb.rows import Rows

__all__ = [
    "begin_totals",
    "end_totals",
    "forget_totals",
    "kept_total",
    "outside_total",
    "pages_of",
    "reset_totals",
    "total_of",
    "total_size",
]

_OUTSIDE, _KEPT, _IN = b"outside", b"kept", b"in "
_NOTHING = Usage(0, 0)


def begin_totals(rows: Rows) -> None:
    """At the beginning of a transaction."""
    rows.growth, rows.population = 0, {}


def end_totals(rows: Rows, d: Any) -> None:
    """At its end. Where the totals are not known, all entries are looked at."""
    known = total_size(rows, d)
    if known is not None:
        total = known + rows.growth
    else:
        total = _count(rows, d)
        reset_totals(rows, d)
        rows.population = _population(rows, d)
    d.put(SIZE, str(max(0, total)).encode(), db=rows.meta)
    for head, change in rows.population.items():
        for name in (_IN + head.hex().encode(), _OUTSIDE, *([_KEPT] if head >= KEPT_FROM else [])):
            _add(rows, d, name, change)
    begin_totals(rows)


def _add(rows: Rows, d: Any, name: bytes, change: tuple[int, int]) -> None:
    before = _usage(rows, d, name)
    entries, size = before.entries + change[0], before.size + change[1]
    if entries > 0:
        d.put(name, b"%d %d" % (entries, max(0, size)), db=rows.meta)
    else:
        d.delete(name, db=rows.meta)


def total_size(rows: Rows, d: Any) -> int | None:
    """The bytes of all entries as a snapshot has them; None if that is not known."""
    return parse_number(d.get(SIZE, None, db=rows.meta))


def total_of(rows: Rows, d: Any, head: bytes) -> Usage:
    """The entries with a head, as a snapshot has them."""
    return _usage(rows, d, _IN + head.hex().encode())


def outside_total(rows: Rows, d: Any) -> Usage:
    """The entries with any head."""
    return _usage(rows, d, _OUTSIDE)


def kept_total(rows: Rows, d: Any) -> Usage:
    """Those that are no cache."""
    return _usage(rows, d, _KEPT)


def _usage(rows: Rows, d: Any, name: bytes) -> Usage:
    first, _, second = d.get(name, b"", db=rows.meta).partition(b" ")
    entries, size = parse_number(first), parse_number(second)
    return Usage(entries, size) if entries is not None and size is not None else _NOTHING


def forget_totals(rows: Rows, d: Any) -> None:
    """Have everything counted anew at the end of this transaction."""
    d.delete(SIZE, db=rows.meta)


def reset_totals(rows: Rows, d: Any) -> None:
    """Note that there is nothing."""
    rows.growth, rows.population = 0, {}
    d.put(SIZE, b"0", db=rows.meta)
    names = [name for name in d.cursor(rows.meta).iternext(values=False) if name.startswith(_IN)]
    for name in (_OUTSIDE, _KEPT, *names):
        d.delete(name, db=rows.meta)


def _count(rows: Rows, d: Any) -> int:
    whole = sum(len(raw) for db in (rows.e, rows.v) for _, raw in d.cursor(db))
    return whole + sum(len(raw) - HEAD for _, raw in d.cursor(rows.p))


def _population(rows: Rows, d: Any) -> dict[bytes, tuple[int, int]]:
    """The entries with each head, by a look at all of them."""
    found: dict[bytes, tuple[int, int]] = {}
    for _, raw in d.cursor(rows.e):
        if len(raw) <= HEADER_SIZE:
            continue
        _, flags, hint_size, key_size, *_ = HEADER.unpack_from(raw)
        at = HEADER_SIZE + hint_size
        if raw[at : at + 1] >= OUTSIDE:
            head = head_of(raw[at : at + key_size])
            entries, size = found.get(head, (0, 0))
            found[head] = entries + 1, size + len(raw) + (large_size(raw[-16:-4]) if flags & LARGE else 0)
    return found


def pages_of(stat: dict[str, int]) -> int:
    """Bytes of the pages that a database takes."""
    return int((stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"])
