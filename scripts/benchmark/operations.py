"""The operations of a dict on stores that hold the same data."""

from __future__ import annotations

import gc
import random
import shutil
import time
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

from benchmark.libraries import REFERENCE, Library, libraries
from benchmark.timing import Deadline, Samples, short
from benchmark.values import STORED_VALUES, Make, equal

__all__ = ["measure", "table"]

VARIANTS = 100  # different values of a kind
BULK = 1000
HOT = 100
MOST = 5000  # operations in one sample


class Round:
    """The operations of one round on one library; each returns how many it did and the seconds that they took.

    Args:
        library: opened, holding the keys "key-0" to "key-(size-1)".
        values: what is stored.
        size: the number of entries.
        box: seconds that one sample may take.
    """

    def __init__(self, library: Library, folder: Path, values: Sequence[Any], size: int, box: float) -> None:
        self.library = library
        self._folder = folder
        self._values = values
        self._size = size
        self._box = box
        self._rng = random.Random(2)
        self._counts: dict[str, int] = {}  # operation -> how many fit into the box
        self._new: list[str] = []  # keys to be deleted
        self._next = size

    def run(self, name: str, operation: Callable[[Round, int], tuple[int, float]]) -> float:
        """Run an operation as often as fits into the box; returns the seconds for one."""
        done, seconds = operation(self, self._counts.get(name, 3))
        self._counts[name] = max(3, min(MOST, int(self._box * done / seconds)))
        return seconds / done

    def _entries(self, numbers: Sequence[int]) -> list[tuple[str, Any]]:
        return [(f"key-{number}", self._values[self._rng.randrange(VARIANTS)]) for number in numbers]

    def _keys(self, prefix: str, number: int) -> list[str]:
        return [f"{prefix}-{self._rng.randrange(self._size)}" for _ in range(number)]

    def set_new(self, number: int) -> tuple[int, float]:
        entries = self._entries(range(self._next, self._next + number))
        self._next += number
        self._new = [key for key, _ in entries]
        return number, timed(self.library.set, entries)

    def overwrite(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.set, self._entries(self._rng.choices(range(self._size), k=number)))

    def delete(self, _: int) -> tuple[int, float]:
        return len(self._new), timed(self.library.delete, self._new)

    def get_cold(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.get, self._keys("key", number))

    def get_hot(self, number: int) -> tuple[int, float]:
        hot = [f"key-{number}" for number in range(HOT)]
        self.library.get(hot)
        keys = hot * max(1, number // HOT)
        return len(keys), timed(self.library.get, keys)

    def contains_hit(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.contains, self._keys("key", number), expected=number)

    def contains_miss(self, number: int) -> tuple[int, float]:
        return number, timed(self.library.contains, self._keys("miss", number), expected=0)

    def iterate_keys(self, _: int) -> tuple[int, float]:
        return self._size, timed(self.library.iterate_keys, expected=self._size)

    def iterate_items(self, _: int) -> tuple[int, float]:
        return self._size, timed(self.library.iterate_items, expected=self._size)

    def bulk_load(self, _: int) -> tuple[int, float]:
        fresh = copy(self.library)
        path = self._folder / f"{self.library.name}, bulk"
        fresh.open(path)
        seconds = timed(fresh.load, dict(self._entries(range(BULK))))
        fresh.close()
        remove(path)
        return BULK, seconds

    def open(self, _: int) -> tuple[int, float]:
        library, path = self.library, self._folder / self.library.name
        library.close()
        start = time.perf_counter()
        library.open(path, upkeep=True)
        library.get(["key-7"])
        seconds = time.perf_counter() - start
        library.close()
        library.open(path)
        return 1, seconds


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


OPERATIONS: dict[str, Callable[[Round, int], tuple[int, float]]] = {
    "set, new key": Round.set_new,
    "set, overwrite": Round.overwrite,
    "delete": Round.delete,  # of the keys just set
    f"bulk load, {BULK}": Round.bulk_load,
    "get, cold": Round.get_cold,
    "get, hot": Round.get_hot,
    "contains, hit": Round.contains_hit,
    "contains, miss": Round.contains_miss,
    "iterate keys": Round.iterate_keys,
    "iterate items": Round.iterate_items,
    "open + one get": Round.open,
}


def measure(folder: Path, label: str, size: int, seconds: float, box: float) -> Samples:
    """Rounds of all operations with one kind of value, for about so many seconds, loading included."""
    deadline = Deadline(seconds)
    make: Make = STORED_VALUES[label]
    rng = random.Random(3)
    values = [make(rng) for _ in range(VARIANTS)]
    rounds = []
    for library in libraries():
        library.open(folder / library.name)
        rounds.append(Round(library, folder, values, size, box))
        library.load({f"key-{number}": values[number % VARIANTS] for number in range(size)})
        if not equal(library.get([f"key-{size - 1}"]), values[(size - 1) % VARIANTS]):
            raise RuntimeError(f"{library.name} gave back another value")
    gc.collect()
    gc.freeze()
    samples = Samples()
    _run_round(rounds, Samples(), rng)  # warms up, and finds how many fit into the box
    while deadline.another():
        _run_round(rounds, samples, rng)
    for one in rounds:
        one.library.close()
    for one in rounds:
        remove(folder / one.library.name)
    gc.unfreeze()
    return samples


def _run_round(rounds: list[Round], samples: Samples, rng: random.Random) -> None:
    for name, operation in OPERATIONS.items():
        for one in rng.sample(rounds, len(rounds)):
            if one.library.on_disk or operation is not Round.open:
                samples.add(name, one.library.name, one.run(name, operation))


def table(samples: Samples, label: str, size: int) -> str:
    """The ratios as Markdown."""
    known = libraries()
    columns = [library.name for library in known if library.name != REFERENCE]
    lines = [
        f"### Operations, {size:,} entries: {label}",
        "",
        f"Time divided by that of {REFERENCE!r} (`env.begin().get`, `cursor.putmulti`, pickle); below 1 is faster. "
        f"Median (quartiles) of {samples.rounds()} rounds. Durability differs, measured in system calls: "
        + "; ".join(dict.fromkeys(library.durability for library in known))
        + ". The last column is absolute, of this machine, for orientation only.",
        "",
        "| operation | " + " | ".join(columns) + f" | {REFERENCE}, µs |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in OPERATIONS:
        ratios = [samples.ratio(name, column, REFERENCE) for column in columns]
        absolute = short(samples.middle(name, REFERENCE) * 1e6)
        lines.append("| " + " | ".join([name, *(str(ratio or "-") for ratio in ratios), absolute]) + " |")
    return "\n".join(lines)
