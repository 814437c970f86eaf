"""One LMDB environment per folder and process, shared by all handles on it.

Guarantees:
- The same files are opened once in a process, by whatever path, and the environment is shared with lmdb-dict's
  mappings (through lmdb-dict's own registry) in both directions.
- A write transaction runs under the thread lock, then the gate, then LMDB's lock; always in this order.
- The map grows, and adopts the growth of other processes, without the caller noticing.
- A forked child never touches the inherited environment: it gets new locks at once, and opens the files for itself at
  the first use.

Assumptions of LMDB (py-lmdb 3): transactions may be freed by reference counting; an environment that nobody
refers to any more closes itself; in a forked child, inherited objects are forgotten without touching the files.
`Environment.close()` is therefore never called on a live one: an lmdb-dict mapping may still use it, and in a child it
would free the parent's reader slots.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import lmdb

from persistdict.errors import (
    ClosedError,
    DiskFullError,
    NestedWriteError,
    NotAStoreError,
    OpenError,
    PersistDictError,
    StoreError,
)
from persistdict.stores.lmdb import folder as files
from persistdict.stores.lmdb import layout
from persistdict.stores.lmdb.gate import Gate
from persistdict.stores.lmdb.opening import find_or_open, forget_inherited, open_raw, share, unshare

__all__ = ["CLOSED", "Environment", "open_environment"]

T = TypeVar("T")

RETRIES = 30  # the map doubles at each; more would not fit into 64 bits


class _NotOpen(lmdb.Error):
    """Raised in place of a transaction where the environment must be opened first (after a fork)."""


class Environment:
    """The environment of one folder. Made by `open_environment` only.

    Attributes:
        begin: LMDB's own `begin` while open; else something that raises.
        dbs: the named databases.
        lock: guards writing and opening; behind it the gate.
        base: added to transaction ids to make sequence numbers.
        touched: reads that were noted by any handle of this process, see `Store.flush_touched`.
        followers: called after every (re)opening, so that stores bind what they use often.
    """

    def __init__(self, folder: str, map_size: int | None) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.writing = False  # guarded by lock
        self.users = 0  # guarded by the registry's lock
        self.base = 0
        self.dbs: dict[str, Any] = {}
        self.touched: dict[bytes, float | None] = {}
        self.followers: weakref.WeakSet[Any] = weakref.WeakSet()
        self.reopened: list[Callable[[], None]] = []  # upkeep hooks in here, to start its thread again
        self.begin: Callable[..., Any] = _raise_not_open
        self._raw: lmdb.Environment | None = None
        self._map_size = map_size
        self._gate = Gate(os.path.join(folder, files.GATE))
        try:
            self._open()
        except BaseException:
            self._gate.close()
            raise

    # Opening

    def _open(self) -> None:
        gate = self._gate
        with self.lock:
            try:
                gate.hold_patiently()
                files.remove_leftovers(self.folder)
                if files.identity(self.folder) is None:
                    files.create_data(self.folder, self._create)
                self._bind(find_or_open(self.folder, self._map_size))
            except lmdb.Error as error:
                raise self._translated(error, opening=True) from error
            except OSError as error:
                if isinstance(error, PersistDictError):
                    raise
                raise OpenError(error.errno, f"cannot open the store: {error.strerror}", self.folder) from error
            finally:
                gate.free()

    def tidy(self) -> None:
        """Take back the slots of readers that died; they would keep old pages from being used again."""
        raw = self._raw
        if raw is not None:
            raw.reader_check()

    def _create(self, folder: str) -> None:
        """Build a new, empty database; it is moved into place when this returns."""
        raw = open_raw(folder, self._map_size)
        try:
            layout.initialise(raw)
        finally:
            raw.close()  # nobody else can know of it

    def _bind(self, raw: lmdb.Environment) -> None:
        """Check that the environment is a store of ours, and take it into use."""
        if not raw.flags()["sync"]:
            raise NotAStoreError(f"{self.folder} is open in this process without sync; writes would not be durable")
        self.dbs, self.base = layout.adopt(raw, self.folder)
        raw.reader_check()
        share(self.folder, raw)
        self._raw, self.begin = raw, raw.begin
        self._rebind()

    def _rebind(self) -> None:
        for follower in list(self.followers):
            follower.bind()

    def follow(self, follower: Any) -> None:
        """Have `follower.bind()` called after every (re)opening, as long as the follower lives."""
        with self.lock:
            self.followers.add(follower)

    def unfollow(self, follower: Any) -> None:
        """Call it no more."""
        with self.lock:
            self.followers.discard(follower)

    # Transactions

    def update(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(txn, *args)` in one write transaction, durable when this returns.

        `work` is run again if the map had to grow.
        """
        gate = self._gate
        attempt = 0
        while True:
            try:
                with self.lock:
                    if self.writing:
                        raise NestedWriteError(
                            "a write was begun within another write of the same thread (a finaliser or a signal "
                            "handler that writes?)"
                        )
                    if self._raw is None:
                        self.begin()  # raises; and the gate of a closed environment must not be touched
                    try:
                        self.writing = True
                        gate.hold()
                        with self.begin(write=True) as txn:
                            return work(txn, *args)
                    finally:
                        self.writing = False  # first: a signal may be raised when the next call returns
                        gate.free()
            except lmdb.Error as error:
                attempt += 1
                self._recover(error, attempt)
            except OSError as error:
                # The kernel sees processes, not threads, and may take two gates for a circle where none is.
                if error.errno != errno.EDEADLK:
                    raise
                time.sleep(0.001)

    def attempt(self, work: Callable[..., T], *args: Any) -> T:
        """Run a read; repeat it after what is no fault of the reader."""
        attempt = 0
        while True:
            try:
                return work(*args)
            except lmdb.Error as error:
                attempt += 1
                self._recover(error, attempt)

    def _recover(self, error: lmdb.Error, attempt: int) -> None:
        """Do what makes a repetition worth while, or raise the error as one of ours."""
        if isinstance(error, _NotOpen):
            self._reopen()
        elif attempt > RETRIES:
            raise self._translated(error) from error
        elif isinstance(error, lmdb.MapFullError):
            self._resize(grow=True)
        elif isinstance(error, lmdb.MapResizedError):
            self._resize(grow=False)
        elif isinstance(error, lmdb.ReadersFullError):
            if self._raw is not None:
                self._raw.reader_check()
            time.sleep(0.001 * attempt)
        elif _was_remapped(error):
            with self.lock:  # held by the thread that changes the size of the map, until there is a map again
                pass
        else:
            raise self._translated(error) from error

    def _resize(self, *, grow: bool) -> None:
        """Adopt the size of the map that others chose; if that is not more than ours, double it."""
        with self.lock:
            raw = self._raw
            if raw is None:
                return
            try:
                self._gate.hold_patiently()
                before = raw.info()["map_size"]
                raw.set_mapsize(0)
                if grow and raw.info()["map_size"] <= before:
                    raw.set_mapsize(before * 2)
            except lmdb.Error as error:
                self._reopen_if_closed(raw)
                raise self._translated(error) from error
            finally:
                self._gate.free()

    def _reopen_if_closed(self, raw: lmdb.Environment) -> None:
        """Where there is no room for a larger map, py-lmdb closes the environment; the next use opens it again."""
        try:
            raw.info()
        except lmdb.Error:
            self._forget(_raise_not_open)

    def _translated(self, error: lmdb.Error, *, opening: bool = False) -> Exception:
        code = getattr(error, "code", 0) or 0
        if code in (errno.ENOSPC, errno.EDQUOT):
            return DiskFullError(code, "no space is left on the disk; nothing was changed by this write", self.folder)
        if isinstance(error, (lmdb.InvalidError, lmdb.VersionMismatchError)):
            return NotAStoreError(f"{self.folder} holds a file that is not a database of this kind: {error}")
        if opening:
            return OpenError(code or errno.EIO, f"cannot open the store: {error}", self.folder)
        return StoreError(code or errno.EIO, f"the store failed: {error}", self.folder)

    # The end, and fork

    def release(self) -> None:
        """One handle less; the last one lets go of the environment."""
        with _registry_lock:
            self.users -= 1
            if self.users:
                return
            for key in [key for key, environment in _registry.items() if environment is self]:
                del _registry[key]
            with self.lock:
                self._forget(_raise_closed)
                self._gate.close()

    def _forget(self, begin: Callable[..., Any]) -> None:
        unshare(self._raw)
        self.begin, self.dbs, self._raw = begin, {}, None
        self._rebind()

    def _reopen(self) -> None:
        """Open the files for this process, after a fork."""
        with _registry_lock, self.lock:
            if self._raw is None:
                self._open()
        for restart in self.reopened:
            restart()

    def after_fork(self) -> None:
        """In the child: new locks; forget the parent's environment without closing it."""
        self.lock = threading.RLock()
        self.writing = False
        self._forget(_raise_not_open)


