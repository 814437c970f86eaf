"""Opening LMDB's files: how large a map, one environment for all in a process, and what a fork leaves behind.

lmdb-dict keeps a registry of open environments by the spelling of their paths. It is shared: our environments are found
by its mappings and its environments by us, because LMDB must not open the same files twice in a process.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import time
import weakref
from typing import Any

import lmdb

from persistdict.errors import NotAStoreError
from persistdict.stores.lmdb.folder import DATA, LOCK, identity, make_file, permissions_of
from persistdict.stores.lmdb.limits import fits

__all__ = [
    "find_or_open",
    "forget_inherited",
    "is_open",
    "let_go",
    "open_alone",
    "open_raw",
    "open_readable",
    "share",
    "unshare",
]

MAX_DBS = 32
MAX_READERS = 1024
LARGEST_MAP = 1 << 36  # address space only, which 2000 open dictionaries share; it doubles when it is full
SMALLEST_MAP = 1 << 26
SHARE = 4  # where the address space is limited, a map takes a fourth of it at first
LOCK_SIZE = 68 << 10  # bytes of lock.mdb: room for MAX_READERS and a little more

Identity = tuple[int, int]
_ours: dict[Identity, lmdb.Environment] = {}
_installed: Any = None  # our registry, in the place of lmdb-dict's
_known: weakref.WeakValueDictionary[Identity, lmdb.Environment] = weakref.WeakValueDictionary()  # by what was opened
_opening = threading.local()  # `here`: whether this thread is opening files by way of this module
_marked: set[Any] = set()  # py-lmdb's marks of the files that were opened here, in this process or one before the fork
_inherited: frozenset[Any] = frozenset()  # those of the processes before the fork


def open_raw(folder: str, map_size: int | None = None, **options: Any) -> lmdb.Environment:
    """Open an environment with the map size given (0: the file's), or the largest that the address space allows."""
    large = LARGEST_MAP if sys.maxsize > 1 << 32 and os.name == "posix" else SMALLEST_MAP
    size = large if map_size is None else map_size
    while size > SMALLEST_MAP and not fits(size * SHARE):
        size = max(size >> 2, SMALLEST_MAP)
    while True:
        try:
            return _open_once(folder, size, options)
        except lmdb.MemoryError:
            if size <= SMALLEST_MAP:
                raise
            size = max(size >> 2, SMALLEST_MAP)


def _open_once(folder: str, size: int, special: dict[str, Any]) -> lmdb.Environment:
    options: dict[str, Any] = {
        "map_size": size,
        "mode": permissions_of(folder),  # no file is left for LMDB to make; on some systems it has semaphores too
        "max_dbs": MAX_DBS,
        "max_readers": MAX_READERS,
        "max_spare_txns": 1,
        "lib_version": 0,  # LMDB 0.9: the proven engine and file format
        **special,
    }
    _reserve(os.path.join(folder, LOCK))
    return _open_marked(folder, options)


def _open_marked(folder: str, options: dict[str, Any]) -> lmdb.Environment:
    """Open an environment, even if a process before the fork has it open.

    LMDB opens data.mdb without close-on-exec. That does no harm where a program is started by `subprocess`, which
    closes what is open; after os.exec the program would have the file.
    """
    _install_marks()
    _opening.here = True
    try:
        return lmdb.open(os.fsencode(folder), **options)
    finally:
        _opening.here = False


def _reserve(path: str) -> None:
    """Make a lock file, and give it its blocks on the disk: a mapped file with holes kills who touches one while the
    disk is full.

    Does nothing where it has them: to open and close the file drops the locks that an environment of this process,
    which somebody is letting go of just now, may still have on it. Raises OSError where there is no space.
    """
    if os.name != "posix":
        return
    room = hasattr(os, "posix_fallocate")
    try:
        status = os.lstat(path)
        if not room or status.st_blocks * 512 >= status.st_size > 0:
            return
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = make_file(path, permissions_of(os.path.dirname(path)))
    try:
        if room:
            os.posix_fallocate(fd, 0, os.fstat(fd).st_size or LOCK_SIZE)
    finally:
        os.close(fd)


def open_alone(folder: str, room: int) -> lmdb.Environment:
    """Open an environment of which nobody else knows, without a lock file, that may grow by `room` bytes."""
    size = os.path.getsize(os.path.join(folder, DATA)) + room
    return lmdb.open(os.fsencode(folder), map_size=size, max_dbs=MAX_DBS, lib_version=0, lock=False, create=False)


def open_readable(folder: str) -> lmdb.Environment:
    """Open an environment on a medium that cannot be written to, so without a lock file."""
    options = {"map_size": SMALLEST_MAP, "max_dbs": MAX_DBS, "lib_version": 0, "lock": False, "create": False}
    return _open_marked(folder, {"readonly": True, **options})


# py-lmdb refuses to open files twice in a process, by marks that a forked child inherits. An inherited environment is
# never let go of (see `forget_inherited`), nor is its mark; so in the child the marks that were there before the fork
# count for nothing. Its own do: files that are opened while an older environment is being closed would lose their locks
# to it, and other processes would take the readers of this one for dead.


def _make_marks(folder: str) -> tuple[Any, ...]:
    from lmdb import _envid

    module: Any = _envid
    marks: tuple[Any, ...] = module.env_keys(folder, True)
    return marks


@functools.cache
def _install_marks() -> None:
    from lmdb import _envid

    module: Any = _envid
    make_marks = module.env_keys

    def make_own_marks(path: Any, subdir: Any) -> tuple[Any, ...]:
        marks = make_marks(path, subdir)
        if getattr(_opening, "here", False):
            _marked.update(marks)
        return tuple((os.getpid(), *mark) if mark in _inherited else mark for mark in marks)

    module.env_keys = make_own_marks


# Sharing with lmdb-dict


class _ByIdentity(weakref.WeakValueDictionary[str, lmdb.Environment]):
    """lmdb-dict's registry, which first asks where a path leads to now.

    So a mapping finds our environment by a relative path or a link, and never by a spelling that has come to mean
    another folder.
    """

    def __getitem__(self, path: str) -> lmdb.Environment:
        with contextlib.suppress(NotAStoreError, OSError):  # then lmdb.open says what is wrong with it
            raw = _ours.get(identity(path) or (0, 0))
            if raw is not None:
                return raw
        return super().__getitem__(path)


def _registry() -> Any:
    """lmdb-dict's registry. Imported at the first opening, for it is slow to import."""
    global _installed
    if _installed is None:
        from lmdb_dict.mapping.abc import LmdbDict

        _installed = LmdbDict._environs_ = _ByIdentity(LmdbDict._environs_)
    return _installed


def share(folder: str, raw: lmdb.Environment) -> None:
    """Let lmdb-dict's mappings use our environment; and find it again if one of them outlives our handles."""
    _registry()[folder] = raw
    _marked.update(_make_marks(folder))
    key = identity(folder)
    if key is not None:
        _ours[key] = _known[key] = raw


def unshare(raw: Any) -> None:
    """Offer the environment no longer."""
    for key in [key for key, known in _ours.items() if known is raw]:
        del _ours[key]


def find_or_open(folder: str, map_size: int | None, **options: Any) -> lmdb.Environment:
    """The environment, which another thread may be letting go of just now: then it is neither there nor gone."""
    patience = 200
    while True:
        raw = find_shared(folder)
        if raw is not None:
            return raw
        try:
            return open_raw(folder, map_size, **options)
        except lmdb.Error as error:
            if "already open" not in str(error) or not patience:
                raise
        patience -= 1
        time.sleep(0.001)


def find_shared(folder: str) -> lmdb.Environment | None:
    """The environment of this folder that an lmdb-dict mapping has open, if any."""
    key = identity(folder)
    known = _known.get(key) if key is not None else None
    if known is not None and is_open(known):
        return known
    ours = _living(_known)
    for raw in _living(_registry()):
        if any(raw is one for one in ours):
            continue  # its path may lead to other files by now
        with contextlib.suppress(
            lmdb.Error, NotAStoreError, OSError, UnicodeError
        ):  # closed, or its folder is gone: not this one
            if key is not None and identity(raw.path()) == key:
                return raw
    return None


def let_go(raw: lmdb.Environment) -> None:
    """Close an environment that could not be taken into use, unless others know of it.

    Else whoever holds the error holds it open, by the traceback, and the same files cannot be opened again.
    """
    if not any(raw is known for known in (*_living(_known), *_living(_registry()))):
        raw.close()


def is_open(raw: lmdb.Environment) -> bool:
    """Whether an environment is not closed: py-lmdb closes one whose map cannot be made larger."""
    try:
        raw.info()
    except lmdb.Error:
        return False
    return True


def _living(environments: weakref.WeakValueDictionary[Any, lmdb.Environment]) -> list[lmdb.Environment]:
    """The environments of a registry that other threads change meanwhile: iterating over it could fail."""
    return [raw for raw in (reference() for reference in environments.valuerefs()) if raw is not None]


def forget_inherited() -> None:
    """In a forked child: the parent's environments must not be used here, only the files opened anew.

    Nor may they be freed, not even at the end of the process: their spare transactions would give up slots in the
    table of readers, which are the parent's. So each gets a reference that nobody will ever drop.
    """
    global _inherited
    _inherited = frozenset(_marked)
    for raw in {id(raw): raw for raw in (*_ours.values(), *_living(_known))}.values():
        _keep_for_ever(raw)
    _ours.clear()
    _known.clear()
    if _installed is not None:
        _installed.clear()


def _keep_for_ever(thing: Any) -> None:
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
