"""How long an event loop stands still while its tasks use a dictionary, and every sync of the disk takes 50 ms.

Operations of twenty tasks: values that are there, values that are missed and computed, by many at once,
and, where a write is not to wait for the disk, plain reads and writes. Another task looks at the clock all the time.
The syncs are slowed down by the shim of iofaults.c, which also counts those that the loop's own thread did.

    looplag.py FOLDER DURABILITY OPERATIONS [FAULT]      FAULT: "sync", the loop flushes now and then
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from typing import Any

from drivers import shim
from drivers.running import seed

from persistdict import PersistDict

SYNC = 50  # milliseconds
TASKS = 20
BEAT = 0.001  # seconds


async def beat(lags: list[float]) -> None:
    """Note by how much each beat comes too late."""
    loop = asyncio.get_running_loop()
    while True:
        before = loop.time()
        await asyncio.sleep(BEAT)
        lags.append(loop.time() - before - BEAT)


async def compute(number: int) -> dict[str, int]:
    await asyncio.sleep(0.001)
    return {"number": number}


def compute_in_a_thread(number: int) -> dict[str, int]:
    return {"number": number}


async def use(d: PersistDict[Any, Any], rng: random.Random, counts: dict[str, int], fault: str) -> None:
    """One operation."""
    plain = ["read", "write"] if counts["plain"] else []
    what = rng.choice(["hit", "hit", "hit", "miss", "together", *plain])
    counts[what] = counts.get(what, 0) + 1
    number = counts["number"] = counts["number"] + 1
    if what == "hit":
        key = number % 50
        assert await d.aget_or_create(("hit", key), lambda: compute(key)) == {"number": key}
    elif what == "miss":
        factory = rng.choice([compute, compute_in_a_thread])
        assert await d.aget_or_create(("miss", number), lambda: factory(number)) == {"number": number}
    elif what == "together":
        key = number // 100
        assert await d.aget_or_create(("together", key), lambda: compute(key)) == {"number": key}
    elif what == "read":
        key = number % 60
        assert d.get(("hit", key)) in (None, {"number": key})
    else:
        d["written", number % 100] = number
    if fault == "sync" and not number % 1000:
        d.flush()


async def run(folder: str, durability: str, operations: int, fault: str) -> dict[str, Any]:
    control, lags = shim.Control(), list[float]()
    counts = {"plain": durability == "interval", "number": 0}
    rng = random.Random(seed())
    with PersistDict(folder, durability=durability, sync_interval=0.05) as d:
        d["warm"] = await d.aget_or_create("warm", lambda: compute(0))
        control.arm("slow", SYNC)
        beating = asyncio.create_task(beat(lags))

        async def work() -> None:
            while counts["number"] < operations:
                await use(d, rng, counts, fault)
                await asyncio.sleep(0)

        await asyncio.gather(*(work() for _ in range(TASKS)))
        beating.cancel()
        in_the_loop, syncs = control.fired, control.count
        control.disarm()
    del counts["plain"]
    return {
        "operations": counts, "syncs": syncs, "syncs of the loop": in_the_loop, "beats": len(lags),
        "longest": round(1000 * max(lags), 1),
    }  # fmt: skip


def main() -> None:
    folder, durability, operations, *fault = sys.argv[1:]
    if not shim.is_loaded():
        shim.start_anew(folder, folder)
    with contextlib.suppress(OSError):  # else what other processes of the machine do is measured, too
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    print(json.dumps(asyncio.run(run(f"{folder}/d", durability, int(operations), "".join(fault)))))


if __name__ == "__main__":
    main()
