"""A child process that tells how much memory it takes to read a store: `python -m benchmark.memory LIBRARY PATH SIZE`.

It imports nothing that it does not need, as what it imports is in what it tells.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark.keys import STRIDE, key_of
from benchmark.libraries import Library
from benchmark.registry import library

READS = 200_000
BATCH = 1000


def read_and_tell_memory(one: Library, path: Path, size: int) -> None:
    """Open a store, read keys from all over it, and print bytes: private ones, without pages of files, and before."""
    before = private_memory()[1]
    one.open(path)
    for start in range(0, min(READS, size), BATCH):
        keys = [one.key(key_of(number * STRIDE % size)) for number in range(start, min(start + BATCH, size))]
        one.get(keys)
        if "contains, hit" not in one.lacking:
            one.contains(keys)
    print(*private_memory(), before)
    one.close()


def private_memory() -> tuple[int, int]:
    """Bytes that only this process has: all, and without pages of shared files.

    The kernel calls a page of a file private as long as one process alone maps it. It is in the page cache all the
    same, is taken back when memory is short, and is no more than what `read` would leave there.
    """
    everything = ours = 0
    shared = False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            words = line.split()
            if not words[0].endswith(":"):
                shared = words[1].endswith("s")
            elif words[0] in ("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"):
                everything += int(words[1]) << 10
                ours += 0 if shared else int(words[1]) << 10
    return everything, ours


if __name__ == "__main__":
    read_and_tell_memory(library(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
