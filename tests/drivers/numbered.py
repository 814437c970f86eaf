"""Writers whose transactions are numbered, and from what is left of them after a power cut: how many are left.

The n-th transaction of a writer follows from the seed, the writer, n, and what the writer had stored before. Every
value names its writer, the number of its transaction and its own size, and carries a checksum. So what is in the store
tells whether it is what the writer had after exactly n transactions, for one n.

Each writer keeps a journal of what returned and when, by the clock that all processes share; it is not on the disk
whose power is cut.
"""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from typing import Any, NamedTuple

from persistdict import PersistDict

OWN = 40  # keys of each writer
SHARED = [f"shared {i}" for i in range(3)]  # all written at once, by every writer
SYNCED = ("flush",)  # verbs after which all that had returned before is on the disk, whatever the durability
VERBS = {
    "set": 44, "large": 6, "delete": 12, "pop": 4, "update": 14, "shared": 8, "delete_many": 4, "flush": 2, "reopen": 2,
}  # fmt: skip


# Values


class Written(NamedTuple):
    """What tells one value from all others."""

    writer: int
    number: int
    place: int  # within its transaction
    size: int

    def value(self) -> Any:
        """The value: bytes, a str or a list, about so long."""
        head = b"%d %d %d %d " % self
        data = head + random.Random(str(self)).randbytes(self.size)
        data += b"%08x" % zlib.crc32(data)
        return [data, data.decode("latin-1"), [data[:10], {self.number: data[10:]}]][self.number % 3]


def recognised(value: Any) -> Written:
    """What a value is, if it is whole. Raises AssertionError if it is not."""
    if isinstance(value, list):
        [first, rest] = value
        value = first + next(iter(rest.values()))
    data = value.encode("latin-1") if isinstance(value, str) else value
    assert isinstance(data, bytes), f"a value of the type {type(value).__name__}"
    assert zlib.crc32(data[:-8]) == int(data[-8:], 16), f"a value is damaged: {data[:40]!r}..."
    return Written(*map(int, data[:200].split(b" ", 4)[:4]))


# Transactions


def own_key(writer: int, number: int) -> Any:
    """One of the keys of a writer; one in five is longer than LMDB's keys can be."""
    kinds: list[Any] = [
        f"w{writer} {number}",
        writer * 1000 + number,
        ("w", writer, number),
        b"w%d %d" % (writer, number),
    ]
    return kinds[number % 5] if number % 5 < 4 else f"w{writer} {number} " + "long " * 120


class Transaction(NamedTuple):
    """What is done at once: what it removes, and what it sets."""

    verb: str
    removed: list[Any]
    sets: dict[Any, Written]


class Plan:
    """The transactions of one writer, and what they come to.

    Attributes:
        number: how many were done.
        entries: what the writer's own keys hold, in order of insertion.
        shared: the last transaction that wrote the shared keys; 0 for none.
    """

    def __init__(self, seed: int, writer: int) -> None:
        self.seed, self.writer, self.number, self.shared = seed, writer, 0, 0
        self.entries: dict[Any, Written] = {}

    def copy(self) -> Plan:
        new = Plan(self.seed, self.writer)
        new.number, new.shared, new.entries = self.number, self.shared, dict(self.entries)
        return new

    def next(self) -> Transaction:
        """The next transaction; the same whenever it is asked for."""
        draw = random.Random(f"{self.seed} {self.writer} {self.number + 1}")
        verb = draw.choices(list(VERBS), list(VERBS.values()))[0]
        there = list(self.entries)
        if verb in ("flush", "reopen"):
            return Transaction(verb, [], {})
        if verb in ("delete", "pop", "delete_many"):
            if not there:
                return Transaction("read", [], {})
            return Transaction(verb, draw.sample(there, min(len(there), draw.randint(2, 6) if "_" in verb else 1)), {})
        many = draw.randint(2, 10) if verb in ("update", "shared") else 1
        keys = [own_key(self.writer, number) for number in draw.sample(range(OWN), many)]
        if verb == "shared":
            keys += SHARED
        return Transaction(verb, [], {key: self._written(draw, verb, place) for place, key in enumerate(keys)})

    def _written(self, draw: random.Random, verb: str, place: int) -> Written:
        sizes = [draw.randrange(60), draw.randrange(100, 3000), draw.randrange(3000, 40_000)]
        size = draw.choices(sizes, [60, 32, 8])[0]
        if verb == "large" or (verb == "update" and draw.random() < 0.03):
            size = draw.randrange(40_000, 300_000)
        return Written(self.writer, self.number + 1, place, size)

    def done(self, transaction: Transaction) -> None:
        """Take a transaction into account."""
        self.number += 1
        for key in transaction.removed:
            self.entries.pop(key, None)
        for key, written in transaction.sets.items():
            if key in SHARED:
                self.shared = self.number
            else:
                self.entries[key] = written


def perform(d: PersistDict[Any, Any], transaction: Transaction) -> None:
    """Do a transaction, with those operations of the dictionary that its verb names."""
    verb, removed, sets = transaction
    if verb == "flush":
        d.flush()
    elif verb == "read":
        list(d.items())
    elif len(removed) > 1:
        d.delete_many(removed)
    elif verb == "pop":
        d.pop(removed[0])
    elif removed:
        del d[removed[0]]
    elif len(sets) > 1:
        d.update({key: written.value() for key, written in sets.items()})
    else:
        for key, written in sets.items():
            d[key] = written.value()


# Journals


class Noted(NamedTuple):
    """One line of a journal; the times in nanoseconds."""

    begun: int
    returned: int
    synced: int  # whether everything that returned before it begun is on the disk


class Journal:
    """What a writer has done, by number."""

    RECORD = struct.Struct("<4Q")

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def note(self, transaction: Transaction, number: int, begun: int) -> None:
        """Note that a transaction has returned now."""
        os.write(self._fd, self.RECORD.pack(number, begun, time.monotonic_ns(), transaction.verb in SYNCED))

    def close(self) -> None:
        os.close(self._fd)

    @classmethod
    def read(cls, path: str) -> dict[int, Noted]:
        """What is in a journal whose writer may be dead."""
        with open(path, "rb") as file:
            data = file.read()
        whole = data[: len(data) // cls.RECORD.size * cls.RECORD.size]
        return {number: Noted(*rest) for number, *rest in cls.RECORD.iter_unpack(whole)}
