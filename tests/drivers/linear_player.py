"""The side of linear.py that uses the dictionary: one process, its threads, its handles."""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from drivers.history import DONE, FAILED, NUMBER_OF, Recorder
from drivers.linear_faults import plant
from drivers.running import seed

from persistdict import ABSENT, PersistDict
from persistdict.errors import ClosedError

Dict = PersistDict[Any, Any]
COUNT = 12  # keys; the first are the hottest
STRETCH = 4000  # operations of all threads together; then reading and writing change places
BLOCK = 50  # operations that a thread draws at a time
REOPEN_EVERY = 1500  # operations of one thread, on average
FLUSH_EVERY = 1500
BULKY = {f"padding {number}": "x" * 500 for number in range(600)}  # makes a batch so large that it may go another way
READING = {
    "get": 86, "versioned": 4, "contains": 3, "set": 1, "delete": 0.5, "add": 1, "replace": 1.5, "pop": 0.5,
    "setdefault": 1, "transform": 1.5, "get_many": 2, "set_many": 0.5,
}  # fmt: skip
WRITING = {
    "get": 30, "versioned": 3, "contains": 5, "set": 14, "delete": 6, "add": 8, "replace": 14, "pop": 6,
    "setdefault": 6, "transform": 8, "get_many": 2, "set_many": 3,
}  # fmt: skip


def _key(number: int) -> Any:
    """Strings, tuples, and one that is cropped."""
    if number == 5:
        return "a long key " * 60
    return ("key", number) if number % 4 == 3 else f"key {number}"


KEYS = [_key(number) for number in range(COUNT)]


def wrap(key: int, number: int) -> Any:
    """The value that stands for a number under a key: immutable ones are cached otherwise than mutable ones."""
    return (number, str(number), [number, [number]])[key % 3]


def unwrap(key: int, value: Any) -> int:
    """The number; 0 for None, which stands for an absent entry."""
    if value is None:
        return 0
    if key % 3 < 2:
        return int(value)
    number, inner = value
    assert inner == [number], f"a value was changed by its reader or torn: {value}"
    inner.append("changed by its reader")
    return int(number)


class Side:
    """One process.

    Args:
        folder, history: where the store and its history are.
        board: the numbers that all share.
        position, number: which process it is, of those that run and of all that ever did.
        threads: how many.
        settings: how to open the dictionary.
        reopening: whether to close and open handles meanwhile.
        fault: what to make wrong.
        capacity: how many operations a history may have.
    """

    def __init__(
        self, folder: str, history: str, board: Any, position: int, number: int, threads: int, *,
        settings: dict[str, Any], reopening: bool, fault: str, capacity: int,
    ) -> None:  # fmt: skip
        self.folder, self.board, self.settings, self.fault = folder, board, settings, fault
        self.position, self.reopening = position, reopening
        self.handles = [self.open() for _ in range(1 + number % 2)]
        self.players = [
            Player(
                self,
                number,
                thread,
                board.done[position * threads + thread :],
                Recorder(history, number, thread, capacity),
            )
            for thread in range(threads)
        ]

    def open(self) -> Dict:
        d: Dict = PersistDict(self.folder, **self.settings)
        plant(d, self.fault)
        return d

    def play(self) -> None:
        sys.setswitchinterval(1e-5)
        for player in self.players:
            player.start()
        for player in self.players:
            player.join()
        for d in self.handles:
            d.close()
        for player in self.players:
            if player.error:
                raise player.error

    def reopen(self, which: int, first_open: bool) -> None:
        """Close a handle under the threads that use it, and put another in its place."""
        old = self.handles[which]
        if first_open:
            self.handles[which] = self.open()
            old.close()
        else:
            old.close()
            self.handles[which] = self.open()
        self.board.reopened[self.position] += 1


