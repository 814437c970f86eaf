"""Rounds over stores that all hold values of one kind."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmark.operations import OPERATIONS, Bench, Lacking, Operation, remove
from benchmark.registry import BASE, is_installed, library
from benchmark.results import Results
from benchmark.timing import Cell, Deadline
from benchmark.values import equal, values_of

__all__ = ["Panel", "measure"]

CHUNK = 10_000
AT_EASE = 4  # how many times its box an operation may take on average in later ones


class Panel(NamedTuple):
    """What is measured together.

    Args:
        value: the label of the values.
        stores: the number of entries, and the libraries that get a store of so many.
        operations: their names.
        seconds: for the rounds, loading not included.
        box: seconds for one sample.
        patience: seconds after which a library that still loads is left out.
        least: how many rounds there are at least; in all of these but the last everything is measured.
    """

    value: str
    stores: Mapping[int, Sequence[str]]
    operations: Sequence[str]
    seconds: float
    box: float
    patience: float
    least: int = 3


def measure(
    panel: Panel, folder: Path, results: Results, after: Callable[[Sequence[Bench]], None] | None = None
) -> None:
    """Load the stores, run the rounds, and call `after` with the stores closed but still there."""
    values = values_of(panel.value)
    benches = [
        bench
        for size, names in panel.stores.items()
        for name in names
        if (bench := _prepared(panel, folder, results, name, size, values))
    ]
    operations = [operation for operation in OPERATIONS if operation.name in panel.operations]
    gc.collect()
    gc.freeze()
    spent: dict[tuple[str, Path], float] = {}
    rng = random.Random(4)
    _run_round(-1, panel, benches, operations, Results(), spent, rng)  # warms up, and finds how many fit into the box
    spent.clear()
    deadline, number = Deadline(panel.seconds, panel.least), 0
    try:
        while deadline.another():
            _run_round(number, panel, benches, operations, results, spent, rng)
            number += 1
    finally:
        for bench in benches:
            bench.library.close()
        gc.unfreeze()
    if after:
        after(benches)
    for bench in benches:
        remove(bench.path)


def _prepared(
    panel: Panel, folder: Path, results: Results, name: str, size: int, values: Sequence[Any]
) -> Bench | None:
    """The store of a library with its entries; None if it cannot hold them, which is noted."""
    one, whole = library(name), Cell(panel.value, size, "", name)
    if not is_installed(one):
        results.note(whole, "is not installed")
        return None
    path = folder / f"{name}, {size}"
    bench = Bench(one, path, values, panel.value, size, panel.box)
    try:
        one.open(path)
        problem = _load(bench, panel.patience)
        if not problem and not equal(one.get([bench.entries([7])[0][0]]), one.value(values[7 % len(values)])):
            problem = "gives back another value"
    except Exception as error:
        if one.package in ("persistdict", "lmdb"):
            raise
        problem = f"{type(error).__name__} on writing"
    if problem:
        results.note(whole, problem)
        try:
            one.close()
        except Exception as error:  # it is left out anyway
            print(f"{name}: {type(error).__name__} on closing", file=sys.stderr)
        remove(path)
        return None
    return bench


def _load(bench: Bench, patience: float) -> str:
    """Fill a store; returns what went wrong. A library that will take too long is told by how long it takes so far."""
    start = time.perf_counter()
    step = CHUNK if bench.library.bulk else 100
    for first in range(0, bench.size, step):
        entries = bench.entries(range(first, min(first + step, bench.size)))
        bench.library.load(dict(entries))
        expected = (time.perf_counter() - start) * bench.size / (first + len(entries))
        if expected > patience and not bench.library.name.startswith(BASE):
            return f"loading takes longer than {patience:g} s"
    bench.library.sync()
    return ""


def _run_round(
    number: int,
    panel: Panel,
    benches: Sequence[Bench],
    operations: Sequence[Operation],
    results: Results,
    spent: dict[tuple[str, Path], float],
    rng: random.Random,
) -> None:
    for operation in operations:
        for bench in rng.sample(benches, len(benches)):
            one = bench.library
            if operation.heavy and number < 0:
                continue
            taken = spent.get((operation.name, bench.path), 0.0)
            cell = Cell(panel.value, bench.size, operation.name, one.name)
            if operation.name in one.lacking:
                results.note(cell, one.lacking[operation.name])
            if results.reason(cell):
                continue
            late = number > panel.least - 2 and taken > AT_EASE * panel.box * number
            if late or (one.only is not None and operation.name not in one.only):
                continue
            start = time.perf_counter()
            try:
                results.samples.add(cell, number, bench.run(operation))
            except Lacking as lacking:
                results.note(cell, str(lacking))
                continue
            except Exception as error:
                if one.package in ("persistdict", "lmdb"):
                    raise
                results.note(cell, type(error).__name__)
                taken = float("inf")
            spent[operation.name, bench.path] = taken + time.perf_counter() - start
