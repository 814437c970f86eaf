"""One process of soak.py: it writes, reads and deletes, and judges every answer.

It is the only one that writes its own keys, so it knows what they may hold: the value that it wrote last, or nothing,
if that was deleted, is over, or has been evicted. Nothing may be evicted that is fresh: since it was used last, all
processes together have used less than half of what the store may hold, so half of that was used before it. A read is
such a use if its time was noted for the other processes, which `flush` does; it counts from the next `flush` on, as an
eviction may be under way.

Shared keys hold anybody's values, but never an older one of the same writer than this process has seen there.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections import Counter, deque
from itertools import islice
from typing import Any, NamedTuple

from drivers.running import seed
from drivers.soak_faults import plant
from drivers.soak_values import OVERHEAD, Board, Bounds, Value, Wrong, draw_size, draw_ttl

from persistdict import PersistDict

Dict = PersistDict[Any, Any]
VERBS = {
    "get": 42, "get_shared": 8, "contains": 4, "get_many": 3, "set": 28, "set_shared": 5, "set_many": 1.5,
    "delete": 3, "pop": 1.5, "delete_shared": 0.3, "iterate": 0.1, "flush": 0.1,
}  # fmt: skip
FRESH = 2  # what was used since must be less than the bound divided by this
MANY = 5  # keys that are set at once
AT_ONCE = 20  # operations between two looks at the board
SHOWN = 5  # failures that are told
LOOKED_AT = 50  # reads after each flush
REOPENINGS = 8  # of each handle
PHASES = 16
SMALL = 0.65  # of the values, where there are no phases; so that either bound may be reached first


class Known(NamedTuple):
    """The last write of an own key.

    Attributes:
        alive_until: until then it is surely not over.
        over_from: from then on it surely is.
        used: what all processes had used when this was used last.
    """

    seq: int
    alive_until: float
    over_from: float
    used: tuple[int, int]


class Read(NamedTuple):
    """A read of an own key: when it began, and what all processes had used then."""

    at: float
    used: tuple[int, int]


class Worker:
    """The process, until the board says stop."""

    def __init__(
        self, folder: str, board: Board, number: int, seconds: float, bounds: Bounds, shape: str, fault: str
    ) -> None:
        self.folder, self.board, self.number, self.bounds = folder, board, number, bounds
        self.in_phases, self.fault = shape == "phases", fault
        self.draw = random.Random(f"{seed()} {number}")
        self.started, self.seconds = time.monotonic(), seconds
        self.known: dict[str, Known] = {}
        self.seen: dict[tuple[str, int], int] = {}  # shared key and writer -> the highest number
        self.reads: dict[str, Read] = {}  # since the last flush
        self.noted: dict[str, Read] = {}  # and some of those before it
        self.recent: deque[str] = deque(maxlen=max(10, bounds.entries // 100))
        self.ending: deque[str] = deque(maxlen=50)  # keys of a short life
        self.seq = 0
        self.did: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0

    def play(self) -> dict[str, Any]:
        """Returns what was done and what was wrong."""
        opened, d = self.started, self.open()
        while not self.board.stop[0]:
            for verb in self.draw.choices(list(VERBS), VERBS.values(), k=AT_ONCE):  # type: ignore[arg-type]
                try:
                    getattr(self, verb)(d)
                except Wrong as error:
                    self.failures.append(str(error))
                self.did[verb] += 1
            self.board.done[self.number] += 1
            if self.number == 0 and not self.fault:
                self.rest()
            if time.monotonic() > opened + self.seconds / REOPENINGS:
                self.close(d)
                opened, d = time.monotonic(), self.open()
        self.close(d)
        self.did["failures"] = len(self.failures)
        return {"did": self.did, "failures": self.failures[:SHOWN], "slowest": self.slowest}

    def rest(self) -> None:
        """The first worker has seen how much room there is, and waits until there is none; later it rests at times."""
        board = self.board
        while sum(board.written) < self.bounds.entries and not board.stop[0]:
            time.sleep(0.01)
            board.done[self.number] += 1
        if self.draw.random() < 0.01:
            time.sleep(self.draw.uniform(0, 0.2))

    def open(self) -> Dict:
        d: Dict = PersistDict(
            self.folder, max_entries=self.bounds.entries, max_bytes=self.bounds.size,
            caching=self.number % 2 == 0, background_timeout=min(5.0, self.seconds / 40),
        )  # fmt: skip
        plant(d, self.fault)
        return d

    def close(self, d: Dict) -> None:
        self.did["evicted"] += d._bounds.evicted if d._bounds else 0
        self.did["opened"] += 1
        d.close()

    # Keys and values

    def any_key(self) -> str:
        """An own key of ten times as many as there may be entries, for all workers together."""
        return f"{self.number} {self.draw.randrange(self.bounds.entries * 5 // 2)}"

    def shared_key(self) -> str:
        return f"shared {self.draw.randrange(max(50, self.bounds.entries // 20))}"

    def key_to_read(self) -> str:
        kind = self.draw.random()
        if self.recent and kind < 0.5:
            return self.draw.choice(self.recent)
        if self.ending and kind < 0.7:
            return self.draw.choice(self.ending)
        return self.any_key()

    def key_to_set(self) -> str:
        return self.draw.choice(self.recent) if self.recent and self.draw.random() < 0.2 else self.any_key()

    def next_value(self, key: str, ttl: float) -> Value:
        """What to write now."""
        self.seq += 1
        phase = (time.monotonic() - self.started) / self.seconds * PHASES
        small = int(phase) % 2 == 0 if self.in_phases else self.draw.random() < SMALL
        size = draw_size(self.draw, self.bounds, small)
        self.board.write(self.number, size + OVERHEAD)
        return Value(key, self.number, self.seq, time.time(), ttl, size)

    # Writing

    def set(self, d: Dict, key: str = "") -> None:
        self.write(d, [key or self.key_to_set()], lambda pairs, ttl: d.set(*pairs[0], ttl=ttl))

    def set_shared(self, d: Dict) -> None:
        self.set(d, self.shared_key())

    def set_many(self, d: Dict) -> None:
        self.write(d, [*{self.key_to_set() for _ in range(MANY)}], lambda pairs, ttl: d.set_many(pairs, ttl=ttl))

    def write(self, d: Dict, keys: list[str], how: Any) -> None:
        used, ttl = self.board.used(), draw_ttl(self.draw)
        values = [self.next_value(key, ttl) for key in keys]
        pairs = [(value.key, value.packed()) for value in values]
        before = time.perf_counter()
        how(pairs, ttl or None)
        self.slowest = max(self.slowest, time.perf_counter() - before)
        for value in values:
            self.board.ended(self.number, value.seq)
            self.wrote(value, used)

    def wrote(self, value: Value, used: tuple[int, int]) -> None:
        if value.key.startswith("shared"):
            self.seen[value.key, self.number] = value.seq
            return
        lives = value.ttl or math.inf
        self.known[value.key] = Known(value.seq, value.began_at + lives, time.time() + lives, used)
        self.reads.pop(value.key, None)
        self.noted.pop(value.key, None)
        self.recent.append(value.key)
        if lives < 3:
            self.ending.append(value.key)

    def delete(self, d: Dict) -> None:
        key, before = self.key_to_read(), time.time()
        try:
            del d[key]
        except KeyError:
            self.missed(key)
            return
        self.check_there(key, before)
        del self.known[key]

    def pop(self, d: Dict) -> None:
        self.get(d, key := self.key_to_read(), d.pop)
        self.known.pop(key, None)

    def delete_shared(self, d: Dict) -> None:
        d.pop(self.shared_key(), None)

    def flush(self, d: Dict) -> None:
        d.flush()
        for key, read in self.noted.items():
            if key in self.known:
                self.known[key] = self.known[key]._replace(used=max(read.used, self.known[key].used))
        self.noted = {}
        for key in self.draw.sample(list(self.reads), min(len(self.reads), LOOKED_AT)):
            with contextlib.suppress(KeyError):
                if d.entry(key).atime >= self.reads[key].at:
                    self.noted[key] = self.reads[key]
                    self.did["reads noted"] += 1
                else:  # the thread in the background is about to
                    self.did["reads not noted yet"] += 1
        self.reads = {}

    # Reading

    def get(self, d: Dict, key: str = "", how: Any = None) -> None:
        key = key or self.key_to_read()
        used, before = self.board.used(), time.time()
        self.judge(key, (how or d.get)(key, None), used, before)

    def get_many(self, d: Dict) -> None:
        keys = list({self.key_to_read() for _ in range(8)})
        used, before = self.board.used(), time.time()
        found = d.get_many(keys)
        for key in keys:
            self.judge(key, found.get(key), used, before)

    def contains(self, d: Dict) -> None:
        key, before = self.key_to_read(), time.time()
        if key in d:
            self.check_there(key, before)
        else:
            self.missed(key)

    def iterate(self, d: Dict) -> None:
        for key in islice(reversed(d), 30):
            before = time.time()
            raw = d.get(key)
            if raw is not None:
                self.check_time(Value.parse(key, raw), before)

    def get_shared(self, d: Dict) -> None:
        key, before = self.shared_key(), time.time()
        raw = d.get(key)
        if raw is None:
            return
        value = Value.parse(key, raw)
        self.board.use(self.number, value.size + OVERHEAD)
        self.check_time(value, before)
        if value.seq < self.seen.get((key, value.writer), 0):
            raise Wrong(f"stale: {value} was read after number {self.seen[key, value.writer]} of that writer")
        self.seen[key, value.writer] = value.seq

    # Judging

    def judge(self, key: str, raw: Any, used: tuple[int, int], before: float) -> None:
        """What was read under an own key, by a read that began at `before`."""
        if raw is None:
            self.missed(key)
            return
        value = Value.parse(key, raw)
        self.did["found"] += 1
        self.board.use(self.number, value.size + OVERHEAD)
        self.check_time(value, before)
        self.check_there(key, before)
        if value.seq != self.known[key].seq:
            raise Wrong(f"stale: {value} was read after number {self.known[key].seq} was written")
        self.reads[key] = Read(before, used)

    def check_time(self, value: Value, before: float) -> None:
        """Nobody may see a value that was over before the read began."""
        over_for = before - self.board.end_of(value.writer, value.seq) - value.ttl
        if value.ttl and over_for > 0:
            raise Wrong(f"expired: {value} was over {over_for:.3f} s before it was read")

    def check_there(self, key: str, before: float) -> None:
        """An own key is there."""
        known = self.known.get(key)
        if known is None:
            raise Wrong(f"came back: {key} is there after it was gone")
        if before > known.over_from:
            raise Wrong(f"expired: {key} was over {before - known.over_from:.3f} s before it was looked for")

    def missed(self, key: str) -> None:
        """An own key is not there."""
        known = self.known.pop(key, None)
        if known is None or time.time() >= known.alive_until:
            self.did["absent"] += 1
            return
        entries, size = (now - then for now, then in zip(self.board.used(), known.used, strict=True))
        if entries < self.bounds.entries // FRESH and size < self.bounds.size // FRESH:
            raise Wrong(
                f"fresh value lost: {key}, number {known.seq}; since it was used, {entries} entries with {size} bytes "
                f"were, of {self.bounds.entries} with {self.bounds.size} that there may be"
            )
        self.did["gone by eviction"] += 1
