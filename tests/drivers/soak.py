"""Four processes on one bounded store for a long time, writing ten times as much as it may hold and more.

Each worker (soak_worker.py) writes keys of its own and shared ones, of mixed sizes and times to live, reads them and
judges what it gets: nothing that is over, nothing torn, foreign or stale, and nothing gone that is fresh. Meanwhile
this process looks at how much there is, at the files, and at the threads and descriptors of the workers.

    soak.py FOLDER SECONDS [ENTRIES] [MEGABYTES] [SHAPE] [FAULT]

ENTRIES and MEGABYTES are the bounds. It takes longer than SECONDS where less was written until then. SHAPE is "steady"
or "phases": times of small values and of mixed ones take turns, so that now the one bound counts and now the other.
FAULT makes the dictionary wrong on purpose, see soak_faults.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import time
from typing import Any, NamedTuple

from drivers.linear import Watch
from drivers.running import answer_of, faults_of, finish, hush, in_child, left_over, preload, seed, verified
from drivers.soak_faults import keep_snapshot
from drivers.soak_values import Board, Bounds, on_disk
from drivers.soak_worker import MANY, Worker

from persistdict import PersistDict
from persistdict.eviction import BEYOND, MOST_UNSEEN
from persistdict.stores.lmdb.totals import total_size

WORKERS = 4
TIMES = 10  # the bound, so much must be written
PATIENCE = 4  # times the seconds that it may take
UNSEEN = WORKERS / MOST_UNSEEN  # of the bound: what the workers may write until each looks again
FLAT = 1.1  # times what the files had in the second quarter of the time they may have in the last,
SETTLED = 60  # seconds
ROOM = 2  # times the bound of bytes that the data may have, and DISK_STEP
DATA_STEP, DISK_STEP = 1 << 20, 16 << 20  # and so many bytes: the file of recent writes doubles when it grows


class Sample(NamedTuple):
    """How things are at one moment.

    Attributes:
        at: seconds since the beginning.
        entries: len() of the dictionary.
        size: bytes of all entries, when all that was written is in the data.
        counted: the same as the store counts it, with the pages of what was written since.
        stored: entries, with those that are over and still there.
        data, disk: bytes of the file of the data, and of all files.
        threads, descriptors, memory: of the worker that has most; memory is in KB, and not that of files.
    """

    at: float
    entries: int
    size: int
    counted: int
    stored: int
    data: int
    disk: int
    threads: int
    descriptors: int
    memory: int


class Soak:
    """The parent of the workers."""

    def __init__(self, folder: str, seconds: float, bounds: Bounds, shape: str, fault: str) -> None:
        self.folder, self.seconds, self.bounds, self.fault = folder, seconds, bounds, fault
        self.board = Board(WORKERS)
        self.watch = Watch(self.board, 1)  # type: ignore[arg-type]
        self.samples: list[Sample] = []
        self.failures: list[str] = []
        self.children = [
            in_child(Worker(folder, self.board, number, seconds, bounds, shape, fault).play)
            for number in range(WORKERS)
        ]
        self.began = time.monotonic()

    def run(self) -> dict[str, Any]:
        """To the end; returns the counts."""
        try:
            with PersistDict(self.folder, background_thread="disabled") as d:
                if self.fault == "old snapshot kept":
                    self.children.append(in_child(lambda: keep_snapshot(self.folder, self.board)))
                self.look_on(d)
                answers = self.end()
                faults = faults_of(d)
            faults += verified(self.folder) + left_over(self.folder)
        finally:
            for pid, _ in self.children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return self.counts(answers, faults)

    def look_on(self, d: PersistDict[Any, Any]) -> None:
        interval = min(1.0, self.seconds / 80)
        while not self.is_over():
            self.samples.append(self.sample(d))
            self.watch.look([pid for pid, _ in self.children])
            if select.select([pipe for _, pipe in self.children], [], [], interval)[0]:
                return  # one has ended, and will tell why

    def is_over(self) -> bool:
        passed = time.monotonic() - self.began
        enough = self.times() >= TIMES or self.fault
        return passed > self.seconds * PATIENCE or bool(passed > self.seconds and enough)

    def times(self) -> float:
        """How many times the bounds were written, both of them."""
        return min(
            sum(self.board.written) / self.bounds.entries,
            sum(self.board.written_sizes) / self.bounds.size,
        )

    def sample(self, d: PersistDict[Any, Any]) -> Sample:
        entries = len(d)
        store: Any = d._store
        store.sync()
        data = store.begin_data(store.e)
        stored, size = data.stat(store.e)["entries"], total_size(store, data) or 0
        del data
        workers = [_process(pid) for pid, _ in self.children]
        return Sample(
            time.monotonic() - self.began,
            entries,
            size,
            store.usage(exact=True).size,
            stored,
            os.stat(os.path.join(self.folder, "data.mdb")).st_size,
            on_disk(self.folder),
            *(max(column) for column in zip(*workers, strict=True)),
        )

    def end(self) -> list[Any]:
        """Have the workers end, and take what they say."""
        self.board.stop[0] = 1
        answers = []
        for number, (pid, pipe) in enumerate(self.children):
            try:
                answers.append(answer_of(pid, pipe, f"worker {number}"))
            except AssertionError as error:
                self.failures.append(str(error))
        self.children = []
        return answers

    # Judging

    def counts(self, answers: list[Any], faults: list[str]) -> dict[str, Any]:
        did: dict[str, int] = {}
        for answer in filter(None, answers):
            self.failures += answer["failures"]
            for name, count in answer["did"].items():
                did[name] = did.get(name, 0) + count
        self.failures += [f"in the store: {fault}" for fault in faults[:5]]
        self.judge()
        highest = {name: max(getattr(sample, name) for sample in self.samples) for name in Sample._fields[1:]}
        return {
            **did,
            "times the bound written": round(self.times(), 1),
            "bounds": list(self.bounds),
            "highest": highest,
            "of the bound": [round(part, 3) for part in self.parts()],
            "by quarters": {name: [max(part) for part in self.quarters(name)] for name in Sample._fields[1:]},
            "slowest write": round(max((answer["slowest"] for answer in filter(None, answers)), default=0.0), 3),
            "samples": len(self.samples),
            "failures": self.failures,
            "seconds": round(time.monotonic() - self.began, 1),
            "seed": seed(),
        }

    def parts(self) -> tuple[float, float]:
        """The most entries and bytes that there were, as parts of the bounds."""
        entries = max(max(sample.entries, sample.stored) for sample in self.samples)
        return entries / self.bounds.entries, max(sample.size for sample in self.samples) / self.bounds.size

    def quarters(self, name: str) -> list[list[int]]:
        """The samples of one kind, by quarters of the time."""
        values = [getattr(sample, name) for sample in self.samples]
        size = max(1, len(values) // 4)
        return [values[:size], values[size : 2 * size] or values, values[2 * size : -size] or values, values[-size:]]

    def judge(self) -> None:
        """Within the bounds, and nothing grows."""
        at_once = WORKERS * MANY / self.bounds.entries  # each may be about to write, having looked
        for name, part in zip(("entries", "bytes"), self.parts(), strict=True):
            if part > BEYOND + UNSEEN + at_once:
                self.failures.append(f"above the bound: {part:.3f} of the {name} that may be")
        if max(self.parts()) < 0.9:
            self.failures.append(f"the bound was never reached: {self.parts()}")
        if self.times() < TIMES and not self.fault:
            self.failures.append(f"only {self.times():.1f} times the bound was written")
        for name, step in (("data", DATA_STEP), ("disk", DISK_STEP)):
            _, before, _, last = self.quarters(name)
            if self.seconds < SETTLED:  # then the files are on their way still
                step += self.bounds.size
            if max(last) > FLAT * max(before) + step:
                self.failures.append(f"the file grows: {name} had {max(before):,} bytes, then {max(last):,}")
        if max(most := [sample.data for sample in self.samples]) > ROOM * self.bounds.size + DISK_STEP:
            self.failures.append(f"the file is too large: the data had {max(most):,} bytes")
        for name in ("threads", "descriptors"):
            _, before, _, last = self.quarters(name)
            if max(last) > max(before) + 1:
                self.failures.append(f"{name} leak: {max(before)}, then {max(last)}")


def _process(pid: int) -> tuple[int, int, int]:
    """Threads, descriptors, and KB of memory of a process; zeros if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(re.findall(r"^(\w+):\s+(\d+)", file.read(), re.MULTILINE))
        return int(status["Threads"]), len(os.listdir(f"/proc/{pid}/fd")), int(status["RssAnon"])
    except (OSError, KeyError):
        return 0, 0, 0


def main() -> None:
    folder, seconds, entries, megabytes, shape, fault = [*sys.argv[1:], *[""] * 4][:6]
    assert shape in ("", "steady", "phases"), shape
    os.environ.setdefault("PERSISTDICT_SEED", str(seed()))  # the same for all processes
    preload()
    hush()  # each handle would say that it evicts
    bounds = Bounds(int(entries or 40_000), int(float(megabytes or 256) * (1 << 20)))
    finish(Soak(folder, float(seconds), bounds, shape, fault).run())


if __name__ == "__main__":
    main()
