"""What the store contract speaks of: entries as stores tell them, conditions, and the inside of a transaction."""

from __future__ import annotations

import abc
import enum
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from persistdict.errors import Unsupported
from persistdict.spans import ALL, Span

__all__ = [
    "ABSENT",
    "ANY",
    "KEPT",
    "Capability",
    "Condition",
    "Found",
    "Item",
    "Moment",
    "Receipt",
    "Record",
    "Transaction",
    "When",
    "holds",
]

KEPT = float("-inf")  # as a time to live: the entry keeps the deadline that it has, if any


class When(enum.Enum):
    """The condition of a write: ABSENT, that there is no entry; ANY, none."""

    ANY = "any"
    ABSENT = "absent"

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


ANY = When.ANY
ABSENT = When.ABSENT
Condition = When | int  # an int is the version that the entry must have


def holds(when: Condition, version: int | None) -> bool:
    """Whether a condition holds for an entry of this version, or for none."""
    if when is ANY:
        return True
    return version is None if when is ABSENT else version == when


class Capability(enum.Flag):
    """What a store can do beyond get, put, delete, scan and count."""

    ORDERED = enum.auto()  # scan by key
    CAS = enum.auto()  # put and delete under a condition
    TRANSACTIONS = enum.auto()  # update over several keys
    SHARED = enum.auto()  # seen by other processes
    TTL = enum.auto()  # entries that end by themselves


# What `read` gives: tag, blob, seq, when a copy of the value must be asked for again (None: never), and the snapshot's
# id, or -1 if no copy may be kept.
Found = tuple[int, bytes, bytes, float | None, int]


class Record(NamedTuple):
    """One entry; it ends at `expires_at` if nobody touches it, at `deadline` even so (seconds since the epoch)."""

    kb: bytes
    hint: bytes
    tag: int
    blob: bytes
    seq: bytes
    version: int
    ctime: float
    mtime: float
    atime: float
    expires_at: float | None
    label: bytes = b""
    deadline: float | None = None

    def found(self, snapshot: int = -1) -> Found:
        """What `read` gives of it."""
        return self.tag, self.blob, self.seq, self.expires_at, snapshot


class Item(NamedTuple):
    """What a scan tells of an entry."""

    kb: bytes
    hint: bytes
    tag: int
    blob: bytes


class Receipt(NamedTuple):
    """What a write did: the entry's identity and version, when it ends, and the id of the commit."""

    seq: bytes
    version: int
    expires_at: float | None
    id: int


@runtime_checkable
class Moment(Protocol):
    """A snapshot, of which only the id is asked."""

    def id(self) -> int: ...


class Transaction(abc.ABC):
    """The inside of `Store.update`: sees its own writes; all of them are kept, or none if it raises."""

    @abc.abstractmethod
    def get(self, kb: bytes) -> Record | None:
        """The entry, or None."""

    @abc.abstractmethod
    def put(
        self, kb: bytes, hint: bytes, tag: int, blob: bytes, *, ttl: float | None = None, when: Condition = ANY,
        label: bytes = b"",
    ) -> Receipt | None:  # fmt: skip
        """Set an entry; its time limit and label are replaced too. None, and nothing done, if `when` does not hold."""

    def put_many(
        self, batch: Sequence[tuple[bytes, bytes, int, bytes]], *, ttl: float | None = None, label: bytes = b""
    ) -> None:
        """Set many entries, each a key, hint, tag and blob, as `put` would one after the other."""
        for row in batch:
            self.put(*row, ttl=ttl, label=label)

    @abc.abstractmethod
    def delete(self, kb: bytes, *, when: Condition = ANY) -> Record | None:
        """Remove an entry and return it. None, and nothing done, if it is absent or the condition does not hold."""

    @abc.abstractmethod
    def discard(self, kb: bytes, label: bytes | None = None) -> bool:
        """Remove an entry, readable or not, without looking at its value. Whether there was one.

        With a `label`: only if it has that one, which must be readable.
        """

    @abc.abstractmethod
    def clear(self, span: Span = ALL) -> int:
        """Remove everything whose key is in a span, readable or not, and tell how many entries there were."""

    @abc.abstractmethod
    def first(self, span: Span, *, reverse: bool = False) -> Record | None:
        """The entry with the first (last) key in a span; keys that reach the store's size limit are passed over.

        Raises CorruptEntryError, whose `kb` tells the key, if that entry is damaged.
        """

    def rewrite(self, kb: bytes, hint: bytes, tag: int, blob: bytes) -> bool:
        """Replace the bytes of an entry; its times, label and place stay. Whether there is one. For `whole` updates."""
        raise Unsupported("this engine does not rewrite entries")

    @abc.abstractmethod
    def get_info(self, name: str) -> str | None:
        """A setting that is kept in the store, beside the entries."""

    @abc.abstractmethod
    def set_info(self, name: str, text: str) -> None:
        """Keep a setting."""

    @abc.abstractmethod
    def id(self) -> int:
        """The id that this transaction's commit will have; 0 if nothing was written so far, so that there is none."""
