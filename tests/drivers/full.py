"""A small disk is filled to the last byte by a dictionary, and made room on again, while everything is compared.

On the full disk a write is done or is refused, and then has changed nothing; what is refused with another error than
DiskFullError is counted. Reads go on, in other processes too; deletes are tried and counted. When a file of somebody
else is removed, the same handle writes again. What was acknowledged is there all the time, and after opening anew.

    full.py FOLDER ROUNDS FILESYSTEM DURABILITY [FAULT]
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from drivers.disks import Disk, keep_mounts_private
from drivers.running import (
    WATCHDOG,
    ask_child,
    die_with_parent,
    finish,
    hush,
    in_child,
    outcome_of,
    preload,
    seed,
    verify_copies,
)
from drivers.script import Model

from persistdict import PersistDict, PersistDictError
from persistdict.errors import DiskFullError, MaintenanceError, StoreError

ROOM, BALLAST = 5 << 20, 4 << 20  # bytes for the dictionary at first, and bytes that are freed later
READERS = 80  # a page of the table has places for fewer
PATIENCE = 10.0  # seconds after which the handle must write again
OPTIONS: dict[str, dict[str, Any]] = {
    "commit": {"durability": "commit"},
    "interval": {"durability": "interval", "sync_interval": 0.1},
}
FAULTS = ["wrong class", "write lost", "delete undone", "half done"]


class Round:
    """One disk, filled once."""

    def __init__(self, disk: Disk, draw: random.Random, durability: str, fault: str, did: Counter[str]) -> None:
        self.disk, self.draw, self.durability, self.fault, self.did = disk, draw, durability, fault, did
        self.folder = os.path.join(disk.place, "dict")
        self.model = Model()
        self.number = 0
        self.ballast = disk.occupy("ballast", BALLAST)
        self.d = self.open()
        self.filler = disk.occupy("filler", disk.free() - ROOM)

    def open(self) -> PersistDict[Any, Any]:
        return PersistDict(self.folder, background_timeout=0.2, **OPTIONS[self.durability])

    # Steps

    def do(self, what: str, change: Callable[[Any], object]) -> bool:
        """Change the dictionary, and the model if that did not raise. False if the disk was full."""
        self.number += 1
        unlucky = self.number % 40 == 39
        try:
            if self.fault != "write lost" or not unlucky:
                change(self.d)
            if self.fault == "delete undone" and what == "del":
                self.d.update(self.model)
        except Exception as error:
            if self.fault == "wrong class":
                error = OSError(*error.args)
            if self.fault == "half done":
                self.model["half"] = 1
            assert isinstance(error, PersistDictError), (
                f"{what} on the full disk raised {type(error).__name__}: {error}"
            )
            self.did[f"{what}: refused"] += 1
            if type(error) is not DiskFullError:
                self.did["refused with another error"] += 1
                self.did[f"{what}: {type(error).__name__}"] += 1
            if "taken back" not in str(error):
                return False
        change(self.model)
        self.did[f"{what}: done"] += 1
        return True

    def value(self, size: int) -> bytes:
        return b"%d %d " % (self.number, size) + self.draw.randbytes(size)

    def fill(self, sizes: list[int], bulk: int) -> None:
        """Write ever smaller values until none fits."""
        for size in sizes:
            refused = 0
            while refused < 3:
                new = {("filling", self.number, i): self.value(size) for i in range(bulk)}
                if bulk > 1:
                    refused += not self.do("update while filling", lambda d: d.update(new))  # noqa: B023
                else:
                    [(key, value)] = new.items()
                    refused += not self.do("set while filling", lambda d: d.__setitem__(key, value))  # noqa: B023

    def write_in_every_way(self) -> None:
        """Each is done, or raises DiskFullError. A megabyte is refused."""
        old = self.draw.sample(list(self.model), 4)
        megabyte = self.value(1 << 20)
        assert not self.do("a megabyte", lambda d: d.__setitem__("megabyte", megabyte)), "the disk is not full"
        assert not self.do("a megabyte by update", lambda d: d.update(a=1, megabyte=megabyte)), "the disk is not full"
        self.do("set, new", lambda d: d.__setitem__(("new", self.number), 1))
        self.do("set, old", lambda d: d.__setitem__(old[0], "other"))
        self.do("set with ttl", lambda d: d.set(old[1], 1, ttl=1e6))
        self.do("setdefault", lambda d: d.setdefault(("default", self.number), [1]))
        self.do("update", lambda d: d.update({old[2]: 1, ("new too", self.number): 2}))
        self.do("flush", lambda d: d.flush())

    def delete_in_every_way(self) -> None:
        """Each is done, or raises DiskFullError; one at least is done sooner or later."""
        keys = self.draw.sample(list(self.model), len(self.model))
        for name, remove in [
            ("del", lambda d: d.__delitem__(keys.pop())),
            ("pop", lambda d: d.pop(keys.pop())),
            ("delete_many", lambda d: d.delete_many([keys.pop() for _ in range(3)])),
            ("popitem", lambda d: keys.remove(d.popitem()[0])),
        ]:
            self.delete(name, keys, remove)
        self.delete("del", keys, lambda d: d.__delitem__(keys.pop()))

    def delete(self, name: str, keys: list[Any], remove: Callable[[Any], object]) -> None:
        left = list(keys)
        tries = 0
        while not self.do(name, lambda d: (keys.__setitem__(slice(None), left), remove(d))):
            tries += 1
            self.draw.shuffle(left)
            if tries >= 20:
                self.did[f"{name}: refused 20 times in a row"] += 1
                self.did["deletes given up"] += 1
                return
        self.did["deletes done"] += 1

    def dare(self, name: str, work: Callable[[], object]) -> None:
        """Do in a child what may kill a process, and count how it ended."""
        outcome = outcome_of(work, PersistDictError)
        self.did[f"{name}: {outcome}"] += 1
        self.did["killed by a signal"] += "SIG" in outcome

    def make_another(self) -> None:
        """A dictionary that is to be made on the full disk: done, or an error of ours."""
        folder = os.path.join(self.disk.place, "another")
        self.dare("made another", lambda: PersistDict(folder, **OPTIONS[self.durability]).close())
        shutil.rmtree(folder, ignore_errors=True)

    def read_from_many_processes(self) -> None:
        """Each keeps a place in LMDB's table of readers; the last ones, places that nobody has used before."""
        key, value = next(iter(self.model.items()))
        reading, writing = os.pipe()

        def read() -> None:
            die_with_parent()
            d = self.open()
            assert d[key] == value
            os.write(writing, b".")
            time.sleep(WATCHDOG)

        def work() -> None:
            status, pids = 0, []
            while len(pids) < READERS and not status:
                pids.append(in_child(read)[0])
                while not status and not select.select([reading], [], [], 0.01)[0]:
                    status = os.waitpid(pids[-1], os.WNOHANG)[1]
                if not status:
                    os.read(reading, 1)
            for pid in pids[: -1 if status else None]:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            if os.WIFSIGNALED(status):
                os.kill(os.getpid(), os.WTERMSIG(status))  # die of the same
            assert not status, "a reader failed"

        self.dare("read from many processes", work)
        os.close(reading)
        os.close(writing)

    # Comparing

    def compare(self, when: str) -> None:
        compare(self.d, self.model, f"{when}, the same handle")
        quietly = ask_child(lambda: self.compare_anew(when), f"another process, {when}")
        self.did["compared"] += 1
        self.did["closing raised"] += not quietly

    def compare_anew(self, when: str) -> bool:
        d = self.open()
        compare(d, self.model, f"{when}, a new process")
        return close(d)

    def write_again(self) -> None:
        """The same handle writes, soon after there is room."""
        end = time.monotonic() + PATIENCE
        while not self.do("set after room was made", lambda d: d.__setitem__("afterwards", 1)):
            assert time.monotonic() < end, "there is room, and the same handle still raises DiskFullError"
            time.sleep(0.01)
        large, batch = self.value(200_000), {("batch", i): self.value(3000) for i in range(100)}
        for what, change in {
            "large": lambda d: d.__setitem__("large", large),
            "batch": lambda d: d.update(batch),
            "delete": lambda d: d.__delitem__("afterwards"),
        }.items():
            assert self.do(f"{what} after room was made", change), f"there is room, and a write is refused: {what}"
        for _ in range(2):  # the first may tell what upkeep has met while there was no room
            flushed = self.do("flush after room was made", lambda d: d.flush())
        assert flushed, "flush still fails"


