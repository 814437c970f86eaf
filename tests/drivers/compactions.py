"""A process that writes and compacts is killed at random moments; whoever opens the store next compares and goes on.

compactions.py FOLDER KILLS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import uuid

from drivers.disks import Disk, keep_mounts_private
from drivers.running import die_with_parent, faults_of, finish, left_over, preload, seed, verified

from persistdict import PersistDict
from persistdict.stores.lmdb import recent

KEYS = 40


def work(folder: str, told: int, state: int, durability: str) -> None:
    """Write and compact for ever. Tells the number of every write once it has returned, and when it compacts."""
    die_with_parent()
    draw = random.Random(state)
    with PersistDict(folder, sync_interval=0.02, durability=durability) as d:
        number = max((value[0] for value in d.values()), default=0)
        while True:
            for _ in range(draw.randrange(30)):
                number += 1
                d[draw.randrange(KEYS)] = (number, bytes(draw.choice((10, 3000, 40_000))))
                os.write(told, number.to_bytes(8, "little"))
            os.write(told, bytes(8))
            d.compact()
            os.write(told, b"\xff" * 8)


def main(folder: str, kills: int, how: str) -> None:
    preload()
    disk = None
    if how == "cut":
        keep_mounts_private()
        disk = Disk(folder, "ext4", 64 << 20)
        disk.mount()
        folder = os.path.join(disk.place, "d")
    state = seed()
    draw = random.Random(state)
    inside = last = 0
    numbers: list[int] = []
    for count in range(kills):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                work(folder, writing, draw.getrandbits(30), "commit" if disk else "interval")
            finally:
                os._exit(1)
        os.close(writing)
        data = os.read(reading, 8)
        time.sleep(draw.uniform(0, 0.1))
        if disk:
            disk.cut()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if disk:
            disk.unmount()
            disk.mount()
            boot = str(uuid.UUID(int=state + count + 1))
            recent.boot_id = lambda boot=boot: boot  # type: ignore[misc]
        while part := os.read(reading, 1 << 20):
            data += part
        os.close(reading)
        told = [data[at : at + 8] for at in range(0, len(data), 8)]
        inside += told[-1] == bytes(8)
        acknowledged = [int.from_bytes(one, "little") for one in told if one not in (bytes(8), b"\xff" * 8)]
        last = max([last, *acknowledged])
        with PersistDict(folder, background_thread="disabled") as d:
            found = max((value[0] for value in d.values()), default=0)
            assert found in (last, last + 1), f"{last} was acknowledged, {found} is the last there"
            assert [d.entry(key).version for key in sorted(d, key=lambda key: d[key][0])] == sorted(
                d.entry(key).version for key in d
            ), "versions are not in the order of writing"
            assert not faults_of(d), faults_of(d)
            last = found
            numbers.append(found)
        assert not verified(folder)
    finish(
        {
            "seed": state,
            "kills": kills,
            "killed while compacting": inside,
            "writes": last,
            "left behind": left_over(folder),
        }
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:]))
