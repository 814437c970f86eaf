"""Handles as arguments of processes that multiprocessing and concurrent.futures start.

pools.py FOLDER METHOD      spawn, fork or forkserver
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from drivers.running import WATCHDOG, finish

from persistdict import PersistDict

Dictionary = PersistDict[Any, Any]
TASKS = 20


def work(d: Dictionary, number: int) -> tuple[int, int, list[int]]:
    """What a worker does with a handle that it was given."""
    assert d["parent"] == "was here", "the worker reads something else than its parent"
    d[f"worker {number}"] = [number]
    assert d[f"worker {number}"] == [number] and f"worker {number}" in d
    d.setdefault("first", number)
    assert d.path == sys.argv[1] if len(sys.argv) > 1 else True
    return os.getpid(), number, d[f"worker {number}"]


def run(d: Dictionary, number: int, queue: Any) -> None:
    queue.put(work(d, number))


def close_it(d: Dictionary) -> bool:
    """A worker may close its handle; its parent's stays open."""
    d["closed by a worker"] = True
    d.close()
    return d.closed


def main() -> None:
    folder, method = sys.argv[1:]
    context: Any = multiprocessing.get_context(method)
    with PersistDict(folder) as d:
        d["parent"] = "was here"
        assert d["parent"] == "was here"
        queue = context.SimpleQueue()
        processes = [context.Process(target=run, args=(d, number, queue)) for number in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(WATCHDOG)
            assert process.exitcode == 0, f"a process ended with {process.exitcode}"
        pids = {queue.get()[0] for _ in processes}
        assert len(pids) == 3 and os.getpid() not in pids
        assert [d[f"worker {number}"] for number in range(3)] == [[0], [1], [2]]
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            results = list(pool.map(work, [d] * TASKS, range(TASKS)))
            assert pool.submit(close_it, d).result()
            assert pool.submit(work, d, 7).result()[1] == 7
        assert [number for _, number, _ in results] == list(range(TASKS))
        with context.Pool(2) as pool:
            assert pool.starmap(work, [(d, number) for number in range(TASKS)])[-1][2] == [TASKS - 1]
            pool.close()
            pool.join()
        assert d["closed by a worker"] is True and not d.closed
        assert len(d) == TASKS + 3 and d["first"] in range(3)
    finish({"processes": len(pids | {pid for pid, *_ in results}), "tasks": 2 * TASKS + 5})


if __name__ == "__main__":
    main()