class Player(threading.Thread):
    """A thread that uses a handle, and records it."""

    def __init__(self, side: Side, process: int, thread: int, done: memoryview, recorder: Recorder) -> None:
        super().__init__(daemon=True)
        self.side, self.thread, self.done, self.recorder = side, thread, done, recorder
        self.draw = random.Random(f"{seed()} {process} {thread}")
        self.number = (process + 1 << 10 | thread) << 24  # the value that it wrote last; no two threads have the same
        self.seen: dict[int, tuple[int, int]] = {}  # by key: a value that was there, and its version
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.play()
        except BaseException as error:
            self.error = error
            self.side.board.stop[0] = 2

    def play(self) -> None:
        side, draw, done = self.side, self.draw, self.done
        stop, everybody = side.board.stop, side.board.done
        handle = self.thread % len(side.handles)
        keys = range(COUNT)
        hot = [1 / (2 + number) for number in keys]
        while True:
            share = WRITING if sum(everybody) // STRETCH % 2 else READING
            kinds = draw.choices(list(share), share.values(), k=BLOCK)  # type: ignore[arg-type]
            for kind, key in zip(kinds, draw.choices(keys, hot, k=BLOCK), strict=True):
                if stop[0]:
                    return
                d = side.handles[handle]
                if not self.perform(d, kind, key):
                    while side.handles[handle] is d and not stop[0]:
                        time.sleep(0.0001)
                done[0] += 1
            if draw.random() < BLOCK / FLUSH_EVERY:
                with contextlib.suppress(ClosedError):
                    side.handles[handle].flush()
            if side.reopening and self.thread == 0 and draw.random() < BLOCK / REOPEN_EVERY:
                side.reopen(draw.randrange(len(side.handles)), draw.random() < 0.5)

    def perform(self, d: Dict, kind: str, key: int) -> bool:
        """One operation, or two: what is replaced is read before, if not earlier. False if the handle was closed."""
        if kind == "replace" and (key not in self.seen or self.draw.random() < 0.7):
            if not self.perform(d, "versioned", key):
                return False
            if key not in self.seen:
                return True
        if kind in ("get_many", "set_many"):
            return self.perform_many(d, kind, self.draw.sample(range(COUNT), self.draw.randint(1, 4)))
        number = expected = 0
        if kind in WRITES:
            number = self.number = self.number + 1
        if kind == "replace":
            expected = self.seen[key][0]
        self.recorder.begin(NUMBER_OF[kind], key, number, expected)
        if self.side.fault == "acknowledged early" and kind == "set":
            self.recorder.end(0)
            d[KEYS[key]] = wrap(key, number)
            return True
        try:
            result = getattr(self, kind)(d, key, number) if kind in REMEMBERING else PLAIN[kind](d, key, number)
        except ClosedError:
            self.recorder.end(0, FAILED)
            return False
        self.recorder.end(result)
        return True

    def perform_many(self, d: Dict, kind: str, keys: list[int]) -> bool:
        """A batch, recorded as one operation on each of its keys."""
        numbers = dict.fromkeys(keys, 0)
        for place, key in enumerate(keys):
            if kind == "set_many":
                numbers[key] = self.number = self.number + 1
            self.recorder.begin(NUMBER_OF[kind], key, numbers[key], place=place)
        results = dict.fromkeys(keys, 0)
        try:
            if kind == "get_many":
                found = d.get_many([KEYS[key] for key in keys])
                results = {key: unwrap(key, found.get(KEYS[key])) for key in keys}
            else:
                batch = {KEYS[key]: wrap(key, number) for key, number in numbers.items()}
                d.set_many({**batch, **BULKY} if self.draw.random() < 0.05 else batch)
            outcome = DONE
        except ClosedError:
            outcome = FAILED
        for key in keys:
            self.recorder.end(results[key], outcome)
        return outcome == DONE

    def versioned(self, d: Dict, key: int, _: int) -> int:
        found = d.get_versioned(KEYS[key])
        if found.version is ABSENT:
            self.seen.pop(key, None)
            return 0
        self.seen[key] = unwrap(key, found.value), found.version
        return self.seen[key][0]

    def replace(self, d: Dict, key: int, number: int) -> int:
        return d.replace(KEYS[key], wrap(key, number), if_version=self.seen[key][1]) is not None


def _set(d: Dict, key: int, number: int) -> int:
    d[KEYS[key]] = wrap(key, number)
    return 0


def _delete(d: Dict, key: int, _: int) -> int:
    try:
        del d[KEYS[key]]
    except KeyError:
        return 0
    return 1


def _transform(d: Dict, key: int, number: int) -> int:
    replaced = [None]

    def change(value: Any) -> Any:
        replaced[0] = None if value is ABSENT else value
        return wrap(key, number)

    d.transform(KEYS[key], change)
    return unwrap(key, replaced[0])


WRITES = ("set", "add", "replace", "setdefault", "transform")
REMEMBERING = ("versioned", "replace")
PLAIN: dict[str, Callable[[Dict, int, int], int]] = {  # of the key's number and the value; the result as recorded
    "get": lambda d, key, _: unwrap(key, d.get(KEYS[key])),
    "contains": lambda d, key, _: KEYS[key] in d,
    "set": _set,
    "delete": _delete,
    "add": lambda d, key, number: d.add(KEYS[key], wrap(key, number)),
    "pop": lambda d, key, _: unwrap(key, d.pop(KEYS[key], None)),
    "setdefault": lambda d, key, number: unwrap(key, d.setdefault(KEYS[key], wrap(key, number))),
    "transform": _transform,
}


def read_all(folder: str, history: str, number: int, *, settings: dict[str, Any], **_: Any) -> None:
    """Read every key once, as another process of the history."""
    recorder = Recorder(history, number, 0, COUNT)
    with PersistDict[Any, Any](folder, **settings) as d:
        for key in range(COUNT):
            recorder.begin(NUMBER_OF["get"], key)
            recorder.end(PLAIN["get"](d, key, 0))
