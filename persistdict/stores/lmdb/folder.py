"""The folder of a store: who may use it, and how a new database appears in it.

Files: data.mdb and lock.mdb (LMDB's), gate.lock (see gate.py), flags.map (see company.py), recent-* (see recent.py),
.persistdict-new-* (a database, or a compacted copy, that is being made).

A new database is made in a folder of its own, synced, and renamed into place, under the gate. So whatever kills the
maker, data.mdb either does not exist or is whole; what a dead maker left behind is removed by the next one.

Safety of the files: the folder must belong to the user (its creator sees to mode 0700) and not be writable by
everybody, because LMDB follows links: whoever can plant one there chooses which file gets overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable

from persistdict.errors import NotAStoreError, OpenError, UnsafePathError, refused

__all__ = [
    "DATA",
    "FLAGS",
    "GATE",
    "LOCK",
    "NEW",
    "check_files",
    "create_data",
    "identity",
    "make_parents",
    "open_own",
    "prepare",
    "remove_leftovers",
    "sync_folder",
]

DATA, LOCK, GATE, FLAGS = "data.mdb", "lock.mdb", "gate.lock", "flags.map"
NEW = ".persistdict-new-"
_SMALLEST = 8192  # two meta pages


def prepare(path: str) -> str:
    """Make the folder if it is missing (mode 0700) and check it. Returns its real path, links resolved.

    Raises:
        UnsafePathError: if the folder or a file in it is somebody else's, a link, or writable by everybody.
        OpenError: if the path is a file, or cannot be made.
    """
    folder = os.path.realpath(path)
    try:
        make_parents(os.path.dirname(folder))
        os.mkdir(folder, 0o700)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise OpenError(errno.ENOTDIR, "a dictionary needs a folder, and this is something else", path) from None
    except OSError as error:
        raise refused(error, "make the folder", path) from error
    status = os.stat(folder)
    _check_owner(status, folder)
    if status.st_mode & stat.S_IWOTH:
        raise UnsafePathError(errno.EPERM, "the folder is writable by everybody; choose another or chmod o-w", folder)
    check_files(folder)
    return folder


def make_parents(folder: str) -> None:
    """Make a folder and those above it, durably."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for new in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(new)
        sync_folder(os.path.dirname(new))


def check_files(folder: str) -> None:
    """Refuse a database whose files are somebody else's, or links. Raises UnsafePathError."""
    for name in (DATA, LOCK, GATE, FLAGS):
        _check_file(os.path.join(folder, name))


def _check_owner(status: os.stat_result, path: str) -> None:
    geteuid = getattr(os, "geteuid", None)
    if geteuid is not None and status.st_uid != geteuid():
        raise UnsafePathError(
            errno.EPERM, f"belongs to the user {status.st_uid}, not to you; use a folder of your own or chown it", path
        )


def _check_file(path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(errno.EPERM, "is a link or no plain file; refusing to use it", path)
    _check_owner(status, path)
    if status.st_nlink != 1:
        raise UnsafePathError(errno.EPERM, "has several names (hard links); refusing to use it", path)


def open_own(path: str, what: str) -> int:
    """Open a file for reading and writing, made if need be (mode 0600); a descriptor. `what`: for the error.

    Raises UnsafePathError for a link, whoever made it since the files were checked.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePathError(errno.ELOOP, "is a link; refusing to follow it", path) from None
        raise refused(error, f"open the store's {what}", path) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise UnsafePathError(errno.EPERM, "is not a plain file with one name", path)
    return fd


def identity(folder: str) -> tuple[int, int] | None:
    """What tells one database from another, however its path is spelled. None while there is none.

    Raises NotAStoreError for a data file that is too short to be one: LMDB would take it for a new database.
    """
    path = os.path.join(folder, DATA)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if status.st_size < _SMALLEST:
        raise NotAStoreError(f"{path} is too short to be a database ({status.st_size} bytes); nothing was changed")
    return status.st_dev, status.st_ino


def remove_leftovers(folder: str) -> None:
    """Remove what makers of a database left behind that died. Needs the gate: whoever holds it is the only maker."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(NEW) and entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)


def create_data(folder: str, make: Callable[[str], None]) -> None:
    """Let `make` build a database in a new folder and move its data file into place. Needs the gate.

    Durable: when it returns, the name is on the disk too.
    """
    new = tempfile.mkdtemp(prefix=NEW, dir=folder)
    try:
        make(new)
        os.rename(os.path.join(new, DATA), os.path.join(folder, DATA))
        sync_folder(folder)
        sync_folder(os.path.dirname(folder))
    finally:
        shutil.rmtree(new)


def sync_folder(folder: str) -> None:
    """Sync the names in a folder, where the system can."""
    if os.name != "posix":
        return
    try:
        fd = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a parent that we may pass through but not read; its names are its owner's business
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
