"""Single cases of threads, closing, and the end of a process, each with the interleaving that it is about.

thread_cases.py FOLDER CASE ROUNDS
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from drivers.running import WATCHDOG, answer_of, faults_of, finish, in_child, left_over, preload, seed, verified
from drivers.workload import Plan, check_everything, perform

from persistdict import ClosedError, PersistDict

Dictionary = PersistDict[Any, Any]


def together(*works: Callable[[], object]) -> None:
    """Run functions in threads, all to their end; fails with what any of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG * 4)
        if thread.is_alive():
            print("a thread hangs", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGABRT)  # shows where everybody is
    if errors:
        raise errors[0]


def mixed(folder: str, rounds: int) -> dict[str, Any]:
    """Eight threads with keys of their own, and shared ones, on one handle with the cache on."""
    sys.setswitchinterval(1e-5)
    d: Dictionary = PersistDict(folder, background_timeout=0.01)
    plans = [Plan(seed(), worker) for worker in range(8)]

    def work(plan: Plan) -> None:
        for _ in range(rounds):
            operation = plan.next()
            perform(d, plan, operation)
            plan.done(operation)

    together(*(lambda plan=plan: work(plan) for plan in plans))  # type: ignore[misc]
    for plan in plans:  # nothing is under way
        plan.next = lambda plan=plan: Plan.next(plan)._replace(removed=[], sets=[])  # type: ignore[method-assign,misc]
    check_everything(d, plans, {})
    assert not faults_of(d)
    d.close()
    assert not verified(folder)
    return {"operations": 8 * rounds, "entries": sum(len(plan.entries) for plan in plans)}


def close_during_writes(folder: str, rounds: int) -> dict[str, Any]:
    """A handle is closed while threads write through it: what they write is there whole, or they get ClosedError."""
    sys.setswitchinterval(1e-6)
    did: Counter[str] = Counter(writes=0, closed=0)
    keep: Dictionary = PersistDict(folder, background_thread="disabled")
    large = "x" * 40_000

    def write(d: Dictionary, name: int) -> None:
        n = 0
        try:
            while True:
                n += 1
                d[f"{name} {n % 50}"] = n if n % 3 else large
                did["writes"] += 1
                if n % 7 == 0:
                    d.pop(f"{name} {n * 3 % 50}", None)
        except ClosedError:
            did["closed"] += 1

    for _ in range(rounds):
        d: Dictionary = PersistDict(folder, background_thread="disabled")

        enough = did["writes"] + 30 + did["closed"] % 40

        def close(d: Dictionary = d, enough: int = enough) -> None:
            while did["writes"] < enough:
                d.get("nothing")
            d.close()

        together(*(lambda d=d, i=i: write(d, i) for i in range(3)), close)  # type: ignore[misc]
        faults = faults_of(keep)
        assert not faults, faults
        names = {bytes(name).decode(errors="replace") for name, _ in keep._store.begin_data().cursor()}
        assert names == {"k", "e", "v", "p", "x", "a", "t", "info"}, f"a write went into the main database: {names}"
    keep.close()
    assert not verified(folder)
    return dict(did)


def close_during_reads(folder: str, rounds: int) -> dict[str, Any]:
    """Handles are closed and opened again while threads read through them: they read right or get ClosedError."""
    sys.setswitchinterval(1e-6)
    did: Counter[str] = Counter()
    with PersistDict(folder) as d:
        d.update({i: [i] * (i % 7) * 2000 for i in range(100)})
    handles: list[Dictionary] = [PersistDict(folder, background_timeout=0.001)]
    stop = threading.Event()

    def read(kind: int) -> None:
        while not stop.is_set():
            d = handles[0]
            try:
                if kind == 0:
                    for i in range(100):
                        assert d[i] == [i] * (i % 7) * 2000
                elif kind == 1:
                    assert len(list(d.items())) == 100
                else:
                    assert len(d) == 100 and 5 in d and len(d.get_many(range(100))) == 100
                    assert d.entry(5).size > 0
                did["passes"] += 1
            except ClosedError:
                did["closed"] += 1

    def replace() -> None:
        try:
            for _ in range(rounds):
                old = handles[0]
                old.close()
                handles[0] = PersistDict(folder, background_timeout=0.001)
                did["replaced"] += 1
        finally:
            stop.set()

    together(lambda: read(0), lambda: read(1), lambda: read(2), replace)
    handles[0].close()
    return dict(did)


