"""Whose files may be used: what protects a store, and the caller's other files, from other users of the machine.

LMDB opens files by name and follows links. Whoever can put a link into the folder of a store chooses which file of the
opener LMDB writes to, and between a look at the folder and LMDB's opening of it there is a moment that no check covers.
So it is decided by who can write to the folder at all:

- It belongs to the caller, and nobody else can write to it. Then what was checked stays as it was.
- A group can, and the caller says that this is meant (permissions=0o770 or more). Then its members may own files of the
  store too, if these belong to the group of the folder. They are trusted: with the content, and not to play tricks with
  links in that moment.
- A group can, and nobody said so: accepted only for the user's private group, in which there is nobody else. Where such
  groups are the custom, the umask is 002 and every folder that a user makes looks like this.
- Everybody can: refused, sticky or not.

A link on the way to the folder is followed if it belongs to the caller, to root, or to the owner of the folder in which
it lies. So one that a stranger has put into /tmp is refused, though the system may be set up to follow it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from persistdict.errors import OpenError, UnsafePathError, refused

__all__ = ["PRIVATE", "check_file", "check_folder", "check_owner", "resolve"]

PRIVATE = 0o700  # the permissions of a folder that is the user's alone
LINKS = 40  # on the way to a folder, as Linux has it


def resolve(path: str) -> str:
    """The real path of a folder, there or not. Raises UnsafePathError for a stranger's link, OpenError for a circle."""
    if sys.platform == "win32":
        return os.path.realpath(path)
    found, links = "/", 0
    parts = (path if path.startswith("/") else os.path.join(os.getcwd(), path)).split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            found = os.path.dirname(found)
        if part in ("", ".", ".."):
            continue
        place = os.path.join(found, part)
        try:
            target = _target(place, found)
        except OSError as error:
            if isinstance(error, UnsafePathError):
                raise
            raise refused(error, "follow the path", path) from error
        if target is None:
            found = place
            continue
        links += 1
        if links > LINKS:
            raise OpenError(errno.ELOOP, "the path leads in a circle of links", path)
        if target.startswith("/"):
            found = "/"
        parts += target.split("/")[::-1]
    return found


def _target(place: str, folder: str) -> str | None:
    """Where a link leads; None if it is none, or not there."""
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):  # it is made, or is refused when that is tried
        return None
    if not stat.S_ISLNK(status.st_mode):
        return None
    if status.st_uid not in (_user(), 0, os.stat(folder).st_uid):
        raise UnsafePathError(
            errno.EPERM, f"is a link that the user {status.st_uid} has put there; refusing to follow it", place
        )
    return os.readlink(place)


def check_folder(folder: str, permissions: int) -> None:
    """Refuse a folder in which somebody else could change files. Raises UnsafePathError."""
    if sys.platform == "win32":
        return
    status = os.stat(folder)
    mode = status.st_mode
    if mode & stat.S_IWOTH:
        raise UnsafePathError(errno.EPERM, "the folder is writable by everybody; choose another or chmod o-w", folder)
    shared = bool(mode & permissions & stat.S_IWGRP)
    if status.st_uid != _user() and not (shared and _is_member(status.st_gid)):
        text = f"belongs to the user {status.st_uid}, not to you; use a folder of your own or chown it"
        if mode & stat.S_IWGRP:
            text += ", or share it within its group, if that is one of yours: permissions=0o770"
        raise UnsafePathError(errno.EPERM, text, folder)
    if mode & stat.S_IWGRP and not shared and not _is_private_group(status.st_gid):
        raise UnsafePathError(
            errno.EPERM,
            f"the folder is writable by the group {status.st_gid}; chmod g-w it, or share it with that group: "
            "permissions=0o770",
            folder,
        )


def check_file(path: str, folder: os.stat_result) -> None:
    """Refuse a file of a store that is a link, or somebody else's who does not share the folder, or everybody's."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePathError(errno.EPERM, "is a link or no plain file; refusing to use it", path)
    check_owner(path, status, folder)
    if status.st_nlink != 1:
        raise UnsafePathError(errno.EPERM, "has several names (hard links); refusing to use it", path)
    if sys.platform != "win32" and status.st_mode & stat.S_IWOTH:
        raise UnsafePathError(errno.EPERM, "is writable by everybody; chmod o-w it", path)


def check_owner(path: str, status: os.stat_result, folder: os.stat_result) -> None:
    """Refuse what is somebody else's, unless a group shares the folder, which was checked, and this too."""
    if sys.platform == "win32" or status.st_uid == _user():
        return
    if not folder.st_mode & stat.S_IWGRP or status.st_gid != folder.st_gid:
        raise UnsafePathError(
            errno.EPERM, f"belongs to the user {status.st_uid}, not to you; use a folder of your own or chown it", path
        )


def _user() -> int:
    return os.geteuid() if sys.platform != "win32" else 0


def _is_member(group: int) -> bool:
    return sys.platform != "win32" and (group == os.getegid() or group in os.getgroups())


def _is_private_group(group: int) -> bool:
    """Whether a group is the user's alone: the user's first one, of the same name, in which nobody else is listed."""
    if sys.platform == "win32":
        return False
    import grp
    import pwd

    try:
        user, known = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    return user.pw_gid == group and known.gr_name == user.pw_name and set(known.gr_mem) <= {user.pw_name}
