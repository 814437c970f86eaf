"""The two environments of a folder, the data and the recent writes, shared by all handles of the process.

Guarantees:
- The same files are opened once in a process, by whatever path, and the data's environment is shared with lmdb-dict's
  mappings (through lmdb-dict's own registry) in both directions.
- Locks: the data's, then that of the recent writes; each a thread lock, then the gate, then LMDB's.
- A forked child never touches the inherited environments: it gets new locks at once, and opens the files for itself at
  the first use.
"""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any, TypeVar

import lmdb

from persistdict.bounded import Usage
from persistdict.errors import NotAStoreError, OpenError, PersistDictError, StoreGoneError, refused
from persistdict.forking import is_held_here
from persistdict.statistics import Removed
from persistdict.store import NOT_TOLD
from persistdict.stores.lmdb import folder as files
from persistdict.stores.lmdb import layout, readonly, registry
from persistdict.stores.lmdb.closed import raise_closed
from persistdict.stores.lmdb.company import Company, never_alone
from persistdict.stores.lmdb.engine import RETRIES, TIMEOUT, Engine, MapFull, NotOpen, raise_not_open
from persistdict.stores.lmdb.failures import translated, was_remapped
from persistdict.stores.lmdb.gate import DATA, RECENT, USERS, Gate
from persistdict.stores.lmdb.guard import DAMAGED
from persistdict.stores.lmdb.latest import open_latest
from persistdict.stores.lmdb.opening import find_or_open, let_go, share, unshare
from persistdict.stores.lmdb.presence import Presence, gone, places_of
from persistdict.stores.lmdb.recent import enlarge, open_recent, recent_folder, remove_stale
from persistdict.stores.lmdb.trust import Trust
from persistdict.turn import Turn

__all__ = ["LOOKS", "MUCH", "Environment", "open_environment"]

T = TypeVar("T")

MUCH = 4 << 20  # bytes of recent writes at which a writer drains them itself
LOOKS = 4  # how often a process looks until then, if it writes alone