def open_and_close(folder: str, rounds: int) -> dict[str, Any]:
    """Threads open the same folder, use it and close it, all at once: the environment comes and goes."""
    sys.setswitchinterval(1e-5)
    did: Counter[str] = Counter()

    def work(name: int) -> None:
        draw = random.Random(f"{seed()} {name}")
        for n in range(rounds):
            with PersistDict(folder, background_thread=draw.choice([True, False, "disabled"])) as d:
                d[name] = n
                assert d[name] == n and len(d) >= 1
                if draw.random() < 0.3:
                    assert name in list(d)
            did["opened"] += 1

    together(*(lambda i=i: work(i) for i in range(4)))  # type: ignore[misc]
    with PersistDict(folder) as d:
        assert dict(d) == dict.fromkeys(range(4), rounds - 1)
        assert not faults_of(d)
    return dict(did)


def leaks(folder: str, rounds: int) -> dict[str, Any]:
    """Opening and closing, in every way, leaves no thread, file descriptor or reader slot."""

    def census() -> tuple[int, int]:
        gc.collect()
        for thread in threading.enumerate():  # upkeep for a handle that was only forgotten ends by itself
            if thread.name.startswith("persistdict"):
                thread.join(WATCHDOG)
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    keep: Dictionary = PersistDict(folder, background_thread="disabled")
    keep["a"] = 1
    keep.close()
    before = census()
    for n in range(rounds):
        d: Dictionary = PersistDict(folder, background_thread=(True, False, "disabled")[n % 3])
        d[n % 10] = n
        assert d[n % 10] == n
        half = iter(d.items())
        next(half)
        if n % 2:
            d.close()
        del d, half
        if n % 50 == 0:
            assert census() == before, f"after {n} rounds there are {census()} threads and files, before {before}"
    assert census() == before, f"there are {census()} threads and files, before {before}"
    with PersistDict(folder, background_thread="disabled") as d:
        slots = len(d._store.env.data.raw.readers().splitlines()) - 1
        assert slots <= 1, f"{slots} reader slots are taken"
    return {"rounds": rounds, "threads": before[0], "files": before[1]}


