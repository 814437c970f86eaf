"""Processes that write, killed at random moments, round after round on one folder.

Each worker sends a number through a pipe after each operation that returned; what is in the pipe survives its death.
After each round a fresh process compares the store with what was acknowledged: everything is there, whole and once, and
the one operation that may have been under way is there completely or not at all.

Whenever a worker was killed, the survivors must each complete an operation begun afterwards: nobody hangs because a
neighbour died. Some are stopped (SIGSTOP) before they are killed, and a reader is stopped and continued all the time.

    kills.py FOLDER ROUNDS [FAULT]
"""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import select
import signal
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from drivers.running import WATCHDOG, abort, ask_child, faults_of, finish, preload, seed, verified
from drivers.workload import OPTIONS, Plan, Written, check_everything, perform, read_together

from persistdict import PersistDict

WORKERS = 4
LONGEST = 0.06  # seconds that a worker lives at most, unless it is waited for
EXEC_EVERY = 8  # rounds; then the workers are fresh interpreters, not forks of this one
NUMBER = struct.Struct("<Q")


class Process:
    """A process that numbers what it has done through a pipe.

    Attributes:
        count: how many operations it acknowledged.
        last: the number that it sent last.
    """

    running: ClassVar[set[Process]] = set()

    def __init__(self, work: Callable[[int], None], name: str) -> None:
        self.name = name
        self.count = 0
        self.last = -1
        self._rest = b""
        self.pipe, writing = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.close(self.pipe)
                work(writing)
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            os._exit(1)
        os.close(writing)
        Process.running.add(self)

    def receive(self) -> bool:
        """Take what is in the pipe. False at its end."""
        data = os.read(self.pipe, 1 << 16)
        numbers = [number for (number,) in NUMBER.iter_unpack((self._rest + data)[: self._whole(data)])]
        self._rest = (self._rest + data)[self._whole(data) :]
        for number in numbers:
            assert number > self.last, f"{self.name} acknowledged {number} after {self.last}"
            self.last = number
        self.count += len(numbers)
        return bool(data)

    def _whole(self, data: bytes) -> int:
        return (len(self._rest) + len(data)) // NUMBER.size * NUMBER.size

    def kill(self) -> None:
        """Kill it, and take all that it had sent."""
        Process.running.discard(self)
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        assert os.WIFSIGNALED(status), f"{self.name} had ended by itself, with status {status}"
        while self.receive():
            pass
        os.close(self.pipe)


def watch(processes: list[Process], enough: Callable[[], bool], until: float | None = None) -> None:
    """Receive until `enough()`, or until a moment; nobody sending anything for long is a failure."""
    while not enough():
        left = WATCHDOG if until is None else until - time.monotonic()
        if left <= 0:
            return
        ready = select.select([process.pipe for process in processes], [], [], left)[0]
        if not ready and until is None:
            abort([process.pid for process in processes], "no process goes on")
        for process in processes:
            if process.pipe in ready and not process.receive():
                raise AssertionError(f"{process.name} ended by itself")


def wait_for_progress(processes: list[Process]) -> None:
    """Until each has acknowledged two more operations, of which at least one was begun after this call."""
    goals = {process: process.count + 2 for process in processes}
    end = time.monotonic() + WATCHDOG
    while stuck := [process for process in processes if process.count < goals[process]]:
        if time.monotonic() > end:
            names = ", ".join(process.name for process in stuck)
            abort([process.pid for process in stuck], f"{names} hung after a neighbour was killed")
        watch(processes, lambda: all(p.count >= goals[p] for p in processes), time.monotonic() + 1)


@contextlib.contextmanager
def noticing(did: Counter[str], fault: str) -> Iterator[None]:
    """Kill all processes if something is wrong, and say after how many kills; with a fault that is the plan."""
    try:
        yield
    except AssertionError as error:
        for process in list(Process.running):
            os.kill(process.pid, signal.SIGKILL)
        if not fault:
            raise AssertionError(f"after {did['kills']} kills, seed {seed()}: {error}") from error
        finish({**did, "noticed": str(error)})


# What the processes do


def work(folder: str, plan: Plan, pipe: int, fault: str) -> None:
    """Open the store and carry out the plan, for ever."""
    d: PersistDict[Any, Any] = PersistDict(folder, **OPTIONS[plan.worker])
    while True:
        operation = plan.next()
        if fault == "acknowledged early":
            os.write(pipe, NUMBER.pack(plan.seq))
        try:
            perform(d, plan, operation, fault)
        except (AssertionError, KeyError):
            if fault in ("", "read stale"):
                raise  # with another fault planted, it is for the checker to notice
        if fault != "acknowledged early":
            os.write(pipe, NUMBER.pack(plan.seq))
        plan.done(operation)


def look(folder: str, pipe: int) -> None:
    """Read everything, again and again."""
    d: PersistDict[Any, Any] = PersistDict(folder, background_timeout=0.02)
    number = 0
    while True:
        read_together(d)
        keys = [key for key, _ in d.items()]
        if len(set(keys)) != len(keys):
            raise AssertionError("a key was iterated twice")
        os.write(pipe, NUMBER.pack(number))
        number += 1


