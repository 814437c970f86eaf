"""What is no operation: the time of an import, private memory, space on the disk, and what comes back."""

from __future__ import annotations

import datetime
import decimal
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lmdb
import numpy

from benchmark.keys import key_of
from benchmark.libraries import Library
from benchmark.mixing import child_environment
from benchmark.operations import Bench, remove
from benchmark.registry import is_installed, libraries
from benchmark.results import Results
from benchmark.timing import Cell
from benchmark.values import equal, values_of

__all__ = ["COMPACTED", "fidelity", "imports", "memory", "space", "space_of_databases"]

OUR_CLASS = "persistdict.dictionary"  # what `from persistdict import PersistDict` loads
IMPORTS = ("lmdb", "persistdict", OUR_CLASS, "diskcache", "rocksdict", "sqlitedict")
TIMED = "from time import perf_counter; start = perf_counter(); import {}; print(perf_counter() - start)"
LIKE_OTHERS = {"persistdict, no cache", "diskcache.Index"}
PER_KEY = "lmdb, a database for each key"
COMPACTED = ", compacted"
IMPORTS_IN_SAMPLE = 5
BATCH = 1000


def imports(folder: Path, results: Results, rounds: int) -> None:
    """Seconds of an import in interpreters that do nothing else, in turn; compiled modules are there.

    A sample is the shortest of some, because it takes about as long as a moment in which others have the processor.
    """
    environment = {**child_environment(), "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    names = [name for name in IMPORTS if find_spec(name)]
    processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    pinned = ["taskset", "-c", str(processors[-1])] if processors and shutil.which("taskset") else []
    rng = random.Random(5)
    for number in range(-1, rounds):  # the first one compiles
        taken: dict[str, list[float]] = {name: [] for name in names}
        for name in rng.sample(names * IMPORTS_IN_SAMPLE, len(names) * IMPORTS_IN_SAMPLE):
            command = [*pinned, sys.executable, "-c", TIMED.format(name)]
            child = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            taken[name].append(float(child.stdout))
        for name in names if number >= 0 else ():
            results.samples.add(Cell("", 0, "import", name), number, min(taken[name]))


def memory(benches: Sequence[Bench], results: Results, rounds: int = 2) -> None:
    """The private memory of a child that opens a store, closed here, and reads it."""
    largest = max(bench.size for bench in benches)
    for number in range(rounds):
        for bench in benches:
            if not bench.library.on_disk or bench.library.only or bench.size < largest:
                continue
            command = [sys.executable, "-m", "benchmark.memory", bench.library.name, str(bench.path), str(bench.size)]
            child = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
            if child.returncode:
                cell = Cell(bench.label, bench.size, "private memory", bench.library.name)
                results.note(cell, child.stderr.splitlines()[-1][:80])
                continue
            for kind, taken in zip(("all", "without pages of files", "before"), child.stdout.split(), strict=True):
                cell = Cell(bench.label, bench.size, f"private memory, {kind}", bench.library.name)
                results.samples.add(cell, number, float(taken))


def space(folder: Path, results: Results, label: str, size: int) -> None:
    """Bytes on the disk of closed stores, written in transactions of a thousand where there are such."""
    for one in libraries():
        if not (one.on_disk and one.bulk and is_installed(one)) or one.only or one.name in LIKE_OTHERS:
            continue
        path = folder / f"{one.name}, space"
        try:
            one.open(path)
            bench = Bench(one, path, values_of(label), label, size, 0.0)
            for start in range(0, size, BATCH):
                one.load(dict(bench.entries(range(start, min(start + BATCH, size)))))
            one.close()
            for name in (one.name, f"{one.name}{COMPACTED}"):
                if name == one.name or one.compact(path):
                    cell = Cell(label, size, "bytes on the disk", name)
                    results.samples.add(cell, 0, sum(bytes_of(part) for part in folder.glob(f"{path.name}*")) / size)
        except Exception as error:
            results.note(Cell(label, size, "bytes on the disk", one.name), type(error).__name__)
        remove(path)


def space_of_databases(folder: Path, results: Results, label: str, number: int = 500) -> None:
    """Bytes on the disk for each entry if every key has a named database of its own."""
    path = folder / PER_KEY
    with lmdb.open(str(path), map_size=1 << 30, max_dbs=number) as env:
        values = values_of(label)
        for n in range(number):
            with env.begin(write=True) as txn:
                txn.put(b"value", values[n % len(values)].encode(), db=env.open_db(key_of(n).encode(), txn=txn))
    results.samples.add(Cell(label, number, "bytes on the disk", PER_KEY), 0, bytes_of(path) / number)
    remove(path)


def bytes_of(path: Path) -> int:
    """What a file, or all below a folder, takes on the disk."""
    parts = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(part.lstat().st_blocks * 512 for part in parts)


PROBES: dict[str, Callable[[], Any]] = {
    "tuple": lambda: (1, "a", (2,)),
    "set": lambda: {1, 2},
    "bytes": lambda: b"\x00\xff",
    "int keys": lambda: {1: "a", 2: {3: "b"}},
    "large int": lambda: 1 << 100,
    "datetime": lambda: datetime.datetime(2024, 5, 17, tzinfo=datetime.timezone.utc),
    "Decimal": lambda: decimal.Decimal("1.10"),
    "numpy": lambda: numpy.arange(3, dtype=numpy.float32),
    "None": lambda: None,
}


def fidelity(folder: Path, results: Results) -> None:
    """What each library gives back of what was put, and whether a reader can change what is stored."""
    for one in libraries():
        if one.only or one.name == "lmdb, lean" or not is_installed(one):
            continue
        path = folder / f"{one.name}, fidelity"
        one.open(path)
        results.fidelity[one.name] = found = {name: _put(one, name, make()) for name, make in PROBES.items()}
        if one.on_disk:
            one.close()
            one.open(path)
        for name, make in PROBES.items():
            found[name] = found[name] or _came_back(one, name, make())
        one.set([("list", [1])])
        one.get(["list"]).append(2)
        found["own copy"] = "yes" if one.get(["list"]) == [1] else "no"
        one.close()
        remove(path)


def _put(one: Library, name: str, value: Any) -> str:
    """Store a value; returns what went wrong."""
    try:
        one.set([(name.replace(" ", "-"), value)])
    except Exception:
        return "refused"
    return ""


def _came_back(one: Library, name: str, value: Any) -> str:
    try:
        found = one.get([name.replace(" ", "-")])
    except Exception as error:
        return type(error).__name__
    return "exact" if equal(found, value) else f"as {type(found).__name__}"
