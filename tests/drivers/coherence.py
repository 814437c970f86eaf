"""Processes that write the same few keys in turn and read them with the cache on: every read must be the newest.

A lane is a key (or two) with a counter that everybody can see: a number in a mapped file, set to n after the n-th write
of the lane returned. The writers take turns, so while the counter is n the only write that can be under way is n + 1.
A reader takes the counter, then reads, then takes the counter again; the state that it read must lie between the first
and one more than the second, and never before a state that the same reader saw. Nobody ever waits for anybody.

    coherence.py FOLDER READS PROCESSES THREADS HANDLES [PLANT]
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import Any

from drivers.running import WATCHDOG, finish, seed

from persistdict import PersistDict

READS_PER_WRITE = 40
LANES = ["plain", "mutable", "pair", "deleted", "popped", "default", "timed", "bulky", "number"]
PADDING = "x" * 40_000
SLOTS = 64  # of the mapped file: counters of the lanes, then reads, writes and cold reads of each thread


class Board:
    """Numbers that all processes see. A slot is written by whoever's turn it is, and by nobody else."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.slots = memoryview(self._map).cast("Q")


def plant(d: PersistDict[Any, Any], fault: str) -> None:
    """Make the dictionary wrong on purpose, to see that it is noticed."""
    front = d._front
    store: Any = d._store
    if fault == "no validation":

        class Current:
            def id(self) -> int:
                return front.mark

        class Lying:
            """The store, but for what it says of the newest commit."""

            def begin(self) -> Current:
                return Current()

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        d._store = Lying()
    elif fault == "floor stays":
        admit, wrote = front.admit, front.wrote

        def keeping_floor(method: Any) -> Any:
            def call(*args: Any) -> None:
                with front.lock:
                    floor = front.floor
                    method(*args)
                    front.floor = floor

            return call

        front.admit, front.wrote = keeping_floor(admit), keeping_floor(wrote)
    elif fault == "late admission":
        admit = front.admit
        front.admit = lambda key, copy, size: admit(key, (*copy[:3], front.mark, copy[4]), size)
    elif fault == "writes not told":
        store.env.recent._begun = [0]
    elif fault == "told too late":
        _tell_late(store.env.recent)
    elif fault == "own write forgotten":
        front.wrote_many = lambda commit, keys: setattr(front, "mark", commit)


def _tell_late(engine: Any) -> None:
    """Have a process say which write was begun only when the next one begins."""

    class Late:
        last = 0

        def __setitem__(self, place: int, begun: int) -> None:
            engine.latest[place], self.last = self.last, begun

    engine._begun = Late()


class Player(threading.Thread):
    """A reader that now and then writes, where it is its turn."""

    def __init__(self, d: PersistDict[Any, Any], slots: memoryview, number: int, players: int, quota: int) -> None:
        super().__init__(daemon=True)
        self.d, self.slots, self.number, self.players, self.quota = d, slots, number, players, quota
        self.random = random.Random(f"{seed()} {number}")
        self.seen = [0] * len(LANES)
        self.did: Counter[str] = Counter()
        self.stale: list[str] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.play()
        except BaseException as error:
            self.error = error
            raise

    def play(self) -> None:
        slots, lanes = self.slots, len(LANES)
        first = len(LANES)
        mine = first + self.number
        while True:
            for _ in range(READS_PER_WRITE):
                self.check(self.random.randrange(lanes))
                slots[mine] += 1
            if sum(slots[first : first + self.players]) >= self.quota:
                return
            turns = [lane for lane in range(lanes) if (slots[lane] + 1) % self.players == self.number]
            if turns:
                lane = self.random.choice(turns)
                n = slots[lane] + 1
                assert self.check(lane) == n - 1, "a player did not see the write before its own"
                self.write(LANES[lane], n)
                slots[lane] = n
                self.did["writes"] += 1
            else:
                time.sleep(0)  # let those go on whose turn it is

    # Reading

    def check(self, lane: int) -> int:
        """Read a lane; note if that is stale. Returns the state."""
        low = max(self.slots[lane], self.seen[lane])
        state = self.read(LANES[lane], low)
        high = self.slots[lane] + 1
        self.did["reads"] += 1
        if state is None:
            state = low + low % 2  # the entry is absent, as in every even state
        if low <= state <= high:
            self.seen[lane] = state
        else:
            self.stale.append(f"{LANES[lane]}: read {state}, must be {low} to {high}")
        return state

    def read(self, lane: str, low: int) -> int | None:
        """The state that one read shows, None for absent. What shows little is taken for the earliest from `low`."""
        d = self.d
        if lane == "mutable":
            value = d[lane]
            assert value[1:] == [[value[0]]], "a value is torn"
            value[1].append("changed by its reader")
            return int(value[0])
        if lane == "pair":
            if self.random.random() < 0.5:
                one, two = d.get_many(["left", "right"]).values()
                assert one == two, "a batch is torn"
                return int(one)
            one = d["left"]
            two = d["right"]
            assert two >= one, "the second half of a batch is older than the first"
            return int(one)
        if lane in ("deleted", "popped", "default"):
            if self.random.random() < 0.2:
                return low | 1 if lane in d else None  # it is there in every odd state
            return d.get(lane)
        if lane == "bulky":
            value = d[lane]
            assert value.endswith(PADDING), "a value is torn"
            return int(value.removesuffix(PADDING))
        return int(d[(1, "number")] if lane == "number" else d[lane])

    # Writing

    def write(self, lane: str, n: int) -> None:
        d = self.d
        if lane == "mutable":
            d[lane] = [n, [n]]
        elif lane == "pair":
            d.update({"left": n, "right": n})
        elif lane == "deleted" and n % 2 == 0:
            del d[lane]
        elif lane == "popped" and n % 2 == 0:
            assert d.pop(lane) == n - 1, "pop returned what was not there"
        elif lane == "default":
            if n % 2:
                assert d.setdefault(lane, n) == n, "setdefault found what was removed"
            else:
                assert d.delete_many([lane, "never there"]) == 1, "delete_many missed an entry"
        elif lane == "timed":
            d.set(lane, n, ttl=3600)
        elif lane == "bulky":
            d[lane] = str(n) + PADDING
        elif lane == "number":
            d[(True, "number")] = n
        else:
            d[lane] = n


