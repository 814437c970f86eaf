"""What each thread asked of the dictionary and what it was told, kept so that the death of the process loses nothing.

Every thread of every process has a file of its own, mapped into memory. A record is written in two steps: the question
before the operation begins, the answer after it returned. What is in the map when the process is killed is in the file,
and an operation that was under way is there without an answer. In each half the last byte is the one that says that the
half is there (kind, outcome), so a half that was cut by a kill counts as not written.

    record = question answer                      44 bytes, little-endian, one after another until a kind is 0
    question = begin:u64 argument:u64 expected:u64 key:u16 kind:u8
    answer = end:u64 result:u64 outcome:u8

Moments are CLOCK_MONOTONIC in nanoseconds, which all processes share. A value is a number above 0 that is written at
most once in a history; 0 stands for an absent entry. What the fields mean for each kind is said in KINDS.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# kind: argument, expected; result
KINDS = (
    "",
    "get",  # -, -; the value or 0
    "versioned",  # the same, by the way that tells the version
    "contains",  # -, -; 1 or 0
    "set",  # the value, -; -
    "delete",  # -, -; 1, or 0 if it was absent
    "add",  # the value, -; 1, or 0 if it was there
    "replace",  # the value, the value whose version is the condition; 1 or 0
    "pop",  # -, -; the value or 0
    "setdefault",  # the value, -; the value that is there now
    "transform",  # the value, -; the value that it replaced, or 0
    "get_many",  # one record for each key, each as of a get
    "set_many",  # one record for each key, each as of a set
)
NUMBER_OF = {kind: number for number, kind in enumerate(KINDS) if kind}
QUESTION = struct.Struct("<QQQHB")
ANSWER = struct.Struct("<QQB")
RECORD = struct.Struct("<QQQHBQQB")
UNDER_WAY, DONE, FAILED = range(3)  # outcomes; of a failed operation it is not known whether it did anything
PIECE = 1024  # records that are read at a time; the files are sparse and much longer than what is in them
DEATHS = "deaths.json"


class Operation(NamedTuple):
    """One operation. The end of one that was under way at the death of its process is that death, if it is known."""

    process: int
    thread: int
    key: int
    kind: str
    argument: int
    expected: int
    result: int
    begin: int
    end: int | None
    outcome: int


class Recorder:
    """The file of one thread. No other thread may use it.

    Args:
        folder: where the history is kept.
        process, thread: whose file it is; no two may be alike.
        capacity: the most operations that it can hold. The file is sparse.
    """

    def __init__(self, folder: str, process: int, thread: int, capacity: int) -> None:
        self._next = 0
        with open(Path(folder, f"{process}.{thread}"), "w+b") as file:
            os.ftruncate(file.fileno(), RECORD.size * (capacity + 100))
            self._map = mmap.mmap(file.fileno(), 0)

    def begin(self, kind: int, key: int, argument: int = 0, expected: int = 0, place: int = 0) -> None:
        """Note an operation that begins when this returns. Of several that begin at once, `place` is 0, 1, 2..."""
        at = self._next + place * RECORD.size
        QUESTION.pack_into(self._map, at, time.monotonic_ns(), argument, expected, key, kind)

    def end(self, result: int, outcome: int = DONE) -> None:
        """Note the answer to the first operation that has none yet."""
        ANSWER.pack_into(self._map, self._next + QUESTION.size, time.monotonic_ns(), result, outcome)
        self._next += RECORD.size


def note_deaths(folder: str, deaths: dict[int, int]) -> None:
    """Keep when processes were certainly dead: what they had under way did not happen later than that."""
    Path(folder, DEATHS).write_text(json.dumps(deaths))


def read_history(folder: str) -> list[Operation]:
    """All operations of a history, thread by thread."""
    operations: list[Operation] = []
    deaths = {}
    for path in sorted(Path(folder).iterdir()):
        if path.name == DEATHS:
            deaths = {int(process): at for process, at in json.loads(path.read_text()).items()}
    for path in sorted(Path(folder).iterdir()):
        if path.name != DEATHS:
            process, thread = map(int, path.name.split("."))
            operations += _read_thread(path, process, thread, deaths.get(process))
    return operations


def _read_thread(path: Path, process: int, thread: int, death: int | None) -> Iterator[Operation]:
    with open(path, "rb") as file:
        while piece := file.read(PIECE * RECORD.size):
            whole = len(piece) // RECORD.size * RECORD.size
            for begin, argument, expected, key, kind, end, result, outcome in RECORD.iter_unpack(piece[:whole]):
                if not kind:
                    return
                at = end if outcome else death
                yield Operation(process, thread, key, KINDS[kind], argument, expected, result, begin, at, outcome)
