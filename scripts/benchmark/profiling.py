"""Where the time goes: calls, system calls and instructions of one operation.

A child does every operation some times and then more often: the difference belongs to the operation, as everything else
is in both. There is one child for each way of counting, as these slow down each other.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmark import instructions
from benchmark.floors import LARGE as LARGE_STORE
from benchmark.floors import floors
from benchmark.instructions import MARK
from benchmark.libraries import Library
from benchmark.mixing import child_environment
from benchmark.operations import Bench, remove
from benchmark.registry import BASE, LEAN, is_installed, library
from benchmark.repeating import ASIDE, IMPORT, LARGE, SMALL
from benchmark.results import Results
from benchmark.values import values_of

__all__ = ["SPENT", "SYSTEM", "differences", "load", "profile", "repeated"]

LIBRARIES = (BASE, "persistdict, no cache", LEAN, "lmdb, usual", "rocksdict", "diskcache", "dict")
IMPORTS = {BASE: "persistdict.dictionary", LEAN: "lmdb", "rocksdict": "rocksdict", "diskcache": "diskcache"}
SPENT, SYSTEM = "in ", "sys: "
Part = Mapping[str, float]
Section = tuple[str, int, Part]  # an operation, how often it was done, what was counted


def profile(folder: Path, results: Results, valgrind: bool) -> None:
    """Count for all operations and libraries."""
    counters: list[Callable[[list[str]], list[Section]]] = [_calls]
    counters += [_system_calls] if shutil.which("strace") else []
    counters += [_instructions] if valgrind and shutil.which("valgrind") else []
    for one in [*map(library, LIBRARIES), *floors()]:
        if not is_installed(one):
            continue
        for counter in counters:
            path = folder / f"{one.name}, profile"
            load(one, path)
            try:
                sections = counter([sys.executable, "-m", "benchmark.worker", "repeat", one.name, str(path)])
            except subprocess.CalledProcessError as error:
                said = [line for line in error.stderr.splitlines() if not line.startswith("==")]  # valgrind's own
                print(f"{one.name}: {counter.__name__} failed: {said[-1:]}", file=sys.stderr, flush=True)
                continue
            finally:
                remove(path)
            for operation, counts in differences(sections).items():
                results.profile.setdefault(operation, {}).setdefault(one.name, {}).update(counts)
        print(f"{one.name}: counted", file=sys.stderr, flush=True)
    if _instructions in counters:
        _imports(results)


def repeated(name: str) -> Library:
    """A library, or a floor, by its name; not opened."""
    return next((one for one in floors() if one.name == name), None) or library(name)


def differences(sections: Sequence[Section]) -> dict[str, Part]:
    """For each operation what belongs to one: of the last two sections, the one that did it more often has more."""
    found: dict[str, Part] = {}
    for name in dict.fromkeys(name for name, _, _ in sections):
        (_, few, less), (_, many, more) = [section for section in sections if section[0] == name][-2:]
        if few > many:
            few, less, many, more = many, more, few, less
        kinds = {**more, **less}
        found[name] = {kind: (more.get(kind, 0) - less.get(kind, 0)) / (many - few) for kind in kinds}
    return found


def load(one: Library, path: Path) -> None:
    """Make the stores that a child finds, which no other child has changed."""
    for place, (label, size) in ((path, SMALL), (path.with_name(f"{path.name}, {LARGE_STORE}"), LARGE)):
        if one.on_disk:
            one.open(place)
            one.load(dict(Bench(one, place, values_of(label), label, size, 0.0).entries(range(size))))
            one.close()


def _environment() -> dict[str, str]:
    return {**child_environment(), "PYTHONHASHSEED": "0"}


def _calls(command: list[str]) -> list[Section]:
    child = subprocess.run([*command, "calls"], env=_environment(), capture_output=True, text=True, check=True)
    return [
        (name, number, {"Python calls": float(python), "C calls": float(c)})
        for name, number, python, c in json.loads(child.stdout)
    ]


def _sections(printed: str, parts: Sequence[Sequence[Part]]) -> list[Section]:
    """With what was counted in the main thread, and in all of them; a part that is no section is before each."""
    return [
        (name, number, part[name in ASIDE])
        for (name, number, _, _), part in zip(json.loads(printed), parts[1::2], strict=True)
    ]


def _system_calls(command: list[str]) -> list[Section]:
    parts: list[tuple[Counter[str], Counter[str]]] = [(Counter(), Counter())]
    with tempfile.NamedTemporaryFile(mode="r") as trace:
        watched = ["strace", "-f", "-o", trace.name, *command, "no calls"]
        child = subprocess.run(watched, env=_environment(), capture_output=True, text=True, check=True)
        calls = re.findall(r"^(\d+) +([a-z]\w+)\(", trace.read(), re.MULTILINE)
    for thread, name in calls:
        if name == MARK:
            parts.append((Counter(), Counter()))
        else:
            for part in parts[-1] if thread == calls[0][0] else parts[-1][1:]:
                part[SYSTEM + name] += 1
    return _sections(child.stdout, parts[:-1])


def _instructions(command: list[str]) -> list[Section]:
    printed, parts = instructions.parts([*command, "no calls"], _environment())
    return _sections(printed, [[{SPENT + name: n for name, n in one.items()} for one in part] for part in parts])


def _imports(results: Results) -> None:
    """Of modules in interpreters that do nothing else; compiled modules are there."""
    for name, module in IMPORTS.items():
        if is_installed(library(name)):
            command = [sys.executable, "-c", f"import os; os.{MARK}(); import {module}; os.{MARK}()"]
            subprocess.run(command, env=_environment(), check=True)
            _, [_, (part, _)] = instructions.parts(command, _environment())
            counts = {SPENT + where: float(number) for where, number in part.items()}
            results.profile.setdefault(IMPORT, {}).setdefault(name, {}).update(counts)
