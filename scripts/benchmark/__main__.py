"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import dbm
import os
import platform
import shelve
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmark import codecs, docs, panels, probes, profiling, seals, tables
from benchmark.goals import MAIN
from benchmark.operations import OPERATIONS
from benchmark.registry import libraries
from benchmark.results import Results
from benchmark.values import STORED

PARTS = ("operations", "codecs", "seals", "probes")
LARGE_STORES = {"persistdict", "lmdb, lean", "lmdb, lean, sync", "rocksdict", "diskcache"}


def main() -> None:
    """Measure what was asked for, print it, and put it where it was asked to be."""
    options = _options()
    results = Results.load(options.read) if options.read else Results()
    try:
        if not options.read:
            _run(options, results)
    finally:
        if options.json:  # also what there is of a run that failed
            results.save(options.json)
    print(tables.everything(results))
    if options.docs:
        docs.write(results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Ratios of persistdict to raw LMDB and peers.")
    parser.add_argument("--quick", action="store_true", help="under two minutes: smaller stores, fewer rounds")
    parser.add_argument("--only", choices=PARTS, help="only one part")
    parser.add_argument("--profile", action="store_true", help="count calls and instructions instead of measuring time")
    parser.add_argument("--docs", action="store_true", help="put tables and charts into docs/performance.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample of every round there")
    parser.add_argument("--read", type=Path, metavar="FILE", help="run nothing, take what --json wrote")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the stores are made (default: here)")
    return parser.parse_args()


def _run(options: argparse.Namespace, results: Results) -> None:
    # Some peers leave an iterator early and say so there; nothing is lost by it.
    sys.unraisablehook = lambda _: None
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=options.dir))
    start = time.perf_counter()
    try:
        if options.profile:
            profiling.profile(folder, results, valgrind=not options.quick)
            return
        results.about = about(folder)
        for name, part in (("codecs", _codecs), ("seals", _seals), ("probes", _probes), ("operations", _operations)):
            if options.only in (None, name):
                part(folder, results, options.quick)
                print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        results.about["the run took"] = f"{(time.perf_counter() - start) / 60:.1f} minutes"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _codecs(_: Path, results: Results, quick: bool) -> None:
    samples, results.sizes = codecs.measure(3 if quick else 20)
    results.samples.merge(samples)


def _seals(folder: Path, results: Results, quick: bool) -> None:
    samples, results.sealed = seals.measure(folder, 6 if quick else 40)
    results.samples.merge(samples)


def _probes(folder: Path, results: Results, quick: bool) -> None:
    probes.imports(folder, results, 3 if quick else 6)
    probes.fidelity(folder, results)
    for value in (MAIN,) if quick else ("100 B", MAIN, "1 KB"):
        probes.space(folder, results, value, 10_000 if quick else 50_000)
        probes.space_of_databases(folder, results, value)


def _operations(folder: Path, results: Results, quick: bool) -> None:
    for panel in plan(quick):
        start = time.perf_counter()
        after = partial(probes.memory, results=results) if panel.value == MAIN else None
        panels.measure(panel, folder, results, after)
        rounds = results.samples.rounds(panel.value, min(panel.stores))
        taken = time.perf_counter() - start
        print(f"{panel.value}: {rounds} rounds, {taken:.0f} s", file=sys.stderr, flush=True)


def plan(quick: bool) -> list[panels.Panel]:
    """What is measured together, one after the other."""
    sizes = (1_000, 20_000) if quick else (10_000, 100_000, 1_000_000)
    stores = {size: [one.name for one in libraries() if size <= one.most] for size in sizes}
    for size in sizes[1:]:  # there are fewer libraries in larger stores, and nothing is synced one by one
        stores[size] = [name for name in stores[size] if name in LARGE_STORES]
    names = [operation.name for operation in OPERATIONS]
    if quick:
        return [panels.Panel(MAIN, stores, names, seconds=15, box=0.005, patience=4, least=2)]
    found = [panels.Panel(MAIN, stores, names, seconds=160, box=0.015, patience=45)]
    for value in STORED:
        if value != MAIN:
            entries, rows = (200, tables.BY_VALUE[:4]) if value == "1 MB" else (2_000, tables.BY_VALUE)
            every = {entries: [one.name for one in libraries()]}
            found.append(panels.Panel(value, every, rows, seconds=20, box=0.01, patience=5))
    return found


def about(folder: Path) -> dict[str, str]:
    """What the numbers depend on."""
    low, middle, high = statistics.quantiles(_syncs(folder), n=4)
    note = "" if middle > 20e-6 else "; THE FOLDER IS NOT ON A DISK, the rows of writes say nothing"
    versions = []
    for package in sorted({one.package for one in libraries()} | {"ormsgpack", "numpy", "isal"} - {"Python"}):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    shelve.open(str(folder / "shelf")).close()
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
        f"load {', '.join(f'{load:.1f}' for load in os.getloadavg())}",
        "Python": f"{platform.python_version()}; its shelve uses {dbm.whichdb(str(folder / 'shelf'))}",
        "packages": ", ".join(versions),
        "fdatasync of 4 KB in the folder": f"{middle * 1e6:,.0f} µs "
        f"(quartiles {low * 1e6:,.0f}-{high * 1e6:,.0f}){note}",
    }


def _syncs(folder: Path) -> list[float]:
    """The seconds of some syncs after writing in place."""
    sync = getattr(os, "fdatasync", os.fsync)
    taken = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(51):
            file.seek(0)
            file.write(bytes(4096))
            start = time.perf_counter()
            sync(file.fileno())
            taken.append(time.perf_counter() - start)
    return taken[1:]  # the first one makes the file longer


if __name__ == "__main__":
    main()
