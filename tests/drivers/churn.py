"""Entries of mixed sizes are overwritten ten times, in random order; how much larger the file is than what is in it.

    churn.py FOLDER [MEGABYTES] [TIMES] [FAULT]

MEGABYTES of values, of 100 bytes to 1 MB, are there at any time; each is overwritten TIMES times, by one of another
size: the sizes change places, so that all together are as large as before. With the fault "old snapshot kept" another
process reads what there was at the beginning, to the end.
"""

from __future__ import annotations

import os
import random
import sys
import time
from typing import Any

from drivers.running import answer_of, faults_of, finish, in_child, preload, seed, verified
from drivers.soak_faults import keep_snapshot
from drivers.soak_values import PATTERN, Board, on_disk

from persistdict import PersistDict

SMALLEST, LARGEST = 100, 1 << 20


class Churn:
    """The dictionary and how large it was.

    Attributes:
        sizes: of the values that are there, by key.
        seen: live bytes, bytes of the data, and of all files, each time that all was written.
    """

    def __init__(self, d: PersistDict[Any, Any], folder: str) -> None:
        self.d, self.folder = d, folder
        self.draw = random.Random(seed())
        self.sizes: dict[str, int] = {}
        self.live = 0
        self.seen: list[tuple[int, int, int]] = []
        self.slowest = 0.0

    def fill(self, size: int) -> None:
        """Write new entries until there is so much."""
        while self.live < size:
            self.write(f"key {len(self.sizes)}", int(SMALLEST * (LARGEST / SMALLEST) ** self.draw.random()))
        self.look()

    def overwrite(self) -> None:
        """Overwrite all entries, in random order."""
        keys, sizes = list(self.sizes), list(self.sizes.values())
        self.draw.shuffle(keys)
        self.draw.shuffle(sizes)
        for key, size in zip(keys, sizes, strict=True):
            self.write(key, size)
        self.look()

    def write(self, key: str, size: int) -> None:
        start = self.draw.randrange(len(PATTERN) - size)
        value = PATTERN[start : start + size]
        before = time.perf_counter()
        self.d[key] = value
        self.slowest = max(self.slowest, time.perf_counter() - before)
        self.live += size - self.sizes.get(key, 0)
        self.sizes[key] = size

    def look(self) -> None:
        data = os.stat(os.path.join(self.folder, "data.mdb")).st_size
        self.seen.append((self.live, data, on_disk(self.folder)))

    def check(self) -> list[str]:
        """What is wrong with the dictionary in the end."""
        wrong = [key for key, size in self.sizes.items() if len(self.d[key]) != size]
        return [f"{len(wrong)} values are not what was written"] * bool(wrong) + faults_of(self.d)


def main() -> None:
    folder, megabytes, times, fault = [*sys.argv[1:], *[""] * 3][:4]
    preload()
    began = time.perf_counter()
    board = Board(1)
    with PersistDict(folder, background_timeout=1, caching=False) as d:
        churn = Churn(d, folder)
        churn.fill(int(float(megabytes or 1000) * 1e6))
        d.flush()
        holder = in_child(lambda: keep_snapshot(folder, board)) if fault == "old snapshot kept" else None
        for number in range(int(times or 10)):
            churn.overwrite()
            live, data, disk = churn.seen[-1]
            line = f"{number + 1:3}: live {live:,}, data {data:,} ({data / live:.2f}), all files {disk / live:.2f}"
            print(line, flush=True)
        seconds = time.perf_counter() - began
        board.stop[0] = 1
        if holder:
            answer_of(*holder)
        failures = churn.check()
    failures += verified(folder)
    live, data, disk = (max(column) for column in zip(*churn.seen, strict=True))
    finish(
        {
            "entries": len(churn.sizes),
            "live": live,
            "data": data,
            "disk": disk,
            "ratio": round(max(data / live for live, data, _ in churn.seen), 3),
            "ratio of all files": round(max(disk / live for live, _, disk in churn.seen), 3),
            "slowest write": round(churn.slowest, 3),
            "failures": failures,
            "seconds": round(seconds, 1),
            "seed": seed(),
        }
    )


if __name__ == "__main__":
    main()
