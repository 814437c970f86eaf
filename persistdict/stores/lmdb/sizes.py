"""How large a store is: the pages that its trees take, and its files. Nothing is opened but what is open already."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any

from persistdict.statistics import Sizes
from persistdict.stores.lmdb.folder import DATA, GATE, LOCK
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.recent import recent_folder

__all__ = ["file_bytes", "sizes"]


def sizes(rows: Pair) -> Sizes:
    """The sizes of a store, as one snapshot and the file system tell them."""
    live, backlog = rows.env.attempt(_pages, rows)
    return Sizes(live, file_bytes(rows.env.folder), backlog)


def _pages(rows: Pair) -> tuple[int, int]:
    """Bytes of pages in use, and those of recent writes among them. Old versions that a drain will replace count."""
    d, r = rows.snapshots()
    backlog = 0 if r is None else _bytes_of([r.stat()])
    if rows.env.damage:
        return 0, backlog  # what the trees say of themselves is not to be believed
    return _bytes_of([d.stat(), *map(d.stat, rows.env.dbs.values())]) + backlog, backlog


def _bytes_of(stats: Iterable[dict[str, Any]]) -> int:
    return sum(stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) for stat in stats)


def file_bytes(folder: str) -> int:
    """What the files of a store take on the disk; of a sparse file, what it really takes."""
    recent = recent_folder(folder)
    places = [os.path.join(folder, name) for name in (DATA, LOCK, GATE)]
    total = 0
    for place in [*places, os.path.join(recent, DATA), os.path.join(recent, LOCK)]:
        with contextlib.suppress(OSError):  # it is not there: on a read-only medium, or deleted by others
            status = os.stat(place)
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total
