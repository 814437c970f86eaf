"""A private copy of the files of somebody else, who may be hostile.

Guarantees:
- The originals are read with plain reads and nothing else: not opened by LMDB, not locked, not written to.
- Only regular files are read. They are looked at before they are opened, opened without following a link, and looked
  at again; so nothing waits for the writer of a pipe, and no device is touched.
- Copied are data.mdb and the recent writes of this start of the machine. Lock files are never: they are made anew.
- No more is written than the files had when they were opened, and that is compared with the bound and the free space
  before. Holes stay holes.

Nobody can be kept from writing meanwhile. If the files change while they are copied, they are copied again; a change
that escapes that is damage, which the verification (proving.py) finds.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import tempfile
import time
from typing import NamedTuple

from persistdict.errors import BusyError, DiskFullError, OpenError, TooLargeError, UnsafePathError, refused
from persistdict.stores.lmdb.folder import DATA, remove_folder
from persistdict.stores.lmdb.recent import recent_folder
from persistdict.stores.lmdb.room import free_space

__all__ = ["Copy", "copy_privately", "remove_copy"]

TRIES = 5
CHUNK = 1 << 20  # bytes
_HOLE = bytes(CHUNK)
_FLAGS = os.O_RDONLY
for _name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)
_BY_FOLDER = os.open in os.supports_dir_fd and os.stat in os.supports_dir_fd


class Copy(NamedTuple):
    """A copy: its folder, the device and inode of the original data.mdb, and the bytes of all files."""

    folder: str
    owner: tuple[int, int]
    size: int


class _Source(NamedTuple):
    """A file to be copied: where it is, its name within the copy, its descriptor, and how it was when it was opened."""

    path: str
    name: str
    fd: int
    status: os.stat_result


def copy_privately(path: str, max_bytes: int | None, timeout: float) -> Copy:
    """Copy a store to a new folder of its own, for this user only.

    Raises OpenError, UnsafePathError, TooLargeError, DiskFullError; BusyError if it is being written to all the time.
    """
    end = time.monotonic() + timeout
    try:
        folder = tempfile.mkdtemp(prefix="persistdict-untrusted-")
    except OSError as error:
        raise refused(error, "make a folder for the copy", tempfile.gettempdir()) from error
    try:
        for _ in range(TRIES):
            copy = _copied(path, folder, max_bytes, end)
            if copy is not None:
                return copy
        raise BusyError(errno.EBUSY, "somebody wrote to it while it was copied; have them close it first", path)
    except BaseException:
        _remove(folder)
        raise


def _remove(folder: str) -> None:
    with contextlib.suppress(OSError):
        remove_folder(folder)


def remove_copy(folder: str, process: int) -> None:
    """Remove a copy that this process has made; one that it has inherited is its parent's."""
    if os.getpid() == process:
        _remove(folder)


def _copied(path: str, folder: str, max_bytes: int | None, end: float) -> Copy | None:
    """The copy; None if the files have changed meanwhile."""
    sources: list[_Source] = []
    try:
        recent = os.path.basename(recent_folder(path))
        _add(sources, path, DATA, DATA)
        if not sources:
            raise OpenError(errno.ENOENT, "there is no dictionary", path)
        _add(sources, os.path.join(path, recent), DATA, os.path.join(recent, DATA))
        size = sum(source.status.st_size for source in sources)
        if max_bytes is not None and size > max_bytes:
            raise TooLargeError(f"{path} takes {size:,} bytes, and no more than {max_bytes:,} were allowed")
        if size > free_space(folder):
            raise DiskFullError(errno.ENOSPC, f"a copy takes {size:,} bytes, and the disk has not so many left", folder)
        for source in reversed(sources):  # what leaves the recent writes meanwhile is in the data already
            _pump(source, os.path.join(folder, source.name), end)
        if any(_moments(os.fstat(source.fd)) != _moments(source.status) for source in sources):
            return None
        status = sources[0].status
        return Copy(folder, (status.st_dev, status.st_ino), size)
    finally:
        for source in sources:
            os.close(source.fd)


def _moments(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _add(sources: list[_Source], folder: str, file: str, name: str) -> None:
    """Open a file of a folder, if it is there."""
    path = os.path.join(folder, file)
    try:
        if sources:  # below the folder that was asked for, where links are somebody else's
            _refuse_unless(stat.S_ISDIR(os.lstat(folder).st_mode), folder)
        fd = _open_plain(folder, file, path, follow=not sources)
    except FileNotFoundError:
        return
    except OSError as error:
        if isinstance(error, UnsafePathError):
            raise
        raise refused(error, "read the store", path) from error
    sources.append(_Source(path, name, fd, os.fstat(fd)))


def _open_plain(folder: str, file: str, path: str, follow: bool) -> int:
    """A descriptor of a regular file. Raises UnsafePathError for anything else, OSError."""
    if not _BY_FOLDER:
        _refuse_unless(stat.S_ISREG(os.lstat(path).st_mode), path)
        fd = os.open(path, _FLAGS)
    else:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
        place = os.open(folder, flags)
        try:
            _refuse_unless(stat.S_ISREG(os.stat(file, dir_fd=place, follow_symlinks=False).st_mode), path)
            fd = _open_quietly(file, place)
        finally:
            os.close(place)
    try:
        _refuse_unless(stat.S_ISREG(os.fstat(fd).st_mode), path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_quietly(file: str, place: int) -> int:
    """Open a file, and leave its time of access as it is where that is allowed."""
    if sys.platform.startswith("linux"):
        try:
            return os.open(file, _FLAGS | os.O_NOATIME, dir_fd=place)
        except PermissionError:  # it is somebody else's
            pass
    return os.open(file, _FLAGS, dir_fd=place)


def _refuse_unless(plain: bool, path: str) -> None:
    if not plain:
        raise UnsafePathError(errno.EPERM, "is a link or no plain file; refusing to read it", path)


def _pump(source: _Source, path: str, end: float) -> None:
    """Copy as many bytes as the file had when it was opened."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags, 0o600), "wb") as target:
            left = source.status.st_size
            os.lseek(source.fd, 0, os.SEEK_SET)
            while left > 0 and (chunk := os.read(source.fd, min(left, CHUNK))):
                if time.monotonic() > end:
                    raise OpenError(
                        errno.ETIMEDOUT, "it could not be copied in time; give a longer timeout", source.path
                    )
                left -= len(chunk)
                if chunk == _HOLE:
                    target.seek(len(chunk), os.SEEK_CUR)
                else:
                    target.write(chunk)
            target.truncate()
    except OSError as error:
        if isinstance(error, OpenError):
            raise
        raise refused(error, "copy the store", source.path) from error
