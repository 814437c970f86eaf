"""The folder of a store: how a new database appears in it, and with which permissions files are made.

Files: data.mdb and lock.mdb (LMDB's), gate.lock (see gate.py), flags.map (see company.py), recent-* (see recent.py),
.persistdict-new-* (a database, or a compacted copy, that is being made).

A new database is made in a folder of its own, synced, and renamed into place, under the gate. So whatever kills the
maker, data.mdb either does not exist or is whole; what a dead maker left behind is removed by the next one.

Every file is made here, never by LMDB, which would leave the mode to the umask. The permissions are given as those of
the folder, 0o700 or more; a file has them without the rights to execute. Once there is a data.mdb, its mode says what
the files of the store are made with, so whoever makes one need not be told. Who may share a store, and what is refused,
is in ownership.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from persistdict.errors import MismatchError, NotAStoreError, OpenError, UnsafePathError, refused
from persistdict.stores.lmdb.ownership import PRIVATE, check_file, check_folder, resolve

__all__ = [
    "DATA",
    "FLAGS",
    "GATE",
    "LATEST",
    "LOCK",
    "NEW",
    "PRIVATE",
    "check_files",
    "create_data",
    "identity",
    "make_file",
    "make_folder",
    "make_parents",
    "new_folder",
    "open_own",
    "permissions_of",
    "prepare",
    "remove_folder",
    "remove_leftovers",
    "resolve",
    "sync_folder",
]

DATA, LOCK, GATE, FLAGS, LATEST = "data.mdb", "lock.mdb", "gate.lock", "flags.map", "latest.map"
NEW = ".persistdict-new-"
_SMALLEST = 8192  # two meta pages
GROUP = 0o070


def prepare(path: str, permissions: int = PRIVATE) -> str:
    """Make the folder if it is missing, with these permissions, and check it. Returns its real path, links resolved.

    Raises:
        UnsafePathError: if the folder or a file in it is somebody else's, a link, or writable by others.
        MismatchError: if the store was made with fewer permissions.
        OpenError: if the path is a file, or cannot be made.
    """
    folder = resolve(path)
    try:
        make_parents(os.path.dirname(folder))
        make_folder(folder, permissions)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise OpenError(errno.ENOTDIR, "a dictionary needs a folder, and this is something else", path) from None
    except OSError as error:
        raise refused(error, "make the folder", path) from error
    check_folder(folder, permissions)
    check_files(folder)
    _agree(folder, permissions)
    return folder


def _agree(folder: str, permissions: int) -> None:
    """Give the folder of a new store what was asked for; refuse a store that was made with less."""
    if os.name != "posix":
        return
    mode = os.stat(folder).st_mode
    lacking = permissions & ~mode
    try:
        have = os.lstat(os.path.join(folder, DATA)).st_mode
    except FileNotFoundError:
        if lacking and permissions != PRIVATE:
            try:
                _permit_folder(folder, mode | permissions)
            except OSError as error:
                raise refused(error, f"give the folder the mode {permissions:#o}", folder) from error
        return
    if permissions != PRIVATE and (lacking or permissions & 0o666 & ~have):
        rights = ",".join(
            f"{who}=" + "".join(letter for letter, bit in zip("rwX", (4, 2, 1), strict=True) if permissions >> at & bit)
            for who, at in (("u", 6), ("g", 3), ("o", 0))
        )
        raise MismatchError(
            f"{folder} was made with fewer permissions than {permissions:#o}; its owner can change that: "
            f"chmod -R {rights} {folder}"
        )


def make_parents(folder: str) -> None:
    """Make a folder and those above it, durably. They are the user's: their modes are left to the umask."""
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
    status = os.stat(folder)
    for name in (DATA, LOCK, GATE, FLAGS, LATEST):
        check_file(os.path.join(folder, name), status)


# Making files and folders, and removing them


def permissions_of(folder: str) -> int:
    """With what the files of a store are made: what data.mdb has or, before there is one, the gate."""
    for name in (DATA, GATE):
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode) & 0o664
            return PRIVATE | mode | (mode & 0o444) >> 2  # whoever may read a file may enter its folder
    return PRIVATE


