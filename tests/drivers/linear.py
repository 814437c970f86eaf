"""Threads of several processes that read and change a few keys at once; then whether all they saw is linearizable.

Reads, writes and conditional writes are drawn at random, in stretches of mostly reading (so that the cache serves many)
and of much writing. Each thread records what it asked and was told (history.py); linear_check.py says whether a
dictionary could have answered so. At the end a fresh process reads every key once more.

    linear.py FOLDER OPERATIONS PROCESSES THREADS [DISTURBANCE] [FAULT] [DURABILITY] [SYNC_INTERVAL]

DISTURBANCE is any of kill, stop, reopen joined by "+": processes are killed with SIGKILL and replaced by new ones;
processes are stopped and continued; handles are closed and opened again while other threads use them. FAULT makes
the dictionary wrong on purpose, see linear_faults.py. The last two are given to the dictionary unless they are empty.
"""

from __future__ import annotations

import mmap
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from typing import Any

from drivers.history import Operation, note_deaths, read_history
from drivers.linear_check import Violation, check
from drivers.linear_player import KEYS, Side, read_all
from drivers.running import WATCHDOG, abort, ask_child, finish, preload, seed

MOST_BETWEEN = 1000  # operations between two disturbances
LONGEST_PAUSE = 0.3  # seconds, if there are fewer
LONGEST_STOP = 0.04
SHOWN = 3  # violations in the counts


class Board:
    """Numbers that all processes see, in memory that they share.

    Attributes:
        stop: one slot; not 0 when all shall end.
        done: how many operations each thread has done; a slot is written by its thread only.
        reopened: how often handles were reopened, by process.
    """

    def __init__(self, processes: int, threads: int) -> None:
        slots = memoryview(mmap.mmap(-1, 8 * (1 + processes * threads + processes))).cast("Q")
        self.stop, self.done, self.reopened = (
            slots[:1],
            slots[1 : 1 + processes * threads],
            slots[1 + processes * threads :],
        )


class Watch:
    """Sees to it that no thread hangs."""

    def __init__(self, board: Board, threads: int) -> None:
        self.board, self.threads = board, threads
        self.seen = [(0, time.monotonic())] * len(board.done)

    def look(self, pids: list[int]) -> None:
        now = time.monotonic()
        for thread, count in enumerate(self.board.done):
            if count != self.seen[thread][0]:
                self.seen[thread] = count, now
            elif now - self.seen[thread][1] > WATCHDOG:
                abort(pids, f"thread {thread % self.threads} of process {thread // self.threads} hangs")


