"""What every part of a queue stands on: its transactions, and waiting for them to be possible.

Nothing of the user's code runs within a transaction. So an item is decoded before it is taken: items are read ahead,
decoded, and then the one that comes next is removed if it is one of those, in the same version. What cannot be decoded
stays where it is. How far is read ahead follows from how many of the last ones were used.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from persistdict.core import MISSING, Core
from persistdict.errors import (
    BusyError,
    DamagedEntryWarning,
    DiskFullError,
    KeyTypeError,
    PersistDictError,
    ReadOnlyError,
    StoreError,
    TooLargeError,
)
from persistdict.keys import KeyCodec
from persistdict.overlay import Overlay
from persistdict.queuerows import Lease, Ready, Rows
from persistdict.queuestate import State
from persistdict.queuewait import Waiter, wake
from persistdict.store import Transaction

__all__ = ["Encoded", "QueueCore"]

T = TypeVar("T")

Encoded = tuple[bytes, int, bytes]  # the priority, and what the codec has made of the item
FAR_AHEAD = 16  # items that are read ahead at most
EVERYBODY = 1 << 30
_AGAIN: Any = object()  # damage was found and noted; to be tried once more


class QueueCore:
    """What the parts of a queue share. Threads and processes: any number."""

    def __init__(self, root: Core[Any, Any], rows: Rows, asked: State) -> None:
        self._root, self._rows, self._asked = root, rows, asked
        self._priorities = KeyCodec() if asked.order == "priority" else None
        self._doubtful = False  # a write was taken back, after which the counts may be wrong
        self._ahead: dict[tuple[bytes, int], Any] = {}  # place and version -> item; replaced, never refilled
        self._width, self._used = 1, 1  # how many were read ahead the last time, and used. (Threads may lose a count.)

    # One transaction

    def _state(self) -> State | None:
        """The state as it is now; None if there is none."""
        self._root._opened()
        record = self._root._store.get(self._rows.state_key)
        if record is None:
            return None
        state = State.parse(record.blob)
        state.check(self._asked)
        return state

    def _now(self) -> int:
        return int(max(self._root._options.clock(), 0.0) * 1e6)

    def _run(
        self, work: Callable[[Transaction, State], T], *, size: int = 1, whole: bool = False, store: Any = None
    ) -> T:
        """Run `work` in one transaction, keep what it makes of the state, and wake who waits for that.

        `store`: another one than that of the dictionary.

        What was found to be damaged is warned of afterwards; so `work` takes nothing then.
        """
        root, rows, doubtful = self._root, self._rows, self._doubtful
        done: list[Any] = []
        root._opened()

        def change(txn: Transaction) -> int:
            state = rows.load(txn, self._asked, doubtful)
            before = state.ready, state.unfinished
            done[:] = work(txn, state), state, before
            if not state.is_changed():
                return 0
            rows.save(txn, state)
            return txn.id()

        try:
            root._write(
                lambda: (store or root._store).update(change, size=size, whole=whole),
                lambda front, commit: front.wrote_many(commit, []),
            )
        except (BusyError, DiskFullError, StoreError):
            self._doubtful = root._confirms
            raise
        result, state, before = done
        self._doubtful = self._doubtful and not doubtful
        self._wake(state, *before)
        for error in state.damage:
            text = (
                f"an item of a queue of {root.name} is damaged and was passed over; verify(repair=True) puts it aside"
            )
            warnings.warn(f"{text}: {error}", DamagedEntryWarning, stacklevel=4)
        return result  # type: ignore[no-any-return]

    def _wake(self, state: State, ready: int, unfinished: int) -> None:
        if state.ready > ready:
            wake(self._event("get"), state.ready - ready)
        elif state.ready < ready:
            wake(self._event("put"), ready - state.ready)
        if state.unfinished == 0 < unfinished:
            wake(self._event("join"), EVERYBODY)

    def _event(self, verb: str) -> tuple[Any, bytes, str]:
        return self._root._store.shared, self._rows.state_key, verb

    # Waiting

    def _wait_until(
        self,
        verb: str,
        attempt: Callable[[], Any],
        is_possible: Callable[[State], bool],
        block: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """What `attempt` returns, as soon as that is not MISSING; MISSING if it is not in time.

        Within a transaction it does not wait: what others do then would only be in conflict with it.
        """
        if block and timeout is not None and not timeout >= 0:
            raise ValueError("timeout must be seconds, and not negative")
        end = float("inf") if timeout is None else time.monotonic() + timeout
        found = attempt()
        if found is not MISSING or not block or self._root._in_transaction():
            return found
        with Waiter(self._event(verb), end) as waiter:
            while True:
                looked, commit = waiter.look(), self._commit()
                state = self._state()
                if state is None or is_possible(state):
                    found = attempt()
                    if found is not MISSING:
                        return found

                def is_changed(commit: int = commit, state: State | None = state) -> bool:
                    return self._commit() != commit or commit < 0 or (state is not None and state.is_due(self._now()))

                if not waiter.wait(looked, is_changed):
                    return MISSING

    def _commit(self) -> int:
        """The id of the last commit of anybody; -1 if it cannot be told."""
        try:
            return self._root._store.begin().id()
        except PersistDictError:
            raise
        except Exception:  # the file has grown, or must be opened after a fork: the next read sees to that
            return -1

    # Putting

    def _encode(self, item: Any) -> Encoded:
        """Raises what the codec raises, and KeyTypeError or TooLargeError for what has no priority."""
        priority = b"" if self._priorities is None else self._priority(item)
        return (priority, *self._root._codec.encode(item))

    def _priority(self, item: Any) -> bytes:
        assert self._priorities is not None
        first = item[0] if isinstance(item, tuple) and item else item
        try:
            priority = self._priorities.encode((first,))[0]
        except TypeError as error:
            raise KeyTypeError(
                "the priority of an item, its first part if it is a tuple, else the item itself, must be a str, bytes, "
                f"int, float, bool, None or a tuple of these, not {type(first).__qualname__}; put (priority, item)"
            ) from error
        if not self._rows.fits(priority):
            raise TooLargeError("the priority of this item has too many bytes: it must be shorter than a key may be")
        return priority

    def _add(self, encoded: list[Encoded], *, partly: bool = False) -> int:
        """Put all of these, or none if there is no room for all; or `partly` as many as there is room for."""

        def work(txn: Transaction, state: State) -> int:
            many = min(len(encoded), state.room())
            if many < len(encoded) and not partly:
                return 0
            for priority, tag, blob in encoded[:many]:
                self._rows.add(txn, state, priority, tag, blob)
            return many

        return self._run(work, size=len(encoded) + (sum(len(blob) for *_, blob in encoded) >> 11))

    # Getting

    def _decode(self, ready: Ready) -> Any:
        return self._root._codec.decode(ready.tag, ready.blob)

    def _take(self) -> Any:
        """Take the item that comes next; MISSING if there is none."""
        within, ahead = self._root._in_transaction(), dict[tuple[bytes, int], Any]()
        while True:
            if not within:  # what a transaction takes may come back
                ahead = self._ahead

            def work(txn: Transaction, state: State, ahead: dict[Any, Any] = ahead) -> Any:
                self._rows.return_over(txn, state, self._now())
                found = self._rows.upcoming(txn, state, whole=False)
                if state.damage or not found:
                    return _AGAIN if state.damage else MISSING
                if found[0][:2] in ahead:
                    self._rows.take(txn, state, found[0])
                    return found[0]
                return self._rows.upcoming(txn, state, self._next_width())

            found = self._run(work)
            if isinstance(found, Ready):
                self._used += 1
                return ahead.pop(found[:2])
            if found is MISSING:
                return MISSING
            if found is not _AGAIN:
                ahead = self._read(found)
                if not within:
                    self._ahead = ahead

    def _next_width(self) -> int:
        """How far to read ahead now. Other threads may change both numbers in between."""
        width = self._width // 2 if 0 < 2 * self._used < self._width else 2 * self._width
        return max(1, min(width, FAR_AHEAD))

    def _read(self, found: list[Ready]) -> dict[tuple[bytes, int], Any]:
        """What comes next decoded, up to what cannot be decoded. Raises if that is the first."""
        ahead: dict[tuple[bytes, int], Any] = {}
        for ready in found:
            try:
                ahead[ready[:2]] = self._decode(ready)
            except Exception:
                if not ahead:
                    raise
                break
        self._width, self._used = self._next_width(), 0
        return ahead

    def _first(self) -> Ready | None:
        """What comes next."""

        def work(txn: Transaction, state: State) -> Any:
            self._rows.return_over(txn, state, self._now())
            found = self._rows.upcoming(txn, state)
            return _AGAIN if state.damage else found

        found = self._look(work)
        return found[0] if found else None

    def _look(self, work: Callable[[Transaction, State], Any]) -> Any:
        """What `work` finds; also where nothing can be written."""
        store = None
        while True:
            try:
                found = self._run(work, store=store)
            except ReadOnlyError:
                if store is not None:
                    raise
                store = Overlay(self._root._store)  # what this changes is nowhere else
                continue
            if found is not _AGAIN:
                return found

    def _hand_out(self, length: float, many: int = 1) -> list[tuple[Ready, Lease]]:
        """Hand out some of the items that come next, for so many seconds."""

        def work(txn: Transaction, state: State) -> Any:
            now = self._now()
            self._rows.return_over(txn, state, now)
            found = self._rows.upcoming(txn, state, many)
            if state.damage:
                return _AGAIN
            return [(ready, self._rows.lease(txn, state, ready, now, int(length * 1e6))) for ready in found]

        while (found := self._run(work, size=many)) is _AGAIN:
            pass
        return found  # type: ignore[no-any-return]
