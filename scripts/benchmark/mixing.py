"""Reads and writes as a cache sees them, in one thread, or in processes of their own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy

from benchmark.keys import STRIDE, key_of
from benchmark.libraries import Library
from benchmark.values import values_of

__all__ = ["child_environment", "run_workers", "steps", "work"]

PROCESSES = 4
WRITES = 0.05
BATCH = 50  # steps after which a worker looks at the clock


def steps(library: Library, values: Sequence[Any], size: int, number: int, rng: random.Random) -> list[tuple[Any, Any]]:
    """Steps for `Library.mixed`: 95 % reads and 5 % writes of keys of which few are asked for often (Zipf, 0.99).

    Args:
        values: as the library's `value` has made them.
    """
    draws = numpy.random.default_rng(rng.getrandbits(32)).random(number)
    numbers = numpy.searchsorted(_shares(size), draws) * STRIDE % size
    return [
        (library.key(key_of(int(n))), values[int(n) % len(values)] if rng.random() < WRITES else None) for n in numbers
    ]


@lru_cache
def _shares(size: int) -> Any:
    """How much of all is asked of the ranks up to each one."""
    shares = numpy.cumsum(1 / numpy.arange(1, size + 1) ** 0.99)
    return shares / shares[-1]


def child_environment() -> dict[str, str]:
    """For children that find this package, and may keep compiled modules."""
    kept = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def run_workers(name: str, path: Path, label: str, size: int, seconds: float) -> tuple[int, float]:
    """Let processes work on one store at once; returns how many steps they did, and in which time."""
    command = [sys.executable, "-m", "benchmark.worker", "mixed", name, str(path), label, str(size), str(seconds)]
    workers = [
        subprocess.Popen(
            [*command, str(seed)],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(PROCESSES)
    ]
    try:
        for worker in workers:
            assert worker.stdout
            worker.stdout.readline()  # it has opened the store
        answers = [worker.communicate(timeout=120) for worker in _told(workers)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    if any(worker.returncode for worker in workers):
        error = next(error for _, error in answers if error)
        raise RuntimeError(error.strip().splitlines()[-1])
    done = [answer.split() for answer, _ in answers]
    return sum(int(number) for number, _ in done), max(float(taken) for _, taken in done)


def _told(workers: Sequence[subprocess.Popen[str]]) -> Sequence[subprocess.Popen[str]]:
    """The workers, after all were told to begin."""
    for worker in workers:
        assert worker.stdin
        try:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        except BrokenPipeError:  # it has failed; its error is read later
            continue
    return workers


def work(library: Library, path: Path, label: str, size: int, seconds: float, seed: int) -> None:
    """What a worker does: open the store, wait for a line, work for so many seconds, print steps and seconds."""
    rng = random.Random(seed)
    values = [library.value(value) for value in values_of(label)]
    library.open(path)
    batches = [steps(library, values, size, BATCH, rng) for _ in range(40)]
    library.mixed(batches[0])
    print("ready", flush=True)
    sys.stdin.readline()
    done, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        library.mixed(batches[done // BATCH % len(batches)])
        done += BATCH
    print(done, time.perf_counter() - start)
    library.close()
