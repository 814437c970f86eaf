"""Making a value once: what one caller does who found none, or one that is about to end.

    board       of those who miss a key in this process, one flies; the others wait for the landing
    obtain      of those who fly in all processes, one gets the lease; the others look for its value now and then
    compute     code of the caller, without any lock
    settle      the value is written and the lease deleted in one transaction; then the flight lands

The value is written under the condition that the entry is as it was found: absent, or of the same version. If somebody
else has written it meanwhile, that value stays and is what everybody gets.

What is measured of a computation lies in the row COST + kb (spans.py), so that the entry is what the user wrote: its
blob is a double, the seconds that the computation took. It ends with the entry.
"""

import math
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from persistdict.core import Core
from persistdict.errors import NestedFactoryError, StillComputingError, ValueTypeError
from persistdict.flights import Flight, Place, aboard, board, land
from persistdict.keys import key_digest
from persistdict.leases import Lease
from persistdict.spans import COST
from persistdict.store import ABSENT, Capability, Condition, Record, Transaction

__all__ = ["Making", "Terms", "alone_aboard", "cost_key", "is_due", "pauses"]

TAG = 0  # of no codec
_DOUBLE = struct.Struct("<d")
SHORTEST, LONGEST = 0.001, 0.05  # seconds between two looks at what another process does

Outcome = Callable[[], Any]  # gives the value, to each caller an object of his own


class Terms(NamedTuple):
    """On what terms a value is made; as for `get_or_create`, but `ttl` and `label` as the store wants them."""

    ttl: float | None
    label: bytes
    timeout: float | None = None
    lease: float = 30.0
    early: float = 0.0
    cache_if: Callable[[Any], bool] | None = None


def cost_key(kb: bytes) -> bytes:
    """The key of the row that tells what a value has cost."""
    return COST + kb


def is_due(record: Record, cost: Record | None, beta: float, now: float, draw: Callable[[], float]) -> bool:
    """Whether this caller is to compute a value anew before it ends (XFetch, see `get_or_create`)."""
    if record.deadline is None or cost is None or len(cost.blob) != _DOUBLE.size:
        return False
    return bool(now - _DOUBLE.unpack(cost.blob)[0] * beta * math.log(draw()) >= record.deadline)


def pauses() -> Iterator[float]:
    """The seconds between looks at what another process does: short first, for it may be about to end."""
    pause = SHORTEST
    while True:
        yield pause
        pause = min(2 * pause, LONGEST)


@contextmanager
def alone_aboard(place: Place) -> Iterator[None]:
    """A flight of which nobody else knows. Raises NestedFactoryError within one to the same place."""
    if any(flight.place == place for flight in aboard.get()):
        raise NestedFactoryError(_nested(place[1]))
    token = aboard.set((*aboard.get(), Flight(place)))
    try:
        yield
    finally:
        aboard.reset(token)


def _nested(kb: bytes) -> str:
    return f"the factory for key {key_digest(kb)} asked for that key itself; let it compute the value"


