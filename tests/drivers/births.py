"""Processes that open the same new folder at once and are killed within the first milliseconds.

Afterwards the folder must open and work, and what was acknowledged must be there: the half-made database or lock file
of a dead maker must never be used.

    births.py FOLDER ROUNDS [FAULT]
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from typing import Any

from drivers.kills import NUMBER, Process, watch
from drivers.running import ask_child, faults_of, finish, left_over, preload, seed, verified

from persistdict import PersistDict

OPENERS = 4
LONGEST = 0.02  # seconds that an opener lives at most


def be_born(folder: str, number: int, start: int, pipe: int) -> None:
    """Wait for the start, open, and write."""
    os.read(start, 1)
    d: PersistDict[Any, Any] = PersistDict(folder)
    os.write(pipe, NUMBER.pack(0))
    for n in range(1, 1 << 30):
        d[f"{number} {n % 10}"] = n
        os.write(pipe, NUMBER.pack(n))


def check(folder: str, counts: list[int]) -> list[str]:
    """Open the folder and compare; returns what was left behind in it."""
    with PersistDict(folder) as d:
        expected = {}
        for number, count in enumerate(counts):
            for n in range(max(0, count - 10), count):  # n = 0 stands for the opening
                if n:
                    expected[f"{number} {n % 10}"] = n
        found = dict(d)
        for number, count in enumerate(counts):
            key = f"{number} {count % 10}"
            if found.get(key) == count > 0:  # it was under way
                expected[key] = count
        assert found == expected, f"acknowledged {counts}; found {found}, not {expected}"
        assert len(d) == len(found)
        d["afterwards"] = [1]
        assert d["afterwards"] == [1]
        faults = faults_of(d)
        assert not faults, faults
    faults = verified(folder)
    assert not faults, faults
    with PersistDict(folder) as d:
        assert d.pop("afterwards") == [1]
    return left_over(folder)


def birth(folder: str, draw: random.Random, did: Counter[str]) -> None:
    reading, writing = os.pipe()
    openers = [
        Process(lambda pipe, number=number: be_born(folder, number, reading, pipe), f"opener {number}")  # type: ignore[misc]
        for number in range(OPENERS)
    ]
    # Mostly while the database is being made, which takes a few milliseconds.
    ends = sorted((LONGEST * draw.random() ** 3, number) for number in range(OPENERS))
    os.write(writing, b"." * OPENERS)
    begun = time.monotonic()
    alive = list(openers)
    for delay, number in ends:
        watch(alive, lambda: False, begun + delay)
        alive.remove(openers[number])
        openers[number].kill()
    os.close(reading)
    os.close(writing)
    born = os.path.exists(os.path.join(folder, "data.mdb"))
    counts = [opener.count for opener in openers]
    did["database made by them"] += born
    did["openings finished"] += sum(count > 0 for count in counts)
    did["acknowledged"] += sum(max(0, count - 1) for count in counts)
    did["folders with something left behind"] += bool(ask_child(lambda: check(folder, counts), "the checker"))


def main() -> None:
    preload()
    folder, rounds = sys.argv[1:]
    draw = random.Random(seed())
    did: Counter[str] = Counter()
    for number in range(int(rounds)):
        try:
            birth(f"{folder}{number}", draw, did)
        except AssertionError as error:
            for process in list(Process.running):
                os.kill(process.pid, signal.SIGKILL)
            raise AssertionError(f"round {number}, seed {seed()}: {error}") from error
        shutil.rmtree(f"{folder}{number}", ignore_errors=True)
        did["rounds"] += 1
    finish({**did, "seed": seed()})


if __name__ == "__main__":
    main()
