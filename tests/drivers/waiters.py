"""Writers that all wait for each other, one of which is killed every few milliseconds: none of the others hangs.

waiters.py FOLDER KILLS [FAULT]      with the fault "no gate" LMDB's own lock is all that there is
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from typing import Any

from drivers.kills import NUMBER, Process, noticing, wait_for_progress, watch
from drivers.running import ask_child, faults_of, finish, preload, seed, verified

from persistdict import PersistDict

WRITERS = 5
LONGEST = 0.02  # seconds between two kills


def write(folder: str, name: int, pipe: int) -> None:
    """Write one key, again and again."""
    d: PersistDict[Any, Any] = PersistDict(folder, background_thread="disabled", caching=False)
    n = d.get(name, 0)
    while True:
        n += 1
        d[name] = n
        os.write(pipe, NUMBER.pack(n))


def check(folder: str, last: dict[int, int]) -> None:
    """Compare with the last acknowledged number of each writer."""
    with PersistDict(folder) as d:
        found = dict(d)
        assert found.keys() >= {name for name, n in last.items() if n > 0}
        for name, n in last.items():
            assert n <= found.get(name, 0) <= n + 1, f"writer {name} acknowledged {n}, found {found.get(name)}"
        assert not faults_of(d)
    assert not verified(folder)


def main() -> None:
    folder, kills, fault = [*sys.argv[1:], ""][:3]
    preload()
    if fault == "no gate":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the writers may complain
        from persistdict.stores.lmdb.gate import Gate

        Gate.lock = lambda self, byte: (bool, bool)  # type: ignore[method-assign]
    draw = random.Random(seed())
    did: Counter[str] = Counter()
    last: dict[int, int] = {}

    def start(name: int) -> Process:
        return Process(lambda pipe: write(folder, name, pipe), f"writer {name}")

    with PersistDict(folder):
        pass
    writers = {name: start(name) for name in range(WRITERS)}
    with noticing(did, fault):
        wait_for_progress(list(writers.values()))
        for _ in range(int(kills)):
            watch(list(writers.values()), lambda: False, time.monotonic() + draw.uniform(0, LONGEST))
            name = draw.randrange(WRITERS)
            victim = writers.pop(name)
            victim.kill()
            last[name] = max(victim.last, last.get(name, 0))
            did["kills"] += 1
            wait_for_progress(list(writers.values()))
            did["survivors that went on"] += len(writers)
            did["acknowledged"] += victim.count
            writers[name] = start(name)
    for name, process in writers.items():
        process.kill()
        last[name] = max(process.last, last.get(name, 0))
        did["acknowledged"] += process.count
    ask_child(lambda: check(folder, last), "the checker")
    finish({**did, "seed": seed()})


if __name__ == "__main__":
    main()
