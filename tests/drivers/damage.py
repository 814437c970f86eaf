"""Damaged files: thousands of mutants of one store, each opened and read in a child process, or salvaged.

A mutant has one kind of damage: a flipped bit, a truncation, a page of zeros or of garbage, two pages exchanged, a few
bytes of garbage. A child works through them and tells what happened through a pipe; if it dies, a new one goes on
behind the mutant that killed it, and that is counted as a signal.

    damage.py FOLDER COUNT read|late|write|salvage|recent

read: open through PersistDict, read each key, iterate by creation or by key, either way, run the integrity pass.
late: the same with nothing but the roots looked at when it is opened, as where a store is large.
write: the same as read, then set, overwrite and delete entries.
salvage: read what can be read into a new store, and compare with what is intact.
recent: not the data are damaged, but the recent writes of a process that died; read, drain, and salvage.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from drivers.running import finish, seed

from persistdict import PersistDict, PersistDictError, salvage
from persistdict.stores.lmdb import survey
from persistdict.stores.lmdb.pages import BIG, LEAF, PageFile, loose_metas, node_at, offsets_of
from persistdict.stores.lmdb.pieces import HEAD, parse_piece_key
from persistdict.stores.lmdb.recent import recent_folder
from persistdict.stores.lmdb.record import parse_record, seq_number
from persistdict.stores.lmdb.trees import leaves, named_trees
from persistdict.stores.lmdb.verify import verify

PAGE = 4096
KINDS = ("flip",) * 6 + ("cut", "zeros", "garbage", "exchange", "smear")
WRONG = ("SIGNAL", "LIE", "LOST", "UNNOTICED")  # in an outcome
LONGEST = 60  # seconds for one mutant; then SIGALRM ends the child
Extent = tuple[int, int, Any]  # first byte, behind the last, the key that it belongs to


def opened(path: str, limit: int = 60) -> PersistDict[Any, Any]:
    return PersistDict(path, background_thread="disabled", caching=False, key_size_limit=limit)


def build(path: str) -> dict[Any, Any]:
    """The store that is damaged: new, overwritten and deleted entries of all sizes."""
    chance = random.Random(1)
    with opened(path) as d:
        for n in range(12):
            d.update({f"key {n} {i}": "v" * chance.choice((5, 50, 200, 800)) + f"{n} {i}" for i in range(30)})
            d[f"mid {n}"] = f"{n}" * chance.choice((2000, 9000, 15000))
            d.set(f"ends {n}", "t" * 30, ttl=1e9, tag=f"tag {n % 5}")
            d.set_many({f"tagged {n} {i}": i for i in range(3)}, tag="some")
            d["long key " * 20, n] = n
        for n in range(4):
            d[f"large {n}"] = f"{n}".encode() * (40_000 + n)
        d["in pieces"] = "".join(f"in pieces {n} " for n in range(10_000))
        for n in range(0, 12, 3):
            d.delete_many(f"key {n} {i}" for i in range(0, 30, 4))
        for n in range(12):
            d[f"key {n} 1"] = n
            assert d[f"key {n} 2"]
        d.flush()
    with opened(path) as d:
        return dict(d)


def leave_recent(path: str, expected: dict[Any, Any]) -> dict[Any, Any]:
    """Write to the store in a process that dies. What is in it then."""
    changed = {f"key {n} {i}": f"newer {n} {i}" for n in range(12) for i in range(2, 30, 3)}
    changed |= {f"recent {n}": "r" * (n * 40) for n in range(100)} | {"large 1": b"newer" * 9000}
    gone = [f"mid {n}" for n in range(6)]
    child = os.fork()
    if not child:
        d = opened(path)
        for key, value in changed.items():
            d[key] = value
        for key in gone:
            del d[key]
        os._exit(0)
    os.waitpid(child, 0)
    return {key: value for key, value in {**expected, **changed}.items() if key not in gone}


def extents(path: str, keys: dict[bytes, Any]) -> list[Extent]:
    """Where in the file the living records and their large values are."""
    file = PageFile(path)
    trees = named_trees(file, max(loose_metas(file), key=lambda meta: meta.transaction))
    found: list[Extent] = []
    owner: dict[bytes, Any] = {}
    for name in (b"e", b"v", b"p"):
        for number, page in leaves(file, trees[name]):
            for at in offsets_of(page, number, LEAF):
                node = node_at(page, at)
                assert node is not None
                start = number * PAGE + at + 16
                if node.flags & BIG:
                    start = seq_number(node.data) * PAGE + 16
                if name == b"e":
                    owner[node.key] = keys[parse_record(file.read(node.size, start)).kb]
                if name == b"p":  # what is before is not the value's
                    start, node = start + HEAD, node._replace(size=node.size - HEAD)
                found.append((start, start + node.size, owner[(parse_piece_key(node.key) or (node.key, 0))[0]]))
    return found


def mutant(data: bytes, number: int, base: int) -> tuple[str, int, bytes]:
    """The kind of damage, the byte that was hit (-1: many), and the file."""
    chance = random.Random(base * 10_000_019 + number)
    kind = chance.choice(KINDS)
    file, at = bytearray(data), -1
    page = chance.randrange(len(data) // PAGE) * PAGE
    if kind == "flip":
        bit = chance.randrange(len(data) * 8)
        at = bit // 8
        file[at] ^= 1 << bit % 8
    elif kind == "cut":
        del file[chance.randrange(len(data)) :]
    elif kind == "zeros":
        file[page : page + PAGE] = bytes(PAGE)
    elif kind == "garbage":
        file[page : page + PAGE] = chance.randbytes(PAGE)
    elif kind == "smear":
        first = chance.randrange(len(data) - 64)
        size = chance.randrange(2, 64)
        file[first : first + size] = chance.randbytes(size)
    else:
        other = chance.randrange(len(data) // PAGE) * PAGE
        file[page : page + PAGE], file[other : other + PAGE] = data[other : other + PAGE], data[page : page + PAGE]
    return kind, at, bytes(file)


# What is done with a mutant


def read(path: str, expected: dict[Any, Any], hit: Any, writing: bool, turn: int) -> str:
    """Open it and read everything. What came of it, in a word."""
    told: set[str] = set()
    try:
        d = opened(path)
    except PersistDictError as error:
        return f"refused {type(error).__name__}"
    try:
        readings = {key: attempt(lambda key=key: d[key], told) for key in expected}
        if any(value is not None and value != expected[key] for key, value in readings.items()):
            told.add("LIE")
        if "missing" in told and attempt(lambda: verify(d._store).faults, told) == ():
            told.add("LOST")
        if hit is not None and readings[hit] is not None:
            told.add("UNNOTICED")
        attempt(lambda: list(d._store.scan(reverse=turn & 1 == 0, by_key=turn & 2 == 0)), told)
        if any(value != expected.get(key) for key, value in d.items()):
            told.add("LIE")
        attempt(lambda: len(d), told)
        attempt(lambda: [list(d.tagged(tag)) for tag in d.tags()], told)
        told.update(word for word in [attempt(lambda: settled(d, expected), told)] if word)
        report = attempt(lambda: verify(d._store), told)
        if report is not None and hit is not None and not report.faults:
            told.add("UNNOTICED BY VERIFY")
        if writing:
            write(d, expected, told)
    finally:
        attempt(d.close, told)
    return "read" + "".join(f", {word}" for word in sorted(told))


def settled(d: PersistDict[Any, Any], expected: dict[Any, Any]) -> str:
    """After everything was drained: whether something is wrong that was not."""
    d.flush()
    lies = any(attempt(lambda key=key: d[key] == expected[key], set()) is False for key in expected)
    return "LIE AFTER DRAIN" if lies else ""


def write(d: PersistDict[Any, Any], expected: dict[Any, Any], told: set[str]) -> None:
    for n, key in enumerate(list(expected)[::10]):
        attempt(lambda n=n: d.__setitem__(f"new {n}", "x" * n * 20), told)
        attempt(lambda key=key: d.__setitem__(key, "overwritten"), told)
        attempt(lambda key=key: d.pop(key, None), told)
    attempt(lambda: d.set_many({f"many {n}": n for n in range(200)}, tag="some"), told)
    attempt(lambda: d.evict(tag="tag 1"), told)


def attempt(work: Any, told: set[str]) -> Any:
    """What `work` returns; None if it raises one of our errors, whose name is told."""
    try:
        return work()
    except KeyError:
        told.add("missing")
    except PersistDictError as error:
        told.add(type(error).__name__)
    return None


def salvaged(path: str, expected: dict[Any, Any], intact: set[Any]) -> dict[str, int]:
    """Salvage it, and count what came back."""
    shutil.rmtree(f"{path}-new", ignore_errors=True)
    counts: Counter[str] = Counter(intact=len(intact))
    report = salvage(path, f"{path}-new")
    with opened(f"{path}-new", report.key_size_limit) as d:
        found = dict(d)
        counts["faults"] = len(verify(d._store).faults)
    counts["back"] = sum(found.get(key, ()) == expected[key] for key in intact)
    counts["damaged but back"] = sum(found.get(key, ()) == value for key, value in expected.items()) - counts["back"]
    counts["old versions"] = sum(key in expected and value != expected[key] for key, value in found.items())
    counts["undead"] = sum(key not in expected for key in found)
    counts["unsure"] = report.unsure
    return counts


# Children


class Run:
    """The mutants of one store, worked through by children."""

    def __init__(self, folder: str, count: int, mode: str) -> None:
        self.folder, self.count, self.mode, self.base = folder, count, mode, seed()
        self.expected = build(f"{folder}/original")
        with open(f"{folder}/original/data.mdb", "rb") as file:
            self.data = file.read()
        self.files: dict[str, bytes] = {}
        if mode == "recent":
            self.expected = leave_recent(f"{folder}/original", self.expected)
            for path in (f"{folder}/original/data.mdb", f"{recent_folder(f'{folder}/original')}/data.mdb"):
                with open(path, "rb") as file:
                    self.files[path] = self.data = file.read()
        with opened("memory://") as d:
            keys = {d._keys.encode(key)[0]: key for key in self.expected}
        self.extents = extents(f"{folder}/original/data.mdb", keys) if mode != "recent" else []
        self.outcomes: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()
        self.killers: list[int] = []

    def run(self) -> dict[str, Any]:
        done = 0
        while done < self.count:
            done = self._one_child(done)
        flips = sum(number for text, number in self.outcomes.items() if text.startswith("hit"))
        return {
            "mutants": self.count,
            "seed": self.base,
            "in records": flips,
            "killers": self.killers,
            "failures": [text for text in self.outcomes if any(word in text for word in WRONG)],
            **self.outcomes,
            **self.sums,
        }

    def _one_child(self, first: int) -> int:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            os.dup2(os.open(f"{self.folder}/stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            try:
                for number in range(first, self.count):
                    os.write(writing, (json.dumps(self.work(number)) + "\n").encode())
            except BaseException:
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
            os._exit(0)
        os.close(writing)
        with open(reading) as pipe:
            lines = list(pipe)
        _, status = os.waitpid(child, 0)
        for line in lines:
            text, sums = json.loads(line)
            self.outcomes[text] += 1
            self.sums.update(sums)
        if os.WIFSIGNALED(status):
            kind, _, _ = mutant(self.data, first + len(lines), self.base)
            self.outcomes[f"{kind}: SIGNAL {signal.Signals(os.WTERMSIG(status)).name}"] += 1
            self.killers.append(first + len(lines))
            return first + len(lines) + 1
        if os.WEXITSTATUS(status):
            with open(f"{self.folder}/stderr") as file:
                raise AssertionError(f"mutant {first + len(lines)} of seed {self.base} raised\n{file.read()[-5000:]}")
        return first + len(lines)

    def work(self, number: int) -> tuple[str, dict[str, int]]:
        """What happens with one mutant."""
        kind, at, file = mutant(self.data, number, self.base)
        if self.mode == "recent":
            return self._work_on_recent(kind, file, number)
        path = f"{self.folder}/mutant"
        shutil.rmtree(path, ignore_errors=True)
        os.mkdir(path, 0o700)
        with open(f"{path}/data.mdb", "wb") as target:
            target.write(file)
        signal.alarm(LONGEST)
        try:
            if self.mode == "salvage":
                sums = salvaged(path, self.expected, set(self.expected) - set(self.harmed(file)))
                return kind, {f"{kind}: {name}": value for name, value in sums.items()}
            hit = next((key for first, end, key in self.extents if first <= at < end), None)
            outcome = read(path, self.expected, hit, self.mode == "write", number)
            return f"{'hit ' if hit is not None else ''}{kind}: {outcome}", {}
        finally:
            signal.alarm(0)

    def _work_on_recent(self, kind: str, damaged: bytes, number: int) -> tuple[str, dict[str, int]]:
        """The same with damaged recent writes, in the one folder: they belong to a file with a certain inode."""
        path = f"{self.folder}/original"
        for place, content in {**self.files, f"{recent_folder(path)}/data.mdb": damaged}.items():
            with open(place, "r+b") as file:
                file.truncate(len(content))
                file.write(content)
            Path(place).with_name("lock.mdb").unlink(missing_ok=True)
        signal.alarm(LONGEST)
        try:
            if number % 2:
                return f"{kind}: {read(path, self.expected, None, False, number)}", {}
            sums = salvaged(path, self.expected, set(self.expected))
            return kind, {f"{kind}: {name}": value for name, value in sums.items()}
        finally:
            signal.alarm(0)

    def harmed(self, file: bytes) -> Iterator[Any]:
        """The keys whose records or values are not as they were."""
        for first, end, key in self.extents:
            if file[first:end] != self.data[first:end]:
                yield key


def main() -> None:
    folder, count, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    warnings.simplefilter("ignore")
    if mode == "late":
        survey.SURVEY = 10  # the roots are looked at always
    os.environ["LOGURU_AUTOINIT"] = "False"
    begun = time.monotonic()
    counts = Run(folder, count, mode).run()
    finish({**counts, "seconds": round(time.monotonic() - begun)})


if __name__ == "__main__":
    main()