def close(d: PersistDict[Any, Any]) -> bool:
    """Close a dictionary. False if it said that something is not durable, or that upkeep had met the full disk."""
    try:
        d.close()
        return True
    except DiskFullError:
        return False
    except MaintenanceError as error:
        assert isinstance(error.__cause__, StoreError | DiskFullError), repr(error.__cause__)
        return False


def compare(d: PersistDict[Any, Any], model: Model, when: str) -> None:
    """All ways of reading give what was acknowledged."""
    items = list(d.items())
    found = dict(items)
    differing = [key for key in model.keys() | found.keys() if model.get(key) != found.get(key)]
    assert not differing, (
        f"{when}: {len(differing)} entries differ, such as {differing[0]!r}: acknowledged "
        f"{str(model.get(differing[0]))[:40]}, found {str(found.get(differing[0]))[:40]}"
    )
    assert [key for key, _ in items] == list(d) == list(model), f"{when}: another order, or a key twice"
    assert len(d) == len(model), f"{when}: len says {len(d)}, and there are {len(model)}"
    for key in list(model)[:: max(1, len(model) // 50)]:
        assert d[key] == model[key] and key in d, f"{when}: {key!r} reads otherwise alone"


def fill_once(
    folder: str, number: int, arguments: tuple[str, str, str], draw: random.Random, did: Counter[str]
) -> None:
    filesystem, durability, fault = arguments
    disk = Disk(folder, filesystem, ROOM + BALLAST + (8 << 20))
    disk.mount()
    this = Round(disk, draw, durability, fault, did)
    sizes = [[60_000, 9_000, 2_500, 300], [200_000, 20_000, 1000], [2_500, 100], [300]][number % 4]
    this.fill(sizes, 8 if number % 3 == 2 else 1)
    this.compare("on the full disk")
    this.write_in_every_way()
    this.compare("after writes on the full disk")
    this.make_another()
    if not number:
        this.read_from_many_processes()
    this.delete_in_every_way()
    this.compare("after deletes on the full disk")
    this.fill(sizes, 1)
    this.compare("on the disk filled again")
    os.unlink(this.ballast)
    this.write_again()
    this.compare("after room was made")
    this.fill(sizes[:2], 1)
    this.do("clear", lambda d: d.clear())
    this.compare("after clear")
    os.unlink(this.filler)
    this.write_again()
    did["closing raised"] += not close(this.d)
    ask_child(lambda: this.compare_anew("at the end"), "the last process")
    ask_child(lambda: verify_copies(this.folder, folder), "the verifier")
    disk.remove()
    did["rounds"] += 1


def main() -> None:
    folder, rounds, filesystem, durability, fault = [*sys.argv[1:], ""][:5]
    os.makedirs(folder := os.path.realpath(folder), exist_ok=True)
    hush()
    preload()
    keep_mounts_private()
    drawn = seed()
    draw = random.Random(drawn)
    did: Counter[str] = Counter()
    for number in range(int(rounds)):
        try:
            fill_once(folder, number, (filesystem, durability, fault), draw, did)
        except AssertionError as error:
            if not fault:
                raise AssertionError(f"round {number}, seed {drawn}: {error}") from error
            finish({**did, "noticed": str(error).splitlines()[-1][:300]})
    finish({**did, "seed": drawn})


if __name__ == "__main__":
    main()
