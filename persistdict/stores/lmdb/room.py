"""Room on the disk that a file has before it is needed.

A file that is written through its map needs it: that saves the system calls of a commit, but whoever touches a page
that the disk has no room for is killed. So it gets its blocks beforehand, where the file system promises that blocks
given are blocks that can be written: not where it writes every block to a new place.
"""

from __future__ import annotations

import errno
import os
import sys

from persistdict.errors import DiskFullError
from persistdict.stores.lmdb.boot import boot_id
from persistdict.stores.lmdb.mounts import filesystem_under

__all__ = ["can_be_promised", "free_space", "give_room", "keep_room", "may_be_mapped"]

CHUNK = 1 << 20  # bytes
PROMISING = ("ext2", "ext3", "ext4", "xfs", "tmpfs")


def can_be_promised(folder: str) -> bool:
    """Whether a file in the folder, once it has its blocks, can be written even if the disk is full."""
    return filesystem_under(os.path.realpath(folder)) in PROMISING


def may_be_mapped(folder: str) -> bool:
    """Whether the recent writes of the store in a folder are written through their map, if they are made now."""
    return boot_id() is not None and can_be_promised(folder)


def free_space(folder: str) -> int:
    """How many bytes are free on the disk, as far as that can be told."""
    if not hasattr(os, "statvfs"):
        return sys.maxsize
    try:
        status = os.statvfs(folder)
    except OSError:
        return sys.maxsize
    return min(status.f_bavail, status.f_bfree) * status.f_frsize


def keep_room(path: str, size: int, start: int = 0) -> bool:
    """Give a file blocks if the disk has them; tells whether it has. Else the same as `give_room`."""
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        give_room(path, size, start)
    except OSError:
        return False
    return True


def give_room(path: str, size: int, start: int = 0, *, spare: int = 0, fill: bool = False) -> None:
    """Give a file `size` bytes of blocks from `start` on. Raises DiskFullError, or OSError.

    Where the file system cannot do it, the C library does by writing: nobody else may write there meanwhile.

    Args:
        spare: so many bytes must still be free on the disk afterwards.
        fill: write zeros there, for a file that will be written through its map: a page is then cheaper to touch for
            the first time.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if spare and free_space(path) < start + size - os.fstat(fd).st_blocks * 512 + spare:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(fd, start, size)
        if fill:
            for at in range(start, start + size, CHUNK):
                os.pwrite(fd, bytes(min(CHUNK, start + size - at)), at)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = "this process may not make a file larger (ulimit -f)"
            text = text if error.errno == errno.EFBIG else "no space is left on the disk"
            raise DiskFullError(error.errno, f"{text}; nothing was changed by this write", path) from None
        raise
    finally:
        os.close(fd)
