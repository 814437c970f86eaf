"""The operations, on one store that holds the data."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from copy import copy
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.keys import STRIDE, key_of
from benchmark.libraries import Library
from benchmark.mixing import run_workers, steps
from benchmark.values import BYTES

__all__ = ["OPERATIONS", "Bench", "Operation", "remove"]

HOT = 100  # keys that are read again and again; fewer than the cache of persistdict holds
SYNCED = 1000  # sets that are followed by one sync
MANY = 100  # keys of one get_many
THREADS = 8
MOST = 20_000  # operations in one sample
MOST_ITEMS = 20_000  # entries that an iteration visits
MOST_BYTES = 16 << 20  # that a sample writes


def answer(model: str, question: str, temperature: float = 0.0) -> str:
    """What is memoized: as long as the text of 420 B."""
    return f"{model} {question} {temperature} ".ljust(420, "x")


class Bench:
    """A store of one library, opened and filled, and the operations on it.

    Each operation is told how many times to do its work and returns how many it did, and the seconds that they took.

    Args:
        library: opened, holding the keys with the numbers below `size`.
        values: what is stored.
        label: which kind they are.
        box: seconds that one sample should take.
    """

    def __init__(self, library: Library, path: Path, values: Sequence[Any], label: str, size: int, box: float) -> None:
        self.library, self.path, self.label, self.size = library, path, label, size
        self._values = [library.value(value) for value in values]
        self._box = box
        self._most = max(3, min(MOST, MOST_BYTES // BYTES[label]))
        self._rng = random.Random(2)
        self._walk = count(self._rng.randrange(size))
        self._fresh = count(size)
        self._counts: dict[str, int] = {}  # operation -> how many fit into the box
        self._new: list[Any] = []  # keys to be deleted
        self._memoized: Any = None

    def run(self, operation: Operation) -> float:
        """Run an operation as often as fits into the box; returns the seconds for one."""
        done, seconds = operation.run(self, self._counts.get(operation.name, 3))
        self._counts[operation.name] = max(3, min(self._most, int(self._box * done / seconds)))
        if operation.writes:
            self.library.sync()  # so that nothing of it is left to be written while others are measured
        return seconds / done

    def entries(self, numbers: Sequence[int]) -> list[tuple[Any, Any]]:
        key, values = self.library.key, self._values
        return [(key(key_of(number)), values[number % len(values)]) for number in numbers]

    def _keys(self, number: int) -> list[Any]:
        """Keys of which none comes again before all others did."""
        key, walk, size = self.library.key, self._walk, self.size
        return [key(key_of(next(walk) * STRIDE % size)) for _ in range(number)]

    def _new_entries(self, number: int) -> list[tuple[Any, Any]]:
        if len(self._new) > max(self.size // 10, 3000):  # deleting is slower, and the size is to stay what it is
            number = 3
        entries = self.entries([next(self._fresh) for _ in range(number)])
        self._new += [key for key, _ in entries]
        return entries

    def set_new(self, number: int) -> tuple[int, float]:
        entries = self._new_entries(number)
        return len(entries), timed(self.library.set, entries)

    def set_new_and_sync(self, _: int) -> tuple[int, float]:
        if not self.library.sync():
            raise Lacking("has no sync")
        entries = self._new_entries(min(SYNCED, self._most))
        start = time.perf_counter()
        self.library.set(entries)
        self.library.sync()
        return len(entries), time.perf_counter() - start

    def overwrite(self, number: int) -> tuple[int, float]:
        entries = self.entries(self._rng.choices(range(self.size), k=number))
        return number, timed(self.library.set, entries)

    def delete(self, number: int) -> tuple[int, float]:
        if not self._new:
            self.library.set(self._new_entries(3))
        keys, self._new = self._new[: 5 * number], self._new[5 * number :]
        return len(keys), timed(self.library.delete, keys)

    def get_cold(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.get, self._keys(number))

    def _repeat(self, read: Callable[[], Any]) -> None:
        """Read until a cache has it all: a full one may take a key only after it was asked for several times."""
        deadline = time.perf_counter() + 2 * self._box
        for _ in range(60):
            read()
            if time.perf_counter() > deadline:
                break

    def get_hot(self, number: int) -> tuple[int, float]:
        hot = [key for key, _ in self.entries(range(min(HOT, self.size)))]
        self._repeat(lambda: self.library.get(hot))
        keys = hot * max(1, number // len(hot))
        return len(keys), timed(self.library.get, keys)

    def get_many(self, number: int) -> tuple[int, float]:
        number = max(1, number // MANY)
        each = min(MANY, self.size)
        batches = [self._keys(each) for _ in range(number)]
        get_many = self.library.get_many
        start = time.perf_counter()
        found = sum([get_many(batch) for batch in batches])
        seconds = time.perf_counter() - start
        assert found == number * each, f"{self.library.name} found {found} of {number * each}"
        return number * each, seconds

    def contains_hit(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.contains, self._keys(number), expected=number)

    def contains_miss(self, number: int) -> tuple[int, float]:
        keys = [self.library.key(f"{self._rng.getrandbits(60):015x}x") for _ in range(number)]
        return number, timed(self.library.contains, keys, expected=0)

    def iterate_keys(self, _: int) -> tuple[int, float]:
        most = min(self.size, MOST_ITEMS)
        return most, timed(self.library.keys, most, expected=most)

    def iterate_items(self, _: int) -> tuple[int, float]:
        most = min(self.size, MOST_ITEMS)
        return most, timed(self.library.items, most, expected=most)

    def length(self, number: int) -> tuple[int, float]:
        number = min(number, 100)
        start = time.perf_counter()
        for _ in range(number):
            self.library.length()
        return number, time.perf_counter() - start

    def bulk_load(self, _: int) -> tuple[int, float]:
        if not self.library.bulk:
            raise Lacking("as one by one")
        fresh = copy(self.library)
        path = self.path.with_name(f"{self.path.name}, bulk")
        entries = dict(self.entries(range(min(self.size, max(16, MOST_BYTES // BYTES[self.label])))))
        fresh.open(path)
        seconds = timed(fresh.load, entries)
        fresh.close()
        remove(path)
        return len(entries), seconds

    def open(self, _: int) -> tuple[int, float]:
        if not self.library.on_disk:
            raise Lacking("in memory")
        library, key = self.library, self._keys(1)
        library.close()
        self._memoized = None
        start = time.perf_counter()
        library.open(self.path)
        library.get(key)
        return 1, time.perf_counter() - start

    def _steps(self, number: int) -> list[tuple[Any, Any]]:
        return steps(self.library, self._values, self.size, number, self._rng)

    def mixed(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.mixed, self._steps(number))

    def threads(self, number: int) -> tuple[int, float]:
        each = max(10, number // THREADS)
        work = [self._steps(each) for _ in range(THREADS)]
        gate = threading.Barrier(THREADS + 1)
        failures: list[Exception] = []

        def run(steps: list[tuple[Any, Any]]) -> None:
            gate.wait()
            try:
                self.library.mixed(steps)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(steps,)) for steps in work]
        for thread in threads:
            thread.start()
        gate.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        if failures:
            raise failures[0]
        return each * THREADS, seconds

    def processes(self, _: int) -> tuple[int, float]:
        if not self.library.on_disk:
            raise Lacking("in memory")
        return run_workers(self.library.name, self.path, self.label, self.size, 10 * self._box)

    def memoize(self, number: int) -> tuple[int, float]:
        function = self._memoized = self._memoized or self.library.memoize(answer)
        if function is None:
            raise Lacking("has none")
        questions = [f"question {n}" for n in range(HOT)] * max(1, number // HOT)
        self._repeat(lambda: [function("small", question, temperature=0.5) for question in questions[:HOT]])
        start = time.perf_counter()
        for question in questions:
            function("small", question, temperature=0.5)
        return len(questions), time.perf_counter() - start


class Lacking(Exception):
    """The library cannot do this; says why."""


def timed(call: Callable[..., Any], *args: Any, expected: int | None = None) -> float:
    """The seconds that a call takes; fails if it returns something else than expected."""
    start = time.perf_counter()
    result = call(*args)
    seconds = time.perf_counter() - start
    if expected is not None and result != expected:
        raise RuntimeError(f"{call.__qualname__} found {result} entries instead of {expected}")
    return seconds


def remove(path: Path) -> None:
    """A folder, or a file and what lies beside it under its name."""
    for part in path.parent.glob(f"{path.name}*"):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


class Operation(NamedTuple):
    """A row of the tables."""

    name: str
    run: Callable[[Bench, int], tuple[int, float]]
    writes: bool = False
    heavy: bool = False  # is not warmed up


OPERATIONS = [
    Operation("set, new key", Bench.set_new, writes=True),
    Operation("1000 sets + sync", Bench.set_new_and_sync, writes=True),
    Operation("set, overwrite", Bench.overwrite, writes=True),
    Operation("get, cold", Bench.get_cold),
    Operation("get, hot", Bench.get_hot),
    Operation("get_many", Bench.get_many),
    Operation("contains, hit", Bench.contains_hit),
    Operation("contains, miss", Bench.contains_miss),
    Operation("len", Bench.length),
    Operation("iterate keys", Bench.iterate_keys),
    Operation("iterate items", Bench.iterate_items),
    Operation("mixed", Bench.mixed, writes=True),
    Operation("mixed, 8 threads", Bench.threads, writes=True),
    Operation("mixed, 4 processes", Bench.processes, writes=True, heavy=True),
    Operation("memoize, hit", Bench.memoize),
    Operation("open + one get", Bench.open),
    Operation("bulk load", Bench.bulk_load),
    Operation("delete", Bench.delete, writes=True),  # of the keys just set
]
