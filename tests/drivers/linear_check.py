"""Whether a history is linearizable: each operation can be given a moment between its begin and its end, such that all
results are those of a dictionary on which the operations happen one by one at these moments.

Linearizability is local (Herlihy and Wing, 1990), so each key is looked at by itself. The search is that of Wing and
Gong (Testing and verifying concurrent objects, 1993) with the memory of configurations and in the just-in-time order of
Lowe (Testing for linearizability, 2017): time is walked through once, with the set of all configurations (the state,
and which operations under way have happened already), and an operation is made to happen only when it ends.

What keeps that set small, so that the time is near linear, is that no value is written twice; it is then known what
each read has read from (Gibbons and Korach, Testing shared memories, 1997):

- An operation that changes nothing happens as soon as the state allows it: that never spoils anything.
- A value that somebody will still read is not left: it would never come back. Only absence comes back.
- Nobody waits for a value whose writer is not under way.

Of an operation without an answer (its process was killed under it, or its handle was closed) it is not known whether it
did anything. If it did, then before it ended; the death of the process counts as its end (strict linearizability,
Aguilera and Frolund, 2003), or, if asked for, it may still happen at any later time. It is made to happen where
something needs what it did, or at its end. Of several that are alike the one that ends first is taken.

    linear_check.py HISTORY
"""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from drivers.history import DONE, Operation, read_history

NEVER = 1 << 64  # ns; after every moment
SHIFT = 24  # bits for the number of an operation among those of its key
NOBODY = -1
Configuration = tuple[int, int]  # the state, and the bits of the operations under way that have happened


class Meaning(NamedTuple):
    """What an operation says about the state of its key (a value, or 0 for absent): what it found and what it left.

    It found `value` if `equal`, else something other than `value`. `left` is None if it changed nothing. `sure` says
    whether it must have happened.
    """

    begin: int
    end: int
    equal: bool
    value: int
    left: int | None
    sure: bool

    def fits(self, state: int) -> bool:
        return (state == self.value) is self.equal


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
        if kind in ("get", "versioned", "contains"):
            return None
        equal, value, left = _IF_DONE[kind](argument, expected)
        return Meaning(begin, NEVER if end is None or not (strict or outcome) else end, equal, value, left, False)
    assert end is not None
    return Meaning(begin, end, *_SAID[kind](argument, expected, result), True)


_SAID = {  # of the argument, what was expected, and the result
    "get": lambda a, e, r: (True, r, None),
    "versioned": lambda a, e, r: (True, r, None),
    "contains": lambda a, e, r: (not r, 0, None),
    "set": lambda a, e, r: (False, NOBODY, a),
    "delete": lambda a, e, r: (not r, 0, 0 if r else None),
    "add": lambda a, e, r: (True, 0, a) if r else (False, 0, None),
    "replace": lambda a, e, r: (bool(r), e, a if r else None),
    "pop": lambda a, e, r: (True, r, 0 if r else None),
    "setdefault": lambda a, e, r: (True, 0, a) if r == a else (True, r or NOBODY, None),
    "transform": lambda a, e, r: (True, r, a),
}
_IF_DONE = {  # of the argument and what was expected; where it does nothing, it might as well not have happened
    "set": lambda a, e: (False, NOBODY, a),
    "delete": lambda a, e: (False, 0, 0),
    "pop": lambda a, e: (False, 0, 0),
    "add": lambda a, e: (True, 0, a),
    "setdefault": lambda a, e: (True, 0, a),
    "replace": lambda a, e: (True, e, a),
    "transform": lambda a, e: (False, NOBODY, a),
}


