"""What `stats` tells, field by field. Forked children: drivers/fork_cases.py."""

import os
import pickle
import threading
import weakref

import pytest

from persistdict import ClosedError, MaintenanceError, PersistDict, Stats
from persistdict.maintenance import keeper_of
from persistdict.statistics import Counter
from persistdict.tasks import expire_all
from persistdict.testing import Clock

COUNTED = Stats._fields[:8]


@pytest.fixture(params=["lmdb", "memory"])
def place(request, tmp_path):
    return tmp_path / "d" if request.param == "lmdb" else "memory://"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def d(place, clock):
    with PersistDict(place, clock=clock, background_thread="disabled") as d:
        yield d


def counted(d, reset=True):
    """What was counted and is not zero."""
    stats = d.stats(reset=reset)
    return {name: value for name, value in zip(COUNTED, stats, strict=False) if value}


def test_nothing_is_counted_yet(d):
    stats = d.stats()
    assert stats[:8] == (0,) * 8
    assert stats.entries == stats.backlog == stats.cold == 0


def test_a_read_is_a_hit_if_it_finds_a_value_and_a_miss_if_not(d):
    d["a"] = 1
    counted(d)
    assert d["a"] == d.get("a") == d.setdefault("a", 2) == 1
    assert counted(d) == {"hits": 3, "cached": 3}
    for read in (lambda: d["b"], lambda: d.pop("b")):
        with pytest.raises(KeyError):
            read()
    assert d.get("b") is None and d.get("b", 1) == 1 and d.pop("b", 2) == 2
    assert counted(d) == {"misses": 5}
    assert d.get_many(["a", "b", "c"]) == {"a": 1}
    assert counted(d) == {"hits": 1, "misses": 2}
    assert d.setdefault("b", 1) == 1
    assert counted(d) == {"misses": 1, "sets": 1}
    assert d.pop("b") == 1
    assert counted(d) == {"hits": 1, "deletes": 1}


def test_cached_are_the_hits_that_the_cache_answered(place):
    with PersistDict(place, background_thread="disabled") as d:
        d.update(a=1, b=[1])
        assert [d["a"], d["a"], d["b"], d["b"], d["b"]] == [1, 1, [1], [1], [1]]
        assert counted(d, reset=False) == {"hits": 5, "cached": 3, "sets": 2}
        if place != "memory://":
            with PersistDict(place, background_thread="disabled") as other:
                other["a"] = 2
            assert d["a"] == d["a"] == 2
            assert counted(d) == {"hits": 7, "cached": 4, "sets": 2}


def test_without_a_cache_nothing_is_cached(place):
    with PersistDict(place, background_thread="disabled", caching=False) as d:
        d["a"] = 1
        assert d["a"] == d["a"] == 1
        assert counted(d) == {"hits": 2, "sets": 1}


def test_what_only_looks_counts_nothing(d):
    d.update(a=1, b=2)
    counted(d)
    assert "a" in d and "x" not in d and len(d) == 2 and d
    assert list(d) == ["a", "b"] and dict(d.items()) and list(d.values()) and d.entry("a").size
    with pytest.raises(KeyError):
        d.entry("x")
    assert repr(d) and d == {"a": 1, "b": 2}
    assert counted(d) == {}


def test_a_miss_of_an_entry_that_is_over_is_expired_and_others_are_cold(d, clock):
    for key in "abcde":
        d.set(key, 1, ttl=10)
    d["a"]
    clock.now += 10
    counted(d)
    assert d.get("a") is None and d.get("x") is None
    assert d.get_many(["b", "x"]) == {}
    assert d.pop("c", None) is None and d.pop("x", None) is None
    assert d.setdefault("d", 2) == 2
    stats = d.stats(reset=True)
    assert (stats.misses, stats.expired, stats.cold, stats.sets) == (7, 4, 3, 1)
    with pytest.raises(KeyError):
        d.entry("e")
    assert counted(d) == {}
    d.expire()
    assert d.get("a") is None
    assert counted(d) == {"misses": 1, "expirations": 4}


def test_a_touch_of_what_is_over_is_no_miss(d, clock):
    d.set("key", 1, ttl=10)
    d.stats(reset=True)
    clock.now += 20
    assert not d.touch("key")
    assert d.stats().expired == d.stats().misses == 0


def test_a_read_of_what_was_idle_too_long_is_expired(place, clock):
    with PersistDict(place, clock=clock, expiration_days=1, background_thread="disabled") as d:
        d["a"] = 1
        clock.now += 86_401
        assert d.get("a") is None and d.get("b") is None
        stats = d.stats()
        assert (stats.misses, stats.expired, stats.cold) == (2, 1, 1)


