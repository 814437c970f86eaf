"""Flights: the values that are being made in this process, so that each is made once at a time.

A flight is on one key of one set of entries (`Store.shared`), whichever handle asks. Who comes first flies it; all
others, threads and tasks alike, wait until it has landed. Waiting takes no polling. Between processes leases decide,
see leases.py; only who flies contends for one.

Threads: any number. Processes: in a forked child nothing is being made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any

from persistdict.waking import Latch

__all__ = ["Flight", "Place", "aboard", "board", "land"]

Place = tuple[Hashable, bytes]  # the entries that are shared, and the key


class Flight:
    """A value that is being made.

    Attributes:
        landed: set when it is over.
        outcome: after that, gives the value to each who waited, an object of his own; None if there is none.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.landed = Latch()
        self.outcome: Callable[[], Any] | None = None
        self._calls: list[Callable[[], object]] = []  # guarded by _lock

    def on_landing(self, call: Callable[[], object]) -> None:
        """Have `call()` called, in any thread, when it has landed; now if it has."""
        with _lock:
            waiting = not self.landed.is_set()
            if waiting:
                self._calls.append(call)
        if not waiting:
            call()


_flights: dict[Place, Flight] = {}  # guarded by _lock
_lock = threading.RLock()  # held for a few steps only; a signal handler may come in between
aboard: ContextVar[tuple[Flight, ...]] = ContextVar("persistdict flights", default=())  # that called the code at hand


def board(mine: Flight) -> Flight:
    """The flight on a key: the one that is under way, or if there is none, this one, which begins now."""
    with _lock:
        flight = _flights.get(mine.place)
        if flight is None or flight.landed.is_set():
            flight = _flights[mine.place] = mine
        return flight


def land(flight: Flight, outcome: Callable[[], Any] | None) -> None:
    """End a flight; who waited gets the outcome, or if there is none, one of them begins another flight.

    May be called again, which does what was left undone if Ctrl-C came in between; the first outcome stays.
    """
    with _lock:
        if _flights.get(flight.place) is flight:  # not in a forked child
            del _flights[flight.place]
        if flight.outcome is None and not flight.landed.is_set():
            flight.outcome = outcome
        flight.landed.set()
        calls = flight._calls
    while calls:
        calls[-1]()
        del calls[-1:]


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
