"""One LMDB environment and what it takes to use it safely: locks, growth, errors as ours, fork.

A write transaction runs under the thread lock, then the gate's lock, then LMDB's own; always in this order. The map
grows, and adopts the growth of other processes, without the caller noticing.

Assumptions of LMDB (py-lmdb 3): transactions may be freed by reference counting; an environment that nobody refers to
any more closes itself; in a forked child, inherited objects are forgotten without touching the files. A live
environment is never closed: an lmdb-dict mapping may still use it, and in a child closing would free the parent's
reader slots.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, Protocol, TypeVar, runtime_checkable

import lmdb

from persistdict.errors import DiskFullError, NestedWriteError, PersistDictError, StoreError
from persistdict.store import NOT_TOLD
from persistdict.stores.lmdb.company import BUSY, COMPANY, never_alone
from persistdict.stores.lmdb.failures import translated
from persistdict.stores.lmdb.gate import Gate, Patience
from persistdict.stores.lmdb.limits import fits
from persistdict.stores.lmdb.opening import is_open, unshare

__all__ = ["RETRIES", "TIMEOUT", "Engine", "MapFull", "NotOpen", "raise_not_open"]

T = TypeVar("T")
Enlarge = Callable[[lmdb.Environment, int, bool], object]

TIMEOUT = 60.0  # seconds to wait for other processes, unless a caller is more or less patient
RETRIES = 30  # the map doubles at each; more would not fit into 64 bits


class NotOpen(lmdb.Error):
    """Raised in place of a transaction where the environment must be opened first (after a fork)."""


class MapFull(lmdb.Error):
    """The map of an engine is full."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("the map is full")
        self.engine = engine


@runtime_checkable
class Owner(Protocol):
    """What an engine belongs to."""

    folder: str

    def recover(self, error: lmdb.Error, attempt: int) -> None: ...
    def rebind(self) -> None: ...


def _set_mapsize(raw: lmdb.Environment, size: int, _urgent: bool) -> None:
    raw.set_mapsize(size)


