"""How many bytes all entries take: their records and large values.

The total is kept in the info ("size"), and brought up to date by every transaction that changes entries in the data.
While such a transaction runs, `rows.growth` counts what it adds and removes; it is guarded by the lock of the data.
"""

from __future__ import annotations

from typing import Any

from persistdict.stores.lmdb.layout import SIZE
from persistdict.stores.lmdb.pieces import HEAD
from persistdict.stores.lmdb.rows import Rows

__all__ = ["begin_size", "end_size", "pages_of", "total_size"]


def begin_size(rows: Rows) -> None:
    """At the beginning of a transaction."""
    rows.growth = 0


def end_size(rows: Rows, d: Any) -> None:
    """At its end. Where the total is not known, all entries are looked at."""
    known = d.get(SIZE, b"", db=rows.meta)
    total = int(known) + rows.growth if known.isdigit() else _count(rows, d)
    d.put(SIZE, str(max(0, total)).encode(), db=rows.meta)


def total_size(rows: Rows, d: Any) -> int | None:
    """The total as a snapshot has it; None if it is not known."""
    known = d.get(SIZE, b"", db=rows.meta)
    return int(known) if known.isdigit() else None


def _count(rows: Rows, d: Any) -> int:
    whole = sum(len(raw) for db in (rows.e, rows.v) for _, raw in d.cursor(db))
    return whole + sum(len(raw) - HEAD for _, raw in d.cursor(rows.p))


def pages_of(stat: dict[str, int]) -> int:
    """Bytes of the pages that a database takes."""
    return int((stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"])
