"""Upkeep: what a store needs done now and then, and the thread that does it.

The tasks are plain functions over the store contract; they work in small transactions and can be called without any
thread. A `Keeper` is the background thread of everything that shares the same entries in this process. It holds no
strong reference to a store, no lock and no snapshot while it waits; it stops at once when told, and by itself when the
last store is gone. After a fork the child starts its own when it first uses the store.

What fails or is found damaged is logged, kept, and raised by the next explicit call (`Keeper.raise_error`).
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from functools import partial

from persistdict.errors import ClosedError, CorruptEntryError, DiskFullError, MaintenanceError
from persistdict.forking import is_held_here
from persistdict.log import Log
from persistdict.statistics import TaskLog
from persistdict.store import Store

__all__ = ["Keeper", "check_all", "expire_all", "keeper_of", "run_once"]

STEP = 512  # entries that one small transaction looks at
RETRY = 5.0  # seconds until a sync that failed is tried again
PAUSE = 0.001  # seconds between steps in the background, so that others get their turn


def _go_on() -> bool:
    return True


def expire_all(store: Store, proceed: Callable[[], bool] = _go_on) -> int:
    """Remove all entries that are over, step by step while `proceed()` is true. Tells how many."""
    removed = 0
    position: bytes | None = b""
    while position is not None and proceed():
        count, position = store.expire(STEP, position)
        removed += count
        store.counts.expirations.add(count)
    return removed


def check_all(store: Store, proceed: Callable[[], bool] = _go_on) -> list[str]:
    """Look at every entry for damage, step by step while `proceed()` is true. A sentence for each finding."""
    faults: list[str] = []
    position: bytes | None = b""
    while position is not None and proceed():
        found, position = store.check(STEP, position)
        faults += found
    return faults


def run_once(store: Store, log: Log, proceed: Callable[[], bool] = _go_on, *, check: bool = False) -> None:
    """One round: make writes durable, note access times, remove what is over, and if asked look for damage.

    Raises CorruptEntryError if damage was found.
    """
    run = partial(keeper_of(store).tasks.run, clock=store.clock)
    store.tidy()
    run("sync", task=store.sync)
    try:
        run("access times", task=lambda: store.flush_touched(store.clock()))
    except DiskFullError as error:
        log.warning(f"access times are not noted: {error}")  # a reader can do nothing about it
    removed = 0 if store.read_only else run("expire", task=lambda: expire_all(store, proceed))
    if removed:
        log.info(f"removed {removed} entries that were over")
    if not check:
        return
    run("check", task=lambda: _check_once(store, log, proceed))
    if proceed():
        log.info("the integrity pass found no fault")


def _check_once(store: Store, log: Log, proceed: Callable[[], bool]) -> None:
    faults = check_all(store, proceed)
    for fault in faults[:20]:
        log.error(fault)
    if faults:
        raise CorruptEntryError(f"{store.place}: {len(faults)} faults were found, the first: {faults[0]}")


class Keeper:
    """The background thread for all stores on the same entries in this process. `tasks` tells how they went."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a handle while it is held
        self._stores: dict[int, tuple[weakref.ref[Store], Log, float]] = {}  # guarded by _lock
        self._checked: set[int] = set()  # stores whose integrity pass was begun; guarded by _lock
        self._thread: threading.Thread | None = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._sync_error: BaseException | None = None  # of the last sync, or a full disk
        self._next_round = 0.0  # time.monotonic
        self._next_sync = math.inf
        self.tasks = TaskLog()

    def add(self, store: Store, log: Log, interval: float) -> None:
        """Look after a store, every `interval` seconds, beginning now."""
        with self._lock:
            self._stores[id(store)] = (weakref.ref(store), log, interval)
        self.start()

    def remove(self, store: Store, *, wait: bool = True) -> None:
        """Look after a store no longer. If it was the last one, the thread ends; if `wait`, before this returns."""
        with self._lock:
            self._stores.pop(id(store), None)
            self._checked.discard(id(store))
            thread = self._thread
            if self._stores or thread is None:
                return
            self._thread = None
            self._stop.set()
            self._wake.set()
        if wait and thread is not threading.current_thread():
            thread.join()

    def is_entered(self) -> bool:
        """Whether this thread holds a lock of upkeep."""
        return is_held_here(self._lock) or is_held_here(_keepers_lock)

    def start(self) -> None:
        """Start the thread if it should run and does not."""
        with self._lock:
            if self._stores and (self._thread is None or not self._thread.is_alive()):
                self._stop, self._wake = threading.Event(), threading.Event()
                self._thread = threading.Thread(
                    target=_run,
                    args=(weakref.ref(self), self._stop, self._wake),
                    name="persistdict-upkeep",
                    daemon=True,
                )
                self._thread.start()
            self._next_round = 0.0
            self._wake.set()

    def sync_within(self, seconds: float) -> bool:
        """Make writes durable that late at the latest. Whether there is a thread that will."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return False
        self._next_sync = min(self._next_sync, time.monotonic() + seconds)
        self._wake.set()
        return True

    def raise_error(self, *, synced: bool = False) -> None:
        """Raise what went wrong in the background since the last call, once; if all is `synced` now, nothing else."""
        error = self._error if synced else self._error or self._sync_error
        self._error = self._sync_error = None
        if error is not None:
            raise MaintenanceError(f"upkeep in the background failed: {error}") from error

    def forget_damage(self) -> None:
        """Damage that was found in the background has been reported in another way."""
        if isinstance(self._error, CorruptEntryError):
            self._error = None

    def step(self, stop: threading.Event) -> float | None:
        """Do what is due. Returns the seconds until more is, None if there is nothing left to look after."""
        if time.monotonic() >= self._next_sync:
            self._next_sync = math.inf
            self._sync()
        if time.monotonic() >= self._next_round:
            self._next_round = math.inf  # before the round: whoever asks for another meanwhile gets it
            pause = self._round(stop)
            if pause is None:
                return None
            self._next_round = min(self._next_round, time.monotonic() + pause)
        return max(0.0, min(self._next_round, self._next_sync) - time.monotonic())

    def _sync(self) -> None:
        """Make writes durable; the stores share the same entries, so one of them does it for all."""
        with self._lock:
            stores = list(self._stores.values())
        for reference, log, _ in stores:
            store = reference()
            if store is not None:
                try:
                    self.tasks.run("sync", store.clock, store.sync)
                    self._sync_error = None
                except ClosedError:
                    continue
                except Exception as error:
                    self._sync_error = error
                    log.error(f"what was written could not be made durable yet: {error}")
                    self._next_sync = time.monotonic() + RETRY
                return

    def _round(self, stop: threading.Event) -> float | None:
        """Look after every store. Returns the seconds until the next round, None if no store is left."""
        with self._lock:
            stores = list(self._stores.items())
        intervals = []
        for key, (reference, log, interval) in stores:
            store = reference()
            if store is None:
                with self._lock:
                    self._stores.pop(key, None)
                continue
            intervals.append(interval)
            self._look_after(key, store, log, stop)
        return min(intervals, default=None)

    def _look_after(self, key: int, store: Store, log: Log, stop: threading.Event) -> None:
        with self._lock:
            first = key not in self._checked
            self._checked.add(key)
        self._run_once(store, log, lambda: not stop.wait(PAUSE), first)

    def run_now(self, store: Store, log: Log) -> None:
        """One round with an integrity pass, in the calling thread. What goes wrong is kept as in the background."""
        self._run_once(store, log, _go_on, True)

    def _run_once(self, store: Store, log: Log, proceed: Callable[[], bool], check: bool) -> None:
        try:
            run_once(store, log, proceed, check=check)
        except ClosedError:
            return  # closed meanwhile by another thread; there is nothing to look after any more
        except DiskFullError as error:
            self._sync_error = error
            log.error(f"upkeep waits for room on the disk: {error}")
        except Exception as error:
            self._note(error, log)

    def _note(self, error: Exception, log: Log) -> None:
        self._error = error
        log.error(f"upkeep failed: {type(error).__name__}: {error}")

    def after_fork(self) -> None:
        """In the child, where the thread does not exist."""
        self._lock = threading.RLock()
        self._thread = None


def _run(reference: weakref.ref[Keeper], stop: threading.Event, wake: threading.Event) -> None:
    """Rounds, until told to stop or nothing is left. `wake` begins the next one early."""
    wait: float | None = 0.0
    while wait is not None:
        wake.wait(min(wait, threading.TIMEOUT_MAX))
        wake.clear()
        keeper = reference()
        if keeper is None or stop.is_set():
            return
        wait = keeper.step(stop)
        del keeper


_keepers: weakref.WeakKeyDictionary[Hashable, Keeper] = weakref.WeakKeyDictionary()
_keepers_lock = threading.RLock()


def keeper_of(store: Store) -> Keeper:
    """The keeper of the entries that a store shares with others."""
    shared = store.shared  # may open the store, and come back to here
    with _keepers_lock:
        keeper = _keepers.get(shared)
        if keeper is None:
            keeper = _keepers[shared] = Keeper()
            store.on_reopen(keeper.start)
            store.on_unsynced(keeper.sync_within)
        return keeper


def _after_fork_in_child() -> None:
    global _keepers_lock
    _keepers_lock = threading.RLock()
    for keeper in list(_keepers.values()):
        keeper.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
