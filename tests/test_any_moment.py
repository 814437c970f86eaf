"""Closing, signals, forks, garbage collection and full tables at the worst moments."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import cachetools
import pytest
from drivers.running import ask_child

from persistdict import ClosedError, DiskFullError, PersistDict, SafeCodec
from persistdict.maintenance import keeper_of
from persistdict.stores.lmdb import reading
from persistdict.stores.lmdb import store as lmdb_store
from persistdict.tasks import check_all
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


def test_closing_while_writing_loses_nothing_acknowledged(tmp_path):
    """Threads write through a handle that is closed under them, while another keeps the environment open."""
    keeps_open = PersistDict(tmp_path / "d", **QUIET)
    acknowledged = []

    def write(d, number):
        count = 0
        try:
            while True:
                d[f"{number} {count}"] = count
                acknowledged.append(f"{number} {count}")
                count += 1
        except ClosedError:
            return

    for round_ in range(100):
        d = PersistDict(tmp_path / "d", **QUIET)
        threads = [threading.Thread(target=write, args=(d, f"{round_} {number}")) for number in range(2)]
        for thread in threads:
            thread.start()
        while not acknowledged or not acknowledged[-1].startswith(f"{round_} "):
            assert any(thread.is_alive() for thread in threads)
        d.close()
        for thread in threads:
            thread.join()
    assert len(acknowledged) >= 100
    assert set(acknowledged) <= set(keeps_open)
    with keeps_open._store.env.data.raw.begin() as txn:
        assert {bytes(name) for name in txn.cursor().iternext(values=False)} == set(b"a e info k p t v x".split())
    assert check_all(keeps_open._store) == []
    keeps_open.close()


def test_a_storm_of_signals_leaves_no_lock_held_and_no_wrong_copy(tmp_path):
    """Exceptions out of a signal handler, at any instruction of any write; in a process without beartype."""
    driver = str(Path(__file__).parent / "drivers" / "storm.py")
    done = subprocess.run([sys.executable, driver, str(tmp_path / "d")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["well"]), done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_threads_that_fork_at_the_same_time_do_not_mix_up_locks(tmp_path):
    handles = [PersistDict(tmp_path / str(number), **QUIET) for number in range(3)]
    handles.append(PersistDict("memory://forked", **QUIET))
    handles.append(PersistDict(tmp_path / "c", caching=cachetools.LRUCache(10), **QUIET))
    for d in handles:
        d["k"] = "v"
    failed = []

    def fork():
        try:
            for _ in range(30):
                assert ask_child(lambda: [d["k"] for d in handles]) == ["v"] * len(handles)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=fork) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for d in handles:
        d["k"] = "w"
        assert d["k"] == "w"
        d.close()


FIRST_CALLS = {
    "flush": lambda d: d.flush(),
    "expire": lambda d: d.expire(),
    "len": len,
    "bool": bool,
    "repr": repr,
    "get": lambda d: d.get("k"),
    "in": lambda d: "k" in d,
    "set": lambda d: d.__setitem__("k", 1),
    "items": lambda d: list(d.items()),
    "copy": lambda d: d.copy(),
    "entry": lambda d: d.entry("k"),
    "call": lambda d: d(),
    "close": lambda d: d.close(),
}


@pytest.mark.parametrize("call", FIRST_CALLS.values(), ids=FIRST_CALLS.keys())
def test_any_call_may_be_the_first_of_a_handle_out_of_a_pickle(tmp_path, call):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d["k"] = 1
        raw = pickle.dumps(d)
    with pickle.loads(raw) as d:
        call(d)


def test_what_a_pickle_carries_and_what_not(tmp_path):
    class Sub(PersistDict):
        pass

    codec = SafeCodec()
    codec.register(Clock, _clock_parts, Clock)
    with PersistDict(tmp_path / "d", codec=codec, caching=cachetools.LRUCache(10), **QUIET) as d:
        d["secret"] = "SECRET"
        d["clock"] = Clock(5.0)
        raw = pickle.dumps(d)
        assert b"SECRET" not in raw
        with pickle.loads(raw) as other:
            assert other["clock"].now == 5.0
        sub = Sub(tmp_path / "d", codec=codec, **QUIET)
        sub.extra = "kept"
        assert sub.copy().extra == (sub | {}).extra == "kept"
        sub.close()
    with PersistDict("memory://", **QUIET) as d:
        d["k"] = [1]
        with pytest.raises(TypeError, match="memory"):
            pickle.dumps(d)
        for other in (copy.copy(d), copy.deepcopy(d)):
            other["k"] = 2
            assert d["k"] == [1]


def _clock_parts(clock):
    return clock.now


def test_a_handle_may_be_collected_in_the_middle_of_anything(tmp_path):
    """The finaliser runs wherever the garbage collector does: with any lock held, within a write of the same folder."""
    d = PersistDict(tmp_path / "d", background_timeout=0.01)
    d["k"] = 1

    def garbage():
        lost = PersistDict(tmp_path / "d", background_timeout=0.01)
        lost["k"]
        lost.myself = lost

    garbage()
    d._store.update(lambda txn: gc.collect())
    garbage()
    with d._write_lock, d._front.lock, keeper_of(d._store)._lock:
        gc.collect()
    d["k"] = 2
    assert d["k"] == 2
    d.close()


def test_no_room_for_a_larger_map_is_an_error_and_reads_and_deletes_go_on(tmp_path):
    child = """if True:
        import resource, sys
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        from persistdict import PersistDict, PersistDictError
        d = PersistDict(sys.argv[1], background_thread="disabled")
        stored = 0
        try:
            while True:
                d[stored] = b"x" * (4 << 20)
                stored += 1
        except (PersistDictError, MemoryError):
            pass
        assert stored > 10, stored
        assert len(d) == stored and len(d[0]) == 4 << 20
        for number in range(5):
            del d[number]
        d["after"] = 1
        assert d["after"] == 1 and len(d) == stored - 4
        print("went on")
    """
    done = subprocess.run(
        [sys.executable, "-c", child, str(tmp_path / "d")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("went on\n", 0), done.stderr


@pytest.mark.parametrize("make", [cachetools.LRUCache, cachetools.LFUCache])
def test_a_cache_shared_by_dictionaries_and_threads_loses_no_key(tmp_path, make):
    cache = make(8)
    handles = [PersistDict(tmp_path / str(number), caching=cache, **QUIET) for number in range(3)]
    errors = []

    def work(d, number):
        try:
            for count in range(600):
                d[count % 20] = (number, count)
                assert d[count % 20] == (number, count)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(d, number)) for number, d in enumerate(handles)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for d in handles:
        d.close()


def test_a_read_never_writes_and_never_fails_for_a_full_disk(tmp_path, monkeypatch):
    """Also when the list of noted reads is full."""
    for module in (lmdb_store, reading):
        monkeypatch.setattr(module, "MAX_TOUCHED", 10)
    with PersistDict(tmp_path / "d", expiration_days=1, caching=False, **QUIET) as d:
        d.update((number, number) for number in range(50))

        def full(*_):
            raise DiskFullError(28, "no space")

        with monkeypatch.context() as patch:
            for engine in (d._store.env.data, d._store.env.recent):
                patch.setattr(engine, "update", full)
                patch.setattr(engine, "write", full)
            assert [d[number] for number in range(50)] == list(range(50))
            assert len(d._store.touched) <= 10
            assert len(d.get_many(range(50))) == 50
            assert len(d._store.touched) <= 10


def test_a_read_by_one_handle_counts_for_the_others_at_once(tmp_path):
    clock = Clock()
    a, b = (PersistDict(tmp_path / "d", expiration_days=1, clock=clock, **QUIET) for _ in range(2))
    a["k"] = 1
    clock.now += 22 * 3600
    assert b["k"] == 1
    clock.now += 3 * 3600
    assert "k" in a
    assert "k" in b
    assert a.expire() == 0
    a.close()
    b.close()


def test_every_handle_gets_its_own_interval_of_upkeep(tmp_path):
    clock = Clock()
    slow = PersistDict(tmp_path / "d", background_timeout=1e10, clock=clock)
    slow.set("k", 1, ttl=5)
    clock.now += 10
    quick = PersistDict(tmp_path / "d", background_timeout=0.01, clock=clock)
    deadline = threading.Event()
    while quick._store.begin_data().stat(quick._store.e)["entries"]:
        deadline.wait(0.001)
    slow.close()
    quick.close()


def test_a_transaction_in_memory_is_never_seen_half_done():
    d = PersistDict("memory://", caching=False, **QUIET)
    d.update(a=0, b=0)
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            d.update({"a": number, "x": 1, "y": 2, "b": number})

    thread = threading.Thread(target=write)
    thread.start()
    for _ in range(2000):
        first = d["a"]
        assert d["b"] >= first
    stop.set()
    thread.join()
    d.close()
