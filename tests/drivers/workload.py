"""What the processes do that get killed: an endless plan of operations that anybody can compute again.

The n-th operation of a worker follows from the seed, the worker's number, n, and what the worker had stored before. So
the worker need not tell what it is about to do: whoever knows how many operations it acknowledged knows all of them,
and the one that may have been under way.

A worker owns some keys of all kinds. Others are shared: a batch that every worker writes at once ("together"), and
single ones that every worker writes ("alone"); their values name the writer and the operation.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from persistdict import PersistDict

OWN = 40  # keys of each worker
TOGETHER = [f"together {i}" for i in range(4)]
ALONE = [f"alone {i}" for i in range(4)]
OPTIONS: list[dict[str, Any]] = [  # how each worker opens the store
    {"background_timeout": 0.02},
    {"background_timeout": 0.02, "caching": False},
    {"background_thread": "disabled"},
    {"background_timeout": 0.02, "expiration_days": 365},
]
FAULTS = ["acknowledged early", "write lost", "write halved", "batch torn", "delete lost", "read stale"]


def own_key(worker: int, number: int) -> Any:
    """One of the keys of a worker: str, int, tuple, bytes, and one that is cropped."""
    kinds: list[Any] = [
        f"w{worker} {number}",
        worker * 1000 + number,
        ("w", worker, number),
        b"w%d %d" % (worker, number),
        f"w{worker} {number} " + "long " * 120,
    ]
    return kinds[number % len(kinds)]


class Written(NamedTuple):
    """A value as the model knows it."""

    worker: int
    seq: int
    size: int

    def value(self) -> Any:
        """The whole value; no two are alike."""
        name = f"{self.worker} {self.seq} "
        data = (name * (self.size // len(name) + 1))[: max(self.size, len(name))]
        return [data, data.encode(), [self.worker, self.seq, data], {name: data}][self.seq % 4]


class Operation(NamedTuple):
    """Something to do: what it removes, then what it sets, in one transaction."""

    verb: str
    removed: list[Any]
    sets: list[tuple[Any, Written]]


class Plan:
    """The operations of one worker, and what they come to.

    Attributes:
        seq: the number of the next operation.
        entries: what the worker's own keys hold, in order of insertion.
        shared: the last operation of this worker that wrote a shared key, by key.
    """

    def __init__(self, seed: int, worker: int) -> None:
        self.seed, self.worker, self.seq = seed, worker, 0
        self.entries: dict[Any, Written] = {}
        self.shared: dict[str, Written] = {}

    def state(self) -> Any:
        return self.seed, self.worker, self.seq, dict(self.entries), dict(self.shared)

    @classmethod
    def of(cls, state: Any) -> Plan:
        plan = cls(state[0], state[1])
        plan.seq, plan.entries, plan.shared = state[2], dict(state[3]), dict(state[4])
        return plan

    def next(self) -> Operation:
        """The next operation; the same whenever it is asked for."""
        draw = random.Random(f"{self.seed} {self.worker} {self.seq}")
        verb = draw.choices(list(VERBS), VERBS.values())[0]  # type: ignore[arg-type]
        there = list(self.entries)
        if verb in ("delete", "pop"):
            if not there:
                verb = "set"
            else:
                return Operation(verb, [draw.choice(there)], [])
        if verb == "delete_many":
            return Operation(verb, self._keys(draw, 6), [])
        if verb == "together":
            return Operation(verb, [], [(key, Written(self.worker, self.seq, 30)) for key in TOGETHER])
        if verb == "alone":
            return Operation(verb, [], [(draw.choice(ALONE), Written(self.worker, self.seq, 30))])
        if verb == "update":
            return Operation(verb, [], [(key, self._written(draw)) for key in self._keys(draw, 8)])
        if verb == "read":
            return Operation(verb, [], [])
        if verb == "setdefault":
            missing = [key for key in self._keys(draw, 8) if key not in self.entries]
            return Operation(verb, [], [(key, self._written(draw)) for key in missing[:1]])
        return Operation(verb, [], [(self._keys(draw, 1)[0], self._written(draw))])

    def _keys(self, draw: random.Random, most: int) -> list[Any]:
        return [own_key(self.worker, number) for number in draw.sample(range(OWN), draw.randint(1, most))]

    def _written(self, draw: random.Random) -> Written:
        sizes = [draw.randrange(60), draw.randrange(100, 3000), draw.randrange(31_000, 35_000), 100_000]
        return Written(self.worker, self.seq, draw.choices(sizes, [60, 30, 8, 2])[0])

    def done(self, operation: Operation) -> None:
        """Take an operation into account."""
        for key in operation.removed:
            self.entries.pop(key, None)
        for key, written in operation.sets:
            if key in TOGETHER or key in ALONE:
                self.shared[key] = written
            else:
                self.entries[key] = written
        self.seq += 1


VERBS = {
    "set": 32, "delete": 14, "pop": 5, "update": 14, "delete_many": 4, "together": 8, "alone": 6, "timed": 5,
    "setdefault": 4, "read": 8,
}  # fmt: skip


def perform(d: PersistDict[Any, Any], plan: Plan, operation: Operation, fault: str = "") -> None:
    """Do an operation, and look whether the dictionary agrees with the plan."""
    verb, removed, sets = operation
    unlucky = plan.seq % 50 == 49
    if fault == "write lost" and unlucky and verb in ("set", "update", "together"):
        return
    if fault == "delete lost" and unlucky and verb == "delete":
        return
    if verb == "delete":
        del d[removed[0]]
    elif verb == "pop":
        if d.pop(removed[0]) != plan.entries[removed[0]].value():
            raise AssertionError("pop returned another value than was stored")
    elif verb == "delete_many":
        if d.delete_many(removed) != sum(key in plan.entries for key in removed):
            raise AssertionError("delete_many removed another number of entries than there were")
    elif verb == "read":
        read(d, plan, fault)
    elif verb == "timed":
        for key, written in sets:
            d.set(key, written.value(), ttl=1e6)
    elif verb == "setdefault":
        for key, written in sets:
            if d.setdefault(key, written.value()) != written.value():
                raise AssertionError("setdefault found an entry where there was none")
    elif len(sets) > 1 and fault != "batch torn":
        d.update({key: written.value() for key, written in sets})
    else:
        for key, written in sets:
            value = written.value()
            if fault == "write halved" and unlucky and isinstance(value, (str, bytes)):
                value = value[: len(value) // 2]
            d[key] = value


def read(d: PersistDict[Any, Any], plan: Plan, fault: str = "") -> None:
    """Read own keys and the shared batch."""
    for number in range(0, OWN, 3):
        key = own_key(plan.worker, number)
        expected = plan.entries.get(key)
        found = d.get(key)
        if fault == "read stale" and plan.seq % 50 == 49:
            found = None
        if found != (None if expected is None else expected.value()):
            raise AssertionError(f"a worker read {str(found)[:60]!r} where it had stored {expected}")
    read_together(d)


def read_together(d: PersistDict[Any, Any]) -> None:
    """The shared batch must be of one writer and one operation."""
    batch = d.get_many(TOGETHER)
    if batch and not (len(batch) == len(TOGETHER) and len({str(value) for value in batch.values()}) == 1):
        raise AssertionError("the shared batch is torn")


def check_everything(d: PersistDict[Any, Any], plans: list[Plan], settled: dict[str, Written]) -> list[bool]:
    """Compare the store with what was acknowledged.

    Args:
        d: the dictionary.
        plans: what each worker acknowledged.
        settled: what the shared keys held at the end of the round before; is set to what they hold now.

    Returns which workers' operation under way is in the store (of those on shared keys: False).

    Raises AssertionError for whatever is lost, undead, torn, foreign, there twice or out of order.
    """
    items = list(d.items())
    found = dict(items)
    assert len(found) == len(items), "a key was iterated twice"
    assert list(d) == [key for key, _ in items], "keys and items differ"
    assert len(d) == len(found), f"len says {len(d)}, and {len(found)} entries are there"
    applied = []
    for plan in plans:
        own = {own_key(plan.worker, number) for number in range(OWN)}
        mine = {key: found.pop(key) for key, _ in items if key in own}
        applied.append(_applied(plan, mine))
    assert len({str(found.get(key)) for key in TOGETHER}) == 1, "the shared batch is torn"
    for key in TOGETHER + ALONE:
        _check_shared(key, found.pop(key, None), plans, settled)
    assert not found, f"entries that nobody wrote: {list(found)[:5]}"
    return applied


def _applied(plan: Plan, mine: dict[Any, Any]) -> bool:
    """Whether a worker's operation under way is in the store, as its own keys tell."""
    operation = plan.next()
    after = Plan.of(plan.state())
    after.done(operation)
    for state in (plan, after):
        if list(state.entries) == list(mine) and all(  # the order counts
            mine[key] == written.value() for key, written in state.entries.items()
        ):
            return state is after and after.entries != plan.entries
    differences = [
        f"{key!r:.40}: acknowledged {written}, found {str(found)[:60]!r}"
        for number in range(OWN)
        if (written := plan.entries.get(key := own_key(plan.worker, number))) is not (found := mine.get(key))
        and (written is None or found != written.value())
    ]
    raise AssertionError(
        f"worker {plan.worker} acknowledged {plan.seq} operations and may have been in {operation!s:.300}; "
        f"{len(differences)} entries differ: {differences[:4] or 'only in their order'}"
    )


def _check_shared(key: str, value: Any, plans: list[Plan], settled: dict[str, Written]) -> None:
    """A shared key holds the last thing that one of its writers wrote, or what it held if nobody wrote it."""
    acknowledged = [plan.shared[key] for plan in plans if key in plan.shared]
    under_way = [written for plan in plans for name, written in plan.next().sets if name == key]
    before = [settled[key]] if key in settled and not acknowledged else []
    if value is None:
        assert not acknowledged and not before, f"{key!r} is gone; {acknowledged or before} was written"
        return
    for written in acknowledged + under_way + before:
        if value == written.value():
            settled[key] = written
            return
    raise AssertionError(f"{key!r} holds {value!r:.60}, and the last that its writers wrote was {acknowledged}")
