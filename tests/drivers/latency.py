"""How long get and set take while upkeep runs beside them, and right after opening; nothing is asserted.

Beside upkeep: idle and busy rounds take turns, so that what else the machine does touches both alike. Upkeep is an
integrity pass over all entries, then an eviction of the oldest, in steps with pauses as in the background: in a thread
of the process that measures, then in another process.

After opening: fresh processes open a store with nothing in it and one with all entries, in turn.

    latency.py FOLDER [ENTRIES] [EVICTED] [OPENINGS] [SECONDS]

ENTRIES must be four times as many as EVICTED. OPENINGS is how often each store is opened, SECONDS how long a round
takes.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

from drivers.running import answer_of, ask_child, finish, hush, in_child, preload, seed

from persistdict import PersistDict
from persistdict.maintenance import PAUSE
from persistdict.tasks import check_all

Dict = PersistDict[Any, Any]
DEFAULTS = 1_000_000, 100_000, 11, 0.2
FIRST = 0.5  # seconds after opening in which the slowest read is looked for; less where rounds are short
BATCH = 50_000


def build(folder: str, entries: int) -> None:
    """Make a store with so many entries of about 100 bytes."""
    with PersistDict(folder, background_thread="disabled") as d:
        for start in range(0, entries, BATCH):
            d.update({f"key {n}": value(n) for n in range(start, min(start + BATCH, entries))})


def value(number: int) -> str:
    return f"{number:100}"


def shown(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us" if seconds < 1e-3 else f"{seconds * 1e3:,.2f} ms"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    for row in [head, ["---"] * len(head), *rows]:
        print("| " + " | ".join(row) + " |", flush=True)
    print()


# Beside upkeep


class Gate:
    """Lets upkeep go on, or has it stand still, in this process or another."""

    def __init__(self) -> None:
        self._flags = memoryview(mmap.mmap(-1, 24)).cast("Q")  # is open, is waited at, is over

    def __call__(self) -> bool:
        """What upkeep asks before each step."""
        self._flags[1] = 1
        while not self._flags[0]:
            time.sleep(PAUSE)
        self._flags[1] = 0
        time.sleep(PAUSE)
        return True

    def run(self, work: Callable[[], object]) -> None:
        self()
        try:
            work()
        finally:
            self._flags[2] = 1

    def open(self) -> None:
        self._flags[0] = 1

    def close(self) -> None:
        self._flags[0] = 0
        while not self._flags[1] and not self.is_over:
            time.sleep(PAUSE)

    @property
    def is_over(self) -> bool:
        return bool(self._flags[2])


def integrity_pass(folder: str, gate: Gate, _: int) -> None:
    with PersistDict(folder, background_thread="disabled") as d:
        faults = check_all(d._store, gate)
        assert not faults, faults[:3]


def eviction(folder: str, gate: Gate, evicted: int) -> None:
    """Have a bound that the entries are beyond by so many."""
    with PersistDict(folder, background_thread="disabled") as d:
        bound = int((len(d) - evicted) / 0.95)
    with PersistDict(folder, background_thread="disabled", max_entries=bound) as d:
        assert d._bounds is not None
        gone = d._bounds.keep(gate)
    assert gone > 0.8 * evicted, gone


def measure(d: Dict, draw: random.Random, entries: int, seconds: float) -> dict[str, list[float]]:
    """Times of get and set, one after the other, of the newest quarter of the entries, which are not evicted."""
    times: dict[str, list[float]] = {"get": [], "set": []}
    now, end = time.perf_counter, time.perf_counter() + seconds
    while now() < end:
        for _ in range(50):
            key, new = f"key {draw.randrange(entries // 4 * 3, entries)}", value(draw.randrange(entries))
            before = now()
            d.get(key)
            between = now()
            d[key] = new
            after = now()
            times["get"].append(between - before)
            times["set"].append(after - between)
    return times


def beside(
    folder: str,
    entries: int,
    evicted: int,
    upkeep: Callable[[str, Gate, int], None],
    other_process: bool,
    length: float,
) -> dict[str, dict[str, Any]]:
    """Measure idle and busy in turn, until that upkeep is done."""
    gate = Gate()
    work = lambda: gate.run(lambda: upkeep(folder, gate, evicted))  # noqa: E731
    child = in_child(work) if other_process else None
    thread = threading.Thread(target=work)
    idle: dict[str, list[list[float]]] = defaultdict(list)
    busy: dict[str, list[list[float]]] = defaultdict(list)
    draw = random.Random(seed())
    with PersistDict(folder, background_thread="disabled") as d:
        if not child:
            thread.start()
        gate.close()
        measure(d, draw, entries, length)
        while not gate.is_over:
            for times in (idle, busy):
                if times is busy:
                    gate.open()
                for name, found in measure(d, draw, entries, length).items():
                    times[name].append(found)
            gate.close()
        if not child:
            thread.join()
    if child:
        answer_of(*child, "upkeep")
    return {name: summary(idle[name], busy[name]) for name in idle}


def summary(idle: list[list[float]], busy: list[list[float]]) -> dict[str, Any]:
    ratios = [median(b) / median(i) for i, b in zip(idle, busy, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    both = [sorted(time for times in rounds for time in times) for rounds in (idle, busy)]
    return {
        "rounds": len(ratios),
        "ratio": [round(number, 3) for number in (middle, low, high)],
        **{
            f"{name} {side}": times[int(part * (len(times) - 1))]
            for side, times in zip(("idle", "busy"), both, strict=True)
            for name, part in (("median", 0.5), ("99.9 %", 0.999), ("worst", 1.0))
        },
    }


def beside_upkeep(folder: str, entries: int, evicted: int, length: float) -> dict[str, Any]:
    found, rows = {}, []
    for other in (False, True):
        for upkeep in (integrity_pass, eviction):
            where = "other process" if other else "same process"
            for name, numbers in beside(folder, entries, evicted, upkeep, other, length).items():
                found[f"{name}, {upkeep.__name__}, {where}"] = numbers
                ratio = "{} ({}-{})".format(*numbers["ratio"])
                times = [
                    shown(numbers[f"{part} {side}"])
                    for part in ("median", "99.9 %", "worst")
                    for side in ("idle", "busy")
                ]
                rows.append([f"{name}, {upkeep.__name__}, {where}", str(numbers["rounds"]), ratio, *times])
    head = ["", "rounds", "median busy / idle", "median idle", "busy", "99.9 % idle", "busy", "worst idle", "busy"]
    table(head, rows)
    return found


# After opening


def first(folder: str, length: float, **options: Any) -> dict[str, float]:
    """What a process that opens a store waits for, in seconds."""
    times = [time.perf_counter()]
    with PersistDict(folder, **options) as d:
        times.append(time.perf_counter())
        d.get("key 5")
        times.append(time.perf_counter())
        d["key 5"] = value(5)
        times.append(time.perf_counter())
        slowest = 0.0
        while (before := time.perf_counter()) < times[-1] + min(FIRST, 5 * length):
            d.get(f"key {int(before * 1e6) % 1000}")
            slowest = max(slowest, time.perf_counter() - before)
    opening, reading, writing = (after - before for before, after in pairwise(times))
    return {"open": opening, "first get": reading, "first set": writing, "slowest get after": slowest}


def after_opening(
    folder: str, empty: str, rounds: int, length: float, **options: Any
) -> dict[str, dict[str, list[float]]]:
    """Seconds in all rounds, by store and by what was waited for."""
    found: dict[str, dict[str, list[float]]] = {"empty": defaultdict(list), "full": defaultdict(list)}
    for _ in range(rounds):
        for name, place in (("empty", empty), ("full", folder)):
            for what, seconds in ask_child(lambda p=place: first(p, length, **options)).items():  # type: ignore[misc]
                found[name][what].append(seconds)
    return found


def show_openings(found: dict[str, dict[str, dict[str, list[float]]]], entries: int) -> None:
    rows = []
    for way, stores in found.items():
        for what, of_empty in stores["empty"].items():
            one, other = median(of_empty), median(stores["full"][what])
            worst = [shown(max(stores[name][what])) for name in ("empty", "full")]
            rows.append([way, what, shown(one), shown(other), f"{(other - one) * 1e3:+.2f} ms", *worst])
    full = f"{entries:,}"
    table(["opened with", "", "empty, median", f"{full}, median", "difference", "empty, worst", f"{full}, worst"], rows)


def main() -> None:
    folder, *numbers = sys.argv[1:]
    entries, evicted, rounds = (int(number) for number in [*numbers, *DEFAULTS[len(numbers) :]][:3])
    assert entries >= 4 * evicted
    length = float(numbers[3] if len(numbers) > 3 else DEFAULTS[3])
    preload()
    hush()
    os.mkdir(folder)
    full, empty = os.path.join(folder, "full"), os.path.join(folder, "empty")
    began = time.perf_counter()
    for place, many in ((empty, 0), (full, entries)):
        ask_child(lambda p=place, n=many: build(p, n), "a builder")  # type: ignore[misc]
    openings = {
        "no bound": after_opening(full, empty, rounds, length),
        "a bound": after_opening(full, empty, rounds, length, max_entries=2 * entries),
    }
    upkeep = beside_upkeep(full, entries, evicted, length)
    there = ask_child(lambda: count(full))
    openings["a bound that it exceeds, once"] = after_opening(full, empty, 1, length, max_entries=there - evicted)
    show_openings(openings, entries)
    medians = {
        way: {name: {what: median(times) for what, times in found.items()} for name, found in stores.items()}
        for way, stores in openings.items()
    }
    counts = {"entries": entries, "evicted": evicted, "upkeep": upkeep, "openings": medians}
    finish({**counts, "seconds": round(time.perf_counter() - began, 1)})


def count(folder: str) -> int:
    with PersistDict(folder, background_thread="disabled") as d:
        return len(d)


if __name__ == "__main__":
    main()