class Search:
    """The walk through the operations of one key.

    Attributes:
        configurations: all that are possible now.
        readers, writers: the operations under way that change nothing, and those that do, by their bits.
        last_use: when the last of those begins that must find a value, by value.
    """

    def __init__(self, operations: list[Meaning], state: int = 0) -> None:
        self.operations = operations
        self.configurations: set[Configuration] = {(state, 0)}
        self.readers: dict[int, Meaning] = {}
        self.writers: dict[int, Meaning] = {}
        self.now = 0
        self.last_use: dict[int, int] = {}
        self.known = {NOBODY}  # values that somebody has met
        self._free = [1 << number for number in range(12)][::-1]
        written = [operation.left for operation in operations if operation.left]
        assert len(written) == len(set(written)), "a value was written twice"
        for operation in operations:
            if operation.value > 0:
                self.known.add(operation.value)
                if operation.equal and operation.sure:
                    self.last_use[operation.value] = max(operation.begin, self.last_use.get(operation.value, 0))

    def run(self) -> int | None:
        """The number of the operation at whose end no configuration is left; None if all is well."""
        bits: dict[int, int] = {}
        for event in self._events():
            number = event & ((1 << SHIFT) - 1)
            self.now = event >> SHIFT + 1
            if not event >> SHIFT & 1:
                bits[number] = self._begin(self.operations[number])
            else:
                bit = bits.pop(number)
                configurations = self._end(bit, self.operations[number])
                if not configurations:
                    return number
                self.configurations = configurations
                self.readers.pop(bit, None) or self.writers.pop(bit)
                self._free.append(bit)
        return None

    def _events(self) -> list[int]:
        """Begins and ends in order of time; where they coincide, begins first, as nothing says who was first."""
        assert len(self.operations) < 1 << SHIFT
        events = []
        for number, operation in enumerate(self.operations):
            events.append(operation.begin << SHIFT + 1 | number)
            if operation.end < NEVER:
                events.append((operation.end << 1 | 1) << SHIFT | number)
        events.sort()
        return events

    def _begin(self, operation: Meaning) -> int:
        if not self._free:
            most = max(max(self.readers, default=0), max(self.writers, default=0))
            self._free.append(most << 1)
        bit = self._free.pop()
        if operation.left is not None:
            self.writers[bit] = operation
        else:
            self.readers[bit] = operation
            self.configurations = {
                (state, happened | bit if operation.fits(state) else happened)
                for state, happened in self.configurations
            }
        return bit

    def _end(self, bit: int, operation: Meaning) -> set[Configuration]:
        """The configurations in which the operation has happened; or may have, if it is not sure."""
        result: set[Configuration] = set()
        for state, happened in self.configurations:
            if happened & bit:
                result.add((state, happened ^ bit))
                continue
            if not operation.sure:
                result.add((state, happened))
            if len(self.writers) == 1 and bit in self.writers:  # the plain case: nothing else to choose
                if operation.fits(state) and self._may_leave(state, bit, happened):
                    result.add((operation.left, self._read_now(operation.left, happened)))  # type: ignore[arg-type]
            else:
                self._explore((state, happened), bit, operation, result)
        return prune(result, self.writers) if len(result) > 4 else result

    def _explore(self, start: Configuration, goal: int, operation: Meaning, result: set[Configuration]) -> None:
        """Let operations under way happen, in all orders that make sense, until the one that ends has."""
        if operation.equal and operation.value > 0 and start[0] != operation.value:
            want = operation.value
            if not any(w.left == want and not bit & start[1] for bit, w in self.writers.items()):
                return
        paths: list[tuple[int, int, int | None]] = [(*start, None)]
        seen = set(paths)
        while paths:
            state, happened, before = paths.pop()
            for bit, writer in self._candidates(happened, goal):
                if not writer.fits(state) or not self._may_leave(state, bit, happened):
                    continue
                if before is not None and writer.fits(before):
                    continue  # then the one before, which is not sure, was of no use
                after: int = writer.left  # type: ignore[assignment]
                then = self._read_now(after, happened | bit)
                if then & goal:
                    result.add((after, then ^ goal))
                    continue
                useless = not writer.sure and then == happened | bit
                path = (after, then, state if useless else None)
                if path not in seen:
                    seen.add(path)
                    paths.append(path)

    def _candidates(self, happened: int, goal: int) -> Iterable[tuple[int, Meaning]]:
        """The operations under way that change something and have not happened."""
        alike: dict[tuple[bool, int, int], tuple[int, Meaning]] = {}
        found = []
        for bit, writer in self.writers.items():
            if bit & happened:
                continue
            if writer.sure or bit == goal:
                found.append((bit, writer))
                continue
            left: int = writer.left  # type: ignore[assignment]
            kind = (writer.equal, writer.value, left if left in self.known else left and NOBODY)
            if kind not in alike or writer.end < alike[kind][1].end:
                alike[kind] = (bit, writer)
        return [*found, *alike.values()] if alike else found

    def _may_leave(self, state: int, by: int, happened: int) -> bool:
        """Whether nobody needs this state any more, but the one who leaves it."""
        if not state:
            return True
        if self.last_use.get(state, 0) > self.now:
            return False
        for bit, writer in self.writers.items():
            if writer.value == state and writer.equal and writer.sure and bit != by and not bit & happened:
                return False
        return True

    def _read_now(self, state: int, happened: int) -> int:
        for bit, reader in self.readers.items():
            if (state == reader.value) is reader.equal:
                happened |= bit
        return happened


def prune(configurations: set[Configuration], writers: dict[int, Meaning]) -> set[Configuration]:
    """Leave out those that are no better than another: the same, but that more of what is not sure has happened."""
    unsure = 0
    for bit, writer in writers.items():
        if not writer.sure:
            unsure |= bit
    if not unsure:
        return configurations
    groups = defaultdict(list)
    for state, happened in configurations:
        groups[state, happened & ~unsure].append(happened & unsure)
    result = set()
    for (state, sure), masks in groups.items():
        for mask in masks:
            if not any(other != mask and other & mask == other for other in masks):
                result.add((state, sure | mask))
    return result


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
