"""Single cases of fork, each with the interleaving that it is about.

fork_cases.py FOLDER CASE
"""

from __future__ import annotations

import builtins
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lmdb
from drivers.running import WATCHDOG, answer_of, ask_child, finish, in_child, preload, rounds

from persistdict import ClosedError, PersistDict, maintenance

Dictionary = PersistDict[Any, Any]


def filled(folder: str, **options: Any) -> Dictionary:
    d: Dictionary = PersistDict(folder, **options)
    d.update({i: [i] for i in range(600)})
    return d


def use(d: Dictionary, folder: str) -> str:
    """Everything that a child may do with an inherited handle."""
    assert d[1] == [1] and d[1] == [1] and 2 in d and d.get(-1) is None
    assert len(d) == 600 and list(d) == list(range(600))
    d["child"] = 1
    assert d["child"] == 1 and d.entry("child").size > 0
    d.update({"child": 2, "other": 3})
    with PersistDict(folder) as new:
        assert new["child"] == 2 and len(new) == 602
        del new["other"]
    assert "other" not in d
    assert d.pop("child") == 2
    d.flush()
    d.close()
    assert d.closed
    return "right"


@contextmanager
def thread_inside(enter: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """A thread that is in the middle of `enter` while the body runs; `enter` calls its argument there."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        leave.wait()

    thread = threading.Thread(target=enter, args=(stay,), daemon=True)
    thread.start()
    assert inside.wait(WATCHDOG), "the thread did not get there"
    try:
        yield
    finally:
        leave.set()
        thread.join(WATCHDOG)


def unaffected(d: Dictionary) -> None:
    """The parent after its children."""
    assert len(d) == 600 and list(d) == list(range(600))
    assert all(d[i] == [i] for i in range(0, 600, 50))
    d["parent"] = 1
    assert d.pop("parent") == 1


def plain(folder: str) -> None:
    """A child uses everything and closes it; so does its own child; the parent does not notice."""
    d = filled(folder)
    iterator = iter(d.items())
    assert next(iterator) == (0, [0])
    assert ask_child(lambda: use(d, folder)) == "right"
    assert ask_child(lambda: ask_child(lambda: use(d, folder))) == "right"

    def both() -> str:
        assert d[5] == [5]
        assert ask_child(lambda: use(d, folder)) == "right"
        return use(d, folder)

    assert ask_child(both) == "right"
    assert ask_child(lambda: [key for key, _ in iterator]) == list(range(1, 600)), "an inherited iterator went wrong"
    assert [key for key, _ in iterator] == list(range(1, 600))
    unaffected(d)
    d.close()


def readers(folder: str) -> None:
    """The entries of the parent in LMDB's reader table survive any fork: its snapshots stay protected."""
    d = filled(folder, background_thread="disabled")
    assert d[1] == [1]  # leaves a slot behind that the next read will use
    before = d._store.env.data.raw.readers()
    ask_child(lambda: None)
    after = d._store.env.data.raw.readers()
    assert before == after, f"a fork changed the reader table from {before!r} to {after!r}"
    assert len(d) == 600
    ask_child(lambda: use(d, folder))
    assert len(d) == 600
    unaffected(d)
    d.close()


def ordinary_exit(folder: str) -> None:
    """A child that ends as programs end, with all that Python does then."""
    d = filled(folder)
    pid = os.fork()
    if not pid:
        assert d[1] == [1]
        d["child"] = 1
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert d.pop("child") == 1
    unaffected(d)
    d.close()


def in_a_read(folder: str) -> None:
    """A thread is inside a read transaction: the inherited environment cannot go away in the child."""
    d = filled(folder, background_thread="disabled")

    def read(stay: Callable[[], None]) -> None:
        txn = d._store.begin_data(d._store.k)
        stay()
        assert txn.stat()["entries"] == 600

    with thread_inside(read):
        assert ask_child(lambda: use(d, folder)) == "right"
        unaffected(d)
    unaffected(d)
    d.close()


def in_a_write(folder: str) -> None:
    """A thread is inside a write transaction: the child gets its turn when that has ended."""
    d = filled(folder, background_thread="disabled")

    def write(stay: Callable[[], None]) -> None:
        def work(txn: Any) -> None:
            txn.put(b"\x30half", b"", 0, b"")
            stay()

        d._store.update(work)

    reading, writing = os.pipe()

    def child() -> str:
        os.write(writing, b".")
        assert d[1] == [1]  # opens the files, which waits for writers
        del d["half"]
        return use(d, folder)

    with thread_inside(write):
        waiting = in_child(child)
        assert os.read(reading, 1) == b"."
    assert answer_of(*waiting) == "right"
    unaffected(d)
    d.close()


def locks(folder: str) -> None:
    """A thread holds, one after the other, each lock that there is (those that a fork does not wait for)."""
    from persistdict.stores.lmdb import registry

    d = filled(folder)
    keeper = maintenance.keeper_of(d._store)
    for lock in (
        d._write_lock, d._store.env.data.lock, registry.lock, keeper._lock, maintenance._keepers_lock,
    ):  # fmt: skip

        def hold(stay: Callable[[], None], lock: Any = lock) -> None:
            with lock:
                stay()

        with thread_inside(hold):
            assert ask_child(lambda: use(d, folder), f"a child forked under {lock!r}") == "right"
    unaffected(d)
    d.close()


def opening(folder: str) -> None:
    """A thread is opening the folder for the first time in this process, and another one is closing it."""
    from persistdict.stores.lmdb import environment

    d = filled(folder)
    d.close()
    made, unshare = environment.Environment, environment.unshare

    def open_slowly(stay: Callable[[], None]) -> None:
        def make(*args: Any) -> Any:
            new = made(*args)
            stay()
            return new

        environment.Environment = make  # type: ignore[assignment,misc]
        PersistDict(folder, background_thread="disabled").close()

    def close_slowly(stay: Callable[[], None]) -> None:
        def forget(raw: Any) -> None:
            unshare(raw)
            stay()

        d = PersistDict(folder, background_thread="disabled")
        environment.unshare = forget
        d.close()

    def child() -> str:
        environment.Environment, environment.unshare = made, unshare  # type: ignore[misc]
        return use(PersistDict(folder), folder)

    for slowly in (open_slowly, close_slowly):
        with thread_inside(slowly):
            assert ask_child(child, f"a child forked in {slowly.__name__}") == "right"
        environment.Environment, environment.unshare = made, unshare  # type: ignore[misc]


def threads_of_the_child(folder: str) -> None:
    """The first to use an inherited handle are several threads at once."""
    d = filled(folder, background_thread="disabled")

    def child() -> list[str]:
        sys.setswitchinterval(1e-6)
        barrier, wrong = threading.Barrier(6), []

        def read(number: int) -> None:
            barrier.wait()
            try:
                if number % 2:
                    assert d[number] == [number] and number in d
                else:
                    d[f"thread {number}"] = number
            except BaseException as error:
                wrong.append(repr(error))

        threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if d.delete_many(f"thread {number}" for number in range(0, 6, 2)) != 3:
            wrong.append("a write was lost")
        return wrong

    for _ in range(40):
        assert ask_child(child) == []
    unaffected(d)
    d.close()


def twins(folder: str) -> None:
    """Two threads fork at the same time, again and again, while others use handles."""
    preload()
    handles = [PersistDict("memory://") for _ in range(3)]
    errors: list[str] = []
    sys.unraisablehook = lambda event: errors.append(repr(event.exc_value))
    sys.setswitchinterval(1e-6)
    stop = threading.Event()

    def fork() -> None:
        for _ in range(400):
            if errors:
                return
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)

    def work() -> None:
        while not stop.is_set():
            for d in handles:
                d["a"] = 1
                assert d["a"] == 1

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(2)]
    user = threading.Thread(target=work, daemon=True)
    for thread in (*threads, user):
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG)
    stuck = [thread.name for thread in threads if thread.is_alive()]
    stop.set()
    user.join(WATCHDOG)
    if errors or stuck or user.is_alive():
        print(f"errors in the hooks of fork: {errors[:3]}, hanging: {stuck}, {user.is_alive()}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def memory(folder: str) -> None:
    """A dictionary in memory, most often while a thread is inside a write of it."""
    d: Dictionary = PersistDict("memory://")
    d.update(dict.fromkeys(range(2000), 0))
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            d.update(dict.fromkeys(range(2000), n))

    def child() -> str:
        d["a"] = 1
        assert d["a"] == 1 and len(d) == 2001
        assert len(set(d.get_many(range(2000)).values())) == 1, "a batch is torn"
        assert list(d) == [*range(2000), "a"]
        return "right"

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for _ in range(40):
            assert ask_child(child, "a child forked during a write in memory") == "right"
    finally:
        stop.set()
        thread.join(WATCHDOG)
    assert len(d) == 2000
    d.close()


def importing(folder: str) -> None:
    """A thread is importing what the first opening needs; a child that does not care must not hang in the hooks."""
    import persistdict.stores.lmdb  # noqa: F401 - registers the hooks

    real = builtins.__import__

    def first_open(stay: Callable[[], None]) -> None:
        def slow(name: str, names: Any = None, *args: Any, **keywords: Any) -> Any:
            if names and names.get("__name__") == "lmdb_dict":
                builtins.__import__ = real
                stay()
            return real(name, names, *args, **keywords)

        builtins.__import__ = slow
        PersistDict(folder, caching=False).close()

    with thread_inside(first_open):
        assert ask_child(lambda: "right", "a child forked during an import") == "right"


def pickled(folder: str) -> None:
    """The first use of a handle that came out of a pickle may be anything, after a fork too."""
    d = filled(folder)
    for use_first in (
        len, list, repr, bool, lambda d: d[1], lambda d: d.get(-1), lambda d: 1 in d, lambda d: d.entry(1),
        lambda d: d.get_many([1]), lambda d: d.setdefault(1), lambda d: d.update({1: [1]}), lambda d: d.set(1, [1]),
        lambda d: d.flush(), lambda d: d.expire(), lambda d: d.closed, lambda d: d.close(),
    ):  # fmt: skip

        def child(use_first: Any = use_first) -> bool:
            other = pickle.loads(pickle.dumps(d))
            use_first(other)
            other.close()
            return True

        assert ask_child(child, f"a child that used a pickled handle, {use_first}")
    unaffected(d)
    d.close()


def reopening(folder: str) -> None:
    """A child that opened the folder itself closes and reopens it while its threads read: never twice at once.

    LMDB's file locks belong to the process: if the files are opened while an older environment is still being closed,
    its closing takes the locks of the new one away, and other processes take the readers of this one for dead.
    """
    with filled(folder):
        pass

    def holds_lock() -> bool:
        inode = f":{os.stat(os.path.join(folder, 'lock.mdb')).st_ino}"
        for _ in range(20):  # one reading may miss a line while other processes lock; a lock that was lost stays lost
            with open("/proc/locks") as locks:
                held = [line.split() for line in locks]
            if any(words[-4] == str(os.getpid()) and words[-3].endswith(inode) for words in held):
                return True
        return False

    def child() -> dict[str, int]:
        sys.setswitchinterval(1e-6)
        handles: list[Dictionary] = [PersistDict(folder, background_thread="disabled")]
        stop = threading.Event()
        errors = []

        def read() -> None:
            while not stop.is_set():
                try:
                    assert len(handles[0].get_many(range(100))) == 100
                except ClosedError:
                    pass
                except BaseException as error:
                    errors.append(repr(error))
                    return

        threads = [threading.Thread(target=read, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        unlocked = 0
        try:
            for _ in range(rounds(400)):
                handles[0].close()
                handles[0] = PersistDict(folder, background_thread="disabled")
                assert handles[0][1] == [1]
                unlocked += not holds_lock()
        finally:
            stop.set()
            for thread in threads:
                thread.join(WATCHDOG)
        handles[0].close()
        assert not errors, errors
        return {"unlocked": unlocked}

    found = ask_child(child)
    assert found == {"unlocked": 0} or not os.path.exists("/proc/locks"), f"LMDB's locks were lost: {found}"


def marks(folder: str) -> None:
    """A child opens what its parent has open, but nothing twice: closing one would drop the locks of the other."""
    from persistdict.stores.lmdb import opening

    closed = filled(folder)
    closed.close()
    both = filled(folder + ".both")

    def child() -> list[str]:
        refused = []
        for path in (folder, folder + ".both"):
            with PersistDict(path, background_thread="disabled") as d:
                opening.unshare(d._store.env.data.raw)
                try:
                    opening.open_raw(path)
                except lmdb.Error as error:
                    refused.append(str(error))
        return refused

    refused = ask_child(child)
    assert len(refused) == 2 and all("already open" in text for text in refused), refused
    unaffected(both)
    both.close()


def counting(folder: str) -> None:
    """A child goes on with its parent's numbers, and from then on each counts its own; whoever was counting."""
    d = filled(folder, background_thread="disabled")
    assert d[1] == d[1] == [1] and d.get("nothing") is None
    before = d.stats()
    assert (before.hits, before.cached, before.misses, before.sets) == (2, 1, 1, 600)

    def child() -> list[int]:
        first = d.stats()
        assert d[1] == [1]
        d.set_many({"a": 1, "b": 2})
        last = d.stats(reset=True)
        assert d.stats().hits == d.stats().sets == 0
        return [first.hits, first.misses, first.sets, last.hits, last.misses, last.sets]

    assert ask_child(child) == [2, 1, 600, 3, 1, 602]
    assert d.stats(reset=True)[:5] == before[:5]  # else a child may come before the first thread has reset
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            d.get_many([1])
            d.stats(reset=True)

    threads = [threading.Thread(target=count) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds(20)):
            assert 0 <= ask_child(lambda: d.stats(reset=True).hits) <= 2
    finally:
        over.set()
        for thread in threads:
            thread.join()
    d.close()


CASES = [
    plain, readers, ordinary_exit, in_a_read, in_a_write, locks, opening, threads_of_the_child, twins, memory,
    importing, pickled, reopening, marks, counting,
]  # fmt: skip


def main() -> None:
    folder, name = sys.argv[1:]
    if name != "importing":
        preload()
    {case.__name__: case for case in CASES}[name](folder)
    finish({})


if __name__ == "__main__":
    main()
