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

from persistdict.errors import ClosedError, CorruptEntryError, DiskFullError, MaintenanceError, told, withheld
from persistdict.forking import is_held_here
from persistdict.log import Log
from persistdict.statistics import TaskLog
from persistdict.store import Store
from persistdict.tasks import Charge, Pass, run_eviction, run_round
from persistdict.waking import Bell, Errand, Latch

__all__ = ["Keeper", "keeper_of"]

RETRY = 5.0  # seconds until a sync that failed is tried again
PAUSE = 0.001  # seconds between steps in the background, at least
REST = 4  # times as long as a step took
LONGEST = 0.1  # seconds


class _Pace:
    """Between the steps of a pass in the background: rest, so that others get their turn, and do what is urgent."""

    def __init__(self, stop: Latch, urgent: Callable[[], object]) -> None:
        self._stop, self._urgent = stop, urgent
        self._begun = time.monotonic()

    def __call__(self) -> bool:
        worked = time.monotonic() - self._begun
        if self._stop.wait(max(PAUSE, min(REST * worked, LONGEST))):
            return False
        self._urgent()
        self._begun = time.monotonic()
        return True


class Keeper:
    """The background thread for all stores on the same entries in this process. `tasks` tells how they went."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a handle while it is held
        self._charges: dict[int, tuple[weakref.ref[Charge], float]] = {}  # by the store's id; guarded by _lock
        self._thread: Errand | None = None
        self._stop, self._wake = Latch(), Bell()
        self._error: BaseException | None = None
        self._sync_error: BaseException | None = None  # of the last sync, or a full disk
        self._next_round = 0.0  # time.monotonic
        self._next_sync = math.inf
        self._crowded = False  # whether a bound is near
        self.tasks = TaskLog()

    def add(self, charge: Charge, interval: float) -> None:
        """Look after it, every `interval` seconds, beginning now."""
        with self._lock:
            self._charges[id(charge.store)] = (weakref.ref(charge), interval)
        if charge.bounds is not None:
            charge.bounds.ask = self.evict_soon
        self.start()

    def remove(self, store: Store, *, wait: bool = True) -> None:
        """Look after a store no longer. If it was the last one, the thread ends; if `wait`, before this returns."""
        try:
            with self._lock:
                self._charges.pop(id(store), None)
            thread = self._end_if_idle()
        finally:
            self._end_if_idle()  # again: Ctrl-C may have come before it was told
        if wait and thread is not None and not thread.is_here():
            thread.wait()

    def _end_if_idle(self) -> Errand | None:
        """Have the thread end if there is nothing to look after. Gives the one that was told to."""
        with self._lock:
            thread = self._thread
            if self._charges or thread is None:
                return None
            self._stop.set()
            self._wake.ring()
            self._thread = None
            return thread

    def is_entered(self) -> bool:
        """Whether this thread holds a lock of upkeep."""
        return is_held_here(self._lock) or is_held_here(_keepers_lock)

    def start(self) -> None:
        """Start the thread if it should run and does not."""
        with self._lock:
            if self._charges:
                if self._thread is None or self._thread.is_over() or self._stop.is_set():
                    self._stop, self._wake = stop, wake = Latch(), Bell()
                    self._thread = Errand("persistdict-upkeep", partial(_run, weakref.ref(self), stop, wake))
                self._thread.begin()  # also one that was interrupted here before it began
            self._next_round = 0.0
            self._wake.ring()

    def sync_within(self, seconds: float) -> bool:
        """Make writes durable that late at the latest. Whether there is a thread that will."""
        thread = self._thread
        if thread is None or not thread.is_under_way():
            return False
        self._next_sync = min(self._next_sync, time.monotonic() + seconds)
        self._wake.ring()
        return True

    def evict_soon(self) -> None:
        """Make room for the next writes: a bound is near."""
        self._crowded = True
        self._wake.ring()

    def raise_error(self, *, synced: bool = False) -> None:
        """Raise what went wrong in the background since the last call, once; if all is `synced` now, nothing else."""
        error = self._error if synced else self._error or self._sync_error
        self._error = self._sync_error = None
        if error is not None:
            raise MaintenanceError(f"upkeep in the background failed: {told(error)}") from withheld(error)

    def forget_damage(self) -> None:
        """Damage that was found in the background has been reported in another way."""
        if isinstance(self._error, CorruptEntryError):
            self._error = None

    def step(self, stop: Latch) -> float | None:
        """Do what is due. Returns the seconds until more is, None if there is nothing left to look after."""
        self._sync_if_due()
        if self._crowded:
            self._crowded = False
            self._each(stop, run_eviction)
        if time.monotonic() >= self._next_round:
            self._next_round = math.inf  # before the round: whoever asks for another meanwhile gets it
            pause = self._each(stop, run_round)
            if pause is None:
                return None
            self._next_round = min(self._next_round, time.monotonic() + pause)
        return max(0.0, min(self._next_round, self._next_sync) - time.monotonic())

    def _sync_if_due(self) -> None:
        """Make writes durable; the stores share the same entries, so one of them does it for all."""
        if time.monotonic() < self._next_sync:
            return
        self._next_sync = math.inf
        with self._lock:
            charges = list(self._charges.values())
        for reference, _ in charges:
            charge = reference()
            if charge is not None:
                try:
                    self.tasks.run("sync", charge.store.clock, charge.store.sync)
                    self._sync_error = None
                except ClosedError:
                    continue
                except Exception as error:
                    self._sync_error = error
                    charge.log.error(f"what was written could not be made durable yet: {told(error)}")
                    self._next_sync = time.monotonic() + RETRY
                return

    def _each(self, stop: Latch, work: Callable[..., object]) -> float | None:
        """Do this for every store. Returns the seconds until the next round, None if no store is left."""
        with self._lock:
            charges = list(self._charges.items())
        intervals = []
        for key, (reference, interval) in charges:
            charge = reference()
            if charge is None:
                with self._lock:
                    self._charges.pop(key, None)
                continue
            intervals.append(interval)
            self._look_after(charge, work, _Pace(stop, self._sync_if_due))
        return min(intervals, default=None)

    def run_now(self, charge: Charge) -> None:
        """One round with an integrity pass, in the calling thread. What goes wrong is kept as in the background."""
        charge.checking = Pass()
        self._look_after(charge, partial(run_round, alone=True), lambda: True)

    def _look_after(self, charge: Charge, work: Callable[..., object], proceed: Callable[[], bool]) -> None:
        log = charge.log
        try:
            work(charge, self.tasks, proceed)
        except ClosedError:
            return  # closed meanwhile by another thread; there is nothing to look after any more
        except DiskFullError as error:
            self._sync_error = error
            log.error(f"upkeep waits for room on the disk: {error}")
        except Exception as error:
            self._note(error, log)

    def _note(self, error: Exception, log: Log) -> None:
        self._error = error
        log.error(f"upkeep failed: {told(error)}")

    def after_fork(self) -> None:
        """In the child, where the thread does not exist."""
        self._lock = threading.RLock()
        self._thread = None


def _run(reference: weakref.ref[Keeper], stop: Latch, wake: Bell) -> None:
    """Rounds, until told to stop or nothing is left. `wake` begins the next one early."""
    wait: float | None = 0.0
    while wait is not None:
        wake.wait(wait)
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
            keeper = Keeper()
            store.on_reopen(keeper.start)
            store.on_unsynced(keeper.sync_within)
            _keepers[shared] = keeper  # last: it is either known with all of this, or not at all
        return keeper


def _after_fork_in_child() -> None:
    global _keepers_lock
    _keepers_lock = threading.RLock()
    for keeper in list(_keepers.values()):
        keeper.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
