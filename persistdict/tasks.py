"""The tasks of upkeep: plain functions over the store contract, which need no thread.

They work in small transactions, one step after the other while `proceed()` is true, and hold neither a lock nor a
snapshot in between. A pass that was stopped goes on where it ended (`Pass`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from persistdict.clocked import settle_clock
from persistdict.errors import CorruptEntryError, DiskFullError
from persistdict.eviction import Bounds, go_on
from persistdict.log import Log
from persistdict.statistics import TaskLog
from persistdict.store import Store

__all__ = ["Charge", "Pass", "check_all", "expire_all", "go_on", "purpose_of", "run_eviction", "run_round"]

STEP = 512  # entries that one small transaction looks at
CHECKED = 128  # rows that one step of the integrity pass looks at
PROGRESS = 10.0  # seconds between two messages of a long pass


class Pass:
    """Where a pass over all entries stands: behind `position`; None when it is done."""

    def __init__(self, position: bytes | None = b"") -> None:
        self.position = position


class Charge:
    """What upkeep looks after: one handle's store, with what it needs.

    Attributes:
        expiring, checking: the passes that were begun.
        resealing: what seals entries with the newest key; None where nothing is sealed with a key.
    """

    def __init__(self, store: Store, log: Log, bounds: Bounds | None, resealing: Any = None) -> None:
        self.store, self.log, self.bounds, self.resealing = store, log, bounds, resealing
        self.expiring, self.checking = Pass(), Pass()


class _Going:
    """Whether to go on; remembers that it was not."""

    def __init__(self, proceed: Callable[[], bool]) -> None:
        self._proceed = proceed
        self.stopped = False

    def __call__(self) -> bool:
        self.stopped = self.stopped or not self._proceed()
        return not self.stopped


def expire_all(store: Store, proceed: Callable[[], bool] = go_on, at: Pass | None = None) -> int:
    """Remove all entries that are over. Tells how many. What is done begins at the beginning the next time."""
    at = at or Pass()
    removed = 0
    position = at.position or b""
    while proceed():
        count, following = store.expire(STEP, position)
        removed += count
        store.counts.expirations.add(count)
        at.position = position = following or b""
        if following is None:
            break
    return removed


def check_all(
    store: Store, proceed: Callable[[], bool] = go_on, at: Pass | None = None, log: Log | None = None
) -> list[str]:
    """Look at every entry for damage. A sentence for each finding. What takes long tells `log` how far it is."""
    at = at or Pass()
    faults: list[str] = []
    examined, told = 0, time.monotonic()
    while at.position is not None and proceed():
        found, at.position = store.check(CHECKED, at.position)
        faults += found
        examined += CHECKED
        if log is not None and time.monotonic() - told >= PROGRESS:
            told = time.monotonic()
            log.info(f"the integrity pass has examined about {examined:,} rows")
    return faults


def run_round(charge: Charge, tasks: TaskLog, proceed: Callable[[], bool] = go_on, *, alone: bool = False) -> bool:
    """One round, the urgent first: make writes durable, note access times, remove what is over or beyond the bounds,
    look for damage.

    Of several processes with the same options one does the latter, unless `alone`, which does it anyway. Tells whether
    nothing is left to do. Raises CorruptEntryError if damage was found.
    """
    store, log, going = charge.store, charge.log, _Going(proceed)
    run = partial(tasks.run, clock=store.clock)
    store.tidy()
    run("sync", task=store.sync)
    try:
        run("access times", task=lambda: store.flush_touched(store.clock()))
    except DiskFullError as error:
        log.warning(f"access times are not noted: {error}")  # a reader can do nothing about it
    if store.read_only or not (alone or store.lease(purpose_of(charge))):
        return True
    run_eviction(charge, tasks, going)
    if settle_clock(store, log, going):
        removed = run("expire", task=lambda: expire_all(store, going, charge.expiring))
        if removed:
            log.info(f"removed {removed} entries that were over")
    if charge.resealing is not None and charge.resealing.is_due() and going():
        run("reseal", task=lambda: charge.resealing.go(going))
    if charge.checking.position is not None and going():
        run("check", task=lambda: _check(charge, going))
    return not going.stopped


def run_eviction(charge: Charge, tasks: TaskLog, proceed: Callable[[], bool] = go_on) -> None:
    """Remove what is beyond the bounds of the handle, or nearly, if it has any."""
    if charge.bounds is not None:
        tasks.run("evict", charge.store.clock, partial(charge.bounds.keep, proceed))


def purpose_of(charge: Charge) -> str:
    """What the handle is to do: equal for handles of which one is enough."""
    return repr((charge.store.idle, charge.bounds and charge.bounds.limits))


def _check(charge: Charge, proceed: Callable[[], bool]) -> None:
    faults = check_all(charge.store, proceed, charge.checking, charge.log)
    for fault in faults[:20]:
        charge.log.error(fault)
    if faults:
        raise CorruptEntryError(f"{charge.store.place}: {len(faults)} faults were found, the first: {faults[0]}")
    if charge.checking.position is None:
        charge.log.info("the integrity pass found no fault")