class Making:
    """One call's part in making a value.

    Args:
        home: the dictionary.
        located: the key, as `Core._locate` gives it.
        terms: on what terms.
        seen: the version of the entry that is to be replaced; ABSENT if there was none.
        anew: whether a value that is there does not do.
    """

    def __init__(
        self,
        home: Core[Any, Any],
        located: tuple[Any, bytes, bytes],
        terms: Terms,
        seen: Condition = ABSENT,
        anew: bool = False,
    ) -> None:
        self.home, self.terms = home, terms
        self._kept_as, self.kb, self._hint = located
        home._opened()
        self.store: Any = home._store  # as the mode of the dictionary lets it be used
        self.seen, self.anew = seen, anew
        self.flight = self._mine = Flight((self.store.shared, self.kb))
        self.lease: Lease | None = None
        self._until = None if terms.timeout is None else time.monotonic() + terms.timeout
        self._begun = 0.0

    # Who makes it

    def board(self) -> bool:
        """Whether this call flies. If not, `flight` is to be waited for."""
        flies = self.board_unless_busy()
        if not flies and self.flight in aboard.get():
            raise NestedFactoryError(_nested(self.kb))
        return flies

    def board_unless_busy(self) -> bool:
        """Whether this call flies; if not, another one of this process does."""
        if self._mine.landed.is_set():  # that of an earlier attempt
            self._mine = Flight(self._mine.place)
        self.flight = board(self._mine)
        flies = self.flight is self._mine
        if flies and Capability.SHARED in self.store.capabilities:
            write = partial(self.home._write, account=_changed_no_entry, confirm=False)  # it need not outlive a crash
            self.lease = Lease(self.store, self.kb, self.terms.lease, write, self.home._log)
        return flies

    def remaining(self) -> float | None:
        """The seconds for which this call may still wait; None for no limit. Raises StillComputingError."""
        if self._until is None:
            return None
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise StillComputingError(
                f"the value of key {key_digest(self.kb)} is still being computed by somebody else after "
                f"{self.terms.timeout:g} seconds; ask again later, or wait for longer (timeout=)"
            )
        return remaining

    def attempt(self) -> bool:
        """Try once to get the lease. Whether this call is the one of all processes that makes the value."""
        return self.lease is None or self.lease.acquire()

    def look(self) -> Outcome | None:
        """What gives the value that is there and will do; does not count as a read."""
        record = self.store.get(self.kb)
        if record is not None and (self.anew or record.version == self.seen):
            self.seen = record.version
            return None
        return None if record is None else self._outcome(record.tag, record.blob)

    def has_changed(self, mark: int) -> bool:
        """Whether another look may find more than the one at the commit `mark`."""
        return self.store.begin().id() != mark or self.lease is None or not self.lease.is_taken()

    def _outcome(self, tag: int, blob: bytes) -> Outcome:
        return partial(self.home._codec.decode, tag, blob)

    # Making it

    def begin(self) -> None:
        """Note when the computation begins."""
        self._begun = self.store.clock()

    def settle(self, value: Any) -> Any:
        """Write the value that was computed, and land. Returns it, or the one that somebody else has written."""
        outcome: Outcome | None = None
        try:
            keep = self.terms.cache_if is None or bool(self.terms.cache_if(value))
            try:
                tag, blob = self.home._codec.encode(value)
            except ValueTypeError:
                if keep:
                    raise
                return value  # which nobody can be given a copy of
            if not keep:
                outcome = self._outcome(tag, blob)
                return value
            theirs = self._put(tag, blob)
            if theirs is None:
                outcome = self._outcome(tag, blob)
                return value
            outcome = self._outcome(theirs.tag, theirs.blob)
            return outcome()
        finally:
            self.finish(outcome)

    def _put(self, tag: int, blob: bytes) -> Record | None:
        """Write the value unless somebody else has written one, which is returned. Deletes the lease in any case."""
        version = None if self.lease is None else self.lease.end()
        cost = _DOUBLE.pack(max(0.0, self.store.clock() - self._begun)) if self.terms.early else b""

        def work(txn: Transaction) -> tuple[Record | None, int]:
            receipt, theirs = txn.put(self.kb, self._hint, tag, blob, **rest, when=self.seen), None
            if receipt is None:
                theirs = txn.get(self.kb)
                if theirs is None:  # it ended or was removed meanwhile
                    txn.put(self.kb, self._hint, tag, blob, **rest, when=ABSENT)
            if theirs is None and cost and self.terms.ttl is not None:
                txn.put(cost_key(self.kb), b"", TAG, cost, ttl=self.terms.ttl)
            if version is not None and self.lease is not None:
                txn.delete(self.lease.kb, when=version)
            return theirs, txn.id()

        rest: Any = {"ttl": self.terms.ttl, "label": self.terms.label}
        found: list[Record | None] = []

        def change() -> int:
            theirs, commit = self.home._change(work, [(self.kb, blob)], size=2 + (len(blob) >> 11))
            found[:] = [theirs]
            return commit

        self.home._write(change, lambda front, commit: front.wrote_many(commit, [self._kept_as]))
        self.lease = None
        if found[0] is None:
            next(self.home._tally.sets)
        return found[0]

    def finish(self, outcome: Outcome | None = None) -> None:
        """Let go of the lease, if it is still held, and land. May be called again."""
        try:
            if self.lease is not None:
                self.lease.release()
                self.lease = None
        finally:
            land(self._mine, outcome)

    # In threads

    def run(self, factory: Callable[[], Any]) -> Any:
        """The value, made by this call or by another one. Waits in this thread."""
        try:
            while not self.board():
                if not self.flight.landed.wait(self.remaining()):
                    self.remaining()
                if self.flight.outcome is not None and not self.anew:
                    return self.flight.outcome()
            return self._fly(factory, self._obtain)
        except BaseException:
            self.finish()  # again: Ctrl-C may have come before anything was begun, or in the middle of the end
            raise

    def run_unless_busy(self, factory: Callable[[], Any], old: Any) -> Any:
        """The value, made anew by this call; `old` if another one is at it. See `get_or_create` for what fails."""
        try:
            if not self.board_unless_busy():
                return old
            try:
                return self._fly(factory, self.look) if self.attempt() else old
            except Exception as error:
                self.warn(error)
                return old
            finally:
                self.finish()
        except BaseException:
            self.finish()  # again, as above
            raise

    def warn(self, error: Exception) -> None:
        """Tell that an early computation failed; the entry is still there."""
        what = f"computing key {key_digest(self.kb)} anew before it ends failed with {type(error).__name__}"
        self.home._log.warning(f"{what}; the value that is there is used until then")

    def _fly(self, factory: Callable[[], Any], obtain: Callable[[], Outcome | None]) -> Any:
        outcome = None
        try:
            outcome = obtain()
            if outcome is not None:
                return outcome()
            token = aboard.set((*aboard.get(), self.flight))
            try:
                self.begin()
                value = factory()
            finally:
                aboard.reset(token)
            return self.settle(value)
        finally:
            self.finish(outcome)

    def _obtain(self) -> Outcome | None:
        """Wait for the lease, or for the value that another process makes."""
        growing = pauses()
        mark = self.store.begin().id()
        while not self.attempt():
            for pause in growing:
                remaining = self.remaining()
                time.sleep(pause if remaining is None else min(pause, remaining))
                if self.has_changed(mark):
                    break
            mark = self.store.begin().id()
            if (found := self.look()) is not None:
                return found
        return self.look()


def _changed_no_entry(front: Any, receipt: Any) -> None:
    """Account for a row that is no entry: all copies are as good as before."""
    front.wrote_many(receipt.id, [])
