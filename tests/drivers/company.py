"""Processes that come to a store and leave it, some by being killed, while others write: none waits for LMDB's lock.

A process that is alone with a store writes without the gate. So here each write of small entries is stood between two
calls of lockf, which within the gate never find the lock taken, and without it would.

    company.py FOLDER ROUNDS [FAULT]     with the fault "nobody tells", who comes says nothing to who is alone
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import sys
import time
from collections import Counter
from typing import Any

from drivers.kills import NUMBER, Process, noticing, wait_for_progress, watch
from drivers.running import ask_child, faults_of, finish, preload, seed, verified

from persistdict import PersistDict
from persistdict.stores.lmdb import environment
from persistdict.stores.lmdb.company import COMPANY, Company
from persistdict.stores.lmdb.engine import Engine
from persistdict.stores.lmdb.gate import RECENT

GUESTS = 2  # beside the one that stays
LONGEST = 0.02  # seconds between two kills
TALLY = struct.Struct("<QQ")


class Probe:
    """A lock that this process holds during each write transaction, and that nobody else ever holds at the same time.

    It is taken before a transaction begins and given back before the engine says that it writes no more.
    """

    file = -1
    tally = mmap.mmap(-1, TALLY.size)  # how many were with company, and without; about

    @classmethod
    def take(cls, engine: Engine) -> None:
        try:
            fcntl.lockf(cls.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os._exit(3)
        met, alone = TALLY.unpack(cls.tally)
        with_company = bool(engine.flags[COMPANY])
        TALLY.pack_into(cls.tally, 0, met + with_company, alone + (not with_company))

    @classmethod
    def give(cls) -> None:
        if cls.file >= 0:
            fcntl.lockf(cls.file, fcntl.LOCK_UN)

    @classmethod
    def open(cls, folder: str) -> None:
        """A forked process must not use its parent's."""
        cls.file = os.open(folder + ".probe", os.O_RDWR | os.O_CREAT)


class Watched(Engine):
    """Takes the probe for each transaction of the recent writes."""

    def adopt(self, raw: Any, *rest: Any) -> None:
        super().adopt(raw, *rest)
        if self._byte == RECENT:
            begin = self.begin_write
            self.begin_write = lambda: (Probe.take(self), begin())[1]

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "writing" and not value and getattr(self, "_byte", None) == RECENT:
            Probe.give()
        super().__setattr__(name, value)


def stay(folder: str, pipe: int) -> None:
    """Write one key, again and again."""
    Probe.open(folder)
    d: PersistDict[Any, Any] = PersistDict(folder, sync_interval=0.01)
    n = d.get("host", 0)
    while True:
        n += 1
        d["host"] = n
        os.write(pipe, NUMBER.pack(n))


def call(folder: str, name: str, pipe: int) -> None:
    """Come, write a little, leave, and pause."""
    Probe.open(folder)
    draw = random.Random(os.getpid())
    n = 0
    while True:
        with PersistDict(folder, background_thread="disabled") as d:
            n = max(n, d.get(name, 0))
            for _ in range(draw.randrange(1, 20)):
                n += 1
                d[name] = n
                os.write(pipe, NUMBER.pack(n))
        time.sleep(draw.random() * LONGEST)


def check(folder: str, last: dict[str, int]) -> None:
    """Compare with the last acknowledged number of each."""
    Probe.open(folder)
    with PersistDict(folder) as d:
        for name, n in last.items():
            assert n <= d.get(name, 0) <= n + 1, f"{name} acknowledged {n}, found {d.get(name)}"
        assert not faults_of(d)
    assert not verified(folder)


def start(folder: str, name: str) -> Process:
    work = (lambda pipe: stay(folder, pipe)) if name == "host" else (lambda pipe: call(folder, name, pipe))
    return Process(work, name)


def main() -> None:
    folder, rounds, fault = [*sys.argv[1:], ""][:3]
    preload()
    environment.Engine = Watched  # type: ignore[misc]
    if fault == "nobody tells":
        Company.meet = lambda self, timeout, make=True: self._map(make) and None  # type: ignore[method-assign]
    draw = random.Random(seed())
    did: Counter[str] = Counter()
    last: dict[str, int] = {}
    names = ["host", *(f"guest {number}" for number in range(GUESTS))]
    present = {name: start(folder, name) for name in names}
    with noticing(did, fault):
        for _ in range(int(rounds)):
            watch(list(present.values()), lambda: False, time.monotonic() + draw.uniform(0, LONGEST))
            name = draw.choice(names)
            victim = present.pop(name)
            victim.kill()
            last[name] = max(victim.last, last.get(name, 0))
            did["kills"] += 1
            did["acknowledged"] += victim.count
            present[name] = start(folder, name)
            if draw.random() < 0.1:
                wait_for_progress(list(present.values()))
    for name, process in present.items():
        process.kill()
        last[name] = max(process.last, last.get(name, 0))
    ask_child(lambda: check(folder, last), "the checker")
    did["writes with company"], did["writes alone"] = TALLY.unpack(Probe.tally)
    finish({**did, "seed": seed()})


if __name__ == "__main__":
    main()
