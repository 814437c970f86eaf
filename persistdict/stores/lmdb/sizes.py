"""How large a store is. Nothing is opened but what is open already."""

from __future__ import annotations

import contextlib
import os

from persistdict.statistics import Sizes
from persistdict.stores.lmdb.evicting import Evicting
from persistdict.stores.lmdb.folder import DATA, FLAGS, GATE, LATEST, LOCK
from persistdict.stores.lmdb.recent import recent_folder
from persistdict.stores.lmdb.totals import pages_of

__all__ = ["file_bytes", "sizes"]


def sizes(rows: Evicting) -> Sizes:
    """The sizes of a store, as one snapshot and the file system tell them."""
    live = 0 if rows.env.damage else rows.usage().size  # what damaged trees say of themselves is not to be believed
    return Sizes(live, file_bytes(rows.env.folder), rows.env.attempt(_backlog, rows))


def _backlog(rows: Evicting) -> int:
    _, r = rows.snapshots()
    return 0 if r is None else pages_of(r.stat())


def file_bytes(folder: str) -> int:
    """What the files of a store take on the disk; of a sparse file, what it really takes."""
    recent = recent_folder(folder)
    places = [os.path.join(folder, name) for name in (DATA, LOCK, GATE, FLAGS)]
    total = 0
    for place in [*places, *(os.path.join(recent, name) for name in (DATA, LOCK, LATEST))]:
        with contextlib.suppress(OSError):  # it is not there: on a read-only medium, or deleted by others
            status = os.stat(place)
            total += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return total
