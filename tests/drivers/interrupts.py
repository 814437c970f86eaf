"""Ctrl-C at each moment of an operation, one at a time; afterwards everything must be as before it or as after it.

A moment is where Python looks for signals, see interrupting.py. Looked at after each: what is there, for this process,
for another thread and for another process, each of which writes too; that no thread is left; that nothing but the
KeyboardInterrupt came out, and that it did; that no descriptor was closed that was not open. What Python gives no means
to prevent: a descriptor that was opened and not yet noted stays open; those are counted.

    interrupts.py FOLDER step NAME... MOMENTS    so many moments of each operation, evenly, beginning anywhere; 0: all
    interrupts.py FOLDER timer NAME... TIMES     so often, whenever a timer is over; then it may be within C, too
"""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from drivers.interrupting import Alarm, Interruption, descriptors, in_thread, threads_that_stay
from drivers.interruptions import OPERATIONS, Case, Operation, open_one
from drivers.running import WATCHDOG, ask_child, die_with_parent, faults_of, finish, hush, preload, seed

FAILURES = 5  # of one operation that are told
STUCK = WATCHDOG / 2  # seconds
MOST_LEFT_OPEN = 24  # descriptors, for each operation


class Tally(NamedTuple):
    """What was seen of one operation, up to its end or a failure."""

    done: int  # interruptions that came
    tried: int  # of the plan
    failure: str
    left_open: int


class Neighbour:
    """Another process, which opens the dictionary when asked, compares, writes and closes."""

    def __init__(self, options: dict[str, Any] | None) -> None:
        key = (options or {}).get("encryption_key")
        self._options = {"encryption_key": key} if key else {}
        to_child, from_child = os.pipe(), os.pipe()
        if not os.fork():
            try:
                die_with_parent()
                while asked := os.read(to_child[0], 1 << 16):
                    os.write(from_child[1], self._look(asked.decode()).encode())
            finally:
                os._exit(0)
        self._to, self._from = to_child[1], from_child[0]

    def _look(self, folder: str) -> str:
        try:
            with open_one(folder, timeout=10, **self._options) as d:
                found = sorted(map(repr, d))
                d["theirs"] = 1
                del d["theirs"]
            return f"{len(found)} {hash(tuple(found))}"
        except BaseException as error:
            return f"another process: {type(error).__name__}: {error}"

    def see(self, folder: str, keys: Any) -> None:
        """Have it look. Raises AssertionError unless it finds these keys."""
        os.write(self._to, folder.encode())
        told = os.read(self._from, 1 << 16).decode()
        found = sorted(map(repr, keys))
        assert told == f"{len(found)} {hash(tuple(found))}", told


@contextmanager
def closing_once() -> Iterator[list[str]]:
    """Notes descriptors that are closed though they are not open."""
    close, wrong = os.close, []

    def watched(fd: int) -> None:
        try:
            close(fd)
        except OSError as error:
            wrong.append(f"closed {fd}: {error}")
            raise

    os.close = watched  # type: ignore[assignment]
    try:
        yield wrong
    finally:
        os.close = close


def attempt(case: Case, operation: Operation, ran: Interruption) -> Interruption:
    """One operation, interrupted or not, and a look at everything afterwards."""
    case.number += 1
    operation.ready(case)
    before = dict(case.model)
    operation.change(case)
    after = dict(case.model)
    with closing_once() as wrong:
        try:
            ran.run(lambda: operation.do(case))
        except BaseException as error:
            raise AssertionError(f"{ran.where}: {type(error).__name__}: {error}") from error
        if operation.let_go and ran.raised:
            ran.raised = KeyboardInterrupt()
        lost = ran.came and not ran.raised
        assert ran.in_callback or not (lost or ran.ignored), f"{ran.where}: it did not come out; {ran.ignored}"
        try:
            operation.restore(case)
            found = dict(case.d.items())
            assert operation.loose or found in ((before, after) if ran.came else (after,)), f"found {str(found)[:300]}"
            case.model = found
            look_around(case, operation)
        except BaseException as error:
            raise AssertionError(f"{ran.where}: {type(error).__name__}: {error}") from error
    assert not wrong, f"{ran.where}: {wrong}"
    return ran


