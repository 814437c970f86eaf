"""Whether a history is linearizable: each operation can be given a moment between its begin and its end, such that all
results are those of a dictionary on which the operations happen one by one at these moments.

What each operation says about its key is said here; linear_search.py finds out whether it fits together.

    linear_check.py HISTORY
"""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from drivers.history import DONE, Operation, read_history
from drivers.linear_search import NEVER, NOBODY, Meaning, Search


class Violation(NamedTuple):
    """Where no configuration is left: `operation` cannot have happened, whatever one assumes of those before."""

    key: int
    operation: Operation
    states: list[int]
    around: list[Operation]

    def __str__(self) -> str:
        start = self.around[0].begin
        lines = [f"key {self.key}: the state could be {self.states}, and then ended {describe(self.operation, start)}"]
        return "\n    ".join([*lines, *(describe(operation, start) for operation in self.around)])


def describe(operation: Operation, start: int = 0) -> str:
    """An operation in one line, with its moments in microseconds from `start`."""
    process, thread, key, kind, argument, expected, result, begin, end, outcome = operation
    to = "" if end is None else f"{(end - start) / 1000:.1f}"
    asked = f"key {key}" + f", {argument}" * (argument > 0) + f" for {expected}" * (expected > 0)
    answer = result if outcome == DONE else "?"
    return f"[{(begin - start) / 1000:.1f} {to}] {process}.{thread} {kind}({asked}) -> {answer}"


def meaning(operation: Operation, strict: bool = True) -> Meaning | None:
    """What an operation says; None if that is nothing."""
    _, _, _, kind, argument, expected, result, begin, end, outcome = operation
    if outcome != DONE:
        if kind in READS:
            return None
        equal, value, left = _IF_DONE[kind](argument, expected)
        return Meaning(begin, NEVER if end is None or not (strict or outcome) else end, equal, value, left, False)
    assert end is not None
    return Meaning(begin, end, *_SAID[kind](argument, expected, result), True)


READS = ("get", "versioned", "contains", "get_many")
_SAID = {  # of the argument, what was expected, and the result
    "get": lambda a, e, r: (True, r, None),
    "versioned": lambda a, e, r: (True, r, None),
    "get_many": lambda a, e, r: (True, r, None),
    "contains": lambda a, e, r: (not r, 0, None),
    "set": lambda a, e, r: (False, NOBODY, a),
    "set_many": lambda a, e, r: (False, NOBODY, a),
    "delete": lambda a, e, r: (not r, 0, 0 if r else None),
    "add": lambda a, e, r: (True, 0, a) if r else (False, 0, None),
    "replace": lambda a, e, r: (bool(r), e, a if r else None),
    "pop": lambda a, e, r: (True, r, 0 if r else None),
    "setdefault": lambda a, e, r: (True, 0, a) if r == a else (True, r or NOBODY, None),
    "transform": lambda a, e, r: (True, r, a),
}
_IF_DONE = {  # of the argument and what was expected; where it does nothing, it might as well not have happened
    "set": lambda a, e: (False, NOBODY, a),
    "set_many": lambda a, e: (False, NOBODY, a),
    "delete": lambda a, e: (False, 0, 0),
    "pop": lambda a, e: (False, 0, 0),
    "add": lambda a, e: (True, 0, a),
    "setdefault": lambda a, e: (True, 0, a),
    "replace": lambda a, e: (True, e, a),
    "transform": lambda a, e: (False, NOBODY, a),
}


def check_key(operations: list[Operation], strict: bool = True) -> Violation | None:
    """Check the operations of one key, which is absent at first."""
    said = [(operation, what) for operation in operations if (what := meaning(operation, strict))]
    search = Search([what for _, what in said])
    number = search.run()
    if number is None:
        return None
    culprit = said[number][0]
    states = sorted({state for state, _ in search.configurations})
    return Violation(culprit.key, culprit, states, _around(operations, culprit, states))


def _around(operations: list[Operation], culprit: Operation, states: list[int]) -> list[Operation]:
    """What happened just before, and who wrote, met first and met last the values in question."""
    assert culprit.end is not None
    ordered = sorted(operations, key=lambda operation: operation.begin)
    found = {operation for operation in ordered if operation.argument and operation.argument in states}
    found.update([operation for operation in ordered if operation.begin < culprit.end][-12:])
    for value in {*states, culprit.result, culprit.expected}:
        met = [o for o in ordered if value > 1 and value in (o.argument, o.result, o.expected) and o.kind != "contains"]
        found.update(met[:2] + met[-2:])
    return sorted(found, key=lambda operation: operation.begin)


def check(operations: Iterable[Operation], strict: bool = True) -> list[Violation]:
    """Check a history; returns the first violation of each key that has one."""
    collecting = gc.isenabled()
    gc.disable()  # millions of small tuples, no circles
    try:
        keys: dict[int, list[Operation]] = defaultdict(list)
        for operation in operations:
            keys[operation.key].append(operation)
        return [violation for key in sorted(keys) if (violation := check_key(keys[key], strict))]
    finally:
        if collecting:
            gc.enable()


if __name__ == "__main__":
    for violation in check(read_history(sys.argv[1])):
        print(violation)
