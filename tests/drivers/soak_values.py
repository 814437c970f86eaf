"""What the processes of soak.py write and share: values that describe themselves, and a board of numbers."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import random
import time
from typing import Any, NamedTuple
from zlib import crc32

__all__ = ["Board", "Bounds", "Value", "Wrong", "draw_size", "draw_ttl", "on_disk"]

RING = 1 << 16  # writes of each worker whose end the others can look up
PATTERN = random.Random(1).randbytes(4 << 20)
SMALLEST = 50
OVERHEAD = 200  # bytes that a value takes beside its payload, at most


class Wrong(AssertionError):
    """A value is not what was written."""


class Bounds(NamedTuple):
    """How much the store may hold."""

    entries: int
    size: int


class Board:
    """Numbers that all processes see, in memory that they share. But for `stop`, a slot is written by one worker only.

    Attributes:
        stop: one slot; not 0 when all shall end.
        done: steps of each worker.
        entries, sizes: how many entries each worker has used (written or read), and their bytes.
        written, written_sizes: the same of the writes alone.
    """

    def __init__(self, workers: int) -> None:
        slots = memoryview(mmap.mmap(-1, 8 * (1 + 5 * workers + RING * workers))).cast("Q")
        columns = [slots[1 + n * workers : 1 + (n + 1) * workers] for n in range(5)]
        self.stop = slots[:1]
        self.done, self.entries, self.sizes, self.written, self.written_sizes = columns
        self._seqs = slots[1 + 5 * workers :]
        self._ends = memoryview(mmap.mmap(-1, 8 * RING * workers)).cast("d")

    def used(self) -> tuple[int, int]:
        """Entries and bytes that all have used."""
        return sum(self.entries), sum(self.sizes)

    def use(self, worker: int, size: int) -> None:
        """Account for one entry that is used."""
        self.entries[worker] += 1
        self.sizes[worker] += size

    def write(self, worker: int, size: int) -> None:
        """Account for one entry that is about to be written."""
        self.use(worker, size)
        self.written[worker] += 1
        self.written_sizes[worker] += size

    def ended(self, worker: int, seq: int) -> None:
        """A write has returned."""
        slot = worker * RING + seq % RING
        self._ends[slot] = time.time()
        self._seqs[slot] = seq  # behind the time: who sees the number sees its time

    def end_of(self, worker: int, seq: int) -> float:
        """When a write had returned; infinite if that is not known (yet, or any more)."""
        slot = worker * RING + seq % RING
        return self._ends[slot] if self._seqs[slot] == seq else math.inf


class Value(NamedTuple):
    """What is stored under a key.

    Attributes:
        seq: the number of the write among all of its writer, from 1.
        began_at: when the write began, seconds since the epoch.
        ttl: seconds; 0 for none.
        size: bytes of the payload.
    """

    key: str
    writer: int
    seq: int
    began_at: float
    ttl: float
    size: int

    def packed(self) -> list[Any]:
        """What is stored: the fields, a checksum over all, and the payload."""
        payload = self.payload()
        return [*self, crc32(payload, self._sum()), payload]

    def payload(self) -> bytes:
        start = self.seq * 251 % (1 << 20)
        return PATTERN[start : start + self.size]

    def _sum(self) -> int:
        return crc32(repr(tuple(self)).encode())

    @classmethod
    def parse(cls, key: str, raw: Any) -> Value:
        """Take what was read under a key apart. Raises Wrong."""
        try:
            *fields, checksum, payload = raw
            value = cls(*fields)
        except (TypeError, ValueError):
            raise Wrong(f"torn: {key} holds {raw!r:.100}") from None
        if value.key != key:
            raise Wrong(f"foreign: {key} holds the value of {value.key}")
        if len(payload) != value.size or crc32(payload, value._sum()) != checksum:
            raise Wrong(f"torn: {value} has another payload")
        return value


def draw_size(draw: random.Random, bounds: Bounds, small: bool) -> int:
    """Bytes of a payload: 50 to 2,000 if `small`, else to 100 KB, and sometimes 1 to 2 MB; less where little may be."""
    if not small and draw.random() < 0.004:
        giant = min(2 << 20, bounds.size // 128)
        return draw.randint(giant // 2, giant)
    most = 2000 if small else min(100_000, bounds.size // 256)
    return int(SMALLEST * (most / SMALLEST) ** draw.random())


def draw_ttl(draw: random.Random) -> float:
    """Seconds; 0 for none."""
    return draw.choices([0.0, draw.uniform(0.2, 2), draw.uniform(10, 600)], [50, 25, 25])[0]


def on_disk(folder: str) -> int:
    """Bytes that all files in a folder take."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(path, name)).st_blocks * 512
    return total