def check(folder: str, plans: list[Plan], settled: dict[str, Written]) -> Any:
    """Compare everything, in a process of its own; then show that the store can be written."""
    with PersistDict(folder) as d:
        applied = check_everything(d, plans, settled)
        faults = faults_of(d)
        assert not faults, faults
        entries = len(d)
        d["written by the checker"] = 1
        assert d.pop("written by the checker") == 1
    faults = verified(folder)
    assert not faults, faults
    return applied, {key: list(written) for key, written in settled.items()}, entries


class Rounds:
    """The parent of them all; its own process never opens the store."""

    def __init__(self, folder: str, fault: str) -> None:
        self.folder, self.fault = folder, fault
        self.seed = seed()
        self.draw = random.Random(self.seed)
        self.plans = [Plan(self.seed, worker) for worker in range(WORKERS)]
        self.settled: dict[str, Written] = {}
        self.did: Counter[str] = Counter()

    def start(self, plan: Plan, fresh: bool) -> Process:
        def run(pipe: int) -> None:
            if not fresh:
                work(self.folder, plan, pipe, self.fault)
            path = f"{self.folder}.plan{plan.worker}"
            with open(path, "wb") as file:
                pickle.dump(plan.state(), file)
            os.set_inheritable(pipe, True)
            flags = ["-X", "faulthandler", "-W", "error"]
            os.execv(
                sys.executable, [sys.executable, *flags, "-m", "drivers.kills", "work", self.folder, path, str(pipe)]
            )

        return Process(run, f"worker {plan.worker}")

    def round(self, number: int) -> None:
        fresh = number % EXEC_EVERY == EXEC_EVERY - 1 and not self.fault
        workers = [self.start(plan, fresh) for plan in self.plans]
        reader = Process(lambda pipe: look(self.folder, pipe), "the reader")
        if fresh or self.draw.random() < 0.5:  # else some are killed while they open the store
            wait_for_progress([*workers, reader])
        alive = list(workers)
        self.draw.shuffle(alive)
        careful = self.draw.random() < 0.5
        while alive:
            os.kill(reader.pid, signal.SIGSTOP)
            everybody = list(alive)
            self.did["stops"] += 1
            watch(everybody, lambda: False, time.monotonic() + self.draw.uniform(0, LONGEST))
            victim = alive.pop()
            if self.draw.random() < 0.25:
                os.kill(victim.pid, signal.SIGSTOP)
                self.did["stopped first"] += 1
                watch(everybody, lambda: False, time.monotonic() + self.draw.uniform(0, LONGEST / 3))
            victim.kill()
            self.did["kills"] += 1
            os.kill(reader.pid, signal.SIGCONT)
            if alive and (careful or len(alive) == 1):
                wait_for_progress([*alive, reader])
                self.did["survivors that went on"] += len(alive)
        wait_for_progress([reader])
        reader.kill()
        self.did["acknowledged"] += sum(worker.count for worker in workers)
        self.did["passes of the reader"] += reader.count
        self.settle(workers)

    def settle(self, workers: list[Process]) -> None:
        """Bring the plans up to what was acknowledged, and compare."""
        for plan, worker in zip(self.plans, workers, strict=True):
            for _ in range(worker.count):
                plan.done(plan.next())
            assert worker.last in (-1, plan.seq - 1), f"{worker.name} acknowledged another operation than planned"
        applied, settled, entries = ask_child(lambda: check(self.folder, self.plans, self.settled), "the checker")
        self.settled = {key: Written(*written) for key, written in settled.items()}
        for plan, was_applied in zip(self.plans, applied, strict=True):
            operation = plan.next()
            if was_applied:
                plan.done(operation)
                self.did["unacknowledged but done"] += 1
            else:
                plan.seq += 1
            plan.shared.clear()
        self.did["entries compared"] += entries
        self.did["rounds"] += 1


def main() -> None:
    if sys.argv[1] == "work":
        _, _, folder, path, pipe = sys.argv
        with open(path, "rb") as file:
            plan = Plan.of(pickle.load(file))
        work(folder, plan, int(pipe), "")
    preload()
    folder, many, *fault = sys.argv[1:]
    if fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the workers will complain
    before = time.perf_counter()
    rounds = Rounds(folder, fault[0] if fault else "")
    for number in range(int(many)):
        try:
            rounds.round(number)
        except AssertionError as error:
            for process in list(Process.running):
                os.kill(process.pid, signal.SIGKILL)
            if not fault:
                raise AssertionError(f"round {number}, seed {rounds.seed}: {error}") from error
            finish({**rounds.did, "noticed": str(error).splitlines()[-1][:300]})
    finish({**rounds.did, "seconds": round(time.perf_counter() - before, 1), "seed": rounds.seed})


if __name__ == "__main__":
    main()
