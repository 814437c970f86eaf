"""A store on a medium that cannot be written to: a CD, an image, a snapshot, a mount with -o ro.

LMDB reads it without a lock file, so nobody knows of the readers, and a writer would take the pages that they read.
That cannot happen on the medium itself; it can where the same files are mounted elsewhere for writing. So who reads
and who writes tell each other by the gate's locks, UNSEEN and USERS, and whoever comes second is refused.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import lmdb

from persistdict.errors import BusyError, ReadOnlyError
from persistdict.stores.lmdb.gate import UNSEEN, USERS, Gate, move_high
from persistdict.stores.lmdb.layout import name_of
from persistdict.stores.lmdb.opening import find_shared, open_readable
from persistdict.stores.lmdb.recent import RESERVED, open_existing, recent_folder

__all__ = ["ReadOnlyGate", "announce_writer", "is_read_only", "open_data", "open_recent"]


def is_read_only(folder: str) -> bool:
    """Whether the medium of a folder cannot be written to."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


class ReadOnlyGate(Gate):
    """A gate that lets no writer through."""

    def __init__(self, path: str, permissions: int = 0) -> None:
        self._path = path
        self._fd = -1
        self._leased = {}
        if sys.platform != "win32" and os.path.exists(path):
            low = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._fd = move_high(low)
            finally:
                os.close(low)

    def lock(self, byte: int) -> tuple[Callable[[], object], Callable[[], object]]:
        return self._refuse, bool

    def _refuse(self) -> None:
        folder = os.path.dirname(self._path)
        raise ReadOnlyError(errno.EROFS, "the dictionary was opened on a read-only medium; nothing was changed", folder)

    def share(self, byte: int) -> None:
        """Tell writers that somebody reads here. Raises BusyError if there is one."""
        if self._fd < 0:
            return
        super().share(UNSEEN)
        writer = self.user(USERS)
        if writer is not None:
            raise BusyError(
                errno.EBUSY,
                f"{writer} has these files open for writing through another mount; open the dictionary there",
                os.path.dirname(self._path),
            )


def announce_writer(gate: Gate, folder: str) -> None:
    """Become one of the processes that have the store open for writing. Raises BusyError if LMDB would not see one."""
    gate.share(USERS)
    reader = gate.user(UNSEEN)
    if reader is not None:
        text = f"{reader} reads the store through a read-only mount and cannot be protected; close it there first"
        raise BusyError(errno.EBUSY, text, folder)


def open_data(folder: str) -> lmdb.Environment:
    """The data of a store."""
    return find_shared(folder) or open_readable(folder)


def open_recent(folder: str, last: int, belongs_to: tuple[int, int], replaced: str = "") -> tuple[Any, int]:
    """The recent writes of a store as `recent.open_recent` gives them, or what stands for none."""
    found = open_existing(recent_folder(folder), open_data)
    if found is not None:
        raw, (base, *owner) = found
        if tuple(owner) == belongs_to or name_of((owner[0], owner[1])) == replaced:
            return raw, base
    return _Nothing(), last


class _Nothing:
    """Stands for an environment of recent writes, and for its snapshots, where there are none."""

    def begin(self, *_: Any, **__: Any) -> _Nothing:
        return self

    def id(self) -> int:
        return 0

    def stat(self) -> dict[str, int]:
        return {"entries": RESERVED}

    def get(self, key: bytes) -> bytes | None:
        return None

    def reader_check(self) -> int:
        return 0
