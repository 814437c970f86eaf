"""Made-up histories of one key for the tests of linear_check.py, and a checker that simply tries everything."""

from __future__ import annotations

import random
from collections.abc import Callable

from drivers.history import DONE, FAILED, KINDS, UNDER_WAY, Operation


def answer(kind: str, argument: int, expected: int, state: dict[str, int]) -> int:
    """What a dictionary answers; changes `state`, which has the entry "k" or has not."""
    old = state.get("k", 0)
    if kind in ("get", "versioned", "get_many"):
        return old
    if kind == "contains":
        return "k" in state
    if kind in ("set", "set_many", "transform"):
        state["k"] = argument
        return old if kind == "transform" else 0
    if kind == "delete":
        return state.pop("k", None) is not None
    if kind == "pop":
        return state.pop("k", 0)
    if kind == "add":
        return state.setdefault("k", argument) == argument
    if kind == "setdefault":
        return state.setdefault("k", argument)
    assert kind == "replace"
    if old != expected:
        return 0
    state["k"] = argument
    return 1


def try_everything(operations: list[Operation], strict: bool) -> bool:
    """Whether there is an order that explains a history: the definition, written down and run."""
    return _any_order([_bounded(operation, strict) for operation in operations], {})


def _bounded(operation: Operation, strict: bool) -> Operation:
    endless = operation.end is None or (operation.outcome == UNDER_WAY and not strict)
    return operation._replace(end=10**9 if endless else operation.end)


def _any_order(left: list[Operation], state: dict[str, int]) -> bool:
    if all(operation.outcome != DONE for operation in left):
        return True
    for place, operation in enumerate(left):
        too_late = [other for other in left if other.end < operation.begin]  # type: ignore[operator]
        if any(other.outcome == DONE for other in too_late):
            continue
        then = dict(state)
        result = answer(operation.kind, operation.argument, operation.expected, then)
        if operation.outcome == DONE and result != operation.result:
            continue
        if _any_order([other for other in left[:place] + left[place + 1 :] if other not in too_late], then):
            return True
    return False


class Simulation:
    """Threads that use one key of a right dictionary, in steps: an operation begins, happens, ends.

    Args:
        draw: where randomness comes from.
        threads: how many.
        deaths: how probable it is, at each step, that a thread dies under its operation; another takes its place. What
            it had begun may happen until its death is noticed, or, if not `strict`, at any time.
    """

    def __init__(self, draw: random.Random, threads: int, deaths: float = 0, strict: bool = True) -> None:
        self.draw, self.deaths, self.strict = draw, deaths, strict
        self.state: dict[str, int] = {}
        self.written = [1]  # values in the order of their invention; 1 is the answer of some operations
        self.history: list[Operation] = []
        self.now = 0
        self.running: list[Operation | None] = [None] * threads
        self.happened: dict[int, int] = {}  # results by thread
        self.ghosts: list[Operation] = []

    def run(self, operations: int) -> list[Operation]:
        """A history of at least so many operations."""
        while len(self.history) < operations or any(self.running):
            self.now += self.draw.random() < 0.8
            thread = self.draw.randrange(len(self.running))
            if self.ghosts and self.draw.random() < 0.2:
                self._do(self.ghosts.pop(self.draw.randrange(len(self.ghosts))))
            operation = self.running[thread]
            if operation is None:
                if len(self.history) < operations:
                    self.running[thread] = self._begin(thread)
            elif self.draw.random() < self.deaths:
                self._die(thread, operation)
            elif thread not in self.happened:
                self.happened[thread] = self._do(operation)
            else:
                self._finish(thread, operation._replace(result=self.happened.pop(thread), end=self.now, outcome=DONE))
        return self.history

    def _begin(self, thread: int) -> Operation:
        kind = self.draw.choice(KINDS[1:])
        argument = expected = 0
        if kind in ("set", "set_many", "add", "replace", "setdefault", "transform"):
            self.written.append(self.written[-1] + 1)
            argument = self.written[-1]
        if kind == "replace":
            expected = self.state.get("k", 0) or 2 if self.draw.random() < 0.7 else self.draw.choice(self.written[-4:])
            expected = expected if expected != argument else 2
        return Operation(0, thread, 0, kind, argument, expected, 0, self.now, None, UNDER_WAY)

    def _do(self, operation: Operation) -> int:
        return answer(operation.kind, operation.argument, operation.expected, self.state)

    def _die(self, thread: int, operation: Operation) -> None:
        happened = self.happened.pop(thread, None) is not None
        outcome = self.draw.choice([UNDER_WAY, FAILED])
        if not happened and not self.strict and outcome == UNDER_WAY:
            self.ghosts.append(operation)
        self._finish(thread, operation._replace(end=self.now, outcome=outcome))

    def _finish(self, thread: int, operation: Operation) -> None:
        self.running[thread] = None
        self.history.append(operation)


