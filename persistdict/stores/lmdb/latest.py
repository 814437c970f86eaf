"""Which write of the recent writes was begun last, as all processes see it without asking LMDB.

It stands in a file beside them, which all processes map: the id of that write transaction, a u64 in the machine's byte
order. It is told under LMDB's lock, before the commit, by every transaction that may change an entry. So while it is N,
no commit after N has changed an entry, and what was read in snapshot N is what there is. When it is not the id of the
last commit, because a write is under way, has failed or has changed nothing, it tells nothing, and LMDB is asked.

Either all processes that have the recent writes open map the file, or none does: it is made with them, or by a process
that is alone with them, and whoever comes and finds none beside others, or one that was never finished, is refused.
Where they are not written through their map (room.py), none is made. As it goes with them, it is as new as their ids.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from typing import Any

from persistdict.errors import OpenError, refused
from persistdict.store import NOT_TOLD
from persistdict.stores.lmdb.folder import LATEST, make_file, open_own
from persistdict.stores.lmdb.room import give_room, may_be_mapped

__all__ = ["make_latest", "open_latest"]

SIZE = 4096  # bytes


def make_latest(folder: str, permissions: int) -> None:
    """Make the file in a folder of recent writes that nobody knows yet. Raises DiskFullError."""
    path = os.path.join(folder, LATEST)
    os.close(make_file(path, permissions))
    give_room(path, SIZE, fill=True)


def open_latest(folder: str, is_alone: Callable[[], bool]) -> Any:
    """The id, as the one item of what is returned; NOT_TOLD if nobody tells it. Needs the gate.

    Raises OpenError if others have the recent writes open and the file is gone; DiskFullError.

    Args:
        folder: of the recent writes.
        is_alone: whether nobody else has them open.
    """
    path = os.path.join(folder, LATEST)
    if not _is_whole(path):
        if not may_be_mapped(os.path.dirname(folder)):
            return NOT_TOLD
        if not is_alone():
            raise OpenError(
                errno.ENOENT,
                "another process has this store open, and the file by which its writes are seen was deleted (or that "
                "process cannot read /proc); close the store everywhere and open it again",
                path,
            )
        os.close(open_own(path, LATEST))
        give_room(path, SIZE, fill=True)
    fd = open_own(path, LATEST)
    try:
        return memoryview(mmap.mmap(fd, SIZE))[:8].cast("Q")
    except OSError as error:
        raise refused(error, "map the id of the last write", path) from error
    finally:
        os.close(fd)


def _is_whole(path: str) -> bool:
    """Whether the file has its block on the disk: who touches a hole on a full disk is killed."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return False
    return status.st_size >= SIZE and status.st_blocks > 0
