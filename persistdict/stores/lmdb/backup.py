"""A backup: the store of one moment as a new store elsewhere, while everybody reads and writes on.

The moment is that of a pair of snapshots. The data are copied as they are; then the recent writes of the moment are
brought into the copy as a drain would. All this happens in a folder beside the target, which takes its place when it
is whole and synced. No file of the live store is opened: that would drop LMDB's locks on it. The backup is its maker's
alone, with whomever the store is shared.
"""

from __future__ import annotations

import errno
import os

import lmdb

from persistdict.errors import CorruptEntryError, DiskFullError, PersistDictError, StoreError, TargetExistsError
from persistdict.stores.lmdb import layout
from persistdict.stores.lmdb.copying import copy_compacted
from persistdict.stores.lmdb.drain import Recent, apply_recent, recent_writes
from persistdict.stores.lmdb.engine import NotOpen
from persistdict.stores.lmdb.failures import translated
from persistdict.stores.lmdb.folder import (
    DATA,
    PRIVATE,
    make_folder,
    make_parents,
    remove_folder,
    resolve,
    sync_folder,
)
from persistdict.stores.lmdb.opening import open_alone
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.rows import Rows

__all__ = ["back_up"]

PARTIAL = ".persistdict-backup-"
ROOM = 64 << 20  # bytes of address space


def back_up(rows: Pair, path: str) -> int:
    """Make a store of its own at `path` that holds what this one holds now. Returns its size in bytes.

    Raises TargetExistsError if something is there already, DiskFullError, CorruptEntryError if a recent write is
    damaged, StoreError; then nothing is left behind.
    """
    target = resolve(path)
    try:
        _check_target(rows.place, target)
        rows.env.prove()
        parent = os.path.dirname(target)
        make_parents(parent)
        new = os.path.join(parent, PARTIAL + os.urandom(8).hex())
        try:
            make_folder(new, PRIVATE)
            rows.env.attempt(_copy, rows, new)
            size = os.path.getsize(os.path.join(new, DATA))
            sync_folder(new)
            if os.name == "nt" and os.path.isdir(target):
                os.rmdir(target)
            os.rename(new, target)
            sync_folder(parent)
        finally:
            remove_folder(new)
    except OSError as error:
        if isinstance(error, PersistDictError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(error.errno, "no space is left for the backup", target) from error
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _exists(target) from error
        raise StoreError(error.errno, f"cannot make the backup: {error.strerror}", target) from error
    return size


def _check_target(place: str, target: str) -> None:
    if os.path.join(target, "").startswith(os.path.join(place, "")):
        raise StoreError(errno.EINVAL, "the backup must lie outside of the dictionary's own folder", target)
    if os.path.lexists(target) and not (os.path.isdir(target) and not os.listdir(target)):
        raise _exists(target)


def _exists(target: str) -> TargetExistsError:
    return TargetExistsError(errno.EEXIST, "something is there already; a backup needs a new or empty folder", target)


def _copy(rows: Pair, folder: str) -> None:
    """Make the data file of the backup; anew if this is called again."""
    path = os.path.join(folder, DATA)
    if os.path.exists(path):
        os.unlink(path)
    d, r = rows.snapshots()
    raw = rows.env.data.raw
    if raw is None:
        raise NotOpen("the environment is being opened")
    number, found = (0, []) if r is None else (rows.base + r.id(), recent_writes(r))
    del r  # the file of recent writes need not grow while the data are copied
    copy_compacted(raw, d, path, PRIVATE)
    if found:
        try:
            _bring_in(rows, folder, found, number)
        except lmdb.Error as error:
            raise translated(error, folder) from error


def _bring_in(rows: Pair, folder: str, found: Recent, number: int) -> None:
    """Apply the recent writes to the copy, of which nobody else knows."""
    size = os.path.getsize(os.path.join(folder, DATA))
    raw = open_alone(folder, size + 4 * sum(len(raw) for _, raw in found) + ROOM)  # each page may be written anew
    try:
        copy = _Copy(rows, folder, raw)
        with raw.begin(write=True) as txn:
            stuck = apply_recent(txn, copy, found, number)
            if stuck:
                raise CorruptEntryError(
                    f"{rows.place}: {len(stuck)} recent writes are damaged; no backup was made (verify with repair "
                    "sets them aside)"
                )
    finally:
        raw.close()


class _Copy(Rows):
    """The entries of a copy."""

    def __init__(self, rows: Pair, folder: str, raw: lmdb.Environment) -> None:
        self.limit, self.idle, self.clock = rows.limit, rows.idle, rows.clock
        self.touched, self.place = {}, folder
        dbs, _ = layout.adopt(raw, folder)
        self.bind_to(dbs)
