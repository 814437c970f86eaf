"""The power is cut while processes write, again and again on one disk; what is left is compared with what they noted.

The disk is an ext4 or xfs image of our own. A cut is FS_IOC_SHUTDOWN without flushing the journal: what had not reached
the disk is gone. Before it, a process writes parts of the files back at random and syncs other files, as the kernel
does. Afterwards the writers are killed, the file system is mounted again and replays its journal, and the store is
opened as after a new start of the machine: with another boot id. See survivors.py for what must be there.

    power.py FOLDER CUTS FILESYSTEM DURABILITY [FAULT]
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import random
import shutil
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from glob import glob
from typing import Any

from drivers import shim
from drivers.disks import Disk, keep_mounts_private
from drivers.numbered import Journal, Plan, perform
from drivers.running import WATCHDOG, ask_child, die_with_parent, finish, hush, preload, seed, verify_copies
from drivers.survivors import Findings, judge

from persistdict import PersistDict
from persistdict.stores.lmdb import recent

SIZE = 320 << 20
PROCESSES = [[0], [1], [2, 3]]  # writers; the last process has two threads
WRITERS = sum(map(len, PROCESSES))
INTERVAL = 0.25  # seconds
SLACK = float(os.environ.get("PERSISTDICT_SLACK", "2"))  # seconds by which a drain may be late on a busy machine
OPTIONS: dict[str, dict[str, Any]] = {
    "commit": {"durability": "commit"},
    "interval": {"durability": "interval", "sync_interval": INTERVAL},
}
LONGEST = {"commit": 1.2, "interval": 2 * (INTERVAL + SLACK)}  # seconds of writing before a cut
MOUNT = {"ext4": ["commit=1", "commit=5", "commit=1000", "data=writeback,commit=1"], "xfs": ["rw"]}
FAULTS = {
    "commit": ["nosync", "acknowledged early", "value damaged", "delete lost"],
    "interval": ["nosync", "same boot", "value damaged", "delete lost"],
}


# Processes


def write_all(folder: str, journals: str, plans: list[Plan], durability: str, fault: str) -> None:
    """Carry out the plans, each in a thread, for ever; or until SIGBUS, by which a map ends on a disk that was cut."""
    faulthandler.disable()
    hush()  # after the cut, what could not be made durable is logged
    threads = [
        threading.Thread(target=write, args=(folder, f"{journals}{plan.writer}", plan, durability, fault))
        for plan in plans
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def write(folder: str, path: str, plan: Plan, durability: str, fault: str) -> None:
    """Carry out a plan and note what returned. After an error, try again what failed."""
    journal = Journal(path)
    d: PersistDict[Any, Any] | None = None
    failed = False
    while True:
        transaction = plan.next()
        begun = time.monotonic_ns()
        try:
            if transaction.verb == "reopen" and d is not None:
                d.close()
                d = None
            if d is None:
                d = PersistDict(folder, background_timeout=0.1, caching=plan.writer != 1, **OPTIONS[durability])
            if fault == "acknowledged early":
                journal.note(transaction, plan.number + 1, begun)
            if not (fault == "delete lost" and transaction.removed and plan.number % 20 == 0):
                perform(spoilt(d) if fault == "value damaged" and plan.number % 50 == 0 else d, transaction)
        except Exception as error:
            if failed and isinstance(error, KeyError):  # it is removed, though that had failed: not durable yet
                plan.done(transaction)
            else:
                with open(path + ".error", "a") as file:
                    file.write(f"{time.monotonic_ns()} {type(error).__name__} at {transaction.verb}: {error}\n")
                failed = True
                time.sleep(0.001)
            continue
        failed = False
        plan.done(transaction)
        if fault != "acknowledged early":
            journal.note(transaction, plan.number, begun)


def spoilt(d: PersistDict[Any, Any]) -> Any:
    """A dictionary that damages what it is given."""

    class Spoilt(dict[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            d[key] = value[:5] + value[6:]

        update, delete_many, flush = d.update, d.delete_many, d.flush  # type: ignore[assignment]
        __delitem__, pop = d.__delitem__, d.pop  # type: ignore[assignment]

    return Spoilt()


def write_back(place: str, draw: random.Random) -> None:
    """What the kernel does now and then: write some parts of some files to the disk, and sync others."""
    sync_file_range = ctypes.CDLL(None, use_errno=True).sync_file_range
    other = os.open(os.path.join(place, "other"), os.O_WRONLY | os.O_CREAT)
    while True:
        try:
            for path in glob(os.path.join(place, "**", "data.mdb"), recursive=True):
                with open(path, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    for _ in range(draw.randrange(4)):
                        start = draw.randrange(size + 1) & ~4095 if draw.random() < 0.8 else 0
                        length = 4096 << draw.randrange(10)
                        sync_file_range(file.fileno(), ctypes.c_int64(start), ctypes.c_int64(length), 7)
            if draw.random() < 0.2:
                os.pwrite(other, b"x" * draw.randrange(1, 20_000), draw.randrange(1 << 20))
                os.fsync(other)
        except OSError:  # a file that was moved or removed meanwhile, or the cut
            pass
        time.sleep(draw.uniform(0, 0.01))


def fork(work: Any, *args: Any) -> int:
    """Run `work` in a child until it is killed."""
    pid = os.fork()
    if pid:
        return pid
    die_with_parent()
    try:
        work(*args)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        os._exit(1)


def kill(pids: list[int]) -> None:
    """Kill and wait; who does not die within the time of the watchdog is a failure."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + WATCHDOG
    while pids := [pid for pid in pids if not os.waitpid(pid, os.WNOHANG)[0]]:
        assert time.monotonic() < end, "a writer that was killed after the cut does not die"
        time.sleep(0.001)


# Checking