def make_folder(path: str, permissions: int) -> None:
    """Make a folder with exactly these permissions, whatever the umask. Raises FileExistsError.

    If a group may use it, that is the group of the folder in which it lies, if this is one of ours.
    """
    os.mkdir(path, PRIVATE)
    if os.name == "posix":
        mode = os.lstat(path).st_mode
        if mode & PRIVATE != PRIVATE:  # taken by the umask; and what cannot be read cannot be opened
            os.chmod(path, PRIVATE)
        if permissions != PRIVATE:
            _permit_folder(path, permissions | mode & stat.S_ISGID, os.stat(os.path.dirname(path)).st_gid)


def _permit_folder(path: str, mode: int, group: int = -1) -> None:
    """Give a folder this mode, and group. It is opened first, so that no link in its place is followed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if group >= 0:
            _give(fd, group)
        os.fchmod(fd, stat.S_IMODE(mode))
    finally:
        os.close(fd)


def _give(fd: int, group: int) -> None:
    with contextlib.suppress(PermissionError):  # it is none of ours: then nobody else of it is let in
        os.fchown(fd, -1, group)


def make_file(path: str, permissions: int) -> int:
    """Make a file, which must not be there, with these permissions and the group of its folder; a descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o600)
    try:
        _permit(fd, path, permissions)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _permit(fd: int, path: str, permissions: int) -> None:
    """Give a file of ours these permissions, whatever the umask has taken."""
    if os.name != "posix":
        return
    status, wanted = os.fstat(fd), permissions & 0o666
    group = os.stat(os.path.dirname(path)).st_gid
    if wanted & GROUP and status.st_gid != group:
        _give(fd, group)
    if stat.S_IMODE(status.st_mode) != wanted:
        os.fchmod(fd, wanted)


def new_folder(folder: str) -> str:
    """Make a folder within that of a store, in which something is made. `remove_leftovers` knows it by its name."""
    path = os.path.join(folder, NEW + os.urandom(8).hex())
    make_folder(path, permissions_of(folder))
    return path


def remove_folder(path: str) -> None:
    """Remove a folder that was made here, with all that is in it. What is gone already is as good; no link is followed.

    Not shutil.rmtree: interrupted by Ctrl-C in the wrong moment, that closes a descriptor a second time, which may be
    another file's by then.
    """
    with contextlib.suppress(FileNotFoundError):
        if _BY_FOLDER:
            _empty(path, None)
        else:
            for entry in list(os.scandir(path)):
                remove_folder(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
        os.rmdir(path)


_BY_FOLDER = {os.open, os.stat, os.unlink, os.rmdir} <= os.supports_dir_fd and os.listdir in os.supports_fd


def _empty(name: str, place: int | None) -> None:
    """Remove what is in a folder, known by its descriptor, so that nobody can put a link in its place meanwhile."""
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    try:
        for inner in os.listdir(fd):
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(inner, dir_fd=fd, follow_symlinks=False).st_mode):
                    _empty(inner, fd)
                    os.rmdir(inner, dir_fd=fd)
                else:
                    os.unlink(inner, dir_fd=fd)
    finally:
        os.close(fd)


def open_own(path: str, what: str, permissions: int = PRIVATE) -> int:
    """Open a file of a store for reading and writing, made if need be; a descriptor. `what`: for the error.

    Raises UnsafePathError for a link, whoever made it since the files were checked.
    """
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    permissions |= permissions_of(os.path.dirname(path))
    try:
        try:
            fd = make_file(path, permissions)
        except FileExistsError:
            fd = os.open(path, flags)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePathError(errno.ELOOP, "is a link; refusing to follow it", path) from None
        raise refused(error, f"open the store's {what}", path) from error
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        raise UnsafePathError(errno.EPERM, "is not a plain file with one name", path)
    if permissions & 0o666 & ~status.st_mode:  # who made it died before it had them; or it is somebody else's
        with contextlib.suppress(PermissionError):
            _permit(fd, path, permissions)
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
            remove_folder(entry.path)


def create_data(folder: str, make: Callable[[str], None]) -> None:
    """Let `make` build a database in a new folder and move its data file into place. Needs the gate.

    Durable: when it returns, the name is on the disk too.
    """
    new = new_folder(folder)
    try:
        os.close(make_file(os.path.join(new, DATA), permissions_of(folder)))  # LMDB takes an empty file for a new one
        make(new)
        os.rename(os.path.join(new, DATA), os.path.join(folder, DATA))
        sync_folder(folder)
        sync_folder(os.path.dirname(folder))
    finally:
        remove_folder(new)


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
