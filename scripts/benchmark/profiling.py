"""Where the time goes: calls, system calls and instructions of one operation.

Each is counted in a child that does the operation some times and in one that does it more often: the difference belongs
to the operation, as everything else is in both.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.libraries import Library
from benchmark.mixing import child_environment
from benchmark.operations import Bench, answer, remove
from benchmark.registry import is_installed, library
from benchmark.results import Results
from benchmark.values import values_of

__all__ = ["profile", "repeat"]

LIBRARIES = ("persistdict", "persistdict, no cache", "lmdb, lean", "lmdb, usual", "rocksdict", "diskcache", "dict")
WITH_INSTRUCTIONS = LIBRARIES[:3]
LABEL, SIZE = "420 B", 10_000
FEW, MORE = 100, 1100
NEW = ("set, new key", "bulk load")  # with keys that are not there

Work = Callable[[Library, Sequence[Any]], Any]
OPERATIONS: dict[str, Work] = {
    "get, hot": lambda one, entries: one.get([entries[0][0]] * len(entries)),
    "get, cold": lambda one, entries: one.get([key for key, _ in entries]),
    "get_many": lambda one, entries: [
        one.get_many([key for key, _ in entries[at : at + 100]]) for at in range(0, len(entries), 100)
    ],
    "contains, hit": lambda one, entries: one.contains([key for key, _ in entries]),
    "iterate items": lambda one, entries: one.items(len(entries)),
    "set, new key": lambda one, entries: one.set(entries),
    "set, overwrite": lambda one, entries: one.set(entries),
    "delete": lambda one, entries: one.delete([key for key, _ in entries]),
    "bulk load": lambda one, entries: one.load(dict(entries)),
    "memoize, hit": lambda one, entries: _memoized(one, len(entries)),
}


def _memoized(one: Library, number: int) -> None:
    function = one.memoize(answer)
    if function is not None:
        for _ in range(number):
            function("small", "question", temperature=0.5)


def profile(folder: Path, results: Results, instructions: bool) -> None:
    """Count for all operations and libraries."""
    for name in LIBRARIES:
        if not is_installed(one := library(name)):
            continue
        path = folder / f"{name}, profile"
        for operation in OPERATIONS:
            if operation in one.lacking or (operation == "memoize, hit" and not _memoizes(name)):
                continue
            counts = results.profile.setdefault(name, {}).setdefault(operation, {})
            for what, count in _counters(name, instructions).items():
                few, more = (_in_fresh_store(one, path, operation, number, count) for number in (FEW, MORE))
                for kind in more:
                    counts[what + kind] = (more[kind] - few.get(kind, 0)) / (MORE - FEW)
            print(f"{name}, {operation}: {line(counts)}", flush=True)


def line(counts: dict[str, float]) -> str:
    return ", ".join(f"{count:,.1f} {kind}" for kind, count in counts.items() if count >= 0.05)


def _memoizes(name: str) -> bool:
    return name in ("persistdict", "diskcache", "dict")


def _in_fresh_store(
    one: Library, path: Path, operation: str, number: int, count: Callable[[list[str]], dict[str, float]]
) -> dict[str, float]:
    """The counts of a child, which finds a store that no other child has changed."""
    if one.on_disk:
        one.open(path)
        one.load(dict(Bench(one, path, values_of(LABEL), LABEL, SIZE, 0.0).entries(range(SIZE))))
        one.close()
    try:
        command = [sys.executable, "-m", "benchmark.worker", "repeat", one.name, str(path), LABEL, str(SIZE)]
        return count([*command, operation, str(number)])
    finally:
        remove(path)


def _counters(name: str, instructions: bool) -> dict[str, Callable[[list[str]], dict[str, float]]]:
    """What can be counted on this machine."""
    found: dict[str, Callable[[list[str]], dict[str, float]]] = {"": _calls}
    if shutil.which("strace"):
        found["sys: "] = _system_calls
    if instructions and name in WITH_INSTRUCTIONS and shutil.which("valgrind"):
        found[" "] = _instructions
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=child_environment(), capture_output=True, text=True, check=True)


def _calls(command: list[str]) -> dict[str, float]:
    words = _run(command).stdout.split()
    return {"Python calls": float(words[0]), "C calls": float(words[1])}


def _system_calls(command: list[str]) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(mode="r") as found:
        _run(["strace", "-f", "-o", found.name, *command])
        names = re.findall(r"^\d+ +([a-z]\w+)\(", found.read(), re.MULTILINE)
    return {name: float(number) for name, number in Counter(names).most_common()}


def _instructions(command: list[str]) -> dict[str, float]:
    """Nothing where valgrind cannot run the child: it has little room for large memory maps."""
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    child = subprocess.run([*valgrind, *command, "uncounted"], env=child_environment(), capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", child.stderr)
    return {"instructions": float(found[1])} if found and child.returncode == 0 else {}


def repeat(one: Library, path: Path, label: str, size: int, operation: str, number: str, *uncounted: str) -> None:
    """Open the store, do an operation so many times, and print how many calls of Python and of C that were."""
    bench = Bench(one, path, values_of(label), label, size, 0.0)
    one.open(path)
    if not one.on_disk:
        one.load(dict(bench.entries(range(MORE))))
    everything = bench.entries(range(size, size + MORE) if operation in NEW else range(MORE))
    work = OPERATIONS[operation]
    if operation in ("get, hot", "memoize, hit"):
        work(one, everything[:100])
    entries = everything[: int(number)]
    counts = Counter[str]()

    def see(_: Any, event: str, __: Any) -> None:
        counts[event] += 1

    if not uncounted:
        sys.setprofile(see)
    work(one, entries)
    sys.setprofile(None)
    print(counts["call"], counts["c_call"])
    one.close()
