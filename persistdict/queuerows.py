r"""The rows of a queue: what lies where, and what is done to them within one transaction.

Grammar (numbers are on disk: never change or reuse one). All rows begin with the head of the queue, see spans.py;
numbers are big-endian.

    state   := head 0x01           -> what queuestate.py packs
    ready   := head 0x02 place     -> held
    leased  := head 0x03 end id    -> begun:u64 size:u16 place held      size: of the place
    body    := head 0x04 id        -> the item, if it is large

    place   := priority id         priority: the ordered bytes (keys.py) of the tuple (priority,); nothing in a queue
                                   that has none. Of two equal ones the lower id comes first.
    held    := attempts:u32 where:u8 item      where: 0 the item follows, 1 it is in the row `body`
    id      := u64                 counts what was put
    end     := u64                 when the lease runs out, microseconds since the epoch; begun: when it was given

The tag of the row that holds an item is the codec's. An item is in one row, ready or leased, and never in two.

Cost. Removed rows stay as notes in the recent writes until a drain, and a search passes over each of them. So the state
knows an edge that no ready row lies before, but for a few strays that it lists (behind, for "lifo": there all is the
other way round), and a time before which no lease ends. A search begins there: each note is passed over about once.

A row that is damaged is noted in the state as lost, counts no more, and is passed over; it stays where it is.

A clock that jumps: a lease is over at its end, or if it was given more than a minute in the future.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from persistdict.errors import CorruptEntryError, MismatchError
from persistdict.queueparts import HELD, LEASE, LEASED, READY, check_row, parse_lease
from persistdict.queuestate import ID, JUMP, NEVER, State
from persistdict.spans import Span
from persistdict.store import Record, Transaction

__all__ = ["ROOM", "Lease", "Ready", "Rows"]

STATE, BODY, END = b"\x01", b"\x04", b"\xff"
ROOM = 32  # bytes that a key of a row may need behind the head, with a priority that is any float
LARGE = 4096  # bytes of an item from which on it lies apart, so that leases do not write it again
AT_ONCE = 500  # leases that one transaction takes back


class Ready(NamedTuple):
    """An item that can be handed out: where it is, in which version, how often it was handed out, and its bytes."""

    place: bytes
    version: int
    attempts: int
    apart: bool
    tag: int
    blob: bytes


class Lease(NamedTuple):
    """The row of an item that was handed out, the version that proves whose it is, and when it ends (microseconds)."""

    key: bytes
    version: int
    end: int


class Rows:
    """The rows of one queue. Holds nothing that changes; any number of threads may use one.

    Args:
        head: what its keys have in front.
        limit: keys must be shorter.
    """

    def __init__(self, head: bytes, limit: int) -> None:
        self.state_key, self._limit = head + STATE, limit
        self._ready, self._leased, self._body = head + READY, head + LEASED, head + BODY
        self.items, self.all = Span(head + READY, head + END), Span(head, head + END)
        self._head = head

    def fits(self, priority: bytes) -> bool:
        """Whether a priority is short enough to be a part of a key."""
        return len(self._ready) + len(priority) + ID.size < self._limit

    # The state

    def load(self, txn: Transaction, asked: State, doubtful: bool = False) -> State:
        """The state; for a queue that has none the one asked for. Counted anew if it is missing, or in doubt.

        Raises MismatchError if the queue is of another order or size.
        """
        record = txn.get(self.state_key)
        state = asked.fresh() if record is None else State.parse(record.blob)
        if record is None or doubtful:
            self._recount(txn, state)
        state.check(asked)
        return state

    def save(self, txn: Transaction, state: State) -> None:
        txn.put(self.state_key, b"", 0, state.pack())

    def _recount(self, txn: Transaction, state: State) -> None:
        """Count the rows, and look for all of them from now on. What is in the hands of others is not known."""
        counts, span = {self._ready: 0, self._leased: 0}, Span(self.items.start, self._body)
        state.forget_edges()
        while (record := self._first(txn, state, span)) is not None:
            kind = record.kb[: len(self._ready)]
            counts[kind] += 1
            if kind == self._ready and (len(record.kb) > len(kind) + ID.size) != (state.order == "priority"):
                raise MismatchError("this queue is of another order; nothing was changed")
            state.next_id = max(state.next_id, ID.unpack(record.kb[-ID.size :])[0] + 1)
            span = Span(record.kb + b"\0", span.stop)
        there = sum(counts.values())
        state.unfinished += min(there - state.ready - state.leased, 0)
        state.unfinished = max(state.unfinished, there)
        state.ready, state.leased = counts.values()
        state.soonest = 0 if state.leased else NEVER

    # Putting

    def add(self, txn: Transaction, state: State, priority: bytes, tag: int, blob: bytes) -> None:
        """Put an item."""
        number = ID.pack(state.next_id)
        if apart := len(blob) > LARGE:
            txn.put(self._body + number, b"", tag, blob)
            blob = b""
        self._make_ready(txn, state, priority + number, tag, HELD.pack(0, apart) + blob)
        state.next_id += 1
        state.unfinished += 1

    def _make_ready(self, txn: Transaction, state: State, place: bytes, tag: int, held: bytes) -> None:
        txn.put(self._ready + place, b"", tag, held)
        state.ready += 1
        state.inserted(place)

    # Getting

    def upcoming(self, txn: Transaction, state: State, many: int = 1, *, whole: bool = True) -> list[Ready]:
        """The items that come next, in order; a large one only as the first. Fewer if one was found to be lost.

        Unless `whole`, what lies apart is not read.
        """
        found = self._listed(txn, state, many, whole)
        if not found and state.ready and not state.damage:
            self._recount(txn, state)  # rows were put aside by a repair
            found = self._listed(txn, state, many, whole)
        return found

    def _listed(self, txn: Transaction, state: State, many: int, whole: bool) -> list[Ready]:
        found: list[Ready] = []
        for place in sorted(state.strays, reverse=state.is_lifo)[:many]:
            try:
                record = self._sound(txn.get(self._ready + place))
                if record is None:
                    raise CorruptEntryError("an item of a queue is missing")
            except CorruptEntryError as error:
                state.lose(self._ready[-1:] + place, error)
                return found
            if not self._look_at(txn, state, record, found, whole):
                return found
        edge = state.edge
        while len(found) < many:
            record = self._beyond(txn, state, edge)
            if record is None or state.damage or not self._look_at(txn, state, record, found, whole):
                break
            edge = state.edge_at(found[-1].place)
        return found

    def _beyond(self, txn: Transaction, state: State, edge: bytes) -> Record | None:
        """The ready row that comes next if none lies before this edge. (A search costs more than a look.)"""
        key = self._ready + state.neighbour(edge)
        with contextlib.suppress(CorruptEntryError):  # the search comes upon it again
            record = self._sound(txn.get(key)) if len(key) > len(self._ready) else None
            if record is not None and key[len(self._head) :] not in state.lost:
                return record
        if state.is_lifo:
            return self._first(txn, state, Span(self._ready, self._ready + edge), reverse=True)
        return self._first(txn, state, Span(self._ready + edge, self._leased))

    def _look_at(self, txn: Transaction, state: State, record: Record, found: list[Ready], whole: bool) -> bool:
        """Add what a row tells. False to look no further."""
        attempts, where = HELD.unpack_from(record.blob)
        ready = Ready(
            record.kb[len(self._ready) :], record.version, attempts, bool(where), record.tag, record.blob[HELD.size :]
        )
        if where and found:
            return False
        if where and whole:
            try:
                tag, blob = self._read_body(txn, ready.place)
            except CorruptEntryError as error:
                state.lose(self._ready[-1:] + ready.place, error)
                return False
            ready = ready._replace(tag=tag, blob=blob)
        found.append(ready)
        return True

    def _read_body(self, txn: Transaction, place: bytes) -> tuple[int, bytes]:
        record = txn.get(self._body + place[-ID.size :])
        if record is None:
            raise CorruptEntryError("a large item of a queue is missing")
        return record.tag, record.blob

    def _first(self, txn: Transaction, state: State, span: Span, *, reverse: bool = False) -> Record | None:
        """The first row in a span that is not lost. One that is found to be damaged is lost from now on."""
        while True:
            try:
                record = self._sound(txn.first(span, reverse=reverse))
            except CorruptEntryError as error:
                kb = error.kb
                if kb not in span:
                    raise
                if kb[len(self._head) :] not in state.lost:
                    state.lose(kb[len(self._head) :], error, kb < self._body and kb >= self._leased)
            else:
                if record is None or record.kb[len(self._head) :] not in state.lost:
                    return record
                kb = record.kb
            span = Span(span.start, kb) if reverse else Span(kb + b"\0", span.stop)

    def _sound(self, record: Record | None) -> Record | None:
        """The row of an item or a lease. Raises CorruptEntryError if it cannot be one."""
        if record is not None:
            check_row(record, len(self._head))
        return record

    def take(self, txn: Transaction, state: State, ready: Ready) -> None:
        """Remove an item that comes next."""
        self._take_out(txn, state, ready)
        if ready.apart:
            txn.discard(self._body + ready.place[-ID.size :])

    def _take_out(self, txn: Transaction, state: State, ready: Ready) -> None:
        txn.discard(self._ready + ready.place)
        state.ready = max(state.ready - 1, 0)
        state.removed(ready.place)

    # Leases

    def lease(self, txn: Transaction, state: State, ready: Ready, now: int, length: int) -> Lease:
        """Hand out an item that comes next, for so many microseconds."""
        self._take_out(txn, state, ready)
        state.leased += 1
        held = HELD.pack(ready.attempts + 1, ready.apart) + (b"" if ready.apart else ready.blob)
        return self._let(txn, state, ready.place, ready.tag, held, now, length)

    def _let(self, txn: Transaction, state: State, place: bytes, tag: int, held: bytes, now: int, length: int) -> Lease:
        end = min(now + length, NEVER - 1)
        key = self._leased + ID.pack(end) + place[-ID.size :]
        receipt = txn.put(key, b"", tag, LEASE.pack(now, len(place)) + place + held)
        assert receipt is not None
        state.soonest, state.seen = min(state.soonest, end), max(state.seen, now)
        return Lease(key, receipt.version, end)

    def _of(self, txn: Transaction, lease: Lease) -> Record | None:
        """The row of a lease, if it is still what it was."""
        record = self._sound(txn.get(lease.key))
        return record if record is not None and record.version == lease.version else None

    def finish(self, txn: Transaction, state: State, lease: Lease) -> bool:
        """Remove an item that was handed out. False if the lease is lost."""
        record = self._of(txn, lease)
        if record is None:
            return False
        _, place, held = parse_lease(record)
        txn.discard(record.kb)
        if held[HELD.size - 1]:
            txn.discard(self._body + place[-ID.size :])
        state.leased = max(state.leased - 1, 0)
        state.unfinished = max(state.unfinished - 1, 0)
        return True

    def extend(self, txn: Transaction, state: State, lease: Lease, now: int, length: int) -> Lease | None:
        """Let a lease begin anew. None if it is lost."""
        record = self._of(txn, lease)
        if record is None:
            return None
        _, place, held = parse_lease(record)
        txn.discard(record.kb)
        return self._let(txn, state, place, record.tag, held, now, length)

    def give_back(self, txn: Transaction, state: State, lease: Lease, *, unused: bool = False) -> bool:
        """Put an item that was handed out back to its place. False if the lease is lost.

        `unused`: its attempts are not counted.
        """
        record = self._of(txn, lease)
        if record is not None:
            self._return(txn, state, record, unused)
        return record is not None

    def _return(self, txn: Transaction, state: State, record: Record, unused: bool = False) -> None:
        _, place, held = parse_lease(record)
        if unused:
            attempts, where = HELD.unpack_from(held)
            held = HELD.pack(attempts - 1, where) + held[HELD.size :]
        txn.discard(record.kb)
        state.leased = max(state.leased - 1, 0)
        self._make_ready(txn, state, place, record.tag, held)

    def return_over(self, txn: Transaction, state: State, now: int) -> None:
        """Put those back whose leases are over; some hundreds at once."""
        if not state.is_due(now):
            return
        jumped = state.seen > now + JUMP
        start, state.soonest, many = self._leased + ID.pack(0 if jumped else state.soonest), NEVER, 0
        while (record := self._first(txn, state, Span(start, self._body))) is not None:
            end = ID.unpack_from(record.kb, len(self._leased))[0]
            if many < AT_ONCE and (end <= now or parse_lease(record)[0] > now + JUMP):
                self._return(txn, state, record)
                many += 1
            else:
                state.soonest = min(state.soonest, end)
                if many == AT_ONCE or not jumped:
                    return
            start = record.kb + b"\0"
        state.seen = min(state.seen, now)
