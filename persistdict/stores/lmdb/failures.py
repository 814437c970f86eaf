"""What LMDB's errors mean, and which of ours they are."""

from __future__ import annotations

import errno

import lmdb

from persistdict.errors import CorruptStoreError, DiskFullError, NotAStoreError, OpenError, StoreError
from persistdict.stores.lmdb.guard import DAMAGED
from persistdict.stores.lmdb.limits import is_at_file_limit
from persistdict.stores.lmdb.room import free_space
from persistdict.stores.lmdb.trees import ADVICE

__all__ = ["disk_full", "no_space", "translated", "was_remapped"]

NEARLY_NOTHING = 16 << 20  # bytes; a file system gives some of it back once a write has failed


def translated(error: lmdb.Error, place: str, *, opening: bool = False) -> Exception:
    """An error of LMDB as one of ours."""
    code = max(0, getattr(error, "code", 0) or 0)  # LMDB's own codes are negative
    if code == errno.ENOMEM or isinstance(error, lmdb.MemoryError):
        kind = OpenError if opening else StoreError
        text = "the address space that is left to this process is too small (ulimit -v)"
        return kind(errno.ENOMEM, f"{text}: {error}", place)
    if no_space(error, place):
        return disk_full(place)
    if isinstance(error, DAMAGED):
        return CorruptStoreError(errno.EIO, f"the store is damaged ({error}); {ADVICE}", place)
    if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
        return NotAStoreError(f"{place} holds a file that is not a database of this kind: {error}")
    if opening:
        return OpenError(code or errno.EIO, f"cannot open the store: {error}", place)
    return StoreError(code or errno.EIO, f"the store failed: {error}", place)


def disk_full(place: str) -> DiskFullError:
    """The error for a write that has no room."""
    if is_at_file_limit(place):
        text = "this process may not make a file larger (ulimit -f); nothing was changed by this write"
        return DiskFullError(errno.EFBIG, text, place)
    return DiskFullError(errno.ENOSPC, "no space is left on the disk; nothing was changed by this write", place)


def no_space(error: lmdb.Error, place: str) -> bool:
    """Whether an error means that the disk is full. LMDB makes an I/O error of a write that came to an end half way."""
    code = getattr(error, "code", 0)
    if code == errno.EIO:
        return free_space(place) < NEARLY_NOTHING or is_at_file_limit(place)
    return code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def was_remapped(error: lmdb.Error) -> bool:
    """Whether a transaction failed because another thread changed, or is changing, the size of the map."""
    code = getattr(error, "code", 0)
    return isinstance(error, lmdb.BadTxnError) or code == errno.EINVAL or "closed/deleted/dropped" in str(error)