class Environment(Trust):
    """The environments of one folder. Made by `open_environment` only.

    Attributes:
        data, recent, dbs: the two, and the named databases of the data.
        read_only: whether the medium is.
        identity: device and inode of the data that are open.
        base: what is added to ids of `recent` to make numbers.
        openings: how often they were opened; the ids of one opening say nothing in the next.
        settled: the id of a commit of `recent` that has left nothing in it.
        examined: an id of `recent` for which it is known whether anything was in it.
        unmarked: an id of `recent` at which there was no mark.
        durable: the last number known to be on the disk.
        roomy, scarce: up to where the file of the data has its blocks; whether what is behind is for deletions only.
        much: bytes of recent writes, of all processes, at which a writer drains them.
        pending, look_at: bytes that this process has written to `recent` since its last drain; and when to look again.
        armed, due: whether somebody sees to the next drain, and from when on (time.monotonic) a writer does.
        evicted: an id of the data, and what was removed by evictions that the data do not have yet at that id.
        touched: reads that were noted by any handle of this process, see `Store.flush_touched`.
        turn: of the threads of this process, to have a transaction.
        company: whether other processes have the store open.
        presence: tells whether the files are still where they were.
        reopened: called after a forked child has opened them anew.
        unsynced: called after the first write since a drain.
    """

    def __init__(self, folder: str, map_size: int | None, timeout: float, permissions: int = files.PRIVATE) -> None:
        super().__init__()
        self.folder = folder
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()  # guarded by the registry's lock
        self.base = self.openings = 0
        self.identity: tuple[int, int] | None = None
        self.dbs: dict[str, Any] = {}
        self.settled = self.examined = self.unmarked = self.durable = -1
        self.roomy, self.scarce, self.much = 0, False, MUCH
        self.pending, self.look_at, self.armed, self.due = 0, MUCH // LOOKS, False, float("inf")
        self.turn = Turn()
        self.evicted = -1, Usage(0, 0)
        self.touched: dict[bytes, float | None] = {}
        self.removed = Removed()
        self.reopened: list[Callable[[], None]] = []
        self.unsynced: list[Callable[[float], bool]] = []
        self.map_size = map_size
        self._id: str | None = None  # of the store, once it was opened
        self.read_only = readonly.is_read_only(folder)
        self.gate = (readonly.ReadOnlyGate if self.read_only else Gate)(os.path.join(folder, files.GATE), permissions)
        self.company = Company(folder, self.gate)
        self.data = Engine(self.gate, DATA, self)
        self.recent = Engine(self.gate, RECENT, self, enlarge)
        try:
            self._open(timeout)
        except BaseException:
            self.gate.close()
            raise

    # Opening

    def _open(self, timeout: float = TIMEOUT) -> None:
        with self.data.lock, self.recent.lock:
            try:
                if self.read_only:
                    self.gate.share(USERS)
                    if files.identity(self.folder) is None:
                        raise OpenError(errno.EROFS, "no dictionary is here, and none can be made", self.folder)
                    self.look_at_files()
                    self._bind(readonly.open_data(self.folder), readonly.open_recent)
                    return
                self.data.hold_patiently(timeout)
                self.recent.hold_patiently(timeout)
                readonly.announce_writer(self.gate, self.folder)
                if self._id is not None and files.identity(self.folder) is None:
                    raise gone(self.folder, "data.mdb was deleted")
                self.company.meet(timeout)
                self.recent.flags = self.company.flags
                files.remove_leftovers(self.folder)
                remove_stale(self.folder)
                if files.identity(self.folder) is None:
                    files.create_data(self.folder, partial(layout.create, map_size=self.map_size))
                self.look_at_files()
                raw = find_or_open(self.folder, self.map_size)
                try:
                    self._bind(raw, open_recent)
                except BaseException:
                    let_go(raw)
                    raise
            except lmdb.Error as error:
                raise translated(error, self.folder, opening=True) from error
            except OSError as error:
                if isinstance(error, PersistDictError):
                    raise
                raise refused(error, "open the store", self.folder) from error
            finally:
                self.recent.free()
                self.data.free()

    def _bind(self, raw: lmdb.Environment, recent_opener: Callable[..., tuple[Any, int]]) -> None:
        """Check that the environment is ours, and take it into use with its recent writes."""
        if not raw.flags()["sync"]:
            raise NotAStoreError(f"{self.folder} is open in this process without sync; writes would not be durable")
        dbs, last = layout.adopt(raw, self.folder, self.guard.damage if self.guard else "")
        found = files.identity(self.folder)
        if found is None:
            raise OpenError(errno.ENOENT, "the store was removed while it was opened", self.folder)
        stored = layout.note(raw, dbs, layout.ID)
        if self._id not in (None, stored):
            raise gone(self.folder, "the store was replaced by another")
        recent, self.base = recent_opener(self.folder, last, found, layout.note(raw, dbs, layout.REPLACED))
        try:
            recent.reader_check()
            if isinstance(recent, lmdb.Environment):
                share(recent_folder(self.folder), recent)
            latest = NOT_TOLD if self.read_only else open_latest(recent_folder(self.folder), self.company.is_alone)
        except BaseException:
            if not self.read_only:
                let_go(recent)
            raise
        self._id, self.durable = stored, -1
        self.settled = self.examined = self.unmarked = -1
        self.pending, self.armed, self.due = 0, False, float("inf")
        self.openings += 1
        self.recent.adopt(recent, latest)
        self.take_up(raw, dbs)

    def take_up(self, raw: lmdb.Environment, dbs: dict[str, Any]) -> None:
        """Take the data into use; the locks are held."""
        raw.reader_check()
        share(self.folder, raw)
        self.identity = files.identity(self.folder)
        self.presence = Presence(self.folder, places_of(self.folder))
        self.dbs = dbs
        self.roomy, self.scarce = 0, False
        self.evicted = -1, Usage(0, 0)  # the ids of other files say nothing
        try:
            self.data.adopt(raw)
            self.trust()
            self.rebind()
        except BaseException:  # some followers know it, others do not: the next use opens it anew
            self.data.forget(raise_not_open)
            raise

    def move(self, folder: str) -> None:
        """The folder was moved and is opened by its new name."""
        self.folder = folder
        self.company.folder = folder
        self.presence = Presence(self.folder, places_of(self.folder))

    # Recovering

    def attempt(self, work: Callable[..., T], *args: Any) -> T:
        """Run a read; repeat it after what is no fault of the reader."""
        attempt = 0
        while True:
            try:
                return work(*args)
            except lmdb.Error as error:
                attempt += 1
                self.recover(error, attempt)

    def recover(self, error: lmdb.Error, attempt: int) -> None:
        """Do what makes a repetition worth while, or raise the error as one of ours."""
        if isinstance(error, NotOpen):
            self.reopen()
        elif isinstance(error, (lmdb.PanicError, lmdb.BadRslotError)) and attempt == 1:
            self._abandon(error)
        elif isinstance(error, DAMAGED):
            self.meet_damage(error, attempt)
        elif attempt > RETRIES:
            raise translated(error, self.folder) from error
        elif isinstance(error, MapFull):
            error.engine.resize(grow=True)
        elif isinstance(error, lmdb.MapResizedError):
            for engine in (self.data, self.recent):
                engine.resize(grow=False)
        elif isinstance(error, lmdb.ReadersFullError):
            self.tidy()
            time.sleep(0.001 * attempt)
        elif was_remapped(error):
            for engine in (self.data, self.recent):
                with engine.lock:  # held by the thread that changes the size of the map, until there is a map again
                    pass
        else:
            raise translated(error, self.folder) from error

    def _abandon(self, error: lmdb.Error) -> None:
        """Close environments that cannot be used any more; the next use opens them anew.

        After a failed write of its root, LMDB refuses everything. And a reader that has lost its slot shows that this
        process has lost its lock on LMDB's lock file, which happens when something else in it closes a copy of the
        file; opening takes the lock again.
        """
        if self.data.writing == get_ident():
            raise translated(error, self.folder) from error
        with self.data.lock, self.recent.lock:
            wedged = [engine.raw for engine in (self.data, self.recent)]
            self._forget(raise_not_open)
            for raw in wedged:
                if raw is not None:
                    raw.close()

    def tidy(self) -> None:
        """Take back the slots of readers that died; they would keep old pages from being used again."""
        self.data.tidy()
        self.recent.tidy()

    # The end, and fork

    def is_entered(self) -> bool:
        """Whether this thread holds one of the locks."""
        return any(map(is_held_here, (self.data.lock, self.recent.lock, registry.lock)))

    def release(self, user: Any) -> None:
        """One user less; the last one lets go of the environments. May be called again, if it was interrupted."""
        with registry.lock:
            self.users.discard(user)
            if self.users:
                return
            with self.data.lock, self.recent.lock:
                registry.unregister(self)
                self._forget(raise_closed)
                self.recent.flags = never_alone()
                self.company.forget()
                self.gate.close()

    def _forget(self, begin: Callable[..., Any]) -> None:
        self.dbs, self.guard = {}, None
        for engine in (self.data, self.recent):
            unshare(engine.raw)
            engine.forget(begin)
        self.rebind()

    def reopen(self, timeout: float = TIMEOUT) -> None:
        """Open the files for this process if they are not, after a fork or a failure."""
        with registry.lock, self.data.lock, self.recent.lock:
            if self.data.raw is None or self.recent.raw is None:
                self._forget(raise_not_open)
                self._open(timeout)
                key = files.identity(self.folder)
                registry.unregister(self, but=key)
                registry.register(self, key)
            self.rebind()
        for restart in self.reopened:
            restart()

    def after_fork(self) -> None:
        """In the child: new locks; forget the parent's environments without closing them."""
        for engine in (self.data, self.recent):
            engine.after_fork()
        self.company.forget()  # until it opens the files for itself, others may exchange them
        self._forget(raise_not_open)


def open_environment(
    user: Any, path: str, map_size: int | None = None, timeout: float = TIMEOUT, permissions: int = files.PRIVATE
) -> Environment:
    """The environment of a folder, opened or made if need be, with these permissions. Its user needs to `release` it.
    A user that is gone without that, for Ctrl-C came while it was made, counts for nothing.

    Waits so many seconds for other processes. Raises UnsafePathError, NotAStoreError, MismatchError, OpenError or
    BusyError.
    """
    folder = files.prepare(path, permissions)
    registry.let_go_of_unused()
    with registry.lock:
        environment: Environment | None = registry.find(folder)
        if environment is not None and environment.data.raw is None:
            try:
                environment.reopen(timeout)
            except StoreGoneError:  # its handles say so; another store is here now
                registry.unregister(environment)
                environment = None
        if environment is None:
            environment = Environment(folder, map_size, timeout, permissions)
            registry.register(environment, files.identity(folder))
        environment.users.add(user)
        return environment
