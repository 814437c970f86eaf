"""Processes write transactions all the time; backups are made meanwhile, and each holds the state of one moment.

Each writer keeps, for a key of its own, a number that grows, and in one transaction with it the same number under a
second key; and now and then it moves a large value. A backup that is torn shows two numbers, and one that is not
current shows a number that is older than what the writer had told before the backup was begun.

    backups.py FOLDER BACKUPS
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time

from drivers.running import WATCHDOG, die_with_parent, faults_of, finish, preload, verified

from persistdict import PersistDict

WRITERS = 3


def write(folder: str, name: int, told: int) -> None:
    """Write for ever; tell each number that is written. Its first byte is the writer's."""
    die_with_parent()
    with PersistDict(folder, sync_interval=0.05) as d:
        number = d.get((name, "a"), 0)
        while True:
            number += 1
            d.update({(name, "a"): number, (name, "b"): number})
            if number % 50 == 0:
                d[name, "large"] = b"%d " % number + bytes(40_000)
            if number % 70 == 0:
                del d[name, "large"]
            os.write(told, b"%d %d\n" % (name, number))


def latest(pipe: int, numbers: dict[int, int], rest: list[bytes]) -> None:
    """Read what the writers have told."""
    while select.select([pipe], [], [], 0)[0]:
        *lines, rest[0] = (rest[0] + os.read(pipe, 1 << 16)).split(b"\n")
        for line in lines:
            name, number = map(int, line.split())
            numbers[name] = number


def main(folder: str, backups: int) -> None:
    preload()
    store, copy = os.path.join(folder, "store"), os.path.join(folder, "copy")
    PersistDict(store, background_thread="disabled").close()
    reading, writing = os.pipe()
    children = []
    for name in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            try:
                write(store, name, writing)
            finally:
                os._exit(1)
        children.append(pid)
    numbers: dict[int, int] = {}
    rest = [b""]
    end = time.monotonic() + WATCHDOG
    while len(numbers) < WRITERS:
        latest(reading, numbers, rest)
        assert time.monotonic() < end, "a writer does not write"
    seen = {}
    with PersistDict(store) as d:
        for count in range(backups):
            d["filler", count] = bytes(10_000)
            latest(reading, numbers, rest)
            before = dict(numbers)
            d.backup(copy)
            with PersistDict(copy, background_thread="disabled") as b:
                assert not faults_of(b), faults_of(b)
                for name in range(WRITERS):
                    first, second = b[name, "a"], b[name, "b"]
                    assert first == second, f"the backup is torn: {first} and {second}"
                    assert first >= before[name], f"the backup lacks {before[name]}; it has {first}"
                    seen[name, first] = True
                assert [key for key in b if key[0] == "filler"] == [("filler", n) for n in range(count + 1)]
                b["goes on"] = 1
                assert b.entry("goes on").version > max(b.entry(key).version for key in b if key != "goes on")
            assert not verified(copy)
            shutil.rmtree(copy)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finish({"backups": backups, "different numbers": len(seen), "left behind": os.listdir(folder)})


if __name__ == "__main__":
    os.makedirs(sys.argv[1], exist_ok=True)
    main(sys.argv[1], int(sys.argv[2]))