def look_around(case: Case, operation: Operation) -> None:
    """Whether others can go on."""
    d = case.d

    def use() -> None:
        d["mine"] = 1
        assert d.pop("mine") == 1
        operation.others(case)

    in_thread(use)
    use()
    left = threads_that_stay()
    assert not left, left
    if case.number % 10 == 0:
        gc.collect()
        faults = faults_of(d)
        assert not faults, faults
    case.neighbour.see(case.folder, d)


def run(folder: str, name: str, plan: list[float], is_timed: bool) -> Tally:
    """The operation, interrupted at these moments, or at these parts of the time that it takes."""
    operation, done = OPERATIONS[name], 0
    case = Case(folder, Neighbour(OPERATIONS[name].options))
    case.begin(operation)
    taken = attempt(case, operation, Alarm(0)).seconds
    open_before, end = len(descriptors()), time.monotonic() + WATCHDOG / 3
    for number, moment in enumerate(plan):
        ran = Alarm(moment * taken) if is_timed else Interruption(int(moment))
        faulthandler.dump_traceback_later(STUCK, exit=True)
        try:
            came = attempt(case, operation, ran).came
        except AssertionError as error:
            return Tally(done, number + 1, f"{name}, moment {moment:g}: {error}"[:1500], 0)
        finally:
            faulthandler.cancel_dump_traceback_later()
        done += came
        if not (came or is_timed):
            number = len(plan)  # it has no such moment, nor a later one
        if number == len(plan) or time.monotonic() > end:
            break
    del ran
    gc.collect()
    case.open().close()  # an opening lets go of what interrupted ones have left
    threads_that_stay()  # by which what was collected is closed
    return Tally(done, number + 1, "", len(descriptors()) - open_before)


def moments_of(folder: str, name: str) -> int:
    """How many there are."""
    case = Case(folder, Neighbour(OPERATIONS[name].options))
    case.begin(OPERATIONS[name])
    attempt(case, OPERATIONS[name], Interruption(None))
    return attempt(case, OPERATIONS[name], Interruption(None)).moments


def apart(folder: str, work: Callable[..., Any], *args: Any) -> Any:
    """Do it in a child, in a new folder."""
    os.mkdir(folder)
    try:
        return ask_child(lambda: work(os.path.join(folder, "d"), *args), f"{args[0]}")
    finally:
        shutil.rmtree(folder)


def interrupt(folder: str, name: str, plan: list[float], is_timed: bool) -> tuple[int, int, list[str]]:
    """All of a plan: how many interruptions came, the descriptors that were left open, and what has failed."""
    done = left = 0
    failures: list[str] = []
    while plan and len(failures) < FAILURES:
        tally = Tally(*apart(folder, run, name, plan, is_timed))
        done, plan, left = done + tally.done, plan[tally.tried :], left + tally.left_open
        failures += [tally.failure] * bool(tally.failure)
    if left > MOST_LEFT_OPEN and not is_timed:
        failures.append(f"{name}: {left} descriptors were left open")
    return done, left, failures


def main() -> None:
    folder, how, *names, number = sys.argv[1:]
    preload()
    hush()
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)  # not noted yet when it was interrupted
    gc.freeze()
    draw = random.Random(seed())
    counts: dict[str, Any] = {"seed": seed()}
    failures: list[str] = []
    if how == "step":
        gc.disable()  # so that each moment is found again, and none is in a callback of the collector
    for name in names or OPERATIONS:
        if how == "timer":
            plan = [draw.uniform(0, 1) for _ in range(int(number))]
        else:
            many = int(apart(folder, moments_of, name))
            stride = max(1, many // int(number)) if int(number) else 1
            plan = [float(moment) for moment in range(draw.randrange(stride), 2 * many, stride)]
        done, left, failed = interrupt(folder, name, plan, how == "timer")
        failures += failed
        counts[name] = f"{done} of {len(plan) if how == 'timer' else many}" + (f", left open {left}" if left else "")
    finish({**counts, "failures": failures})


if __name__ == "__main__":
    main()