class Run:
    """The parent of them all; its own process never opens the store.

    Attributes:
        pids: the processes by position; a killed one is replaced by another at its position.
        born: how many processes there were; they are numbered in the history.
    """

    def __init__(self, folder: str, operations: int, processes: int, threads: int, **options: Any) -> None:
        self.folder, self.operations, self.threads, self.options = folder, operations, threads, options
        self.history = f"{folder}.history"
        os.mkdir(self.history)
        self.board = Board(processes, threads)
        self.watch = Watch(self.board, threads)
        self.draw = random.Random(seed())
        self.did: Counter[str] = Counter()
        self.deaths: dict[int, int] = {}
        self.born = 0
        self.pids: list[int] = []
        self.numbers: list[int] = []
        for position in range(processes):
            self.pids.append(0)
            self.numbers.append(0)
            self.start(position)

    def start(self, position: int) -> None:
        number = self.numbers[position] = self.born
        self.born += 1
        pid = os.fork()
        if pid:
            self.pids[position] = pid
            return
        status = 1
        try:
            Side(self.folder, self.history, self.board, position, number, self.threads, **self.options).play()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        finally:
            os._exit(status)

    def go(self, disturbances: list[str]) -> None:
        """Until the operations are done."""
        while sum(self.board.done) < self.operations:
            self.pause(sum(self.board.done) + self.draw.randrange(MOST_BETWEEN))
            if disturbances:
                self.disturb(self.draw.choice(disturbances))
        self.board.stop[0] = 1
        while any(self.pids):
            time.sleep(0.01)
            self.look()

    def pause(self, goal: int) -> None:
        """Until so many operations are done, or not for too long."""
        end = time.monotonic() + LONGEST_PAUSE
        while sum(self.board.done) < goal and time.monotonic() < end:
            time.sleep(0.001)
        self.look()

    def look(self) -> None:
        """Nobody may hang, or end with an error, or end too early."""
        for position, pid in enumerate(self.pids):
            ended, status = os.waitpid(pid, os.WNOHANG) if pid else (0, 0)
            if ended:
                self.pids[position] = 0
                if status or not self.board.stop[0]:
                    abort([pid for pid in self.pids if pid], f"process {self.numbers[position]} ended with {status}")
        self.watch.look([pid for pid in self.pids if pid])

    def disturb(self, disturbance: str) -> None:
        victims = self.draw.sample(range(len(self.pids)), self.draw.randint(1, len(self.pids)))
        if disturbance == "stop":
            self.stop(victims)
        elif disturbance == "kill":
            if self.draw.random() < 0.8:
                del victims[1:]
            if self.draw.random() < 0.25:
                self.stop(victims, then_kill=True)
            else:
                self.kill(victims)

    def stop(self, victims: list[int], then_kill: bool = False) -> None:
        for position in victims:
            os.kill(self.pids[position], signal.SIGSTOP)
        time.sleep(self.draw.uniform(0, LONGEST_STOP))
        self.did["stops"] += len(victims)
        if then_kill:
            self.kill(victims)
        else:
            for position in victims:
                os.kill(self.pids[position], signal.SIGCONT)

    def kill(self, victims: list[int]) -> None:
        """Kill all of them, then start others in their places."""
        for position in victims:
            os.kill(self.pids[position], signal.SIGKILL)
        for position in victims:
            _, status = os.waitpid(self.pids[position], 0)
            assert os.WIFSIGNALED(status), f"process {self.numbers[position]} had ended by itself, with status {status}"
            self.deaths[self.numbers[position]] = time.monotonic_ns()
        self.did["kills"] += len(victims)
        for position in victims:
            self.start(position)

    def settle(self) -> list[Operation]:
        """Have a fresh process read everything; returns the history."""
        ask_child(lambda: read_all(self.folder, self.history, self.born, **self.options), "the last reader")
        note_deaths(self.history, self.deaths)
        return read_history(self.history)


def judge(history: list[Operation]) -> tuple[list[Violation], list[Violation]]:
    """The violations, and those that are none if what a killed process had begun may happen after its death."""
    strictly = check(history)
    keys = {violation.key for violation in strictly}
    violations = check([operation for operation in history if operation.key in keys], strict=False)
    sure = {violation.key for violation in violations}
    return violations, [violation for violation in strictly if violation.key not in sure]


def counts_of(run: Run, history: list[Operation]) -> dict[str, Any]:
    kinds = Counter(operation.kind for operation in history)
    outcomes = Counter(operation.outcome for operation in history)
    return {
        "operations": len(history),
        **dict(sorted(kinds.items())),
        "kills": run.did["kills"],
        "stops": run.did["stops"],
        "reopens": sum(run.board.reopened),
        "open-ended": outcomes[0],
        "failed": outcomes[2],
    }


def main() -> None:
    folder, operations, processes, threads, disturbance, fault, durability, interval = [*sys.argv[1:], *[""] * 4][:8]
    os.environ.setdefault("PERSISTDICT_SEED", str(seed()))  # the same for all processes
    preload()
    disturbances = [part for part in disturbance.split("+") if part]
    assert set(disturbances) <= {"kill", "stop", "reopen"}, disturbance
    settings: dict[str, Any] = {"background_timeout": 0.05}
    if durability:
        settings["durability"] = durability
    if interval:
        settings["sync_interval"] = float(interval)
    before = time.perf_counter()
    run = Run(
        folder, int(operations), int(processes), int(threads),
        settings=settings, reopening="reopen" in disturbances, fault=fault, capacity=4 * int(operations) + 1000,
    )  # fmt: skip
    run.go(disturbances)
    history = run.settle()
    counts = counts_of(run, history)
    middle = time.perf_counter()
    violations, late = judge(history)
    counts |= {
        "keys": len(KEYS),
        "violations": len(violations),
        "late": len(late),
        "first": [str(violation) for violation in [*violations, *late][:SHOWN]],
        "seconds": round(middle - before, 1),
        "seconds to check": round(time.perf_counter() - middle, 1),
        "seed": seed(),
    }
    if counts["first"]:
        counts["history"] = run.history
    else:
        shutil.rmtree(run.history)
    finish(counts)


if __name__ == "__main__":
    main()
