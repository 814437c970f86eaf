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
        self.landed = threading.Event()
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

    def _land(self) -> list[Callable[[], object]]:
        self.landed.set()
        calls, self._calls = self._calls, []
        return calls


_flights: dict[Place, Flight] = {}  # guarded by _lock
_lock = threading.RLock()  # held for a few steps only; a signal handler may come in between
aboard: ContextVar[tuple[Flight, ...]] = ContextVar("persistdict flights", default=())  # that called the code at hand


def board(place: Place) -> tuple[Flight, bool]:
    """The flight on a key, and whether it begins now and the caller flies it."""
    with _lock:
        flight = _flights.get(place)
        if flight is not None:
            return flight, False
        flight = _flights[place] = Flight(place)
        return flight, True


def land(flight: Flight, outcome: Callable[[], Any] | None) -> None:
    """End a flight; who waited gets the outcome, or if there is none, one of them begins another flight."""
    with _lock:
        if flight.landed.is_set():
            return
        if _flights.get(flight.place) is flight:  # not in a forked child
            del _flights[flight.place]
        flight.outcome = outcome
        calls = flight._land()
    for call in calls:
        call()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _flights.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
