"""Every call that writes fails once, in every way: the n-th call of a scripted piece of work, for every n.

The calls are those of LMDB and of Python that change files below the folder, see iofaults.c. After a fault the
operation must have raised an error of ours; reads on the same handle must give the state before it or after it, and
another process must find the same; when the fault is over, the operation must work on the same handle. If the fault
killed the process, what it had acknowledged must be there. At the end the script has been done, and the store is whole.

What goes wrong is counted: "failing" is the number of such cases, and "failures" names their kinds, with one to repeat.

    iofaults.py FOLDER STRIDE DURABILITY [FAULT]                    every STRIDE-th call, beginning anywhere
    PERSISTDICT_CASE="EIO 17" iofaults.py FOLDER 1 DURABILITY       one case, with the stacks of its errors
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

from drivers import shim
from drivers.running import answer_of, ask_child, finish, hush, in_child, preload, seed
from drivers.script import SCRIPT, Operation, Worker, check, difference, states, visit

from persistdict import PersistDictError

WAYS = ["EIO", "ENOSPC", "short", "EIO for ever", "ENOSPC for ever", "die before", "die after", "tear"]
FAULTS = ["error swallowed", "write lost", "handle dead", "wrong class"]
STATES = states()
DELETIONS = ("delete", "pop", "popitem", "clear")
MENDED = {"commit": DELETIONS, "interval": (*DELETIONS, "update", "setdefault")}  # without room
REPEATED = os.environ.get("PERSISTDICT_CASE", "")


class Case:
    """One fault: its way, and the number of the call that it hits."""

    def __init__(self, folder: str, durability: str, way: str, at: int, fault: str) -> None:
        self.folder, self.durability, self.way, self.at, self.fault = folder, durability, way, at, fault
        self.control = shim.Control()
        self.kills = way in ("die before", "die after", "tear")
        self.for_ever = way.endswith("for ever")
        self.wrong: list[str] = []

    def run(self) -> list[str]:
        """Do the script in a child, then look in another. Returns what went wrong."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.control.note = 0
        self.control.arm(self.way.removesuffix(" for ever"), self.at, sticky=self.for_ever)
        pid, reading = in_child(self.work)
        try:
            self.wrong = answer_of(pid, reading, "the worker")
        except AssertionError as error:
            if not (self.kills and f"with status {int(signal.SIGKILL)}:" in str(error)):
                self.wrong = [f"the worker died: {last_line(error)}"]
        finally:
            self.control.disarm()
        if not self.wrong:
            self.look_after()
        return self.wrong

    def look_after(self) -> None:
        """What was acknowledged must be there, for a process that opens it now."""
        done = self.control.note
        try:
            ask_child(lambda: check(self.folder, self.durability, STATES[done : done + 2]))
        except AssertionError as error:
            self.wrong.append(f"opened anew: {last_line(error)}")

    @property
    def hit(self) -> str:
        """The call that the fault hit."""
        return re.sub(r"(persistdict-new|recent)-[^/]*", r"\1-*", self.control.hit)

    def is_mended(self, operation: Operation) -> bool:
        """Whether an operation tries again, in another way: without room, and when recent writes are opened.

        And closing only logs that access times could not be noted; and opening does without flags.
        """
        if operation[0].startswith("close"):
            return True
        if self.control.hit.startswith(("open ", "ftruncate ")) and "recent" in self.control.hit:
            return True
        if self.way.startswith("ENOSPC") and self.control.hit.endswith("flags.map"):
            return True  # without them nobody is taken for alone
        return self.way.startswith("ENOSPC") and operation[0].split()[0] in MENDED[self.durability]

    @property
    def during(self) -> str:
        """The operation that the fault hit."""
        return SCRIPT[min(self.control.hit_note, len(SCRIPT) - 1)][0]

    # In the child

    def work(self) -> list[str]:
        """Do the script; the control's note is the number of operations that are done."""
        worker = Worker(self.folder, self.durability, self.fault)
        for number, operation in enumerate(SCRIPT):
            before = self.control.fired
            error = attempt(worker, operation)
            if error is None:
                if self.control.fired > before and self.way != "short" and not self.is_mended(operation):
                    self.wrong.append("nobody was told of it")
                    self.control.disarm()
            else:
                if self.control.fired == before:
                    self.wrong.append(f"later, {operation[0]} raised {error}")
                if not error.ours:
                    self.wrong.append(f"raised {error}, which is no error of ours")
                if not self.recover(worker, number, operation, error):
                    return self.wrong
            self.control.note = number + 1
        return self.wrong

    def recover(self, worker: Worker, number: int, operation: Operation, error: Raised | None) -> bool:
        """After an error: read, compare, and do the operation again. False if it cannot go on."""
        opened = worker.d is not None
        if self.for_ever:
            if opened and not operation[0].startswith("close"):
                self.compare(worker, number, "while it fails")
                self.insist(worker, operation)
            self.control.disarm()
        done = False
        if opened and not operation[0].startswith("close"):
            done = self.compare(worker, number, "after the fault")
        if done:
            if error is not None and error.name == "DiskFullError" and "taken back" not in error.text:
                self.wrong.append("raised DiskFullError, which says that nothing was changed, and it was done")
            return True
        error = attempt(worker, operation)
        if error is None:
            return True
        self.wrong.append(f"the same handle stays broken: {error}")
        if worker.d is not None:
            attempt(worker, SCRIPT[-1])  # closes it
        error = attempt(worker, SCRIPT[0]) or attempt(worker, operation)
        if error is not None:
            self.wrong.append(f"a new handle is broken too: {error}")
        return error is None

    def insist(self, worker: Worker, operation: Operation) -> None:
        """While everything fails, a second attempt fails too."""
        fired = self.control.fired
        error = attempt(worker, operation)
        if error is None and self.control.fired > fired:
            self.wrong.append("nobody was told of it at the second attempt")
        if error is not None and not error.ours and error.name != "KeyError":  # it was done, though it had raised
            self.wrong.append(f"the second attempt raised {error}, which is no error of ours")

    def compare(self, worker: Worker, number: int, when: str) -> bool:
        """Whether what is read is the state after the operation; another than that and the one before is wrong."""
        before, after = (list(state.items()) for state in STATES[number : number + 2])
        items: Any = None

        def read() -> None:
            nonlocal items
            items = worker.read()

        error = attempt_to(read)
        if error is not None:
            self.wrong.append(f"{when}, a read raised {error}")
            return False
        if items not in (before, after):
            self.wrong.append(f"{when}, the handle reads something else: {difference(items, STATES[number])}")
        if when == "after the fault":
            elsewhere = ask_child(lambda: visit(self.folder, self.durability) == items, "another process")
            if not elsewhere:
                self.wrong.append("another process reads something else than the handle")
        return items == after and before != after


