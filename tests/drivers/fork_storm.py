"""A process that forks at random moments, while its threads are inside everything that the dictionary does.

Every child uses the inherited handles and new ones, and must see at least what was acknowledged before the fork. The
parent's threads must not notice.

    fork_storm.py FOLDER FORKS MODE

MODE "steady": the threads use handles that are open; "opening": one more thread opens and closes another folder all the
time, which the child opens too; "twins": two threads fork at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from drivers.running import WATCHDOG, answer_of, finish, in_child, preload, seed, verified

from persistdict import PersistDict, maintenance
from persistdict.stores.lmdb import registry

FIXED = 700  # entries that never change; more than one batch of an iteration
AT_ONCE = 2  # children

Dictionary = PersistDict[Any, Any]


class Storm:
    """The parent, its handles and its threads."""

    def __init__(self, folder: str, mode: str) -> None:
        self.folder, self.mode = folder, mode
        self.draw = random.Random(seed())
        self.d: Dictionary = PersistDict(folder, background_timeout=0.01)
        self.e: Dictionary = PersistDict(folder, background_timeout=0.01, caching=False)
        self.d.update({f"fixed {i}": [i] if i % 2 else i for i in range(FIXED)})
        self.d["large"] = b"x" * 50_000
        self.d["count"] = self.d["left"] = self.d["right"] = 0
        self.acknowledged = {"count": 0, "batch": 0}
        self.did: Counter[str] = Counter()
        self.errors: list[str] = []
        self.stopping = False
        works = [self.read_hot, self.read_cold, self.write, self.write_batch, self.iterate, self.lock]
        if mode == "opening":
            works.append(self.open_and_close)
        self.threads = [threading.Thread(target=self.repeat, args=(work,), daemon=True) for work in works]
        sys.setswitchinterval(1e-4)

    # What the threads of the parent do

    def repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self.stopping:
                work()
                self.did[work.__name__] += 1
        except BaseException as error:
            self.errors.append(f"{work.__name__}: {error!r}")
            raise

    def read_hot(self) -> None:
        for i in range(20):
            assert self.d[f"fixed {i}"] == ([i] if i % 2 else i)

    def read_cold(self) -> None:
        assert self.e["large"] == b"x" * 50_000
        assert self.e["fixed 9"] == [9]
        assert "fixed 10" in self.e and "missing" not in self.e
        least = self.acknowledged["batch"]
        left, right = self.e.get_many(["left", "right"]).values()
        assert left == right >= least

    def write(self) -> None:
        n = self.acknowledged["count"] + 1
        self.d["count"] = n
        self.acknowledged["count"] = n

    def write_batch(self) -> None:
        n = self.acknowledged["batch"] + 1
        self.e.update({"left": n, "right": n})
        self.acknowledged["batch"] = n

    def iterate(self) -> None:
        assert [key for key, _ in self.d.items()][:FIXED] == [f"fixed {i}" for i in range(FIXED)]

    def lock(self) -> None:
        keeper = maintenance.keeper_of(self.d._store)
        for lock in (
            self.d._write_lock, self.e._write_lock, self.d._front.lock, self.e._front.lock,
            self.d._store.env.data.lock, registry.lock, keeper._lock, maintenance._keepers_lock,
        ):  # fmt: skip
            with lock:
                list(range(1000))

    def open_and_close(self) -> None:
        with PersistDict(self.folder + "2") as other:
            other["n"] = 1
            assert other["n"] == 1

    # What a child does

    def be_child(self, number: int) -> str:
        d, e, least = self.d, self.e, dict(self.acknowledged)
        choice = random.Random(f"{seed()} {number}")
        if choice.random() < 0.5:
            self.read_in_threads()
        if self.mode == "opening":
            with PersistDict(self.folder + "2") as other:
                other["n"] = 1
                assert other["n"] == 1
        name = f"child {number}"
        assert d["fixed 1"] == [1] and d["fixed 2"] == 2 and e["fixed 3"] == [3]
        assert d["count"] >= least["count"], "the child read something older than its parent had written"
        left, right = d.get_many(["left", "right"]).values()
        assert left == right >= least["batch"], "a batch is torn"
        d[name] = [number]
        assert d[name] == e[name] == [number]
        assert name in d and len(e) >= FIXED + 5
        keys = list(e)
        assert keys[:FIXED] == [f"fixed {i}" for i in range(FIXED)] and name in keys
        assert len(set(keys)) == len(keys), "a key was iterated twice"
        d.flush()
        with PersistDict(self.folder) as new:
            assert new[name] == [number] and new["fixed 5"] == [5]
            del new[name]
        assert name not in d and d.get(name) is None
        if choice.random() < 0.5:
            e.close()
            d.close()
            assert d.closed
        return "right"

    def read_in_threads(self) -> None:
        """The first use of the inherited handles is by several threads at once."""
        barrier = threading.Barrier(4)
        wrong = []

        def read(d: Dictionary, number: int) -> None:
            barrier.wait()
            try:
                if d[f"fixed {number}"] != ([number] if number % 2 else number) or f"fixed {number}" not in d:
                    wrong.append("a thread of the child read something wrong")
            except BaseException as error:
                wrong.append(f"a thread of the child got {error!r}")

        threads = [threading.Thread(target=read, args=((self.d, self.e)[i % 2], 20 + i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong

    # The parent

    def fork(self, forks: int, first: int = 0) -> None:
        """Fork so often, at random moments, with a few children at once."""
        children: list[tuple[int, int, str]] = []
        for number in range(first, first + forks):
            for _ in range(self.draw.randrange(3000)):  # a random moment
                pass
            pid, pipe = in_child(lambda: self.be_child(number))  # noqa: B023
            children.append((pid, pipe, f"child {number}"))
            if len(children) >= AT_ONCE:
                self.collect(children.pop(0))
        while children:
            self.collect(children.pop(0))

    def collect(self, child: tuple[int, int, str]) -> None:
        assert answer_of(*child) == "right"
        self.did["children that were right"] += 1

    def run(self, forks: int) -> None:
        for thread in self.threads:
            thread.start()
        if self.mode == "twins":
            twins = [threading.Thread(target=self.repeat_forks, args=(forks, i)) for i in range(2)]
            for twin in twins:
                twin.start()
            for twin in twins:
                twin.join(WATCHDOG * 4)
                assert not twin.is_alive(), "a thread that forks hangs"
        else:
            self.fork(forks)
        before = Counter(self.did)
        end = time.monotonic() + WATCHDOG
        names = [work.__name__ for work in (self.read_hot, self.read_cold, self.write, self.write_batch, self.iterate)]
        while not all(self.did[name] > before[name] for name in names):
            assert time.monotonic() < end, "a thread of the parent hangs"
            assert not self.errors, self.errors
            os.sched_yield()
        self.stopping = True
        for thread in self.threads:
            thread.join(WATCHDOG)
            assert not thread.is_alive(), "a thread of the parent hangs"
        assert not self.errors, self.errors
        assert self.d["count"] == self.acknowledged["count"]
        assert len(self.d) == FIXED + 4 == len(list(self.d)), "a child left something behind"
        self.d.close()
        self.e.close()
        faults = verified(self.folder)
        assert not faults, faults

    def repeat_forks(self, forks: int, twin: int) -> None:
        try:
            self.fork(forks // 2, twin * forks)
        except BaseException as error:
            self.errors.append(repr(error))
            raise


def main() -> None:
    folder, forks, mode = sys.argv[1:]
    preload()
    storm = Storm(folder, mode)
    try:
        storm.run(int(forks))
    except BaseException as error:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.flush()
        if "hang" in str(error):
            os.kill(os.getpid(), signal.SIGABRT)  # shows where the threads are
        os._exit(1)  # without waiting for the threads
    finish({**storm.did, "seed": seed()})


if __name__ == "__main__":
    main()