def test_sets_are_the_entries_written(d):
    d["a"] = 1
    d.set("a", 2, ttl=5)
    d.set("a", 2)
    d.update(a=3, b=4)
    d.set_many((n, n) for n in range(1000))
    d |= {"c": 5}
    d.setdefault("d", 6)
    assert counted(d) == {"sets": 1007, "misses": 1}
    assert d(e=1, f=2) is d and d(g=1) is d
    assert counted(d) == {"sets": 2}
    with pytest.raises(TypeError):
        d["a"] = object()
    with pytest.raises(TypeError):
        d.update(a=1, b=object())
    assert counted(d) == {}


def test_deletes_are_the_entries_removed(d):
    d.update((n, n) for n in range(1000))
    counted(d)
    del d[0]
    with pytest.raises(KeyError):
        del d[0]
    assert d.popitem() == (999, 999)
    assert d.delete_many([0, 1, 2]) == 2
    assert counted(d) == {"deletes": 4}
    d.clear()
    assert counted(d) == {"deletes": 996}
    d.clear()
    assert counted(d) == {}


def test_expirations_are_what_upkeep_removed_for_any_handle_since_it_was_opened(tmp_path, clock):
    options = {"clock": clock, "ttl": 10, "background_thread": "disabled"}
    with PersistDict(tmp_path / "d", **options) as d:
        d.update((n, n) for n in range(600))
        clock.now += 10
        assert expire_all(d._store) == 600
        d["a"] = 1
        with PersistDict(tmp_path / "d", **options) as other:
            assert counted(other) == {}
            clock.now += 10
            other.maintain()
            assert counted(other) == {"expirations": 1}
            assert counted(other) == {}
        assert counted(d) == {"sets": 601, "expirations": 601}


def test_a_round_while_opening_is_counted(tmp_path, clock):
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        d["a"] = 1
    clock.now += 10
    with PersistDict(tmp_path / "d", clock=clock, background_thread=False) as d:
        assert counted(d) == {"expirations": 1}


def test_evictions_have_their_place(d):
    d._store.counts.evictions.add(3)
    assert counted(d) == {"evictions": 3}


