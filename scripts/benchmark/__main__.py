"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmark import codecs, operations
from benchmark.values import STORED_VALUES

PACKAGES = ("persistdict", "lmdb", "ormsgpack", "numpy", "diskcache", "sqlitedict", "rocksdict")

NOTES = """\
Notes: all stores lie in one folder and on one disk. persistdict's background upkeep is on in the row "open" only
(there it begins to verify every entry); it would also write, later and in batches, the access times that reads leave
behind, and these writes are in none of the numbers. "get, cold" reads random keys; the files are in the page cache
for every library. "bulk load" is per entry, into a new store, by the fastest way each library has (update, one
transaction, a write batch). "delete" removes keys that were just set. For "contains" raw LMDB copies the value, as
`get` does; persistdict looks into its index only. sqlitedict's sets wait for its thread, not for the disk."""


def main() -> None:
    """Measure what was asked for and print it."""
    options = _options()
    result: dict[str, Any] = {"about": about(options.dir)}
    print("\n".join(f"- {name}: {text}" for name, text in result["about"].items()), flush=True)
    if options.only != "operations":
        samples, sizes = codecs.measure(10 if options.quick else 45)
        result["codecs"] = {"samples": samples.as_json(), "sizes": sizes}
        print(f"\n{codecs.table(samples, sizes)}", flush=True)
    if options.only != "codecs":
        result["operations"] = _operations(options.dir, options.quick)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Ratios of persistdict to pickle and its peers.")
    parser.add_argument("--quick", action="store_true", help="under a minute; fewer entries and rounds")
    parser.add_argument("--only", choices=("codecs", "operations"), help="only one of the two parts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample of every round there")
    parser.add_argument("--dir", type=Path, default=Path.cwd(), help="where the stores are made (default: here)")
    return parser.parse_args()


def _operations(base: Path, quick: bool) -> dict[str, Any]:
    size, seconds, box = (1000, 7.0, 0.01) if quick else (10_000, 65.0, 0.04)
    result = {}
    folder = Path(tempfile.mkdtemp(prefix=".bench-", dir=base))
    try:
        for label in STORED_VALUES:
            samples = operations.measure(folder, label, size, seconds, box)
            result[label] = samples.as_json()
            print(f"\n{operations.table(samples, label, size)}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{NOTES}")
    return result


def about(folder: Path) -> dict[str, str]:
    """What the numbers depend on."""
    probe = statistics.quantiles(_syncs(folder), n=4)
    note = "" if probe[1] > 20e-6 else "; THE FOLDER IS NOT ON A DISK, the rows of writes say nothing"
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, "
        f"load {', '.join(f'{load:.1f}' for load in os.getloadavg())}",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "fdatasync of 4 KB in the folder": f"{probe[1] * 1e6:,.0f} µs "
        f"(quartiles {probe[0] * 1e6:,.0f}-{probe[2] * 1e6:,.0f}){note}",
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