def spoiled(draw: random.Random, history: list[Operation]) -> list[Operation]:
    """The history with one result, or one moment, changed."""
    place = draw.randrange(len(history))
    operation = history[place]
    values = [0, 1, *(other.argument for other in history if other.argument)]
    if operation.kind in ("contains", "delete", "add", "replace"):
        other = operation._replace(result=1 - operation.result)
    elif operation.kind in ("set", "set_many") or draw.random() < 0.3:
        assert operation.end is not None
        by = draw.randrange(1, 6)
        other = operation._replace(begin=operation.begin + by, end=operation.end + by)
    else:
        other = operation._replace(result=draw.choice(values))
    return [*history[:place], other, *history[place + 1 :]]


def sequence(*steps: tuple[str, int, int]) -> list[Operation]:
    """A history in which one operation follows the other: kind, argument (of replace: what is expected), result."""
    operations = []
    for number, (kind, argument, result) in enumerate(steps):
        expected = argument if kind == "replace" else 0
        written = 1000 + number if kind == "replace" else argument
        operations.append(Operation(0, 0, 0, kind, written, expected, result, 3 * number + 1, 3 * number + 2, DONE))
    return operations


# Faults that no order explains, planted in a right history


def planted(draw: random.Random, history: list[Operation], fault: str) -> list[Operation] | None:
    """The history with a fault somewhere in its second half; None if there is no place for it."""
    places = list(range(len(history) // 2, len(history)))
    draw.shuffle(places)
    for place in places:
        result = _FAULTS[fault](history, history[place])
        if result is not None:
            return [*history[:place], history[place]._replace(result=result), *history[place + 1 :]]
    return None


def _gone(history: list[Operation], operation: Operation, kinds: tuple[str, ...]) -> int | None:
    """A value that was taken away by an operation of these kinds that ended before."""
    for other in reversed(history):
        if other.kind in kinds and other.result > 1 and other.outcome == DONE and _before(other, operation):
            return other.result
    return None


def _before(one: Operation, other: Operation) -> bool:
    return one.end is not None and one.end < other.begin


def _stale(readers: tuple[str, ...], takers: tuple[str, ...]) -> Callable[[list[Operation], Operation], int | None]:
    """Makes a reader return what a taker had returned before."""

    def result(history: list[Operation], operation: Operation) -> int | None:
        if operation.kind not in readers or operation.outcome != DONE:
            return None
        return _gone(history, operation, takers)

    return result


def _added_twice(history: list[Operation], operation: Operation) -> int | None:
    """Makes an add succeed while another value was there all the time."""
    if operation.kind != "add" or operation.result or operation.outcome != DONE:
        return None
    readers = [other for other in history if other.kind in ("get", "versioned", "setdefault") and other.result > 1]
    before = {other.result for other in readers if other.outcome == DONE and _before(other, operation)}
    after = {other.result for other in readers if other.outcome == DONE and _before(operation, other)}
    return 1 if before & after else None


def _version_ignored(history: list[Operation], operation: Operation) -> int | None:
    """Makes a replace succeed though the value that it asks for was taken away before."""
    if operation.kind != "replace" or operation.result or operation.outcome != DONE:
        return None
    for other in history:
        if other.kind in ("pop", "transform") and other.result == operation.expected and _before(other, operation):
            return 1
    return None


_FAULTS: dict[str, Callable[[list[Operation], Operation], int | None]] = {
    "stale read": _stale(("get", "versioned"), ("transform",)),
    "undead after delete": _stale(("get", "versioned"), ("pop",)),
    "lost update": _stale(("transform",), ("transform",)),
    "double pop": _stale(("pop",), ("pop",)),
    "add succeeding twice": _added_twice,
    "version ignored": _version_ignored,
}
PLANTS = list(_FAULTS)