def collected_at_any_moment(folder: str, rounds: int) -> dict[str, Any]:
    """The garbage collector may find a forgotten handle at any step of another one's work, even under its locks."""

    class Owner:
        def __init__(self, d: Dictionary) -> None:
            self.d, self.itself = d, self

    stock: list[Owner] = []
    busy = False
    steps = collected = 0

    def tell(frame: Any, event: str, _: Any) -> None:
        nonlocal busy, steps, collected
        if busy or not stock or not any(name in frame.f_code.co_filename for name in ("persistdict", "threading")):
            return
        steps += 1
        if steps % 5 == 0:
            busy = True
            stock.pop()
            gc.collect()
            collected += 1
            busy = False

    def work() -> None:
        nonlocal stock, steps
        for n in range(rounds):
            steps += 1
            stock = [
                Owner(PersistDict(folder, background_thread=(True, "disabled")[i % 2], caching=False))
                for i in range(400)
            ]
            sys.setprofile(tell)
            try:
                with PersistDict(
                    folder if n % 2 else folder + "2", background_thread=(True, "disabled")[n // 2 % 2]
                ) as d:
                    d["a"] = 1
                    assert d["a"] == 1
                    d.update(b=2)
                    d.flush()
            finally:
                sys.setprofile(None)
                stock.clear()

    together(work)
    gc.collect()
    return {"collected": collected}


def cleared_meanwhile(folder: str, rounds: int) -> dict[str, Any]:
    """A read goes on just when another thread has cleared the cache: it must not serve a copy known to be old."""
    import cachetools

    d: Dictionary = PersistDict(folder, background_thread="disabled", caching=cachetools.LRUCache(64))
    other: Dictionary = PersistDict(folder, background_thread="disabled", caching=False)
    d.update(a="old", b=1)
    assert d["a"] == "old"
    other["a"] = "new"
    assert d["b"] == 1  # notices the foreign write; the copy of "a" is known to be old from here on
    store: Any = d._store
    begin, latest = store.begin, store.latest

    class Interrupted:
        def __getitem__(self, place: int) -> Any:
            now = latest[place]
            if now is not None:
                interrupt()
            return now

        def id(self) -> int:
            now = int(begin().id())
            interrupt()
            return now

    def interrupt() -> None:
        store.begin, store.latest = begin, latest
        clearing = threading.Thread(target=d._front.clear)
        clearing.start()
        clearing.join()

    store.begin, store.latest = Interrupted, Interrupted()
    found = d["a"]
    assert store.latest is latest, "the read was not interrupted"
    d.close()
    other.close()
    assert found == "new", "a read returned what another handle had replaced before"
    return {}


def crossing_gates(folder: str, rounds: int) -> dict[str, Any]:
    """Two processes, each writing to one folder and opening the other's: the kernel takes that for a deadlock."""

    def work(mine: str, others: str) -> int:
        d: Dictionary = PersistDict(mine, background_thread="disabled")
        stop = threading.Event()
        opened = 0

        def write() -> None:
            n = 0
            while not stop.is_set():
                n += 1
                d["n"] = n

        def open_others() -> None:
            nonlocal opened
            try:
                for _ in range(rounds):
                    with PersistDict(others, background_thread="disabled") as e:
                        e["opened"] = 1
                    opened += 1
            finally:
                stop.set()

        together(write, open_others)
        d.close()
        return opened

    preload()
    one, two = folder + "1", folder + "2"
    first = in_child(lambda: work(one, two))
    second = in_child(lambda: work(two, one))
    return {"opened": answer_of(*first) + answer_of(*second)}


def stopped_reader(folder: str, rounds: int) -> dict[str, Any]:
    """Readers are stopped and killed within a snapshot: writers go on, and upkeep gives the space back."""
    d: Dictionary = PersistDict(folder, background_thread="disabled", caching=False)
    d.update(dict.fromkeys(range(50), "x" * 3000))
    reading, writing = os.pipe()

    def read() -> None:
        inherited: Dictionary = PersistDict(folder, background_thread="disabled")
        txn = inherited._store.begin_data()
        os.write(writing, b".")
        signal.pause()
        del txn

    pid, pipe = in_child(read)
    assert os.read(reading, 1) == b"."

    def grow() -> int:
        path = os.path.join(folder, "data.mdb")
        before = os.stat(path).st_size
        for n in range(rounds):
            d.update(dict.fromkeys(range(50), str(n) + "y" * 3000))
            d.flush()
        return os.stat(path).st_size - before

    os.kill(pid, signal.SIGSTOP)
    stopped = grow()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(pipe)
    d.flush()
    d.expire()
    d.maintain()
    after = grow() and grow()
    slots = d._store.env.data.raw.readers()
    d.close()
    assert after < stopped / 10, f"after the reader's death the file grew by {after}, before by {stopped}: {slots}"
    return {"grown while a reader was stopped": stopped, "after its death": after}


def dead_maker(folder: str, rounds: int) -> dict[str, Any]:
    """Whoever makes a database dies right after it is in place: the next opening removes what is left of the making."""
    import shutil

    def make() -> None:
        shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        PersistDict(folder)

    pid, pipe = in_child(make)
    os.waitpid(pid, 0)
    os.close(pipe)
    with PersistDict(folder) as d:
        d["a"] = 1
        assert d["a"] == 1
    left = left_over(folder)
    assert not left, f"left behind for ever: {left}"
    return {}


def exits(folder: str, rounds: int) -> dict[str, Any]:
    """The process ends with open handles, daemon threads in the middle of everything, and half an iterator."""
    import atexit

    go_on = threading.Semaphore(0)

    def late() -> None:  # runs after what was registered later; the threads get some way meanwhile
        for _ in range(20):
            go_on.acquire()
        assert d["a"] == 1, "a function that runs at exit cannot read any more"

    atexit.register(late)
    d: Dictionary = PersistDict(folder, background_timeout=0.001)
    e: Dictionary = PersistDict(folder, caching=False)
    d.update({i: [i] for i in range(700)})
    d["a"] = 1
    half = iter(d.items())
    next(half)

    def repeat(work: Callable[[], object]) -> None:
        while True:
            work()
            go_on.release()

    for work in (
        lambda: [d[i] for i in range(50)],
        lambda: [e[i] for i in range(50)],
        lambda: d.__setitem__("n", 1),
        lambda: e.update({"x": 1, "y": 2}),
        lambda: list(d.items()),
        lambda: (d.pop("n", None), d.flush()),
    ):
        threading.Thread(target=repeat, args=(work,), daemon=True).start()
    for _ in range(random.Random(rounds).randrange(100)):
        d["a"] = 1
    return {}


CASES = [
    mixed, close_during_writes, close_during_reads, open_and_close, leaks, collected_at_any_moment,
    cleared_meanwhile, crossing_gates, stopped_reader, dead_maker, exits,
]  # fmt: skip


def main() -> None:
    folder, name, rounds = sys.argv[1:]
    preload()
    case = {case.__name__: case for case in CASES}[name]
    finish({**case(folder, int(rounds)), "seed": seed()})


if __name__ == "__main__":
    main()