_registry: dict[tuple[int, int], Environment] = {}  # by device and inode of the data file
_registry_lock = threading.RLock()


class _Closed:
    """What a closed handle has in place of its environment."""

    base = 0
    dbs: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def begin(self, *_: Any, **__: Any) -> Any:
        _raise_closed()

    update = attempt = tidy = begin


CLOSED: Any = _Closed()


def open_environment(path: str, map_size: int | None = None) -> Environment:
    """The environment of a folder, opened or made if need be. Every call needs a `release`.

    Raises UnsafePathError, NotAStoreError or OpenError.
    """
    folder = files.prepare(path)
    with _registry_lock:
        key = files.identity(folder)
        environment = _registry.get(key) if key else None
        if environment is None:
            environment = Environment(folder, map_size)
            key = files.identity(folder)
            if key is None:
                raise OpenError(errno.ENOENT, "the store was removed while it was opened", folder)
            _registry[key] = environment
        environment.users += 1
        return environment


def _was_remapped(error: lmdb.Error) -> bool:
    """Whether a transaction failed because another thread changed, or is changing, the size of the map."""
    code = getattr(error, "code", 0)
    return isinstance(error, lmdb.BadTxnError) or code == errno.EINVAL or "closed/deleted/dropped" in str(error)


def _raise_not_open(*_: Any, **__: Any) -> Any:
    raise _NotOpen("the environment must be opened in this process first")


def _raise_closed(*_: Any, **__: Any) -> Any:
    raise ClosedError("this dictionary was closed; open it again with PersistDict(path)")


def _after_fork_in_child() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    forget_inherited()
    for environment in _registry.values():
        environment.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