class Engine:
    """An environment of LMDB in a process. Threads: any number.

    Args:
        gate, byte: the lock that stands around its writes.
        owner: whose `recover(error, attempt)` does what makes a repetition worth while, or raises; and whose `rebind()`
            is called when the environment is gone.
        enlarge: makes the map larger, with the locks held; its third argument says that a deletion needs it.

    Attributes:
        begin: begins a read: LMDB's own while open, or what reads damaged data; else something that raises.
        begin_write: begins a write; raises if the store is damaged.
        lock: guards writing and opening.
        evicting: held by the thread that evicts, before the gate's lock for that.
        writing: the thread whose write transaction is under way, or 0; changed under `lock`.
        flags: the two bytes by which an update may do without the gate, see company.py; changed under `lock`.
        latest: the id of the last write that was begun, if all processes tell it, see latest.py; changed under `lock`.
    """

    def __init__(self, gate: Gate, byte: int, owner: Owner, enlarge: Enlarge = _set_mapsize) -> None:
        self.lock, self.evicting = threading.RLock(), threading.RLock()
        self.writing = 0
        self.flags: Any = never_alone()
        self.latest: Any = NOT_TOLD
        self._begun: Any = [0]  # where a write tells its id: in `latest`, or to nobody
        self.begin: Callable[..., Any] = raise_not_open
        self.begin_write: Callable[[], Any] = raise_not_open
        self.raw: lmdb.Environment | None = None
        self.place = owner.folder
        self._gate, self._byte = gate, byte
        self._owner = owner
        self._enlarge = enlarge
        self._hold, self.free = gate.lock(byte)

    def update(self, work: Callable[..., T], *args: Any, timeout: float | None = None) -> T:
        """Run `work(txn, *args)` in one write transaction; again if the map had to grow.

        The body of `alone` stands here once more: this is the hot path of every write. Where nobody else has the store
        open, the gate is left out.
        """
        attempt, patience = 0, None
        while True:
            try:
                with self.lock:
                    if self.writing:
                        raise_nested()
                    if self.raw is None:
                        self.begin()  # raises; and the gate of a closed environment must not be touched
                    flags = self.flags
                    try:
                        self.writing = get_ident()
                        flags[BUSY] = 1  # first, and then look
                        if flags[COMPANY]:
                            flags[BUSY] = 0
                            self._hold()
                        txn = self.begin_write()  # a `with` takes twice as long
                        try:
                            self._begun[0] = txn.id()
                            done = work(txn, *args)
                        except BaseException:
                            txn.abort()
                            raise
                        txn.commit()
                        return done
                    finally:
                        # Not our `flags`: within a fork they are the parent's.
                        self.writing = self.flags[BUSY] = 0  # first: a signal may be raised when the next call returns
                        if flags[COMPANY]:
                            self.free()
            except lmdb.Error as error:
                attempt += 1
                self._owner.recover(MapFull(self) if isinstance(error, lmdb.MapFullError) else error, attempt)
            except BlockingIOError:
                patience = patience or self._patience(timeout)
            if patience is not None:
                patience.pause()

    def update_urgently(self, work: Callable[..., T], *args: Any, timeout: float | None = None) -> T:
        """`update` for deletions: they go on when the disk is full."""
        try:
            return self.update(work, *args, timeout=timeout)
        except DiskFullError:
            if self.raw is None:  # it could not be opened anew
                raise
            self.resize(grow=True, urgent=True)
            return self.update(work, *args, timeout=timeout)

    def alone(self, work: Callable[..., T], *args: Any, timeout: float | None = None) -> T:
        """Run `work(*args)` with the locks held; it begins its transactions by `write`. Not repeated."""
        patience = None
        while True:
            try:
                with self.lock:
                    if self.writing:
                        raise_nested()
                    if self.raw is None:
                        self.begin()
                    try:
                        self.writing = get_ident()
                        self._hold()
                        return work(*args)
                    finally:
                        self.writing = 0
                        self.free()
            except BlockingIOError:
                patience = patience or self._patience(timeout)
            patience.pause()

    def write(self, work: Callable[..., T], *args: Any) -> T:
        """Run `work(txn, *args)` in one write transaction within `alone`. Raises MapFull."""
        try:
            with self.begin_write() as txn:
                self._begun[0] = txn.id()
                return work(txn, *args)
        except lmdb.MapFullError as error:
            raise MapFull(self) from error

    def write_urgently(self, work: Callable[..., T], *args: Any) -> T:
        """`write` for deletions and marks: they go on when the disk is full."""
        try:
            return self.write(work, *args)
        except MapFull:
            self._resize(grow=True, urgent=True)
            return self.write(work, *args)

    def hold_patiently(self, timeout: float | None = None) -> None:
        """Take the gate's lock, behind the thread lock; `free` gives it back."""
        patience = None
        while True:
            try:
                self._hold()
                return
            except BlockingIOError:
                patience = patience or self._patience(timeout)
            patience.pause()

    def _patience(self, timeout: float | None) -> Patience:
        return Patience(self._gate, self._byte, TIMEOUT if timeout is None else timeout, self.place)

    # Recovering

    def resize(self, *, grow: bool, urgent: bool = False) -> None:
        """Adopt the size of the map that others chose; if that is not more than ours, and `grow`, double it.

        Where that is urgent, what is kept for deletions on a full disk may be used.
        """
        with self.lock:
            if not self.writing:  # else it is this thread that writes, so nobody can have changed the size
                self.alone(self._resize, grow, urgent)

    def _resize(self, grow: bool, urgent: bool) -> None:
        raw = self.raw
        assert raw is not None
        try:
            before = raw.info()["map_size"]
            if not grow or not raw.flags()["writemap"]:
                raw.set_mapsize(0)
            if grow and raw.info()["map_size"] <= before:
                self._enlarge(raw, self._larger(before), urgent)
        except lmdb.Error as error:
            self._forget_if_closed(raw)
            raise translated(error, self.place) from error
        except OSError as error:
            if isinstance(error, PersistDictError):
                raise
            raise StoreError(error.errno, f"the map cannot grow: {error.strerror}", self.place) from error

    def _larger(self, size: int) -> int:
        """The size of the next map: twice as large, or what is left of the address space."""
        for parts in (8, 4, 2, 1):
            if fits(size // 8 * parts):
                return size // 8 * (8 + parts)
        raise StoreError(
            errno.ENOMEM,
            f"the address space of this process is limited (ulimit -v), and too small for a map of more than {size:,} "
            "bytes; nothing was changed",
            self.place,
        )

    def _forget_if_closed(self, raw: lmdb.Environment) -> None:
        """Where there is no room for a larger map, py-lmdb closes the environment; the next use opens it again."""
        if not is_open(raw):
            unshare(raw)
            raw.close()  # all of it: the error that led here may keep it alive
            self.forget(raise_not_open)
            self._owner.rebind()

    def tidy(self) -> None:
        """Take back the slots of readers that died; they would keep old pages from being used again."""
        raw = self.raw
        if raw is not None:
            raw.reader_check()

    # The end, and fork

    def adopt(self, raw: Any, latest: Any = NOT_TOLD) -> None:
        """Take an open environment into use; `latest`: where its writes are told."""
        self._begun, self.latest = [0] if latest is NOT_TOLD else latest, latest
        self.raw, self.begin, self.begin_write = raw, raw.begin, partial(raw.begin, None, None, True)

    def forget(self, begin: Callable[..., Any]) -> None:
        """Let go of the environment; `begin` stands in its place."""
        self.begin, self.begin_write, self.raw = begin, begin, None
        self._begun, self.latest = [0], NOT_TOLD

    def after_fork(self) -> None:
        """In the child: a new lock; the parent's environment is forgotten, not closed."""
        self.lock, self.evicting = threading.RLock(), threading.RLock()
        self.writing = 0
        self.flags = never_alone()  # a write that was cut in two by the fork must not touch the parent's
        self.forget(raise_not_open)


def raise_not_open(*_: Any, **__: Any) -> Any:
    """What stands for `begin` where the files must be opened first."""
    raise NotOpen("the environment must be opened in this process first")


def raise_nested() -> None:
    """Refuse a write within a write."""
    raise NestedWriteError(
        "a write was begun within another write of the same thread (a finaliser or a signal handler that writes?)"
    )