class Raised(NamedTuple):
    """What is kept of an error: not its frames, which would keep the environment alive."""

    name: str
    text: str
    ours: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.text}".partition(": '/")[0][:160]


def attempt(worker: Worker, operation: Operation) -> Raised | None:
    """Do an operation; what it raised."""
    return attempt_to(lambda: worker.do(operation))


def attempt_to(work: Callable[[], object]) -> Raised | None:
    try:
        work()
    except Exception as error:
        if REPEATED:
            traceback.print_exception(error)
        return Raised(type(error).__name__, str(error), isinstance(error, PersistDictError))
    return None


def last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:200]


class Enumeration:
    """All cases, and what they come to."""

    def __init__(self, folder: str, durability: str, fault: str) -> None:
        self.folder, self.durability, self.fault = folder, durability, fault
        self.did: Counter[str] = Counter()
        self.failures: dict[str, list[str]] = {}  # cases by kind

    def all(self, stride: int, draw: random.Random) -> None:
        for way in WAYS:
            at = draw.randrange(stride) + 1
            while self.one(way, at):
                at += stride

    def one(self, way: str, at: int) -> bool:
        """Whether there is such a call."""
        case = Case(self.folder, self.durability, way, at, self.fault)
        wrong = case.run()
        fired = bool(case.control.fired)
        self.did["cases"] += fired
        self.did[way] += fired
        self.did["failing"] += bool(wrong)
        hit = case.hit if fired else "without a fault"
        for what in wrong:
            self.failures.setdefault(f"{hit}: {what}", []).append(f"{way} {at} ({case.during})")
        return fired

    def counts(self) -> dict[str, Any]:
        failures = [f"{what} [{len(cases)}: {', '.join(cases[:3])}]" for what, cases in self.failures.items()]
        return {**self.did, "failing": self.did["failing"], "failures": failures}


def main() -> None:
    folder, stride, durability, fault = [*sys.argv[1:], ""][:4]
    folder = os.path.realpath(folder)
    below = os.path.join(folder, "below")
    os.makedirs(below, exist_ok=True)
    if not shim.is_loaded():
        shim.start_anew(folder, below)
    hush()
    preload()
    drawn = seed()
    cases = Enumeration(os.path.join(below, "dict"), durability, fault)
    if REPEATED:
        way, _, at = REPEATED.rpartition(" ")
        cases.one(way, int(at))
    else:
        cases.all(int(stride), random.Random(drawn))
    shutil.rmtree(below, ignore_errors=True)
    finish({**cases.counts(), "seed": drawn})


if __name__ == "__main__":
    main()