def side(folder: str, board: str, number: int, quota: int, processes: int, threads: int, handles: int, fault: str):
    """One process: its threads share its handles evenly."""
    faulthandler.dump_traceback_later(WATCHDOG * max(1, quota // 200_000), exit=True)
    slots = Board(board).slots
    opened = [PersistDict(folder, background_timeout=0.05) for _ in range(handles)]
    cold = [0]
    for d in opened:
        read = d._store.read

        def counted(kb: bytes, read: Any = read) -> Any:
            cold[0] += 1
            return read(kb)

        d._store.read = counted  # type: ignore[method-assign]
        if fault and number == 0:
            plant(d, fault)
    if fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the players will complain
    if threads > 1:
        sys.setswitchinterval(1e-5)
    players = [
        Player(opened[i % handles], slots, number * threads + i, processes * threads, quota) for i in range(threads)
    ]
    print("ready", flush=True)
    sys.stdin.readline()
    for player in players:
        player.start()
    for player in players:
        player.join()
    for d in opened:
        d.close()
    faulthandler.cancel_dump_traceback_later()
    stale = [message for player in players for message in player.stale]
    errors = [repr(player.error) for player in players if player.error]
    total: Counter[str] = sum((player.did for player in players), Counter())
    print(json.dumps({**total, "cold": cold[0], "stale": len(stale), "first": (stale + errors)[:3]}))


def main() -> None:
    folder, quota, processes, threads, handles, fault = [*sys.argv[1:], ""][:6]
    flags = ["-X", "faulthandler", "-W", "error", "-m", "drivers.coherence"]
    board = f"{folder}.board"
    with open(board, "wb") as file:
        file.write(bytes(8 * SLOTS))
    with PersistDict(folder) as d:
        d.update({lane: 0 for lane in LANES if lane not in ("pair", "deleted", "popped", "default", "number")})
        d.update({"mutable": [0, [0]], "bulky": "0" + PADDING, "left": 0, "right": 0, (1, "number"): 0})
    before = time.perf_counter()
    sides = [
        subprocess.Popen(
            [sys.executable, *flags, "side", folder, board, str(number), quota, processes, threads, handles, fault],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(int(processes))
    ]
    for process in sides:
        assert process.stdout
        process.stdout.readline()
    total: Counter[str] = Counter()
    first = []
    for process in sides:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in sides:
        out = process.communicate()[0]
        assert process.returncode == 0, f"a side ended with {process.returncode}"
        counts = json.loads(out)
        first += counts.pop("first")
        total.update(counts)
    finish({**total, "first": first, "seconds": round(time.perf_counter() - before, 1), "seed": seed()})


if __name__ == "__main__":
    if sys.argv[1] == "side":
        side(*sys.argv[2:4], *map(int, sys.argv[4:9]), sys.argv[9])  # type: ignore[arg-type]
    else:
        main()
