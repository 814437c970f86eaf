"""A process that kills itself at the n-th step of an operation, for every n.

A step is what a profiler is told of: the beginning or end of a function of persistdict, or of a C function that it
calls; so the death falls between any two calls of LMDB or of the operating system. Afterwards the store must hold the
state before the operation or the state after it, and must be open to others at once.

    steps.py FOLDER OPERATION STRIDE      every STRIDE-th step, beginning anywhere
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drivers.running import ask_child, faults_of, finish, left_over, preload, seed

import persistdict
from persistdict import PersistDict

HOME = str(Path(persistdict.__file__).parent)
LARGE = "large" * 10_000
MANY = {f"many {n}": n for n in range(600)}  # so many that they go past the recent writes
START = {"a": 1, "b": [2], "large": LARGE, "c": 3}

Dictionary = PersistDict[Any, Any]


def open_new(folder: str) -> Dictionary:
    return PersistDict(folder, background_thread="disabled")


def batch(d: Dictionary) -> None:
    d.update({"new": 1, "b": LARGE, "large": "small", "x" * 600: [1], "c": 4})


def several(d: Dictionary) -> None:
    for n in range(3):
        d["a"] = n


# What is done, and the states that may be found when it was not finished.
OPERATIONS: dict[str, tuple[Callable[[Dictionary], Any], Callable[[dict[Any, Any]], Any]]] = {
    "add": (lambda d: d.__setitem__("new", [1]), lambda m: m.update(new=[1])),
    "overwrite": (lambda d: d.__setitem__("a", "other"), lambda m: m.update(a="other")),
    "shrink": (lambda d: d.__setitem__("large", "small"), lambda m: m.update(large="small")),
    "grow": (lambda d: d.__setitem__("b", LARGE), lambda m: m.update(b=LARGE)),
    "limit": (lambda d: d.set("b", 5, ttl=1e6), lambda m: m.update(b=5)),
    "delete": (lambda d: d.__delitem__("large"), lambda m: m.pop("large")),
    "pop": (lambda d: d.pop("a"), lambda m: m.pop("a")),
    "batch": (batch, lambda m: batch(m)),
    "delete many": (lambda d: d.delete_many(["a", "large", "?"]), lambda m: (m.pop("a"), m.pop("large"))),
    "many": (lambda d: d.update(MANY), lambda m: m.update(MANY)),
    "flush": (lambda d: (batch(d), d.flush()), lambda m: batch(m)),
    "gone": (lambda d: (d.pop("large"), d.flush()), lambda m: m.pop("large")),
    "clear": (lambda d: d.clear(), lambda m: m.clear()),
    "touch": (lambda d: (d["a"], d["large"], d.flush()), lambda m: None),
    "close": (lambda d: (d["a"], d.close()), lambda m: None),
}


def die_at(step: int) -> None:
    """Kill this process at the so-manieth step from now."""
    left = step

    def tell(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if frame.f_code.co_filename.startswith(HOME):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(tell)


def is_killed(work: Callable[[], object]) -> bool:
    """Run `work` in a child; whether it died by a kill rather than finished."""
    pid = os.fork()
    if not pid:
        try:
            work()
            sys.setprofile(None)
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL), f"the victim ended with status {status}"
    return status != 0


def check(folder: str, states: list[dict[Any, Any]]) -> int:
    """Open and compare; returns the number of the state that was found."""
    with open_new(folder) as d:
        found = dict(d)
        assert any(list(found.items()) == list(state.items()) for state in states), (
            f"found {str(found)[:200]}, which is neither before nor after"
        )
        assert len(d) == len(found)
        faults = faults_of(d)
        assert not faults, faults
        d["afterwards"] = 1
        assert d.pop("afterwards") == 1
        faults = faults_of(d)
        assert not faults, faults
    return [list(state.items()) for state in states].index(list(found.items()))


def prepare(folder: str, operation: str) -> None:
    if operation == "make":
        return
    with open_new(folder) as d:
        d.update(START)


def do(folder: str, operation: str, step: int) -> None:
    if operation in ("make", "open"):
        die_at(step)
        open_new(folder)
    else:
        d = open_new(folder)
        die_at(step)
        OPERATIONS[operation][0](d)


def main() -> None:
    folder, operation, stride = sys.argv[1:]
    preload()
    did: Counter[str] = Counter()
    states = [{}] if operation == "make" else [dict(START)]
    if operation in OPERATIONS:
        after = dict(START)
        OPERATIONS[operation][1](after)
        states.append(after)
    ask_child(lambda: prepare(folder + "original", operation))
    step = random.Random(seed()).randrange(int(stride))
    while True:
        try:
            if operation != "make":
                shutil.copytree(folder + "original", folder)
            killed = is_killed(lambda: do(folder, operation, step))  # noqa: B023
            did[f"found state {ask_child(lambda: check(folder, states))}"] += 1
            did["folders with something left behind"] += bool(left_over(folder))
        except AssertionError as error:
            raise AssertionError(f"{operation}, step {step}: {error}") from error
        shutil.rmtree(folder)
        if not killed:
            break
        did["killed"] += 1
        step += int(stride)
    finish({**did, "steps": step})


if __name__ == "__main__":
    main()
