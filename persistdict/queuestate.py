"""The state of a queue: its settings, what it counts, and where a search for its rows begins.

Grammar (numbers are on disk: never change or reuse one); numbers are big-endian:

    state   := 0x01 order:u8 maxsize:u64 next:u64 ready:u64 leased:u64 unfinished:u64 soonest:u64 seen:u64
               size:u16 edge list list                     size: of the edge; the lists are the strays and the lost
    order   := 0 fifo, 1 lifo, 2 priority
    list    := count:u16 (size:u16 bytes)*

    next        the id of what is put next
    ready       how many items can be handed out; leased: how many are; unfinished: how many were put and are not done
    soonest     no lease ends before this time, microseconds since the epoch; 2^64 - 1 if there is none
    seen        when a lease was given last
    edge        no ready row has a place before it, but for the strays (lifo: at it or behind it)
    lost        rows that are damaged, by their keys without the head

The counts never fall below zero: where a write was taken back they may be too small, and no item may be stuck for that.
"""

from __future__ import annotations

import struct

from persistdict.errors import CorruptEntryError, MismatchError, NotAStoreError

__all__ = ["ID", "JUMP", "MOST", "NEVER", "ORDERS", "State"]

ORDERS = ("fifo", "lifo", "priority")
NEVER = (1 << 64) - 1
JUMP = 60_000_000  # microseconds that a lease may have been given in the future
STRAYS = 32  # that are listed; with more the edge is moved
LOST = 1 << 15  # rows that are listed; with more the queue is not used
MOST = 1 << 62  # no count and no id is larger
FORMAT = 1
ID = struct.Struct(">Q")
_HEAD = struct.Struct(">BB7QH")
_SIZE = struct.Struct(">H")


class State:
    """The state as one transaction has it; not for several threads. Attributes as in the grammar.

    Attributes:
        damage: what was found damaged in this transaction.
    """

    def __init__(self, order: str, maxsize: int) -> None:
        self.order, self.maxsize = order, maxsize
        self.next_id = self.ready = self.leased = self.unfinished = self.seen = 0
        self.soonest = NEVER
        self.strays: list[bytes] = []
        self.lost: list[bytes] = []
        self.damage: list[CorruptEntryError] = []
        self.forget_edges()
        self._stored = self.pack()

    @property
    def is_lifo(self) -> bool:
        return self.order == "lifo"

    def fresh(self) -> State:
        """The state of a queue with these settings that nobody has put into."""
        return State(self.order, self.maxsize)

    def pack(self) -> bytes:
        """The bytes of the row."""
        counts = self.next_id, self.ready, self.leased, self.unfinished, self.soonest, self.seen
        head = _HEAD.pack(FORMAT, ORDERS.index(self.order), self.maxsize, *counts, len(self.edge))
        return head + self.edge + _pack_list(self.strays) + _pack_list(self.lost)

    @classmethod
    def parse(cls, raw: bytes) -> State:
        """Take the row apart. Raises NotAStoreError for a newer format, CorruptEntryError for what is no state."""
        if raw and raw[0] != FORMAT:
            raise NotAStoreError(f"a queue has format {raw[0]}, which this version cannot read")
        state = cls.__new__(cls)
        try:
            at = state._take_apart(raw)
        except (struct.error, IndexError):
            at = -1
        if at != len(raw) or max(state.next_id, state.ready, state.leased, state.unfinished, state.maxsize) > MOST:
            raise CorruptEntryError("the state of a queue is damaged: its lengths or counts are impossible")
        return state

    def _take_apart(self, raw: bytes) -> int:
        """Read the row; gives where it ends."""
        _, order, self.maxsize, *counts, size = _HEAD.unpack_from(raw)
        self.order = ORDERS[order]
        self.next_id, self.ready, self.leased, self.unfinished, self.soonest, self.seen = counts
        at = _HEAD.size + size
        self.edge, self.damage = raw[_HEAD.size : at], []
        self.strays, at = _parse_list(raw, at)
        self.lost, at = _parse_list(raw, at)
        self._stored = raw
        return at

    def is_changed(self) -> bool:
        """Whether it must be written."""
        return self.pack() != self._stored

    def check(self, asked: State) -> None:
        """Raise MismatchError if the settings are not those that were asked for."""
        if asked.order != self.order:
            raise MismatchError(f"this queue is of the order {self.order!r}, not {asked.order!r}; nothing was changed")
        if asked.maxsize not in (0, self.maxsize):
            raise MismatchError(
                f"this queue has the maxsize {self.maxsize}, not {asked.maxsize}; say 0 for what it has; nothing was "
                "changed"
            )

    def room(self) -> int:
        """How many items may be put."""
        return max(self.maxsize - self.ready, 0) if self.maxsize else NEVER

    def is_due(self, now: int) -> bool:
        """Whether a lease may be over."""
        return self.leased > 0 and (now >= self.soonest or self.seen > now + JUMP)

    def clear(self) -> None:
        """All rows are gone; what is in the hands of others remains to be done."""
        self.unfinished = max(self.unfinished - self.ready - self.leased, 0)
        self.ready = self.leased = 0
        self.soonest, self.lost = NEVER, []
        self.forget_edges()

    # Where to search

    def forget_edges(self) -> None:
        """Have everything searched."""
        self.edge = b"\xff" if self.is_lifo else b""
        self.strays = []

    def inserted(self, place: bytes) -> None:
        """A row was made ready here."""
        if place < self.edge if not self.is_lifo else place >= self.edge:
            self.strays.append(place)
            if len(self.strays) > STRAYS:
                self.edge = max(self.strays) + b"\0" if self.is_lifo else min(self.strays)
                self.strays = []

    def removed(self, place: bytes) -> None:
        """The row that came next is no longer ready."""
        if place in self.strays:
            self.strays.remove(place)
        else:
            self.edge = self.edge_at(place)

    def edge_at(self, place: bytes) -> bytes:
        """The edge if no ready row lies before this place, or at it."""
        return place if self.is_lifo else place + b"\0"

    def neighbour(self, edge: bytes) -> bytes:
        """The first place beyond an edge at which there may be a row; empty if that cannot be told."""
        if self.order == "priority" or len(edge) < ID.size:
            return b""
        passed = len(edge) == ID.size if self.is_lifo else len(edge) > ID.size  # the place that the edge names
        number = ID.unpack_from(edge)[0] + (0 if not passed else -1 if self.is_lifo else 1)
        return ID.pack(number) if 0 <= number <= NEVER else b""

    def lose(self, key: bytes, error: CorruptEntryError, leased: bool = False) -> None:
        """A row was found to be damaged: it counts no more."""
        self.damage.append(error)
        if key in self.lost:
            return
        if len(self.lost) >= LOST:
            raise CorruptEntryError("too many rows of a queue are damaged; verify(repair=True) puts them aside")
        self.lost.append(key)
        self.ready = max(self.ready - (not leased), 0)
        self.leased = max(self.leased - leased, 0)
        self.unfinished = max(self.unfinished - 1, 0)
        if key[1:] in self.strays:
            self.strays.remove(key[1:])


def _pack_list(parts: list[bytes]) -> bytes:
    return _SIZE.pack(len(parts)) + b"".join(_SIZE.pack(len(part)) + part for part in parts)


def _parse_list(raw: bytes, at: int) -> tuple[list[bytes], int]:
    (many,), parts = _SIZE.unpack_from(raw, at), []
    at += _SIZE.size
    for _ in range(many):
        (size,) = _SIZE.unpack_from(raw, at)
        at += _SIZE.size + size
        parts.append(raw[at - size : at])
    return parts, at
