"""Producers and consumers of one queue, in processes of their own: everything arrives, and how often.

Without kills each item arrives exactly once. With them, some process is killed every few milliseconds and another takes
its place; a producer goes on behind the last number that its predecessor acknowledged, and consumers take leases. Then
each item arrives at least once, none is lost, and none stays behind.

A consumer tells the number of an item through its pipe before it acknowledges it, so what was acknowledged was told.

    queues.py FOLDER ITEMS calm|kill [FAULT]     with the fault "no lease" consumers that are killed lose items
"""

from __future__ import annotations

import itertools
import os
import queue
import random
import sys
import time
from collections import Counter
from typing import Any

from drivers.kills import NUMBER, Process, noticing, watch
from drivers.running import ask_child, faults_of, finish, preload, seed, verified

from persistdict import LeaseLostError, PersistDict

PRODUCERS, CONSUMERS = 4, 4
LONGEST = 0.04  # seconds between two kills
LEASE = 1.0  # seconds
MAXSIZE = 500
END = 1 << 40  # from here on numbers are no items


class Teller(Process):
    """A process that tells which items it has; several may have the same."""

    def __init__(self, work: Any, name: str) -> None:
        self.told: list[int] = []
        super().__init__(work, name)

    def receive(self) -> bool:
        data = os.read(self.pipe, 1 << 16)
        whole = (len(self._rest) + len(data)) // NUMBER.size * NUMBER.size
        data, known = self._rest + data, bool(data)
        self.told += [number for (number,) in NUMBER.iter_unpack(data[:whole])]
        self._rest, self.count = data[whole:], len(self.told)
        return known


def produce(folder: str, first: int, stop: int, pipe: int) -> None:
    """Put the numbers from one on, each acknowledged after `put` has returned; then wait to be killed."""
    q = PersistDict(folder, background_timeout=0.2).queue("numbers", MAXSIZE)
    for number in range(first, stop):
        q.put(number if number % 1000 else [number, b"x" * 6000])
        os.write(pipe, NUMBER.pack(number))
    time.sleep(3600)


def consume(folder: str, careful: bool, pipe: int) -> None:
    """Take numbers, for ever; `careful` with leases."""
    q = PersistDict(folder, background_timeout=0.2).queue("numbers")
    while True:
        try:
            found = q.get(timeout=0.2, lease=LEASE if careful else None)
        except queue.Empty:
            continue
        item = found.item if careful else found
        number = item if isinstance(item, int) else item[0]
        os.write(pipe, NUMBER.pack(number))
        if not careful:
            q.task_done()
            continue
        try:
            found.ack()
        except LeaseLostError:
            os.write(pipe, NUMBER.pack(END))


class Run:
    """The parent of them all; its own process never opens the store."""

    def __init__(self, folder: str, items: int, kill: bool, fault: str) -> None:
        self.folder, self.kill, self.careful = folder, kill, kill and not fault
        self.draw = random.Random(seed())
        self.did: Counter[str] = Counter()
        self.times: Counter[int] = Counter()
        bounds = [items * part // PRODUCERS for part in range(PRODUCERS + 1)]
        self.parts = list(itertools.pairwise(bounds))
        self.total = items
        self.producers = {n: self.producer(n, first) for n, (first, _) in enumerate(self.parts)}
        self.consumers = {n: self.consumer(n) for n in range(CONSUMERS)}

    def producer(self, name: int, first: int) -> Process:
        stop = self.parts[name][1]
        return Process(lambda pipe: produce(self.folder, first, stop, pipe), f"producer {name}")

    def consumer(self, name: int) -> Teller:
        return Teller(lambda pipe: consume(self.folder, self.careful, pipe), f"consumer {name}")

    def collect(self) -> None:
        """Count what consumers have told."""
        for consumer in self.consumers.values():
            for number in consumer.told:
                if number < END:
                    self.times[number] += 1
                else:
                    self.did["leases lost"] += 1
            consumer.told = []

    def is_put(self) -> bool:
        lasts = [
            max(process.last, first - 1)
            for process, (first, _) in zip(self.producers.values(), self.parts, strict=True)
        ]
        return all(last == stop - 1 for last, (_, stop) in zip(lasts, self.parts, strict=True))

    def kill_one(self) -> None:
        """Kill a process and start another in its place."""
        name = self.draw.randrange(PRODUCERS + CONSUMERS)
        self.did["kills"] += 1
        if name < PRODUCERS:
            victim = self.producers[name]
            victim.kill()
            last = max(victim.last, self.parts[name][0] - 1)
            if last + 1 < self.parts[name][1]:
                self.producers[name] = self.producer(name, last + 1)
            else:
                self.producers[name] = Process(lambda pipe: time.sleep(3600), f"producer {name}, done")
            self.producers[name].last = last
            return
        consumer = self.consumers[name - PRODUCERS]
        consumer.kill()
        self.collect()
        self.consumers[name - PRODUCERS] = self.consumer(name - PRODUCERS)

    def go_on(self) -> None:
        """Until everything was put and has arrived; something must happen all the time."""
        last_news, seen = time.monotonic(), 0
        while not (self.is_put() and len(self.times) == self.total):
            processes: list[Process] = [*self.producers.values(), *self.consumers.values()]
            pause = self.draw.uniform(0, LONGEST) if self.kill else 0.2
            watch(processes, lambda: False, time.monotonic() + pause)
            self.collect()
            news = len(self.times) + sum(process.last for process in self.producers.values())
            if news != seen:
                last_news, seen = time.monotonic(), news
            missing = self.total - len(self.times)
            assert time.monotonic() - last_news < 20, f"{missing} of {self.total} items do not arrive"
            if self.kill:
                self.kill_one()

    def settle(self) -> None:
        """Let all jobs be done, end everybody, and look at what is left."""
        if self.careful:  # a consumer may have told of an item and be about to acknowledge it
            ask_child(self.wait_for_the_last)
        for process in [*self.producers.values(), *self.consumers.values()]:
            process.kill()
        self.collect()
        ask_child(self.check)

    def wait_for_the_last(self) -> None:
        PersistDict(self.folder).queue("numbers").join()

    def check(self) -> None:
        with PersistDict(self.folder) as d:
            q = d.queue("numbers")
            assert self.careful or q.qsize() == 0, f"{q.qsize()} items are left over"
            assert not self.careful or (q.qsize(), q.unfinished_tasks) == (0, 0), "something is left over"
            assert not faults_of(d), faults_of(d)
            rows = d._store.count()
            assert rows == 1, f"{rows} rows are left, not the state alone"
        assert not verified(self.folder)


def main() -> None:
    folder, items, mode, fault = [*sys.argv[1:], ""][:4]
    preload()
    import persistdict.queues  # noqa: F401

    if fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with PersistDict(folder):
        pass
    before = time.perf_counter()
    run = Run(folder, int(items), mode == "kill", fault)
    with noticing(run.did, fault):
        run.go_on()
        seconds = time.perf_counter() - before
        run.settle()
        twice = sum(many > 1 for many in run.times.values())
        assert mode == "kill" or not twice, f"{twice} items arrived twice"
    counts = {"items": run.total, "delivered": len(run.times), "twice": twice, **run.did}
    finish({**counts, "seconds": round(seconds, 1), "per second": round(run.total / seconds), "seed": seed()})


if __name__ == "__main__":
    main()