def check(store: str, scratch: str, durability: str, *known: Any) -> Findings:
    """Open and compare; then show that the store can be written, and verify it once more."""
    with PersistDict(store, background_thread=False, **OPTIONS[durability]) as d:  # False: an integrity pass, now
        items = list(d.items())
        assert len(d) == len(items) == len(list(d)), "len, keys and items differ"
        findings = judge(items, *known)
        d["written by the checker"] = 1
        d.flush()  # raises what the integrity pass has found
        assert d.pop("written by the checker") == 1
        d.flush()
    ask_child(lambda: verify_copies(store, scratch), "the verifier after the check")
    return findings


class Cuts:
    """The parent of all; it never opens the store."""

    def __init__(self, folder: str, filesystem: str, durability: str, fault: str) -> None:
        self.folder, self.durability, self.fault = folder, durability, fault
        self.seed = seed()
        self.draw = random.Random(self.seed)
        self.options = MOUNT[filesystem]
        self.disk = Disk(folder, filesystem, SIZE)
        self.did: Counter[str] = Counter()
        self.oldest = 0.0
        self.boots = self.stores = 0
        self.begin_store()
        self.disk.mount(self.draw.choice(self.options))
        self.start_machine()

    def begin_store(self) -> None:
        """The next round makes a new store."""
        self.stores += 1
        self.store = os.path.join(self.disk.place, f"store{self.stores}", "dict")
        self.plans = [Plan(self.seed + self.stores, writer) for writer in range(WRITERS)]
        self.shared: list[int] = []

    def start_machine(self) -> None:
        """The machine gets another boot id, as it does with every start."""
        if not (self.boots and self.fault == "same boot"):
            self.boots += 1
        boot = str(uuid.UUID(int=self.seed + self.boots))
        recent.boot_id = lambda: boot  # the processes are forked, and have it too

    def round(self, number: int) -> None:
        young = not self.fault and number % 6 == 5
        if young:  # the cut comes while the store is made, or soon after
            shutil.rmtree(os.path.dirname(self.store))
            self.begin_store()
        journals = os.path.join(self.folder, "journal")
        for path in glob(journals + "*"):
            os.unlink(path)
        flusher = fork(write_back, self.disk.place, random.Random(self.draw.random()))
        writers = [
            fork(write_all, self.store, journals, [self.plans[writer] for writer in group], self.durability, self.fault)
            for group in PROCESSES
        ]
        if not young:  # however busy the machine is
            while not glob(journals + "*"):
                assert_alive(writers)
                time.sleep(0.001)
        time.sleep(0.25 * self.draw.random() ** 2 if young else self.draw.uniform(0.1, LONGEST[self.durability]))
        cut = time.monotonic_ns()
        assert_alive(writers)
        self.disk.cut()
        time.sleep(self.draw.choice([0, 0, 0.01]))
        kill([*writers, flusher])
        self.disk.unmount()
        self.disk.mount(self.draw.choice(self.options))
        self.start_machine()
        self.did["cuts"] += 1
        self.did["of new stores"] += young
        self.compare(journals, cut)

    def compare(self, path: str, cut: int) -> None:
        for name in glob(path + "*.error"):
            with open(name) as file:
                for line in file:
                    when, _, error = line.strip().partition(" ")
                    assert int(when) >= cut, f"before the cut a writer met {error}"
                    self.did["refused after the cut"] += 1
        journals = [
            Journal.read(f"{path}{writer}") if os.path.exists(f"{path}{writer}") else {} for writer in range(WRITERS)
        ]
        window = None if self.durability == "commit" else INTERVAL + SLACK
        if self.fault != "same boot":  # for it, what is read first matters
            ask_child(lambda: verify_copies(self.store, self.folder), "the verifier")
        known = self.plans, self.shared, journals, cut, window
        answer = ask_child(lambda: check(self.store, self.folder, self.durability, *known), "the checker")
        findings = Findings(*answer)
        for plan, reached in zip(self.plans, findings.numbers, strict=True):
            while plan.number < reached:
                plan.done(plan.next())
                self.did["survived"] += 1
        self.shared = findings.shared
        self.did["acknowledged"] += sum(map(len, journals))
        self.did["acknowledged and lost"] += findings.lost
        self.did["under way and there"] += findings.under_way
        self.did["entries compared"] += findings.entries
        self.oldest = max(self.oldest, findings.oldest)

    def counts(self) -> dict[str, Any]:
        return {**self.did, "oldest lost, seconds": round(self.oldest, 3), "seed": self.seed}


def assert_alive(writers: list[int]) -> None:
    assert not any(os.waitpid(pid, os.WNOHANG)[0] for pid in writers), "a writer died before the cut"


def main() -> None:
    folder, cuts, filesystem, durability, fault = [*sys.argv[1:], ""][:5]
    folder = os.path.realpath(folder)
    os.makedirs(folder, exist_ok=True)
    if fault == "nosync" and not shim.is_loaded():
        shim.start_anew(folder, os.path.join(folder, "mounted", "store"))
    if fault:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the writers will complain
    preload()
    keep_mounts_private()
    if fault == "nosync":
        shim.Control().arm("lie")  # nothing below the store is ever synced, as with sync=False
    before = time.perf_counter()
    rounds = Cuts(folder, filesystem, durability, fault)
    for number in range(int(cuts)):
        try:
            rounds.round(number)
        except AssertionError as error:
            if not fault:
                raise AssertionError(f"cut {number}, seed {rounds.seed}: {error}") from error
            os.unlink(rounds.disk.image)
            finish({**rounds.counts(), "noticed": str(error).splitlines()[-1][:300]})
    rounds.disk.remove()
    finish({**rounds.counts(), "seconds": round(time.perf_counter() - before, 1)})


if __name__ == "__main__":
    main()