def test_sizes(tmp_path):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        empty = d.stats()
        assert empty.live_bytes == 0
        for number in range(20):
            d[number] = "x" * 50_000
        full = d.stats()
        assert full.entries == len(d) == 20
        assert 1_000_000 < full.backlog < 2_000_000
        assert full.live_bytes - empty.live_bytes == full.backlog
        d.flush()
        flushed = d.stats()
        assert flushed.backlog == 0
        assert 1_000_000 < flushed.live_bytes < 2_000_000
        paths = [os.path.join(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
        assert len(paths) == 7
        assert d.stats().file_bytes == sum(os.stat(path).st_blocks * 512 for path in paths)
        d.clear()
        assert d.stats().live_bytes < 1 << 16 < 1_000_000 < d.stats().file_bytes
        d.compact()
        assert d.stats().live_bytes < 1 << 16


def test_of_a_damaged_store_the_rest_is_told(tmp_path, monkeypatch):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["a"] = 1
        monkeypatch.setattr(d._store.env, "damage", "a page is damaged")
        stats = d.stats()
        assert (stats.entries, stats.live_bytes) == (1, 0) and stats.file_bytes > 0
        monkeypatch.undo()


def test_in_memory_the_bytes_of_the_entries_are_live():
    with PersistDict("memory://", background_thread="disabled") as d:
        d["k" * 100] = "v" * 1000
        stats = d.stats()
        assert 1100 <= stats.live_bytes < 1120
        assert (stats.entries, stats.file_bytes, stats.backlog) == (1, 0, 0)


def in_threads(work, threads=8):
    begin = threading.Barrier(threads)

    def run(number):
        begin.wait()
        work(number)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    return workers


def test_no_count_of_any_thread_is_lost(d):
    d.update((n, n) for n in range(4))
    counted(d)

    def read(_):
        for n in range(5000):
            assert d.get(n % 5) == (n % 5 if n % 5 < 4 else None)

    for worker in in_threads(read):
        worker.join()
    stats = d.stats()
    assert (stats.hits, stats.misses) == (32_000, 8_000)
    assert stats.hits - 8 * 4 <= stats.cached < stats.hits


def test_a_reset_loses_nothing_and_counts_nothing_twice(d):
    d["a"] = 1
    counted(d)

    def work(number):
        for n in range(2000):
            assert d["a"] == 1 and d.get("x") is None
            if not n % 200:
                d.set_many({(number, m): m for m in range(3)})
                assert d.delete_many([(number, m) for m in range(3)]) == 3

    workers = in_threads(work)
    parts = []
    while any(worker.is_alive() for worker in workers):
        parts.append(d.stats(reset=True))
    parts.append(d.stats(reset=True))
    total = [sum(column) for column in zip(*(part[:8] for part in parts), strict=True)]
    stats = Stats(*total, 0, 0, 0, 0, {})
    assert (stats.hits, stats.misses, stats.sets, stats.deletes) == (16_000, 16_000, 240, 240)
    assert all(min(part[:8]) >= 0 for part in parts)
    assert len(parts) > 1


def test_a_counter_counts_by_one_and_by_many():
    counter = Counter()
    for _ in range(70_000):
        next(counter)
    counter.add(5)
    assert counter.value() == counter.value() == 70_005


def test_tasks_tell_when_they_ran_and_what_they_failed_with(d, clock, monkeypatch):
    tasks = d.stats().tasks
    assert list(tasks) == ["sync", "access times", "evict", "expire", "check"]
    assert set(tasks.values()) == {(None, 0.0, None, 0)}
    d["k"] = 1
    keeper = keeper_of(d._store)
    keeper.run_now(d._charge)
    clock.now += 5
    monkeypatch.setattr(d._store, "expire", lambda *_: 1 / 0)
    keeper.run_now(d._charge)
    monkeypatch.undo()
    tasks = d.stats(reset=True).tasks
    assert tasks["expire"].last_error == "ZeroDivisionError"
    assert tasks["expire"].last_run == tasks["sync"].last_run == clock.now
    assert tasks["check"].last_run == clock.now - 5
    assert [tasks[name].runs for name in tasks] == [2, 2, 0, 2, 1]
    assert all(0 <= status.duration < 60 for status in tasks.values())
    with pytest.raises(MaintenanceError):
        d.expire()
    clock.now += 5
    d.maintain()
    assert d.stats().tasks["expire"] == (clock.now, d.stats().tasks["expire"].duration, None, 3)


def test_a_sync_that_fails_in_the_background_is_told(tmp_path, monkeypatch):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        keeper = keeper_of(d._store)
        monkeypatch.setattr(d._store, "sync", lambda: 1 / 0)
        monkeypatch.setitem(keeper._charges, 1, (weakref.ref(d._charge), 5.0))
        keeper._next_sync = 0.0
        keeper._sync_if_due()
        monkeypatch.undo()
        assert d.stats().tasks["sync"].last_error == "ZeroDivisionError"
        d.flush()


def test_the_thread_notes_its_tasks(tmp_path):
    with PersistDict(tmp_path / "d") as d:
        while not d.stats().tasks["check"].runs:
            pass
        assert all(
            status.last_error is None and status.last_run for name, status in d.stats().tasks.items() if name != "evict"
        )


def test_stats_show_no_keys(tmp_path):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["canary-key"] = "canary-value" * 10
        assert d.get("canary-other") is None
        d.flush()
        record = d._store.get(d._keys.encode("canary-key")[0])
        d._store.env.data.update(lambda txn: txn.put(record.seq, b"rubbish", db=d._store.e))
        keeper_of(d._store).run_now(d._charge)
        stats = d.stats()
        assert "CorruptEntryError" in stats.tasks["check"].last_error
        assert "canary" not in repr(stats) + str(stats)
        with pytest.raises(MaintenanceError):
            d.flush()


def test_stats_cannot_be_changed_and_can_be_sent_elsewhere(d):
    stats = d.stats()
    with pytest.raises(AttributeError):
        stats.hits = 1
    assert pickle.loads(pickle.dumps(stats)) == stats
    stats.tasks.clear()
    assert d.stats().tasks


def test_copies_and_what_comes_out_of_a_pickle_begin_at_zero(tmp_path):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["a"] = 1
        assert d["a"] == 1
        with d.copy() as copy, pickle.loads(pickle.dumps(d)) as again:
            assert counted(copy) == counted(again) == {}
            assert copy["a"] == again["a"] == 1
            assert counted(copy) == counted(again) == {"hits": 1}
        assert counted(d) == {"hits": 1, "cached": 1, "sets": 1}
        with d | {"b": 2} as merged:
            assert counted(merged) == {"sets": 1}


def test_two_handles_count_apart(tmp_path):
    with (
        PersistDict(tmp_path / "d", background_thread="disabled") as d,
        PersistDict(tmp_path / "d", background_thread="disabled") as other,
    ):
        d["a"] = 1
        assert other["a"] == 1
        assert (counted(d), counted(other)) == ({"sets": 1}, {"hits": 1})


def test_a_closed_dictionary_has_no_stats(place):
    d = PersistDict(place, background_thread="disabled")
    d.close()
    with pytest.raises(ClosedError):
        d.stats()
