"""The search for an order that explains all operations of one key; see linear_check.py for what is asked.

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
something needs what it did, or at its end. Of several that are alike the one that ends first is taken. If its value was
met, then it did happen, and before the first who met it ended.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

NEVER = 1 << 64  # ns; after every moment
NOBODY = -1  # no state is ever this
SHIFT = 24  # bits for the number of an operation among those of its key
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


class Search:
    """The walk through the operations of one key.

    Attributes:
        configurations: all that are possible now.
        readers, writers: the operations under way that change nothing, and those that do, by their bits.
        last_use: when the last of those begins that must find a value, by value.
    """

    def __init__(self, operations: list[Meaning], state: int = 0) -> None:
        self.operations = operations = settled(operations)
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
        if len(result) > 4 and (unsure := self._unsure()):
            seen = Seen(unsure)
            fewest_first = sorted(result, key=lambda configuration: bin(configuration[1] & unsure).count("1"))
            return {configuration for configuration in fewest_first if seen.is_new(*configuration)}
        return result

    def _unsure(self) -> int:
        """The bits of those under way that need not have happened."""
        return sum(bit for bit, writer in self.writers.items() if not writer.sure)

    def _explore(self, start: Configuration, goal: int, operation: Meaning, result: set[Configuration]) -> None:
        """Let operations under way happen, in all orders that make sense, until the one that ends has."""
        if operation.equal and operation.value > 0 and start[0] != operation.value:
            want = operation.value
            if not any(w.left == want and not bit & start[1] for bit, w in self.writers.items()):
                return
        paths: list[tuple[int, int, int | None]] = [(*start, None)]
        seen = Seen(self._unsure())
        for state, happened, before in paths:  # grows meanwhile; the shortest come first
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
                if seen.is_new(*path):
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


class Seen:
    """The paths of an exploration, to leave out those that are no better than an earlier one: the same, but that more
    of what is not sure has happened."""

    def __init__(self, unsure: int) -> None:
        self.unsure = unsure
        self._paths: defaultdict[tuple[int, int], list[tuple[int, int | None]]] = defaultdict(list)

    def is_new(self, state: int, happened: int, before: int | None = None) -> bool:
        mask = happened & self.unsure
        alike = self._paths[state, happened ^ mask]
        for other, its_before in alike:
            if other & mask == other and its_before in (None, before):
                return False
        alike.append((mask, before))
        return True


def settled(operations: list[Meaning]) -> list[Meaning]:
    """Make sure those whose value was met by one that is sure; they happened before that one ended."""
    met: dict[int, int] = {}  # when the first ended who met a value

    def meet(operation: Meaning) -> None:
        if operation.equal and operation.value > 0:
            met[operation.value] = min(operation.end, met.get(operation.value, NEVER))

    result = list(operations)
    for operation in operations:
        if operation.sure:
            meet(operation)
    unsure = [number for number, operation in enumerate(operations) if not operation.sure and operation.left]
    while found := [number for number in unsure if operations[number].left in met]:
        for number in found:
            operation = operations[number]
            end = max(operation.begin, min(operation.end, met[operation.left]))  # type: ignore[index]
            result[number] = operation._replace(end=end, sure=True)
            meet(result[number])
        unsure = [number for number in unsure if number not in found]
    return result
