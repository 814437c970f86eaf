"""The cache in front: what may be served, in every interleaving that could plant or keep a stale copy.

The interleavings are forced: a store stops at named points until the test lets it go on.
"""

import threading

import cachetools
import pytest
from lmdb_dict.cache import LRUCache128

from persistdict import PersistDict
from persistdict.front import ADMIT_ONE_IN, MAX_ENTRIES, Front
from persistdict.lru import FastLRUCache128

QUIET = {"background_thread": "disabled"}


class Points:
    """Lets a test stop a thread at a point in a method and go on later."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch

    def stop_after(self, owner, name):
        """The next call of a method, in another thread, stops before it returns. Returns (reached, go_on)."""
        return self._stop(owner, name, after=True)

    def stop_before(self, owner, name):
        """The next call of a method, in another thread, stops before it begins. Returns (reached, go_on)."""
        return self._stop(owner, name, after=False)

    def _stop(self, owner, name, after):
        reached, go_on = threading.Event(), threading.Event()
        real = getattr(owner, name)
        armed = [True]
        home = threading.current_thread()

        def method(*args, **kwargs):
            if threading.current_thread() is home or not armed.pop():
                armed.append(False)
                return real(*args, **kwargs)
            armed.append(False)
            if not after:
                reached.set()
                assert go_on.wait(60)
                return real(*args, **kwargs)
            result = real(*args, **kwargs)
            reached.set()
            assert go_on.wait(60)
            return result

        self.monkeypatch.setattr(owner, name, method)
        return reached, go_on


@pytest.fixture
def points(monkeypatch):
    return Points(monkeypatch)


@pytest.fixture
def handles(tmp_path):
    d, other = (PersistDict(tmp_path / "d", **QUIET) for _ in range(2))
    yield d, other
    d.close()
    other.close()


def in_thread(work):
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_a_slow_reader_cannot_plant_a_value_that_was_overwritten_meanwhile(handles, points):
    d, other = handles
    other["k"] = "old"
    reached, go_on = points.stop_after(d._store, "read")
    thread, results = in_thread(lambda: d["k"])
    assert reached.wait(60)
    other["k"] = "new"
    go_on.set()
    thread.join()
    assert results == ["old"]  # it had read before the write
    assert d["k"] == "new"
    assert d["k"] == "new"


def test_a_slow_reader_cannot_plant_over_a_write_of_the_same_handle(handles, points):
    d, other = handles
    other["k"] = "old"
    reached, go_on = points.stop_after(d._store, "read")
    thread, _ = in_thread(lambda: d["k"])
    assert reached.wait(60)
    d["k"] = "new"
    go_on.set()
    thread.join()
    assert d["k"] == "new"


def test_a_deleted_key_does_not_come_back_from_a_slow_reader(handles, points):
    d, _ = handles
    d["k"] = "old"
    d._front.clear()
    reached, go_on = points.stop_after(d._store, "read")
    thread, _ = in_thread(lambda: d["k"])
    assert reached.wait(60)
    del d["k"]
    go_on.set()
    thread.join()
    assert "k" not in d
    assert d.get("k") is None


def test_between_commit_and_account_nobody_is_served_the_old_copy(handles, points):
    """The writer has committed but not yet told the front; readers must go to the store, and keep nothing wrong."""
    d, _ = handles
    d["k"] = "old"
    assert d["k"] == "old"
    reached, go_on = points.stop_before(d._front, "wrote")
    thread, _ = in_thread(lambda: d.__setitem__("k", "new"))
    assert reached.wait(60)
    assert d["k"] == "new"
    assert d["k"] == "new"
    go_on.set()
    thread.join()
    assert d["k"] == "new"


def test_a_foreign_commit_between_ours_and_its_account_is_not_lost(handles, points):
    d, other = handles
    d["k"] = "old"
    reached, go_on = points.stop_before(d._front, "wrote")
    thread, _ = in_thread(lambda: d.__setitem__("k", "ours"))
    assert reached.wait(60)
    other["k"] = "theirs"
    assert d["k"] == "theirs"
    go_on.set()
    thread.join()
    assert d["k"] == "theirs"
    assert d["k"] == "theirs"


def test_an_interrupted_write_leaves_no_wrong_copy(handles, monkeypatch):
    """KeyboardInterrupt right after the commit, before the front is told."""
    d, _ = handles
    d["k"] = "old"

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(d._front, "wrote", interrupted)
    with pytest.raises(KeyboardInterrupt):
        d["k"] = "new"
    monkeypatch.undo()
    assert d["k"] == "new"
    d["other"] = 1
    assert d["k"] == "new"
    assert not d._front.writing


def test_a_foreign_commit_makes_copies_cold_and_the_next_read_warms_them(handles):
    d, other = handles
    d["k"] = 1
    d["l"] = 2
    other["x"] = 1
    reads = []
    real = d._store.read
    d._store.read = lambda kb: reads.append(kb) or real(kb)
    assert [d["k"], d["k"], d["l"], d["l"]] == [1, 1, 2, 2]
    assert len(reads) == 2
    d["own"] = 5
    assert [d["k"], d["l"], d["own"]] == [1, 2, 5]
    assert len(reads) == 2
    del d._store.read


def test_equal_spellings_of_a_key_share_one_copy(handles):
    class Text(str):
        pass

    d, _ = handles
    for first, second in [("a", Text("a")), (1, True), (1, 1.0), ((1, "x"), (True, Text("x")))]:
        d[first] = "first"
        assert d[second] == d[first] == "first"
        d[second] = "second"
        assert d[first] == d[second] == "second"
        del d[second]
        assert first not in d
        assert d.get(first) is None


def test_bytes_keys_and_encoded_keys_are_not_mixed_up(handles):
    """A copy of a bytes key must not be taken for that of a key whose encoding is these bytes."""
    d, _ = handles
    encoded = d._keys.encode(7)[0]
    d[7] = "int"
    d[encoded] = "bytes"
    d[d._keys.encode("a")[0]] = "bytes again"
    d["a"] = "str"
    assert [d[7], d[encoded], d["a"], d[d._keys.encode("a")[0]]] == ["int", "bytes", "str", "bytes again"]


# Sizes and policies


def test_the_default_cache_is_an_lru_of_128(handles):
    d, _ = handles
    for number in range(MAX_ENTRIES + 72):
        d[str(number)] = number
    assert len(d._front._entries) == MAX_ENTRIES
    assert "0" not in d._front._entries
    assert d[str(100)] == 100
    d["one more"] = 1
    assert str(100) in d._front._entries
    assert isinstance(FastLRUCache128(), LRUCache128)


def test_a_full_cache_admits_some_misses(handles):
    d, _ = handles
    d.update((str(number), number) for number in range(1000))
    for number in range(1000):
        assert d[str(number)] == number
    assert len(d._front._entries) == MAX_ENTRIES
    assert max(int(key) for key in d._front._entries) >= 1000 - ADMIT_ONE_IN
    assert sum(int(key) >= MAX_ENTRIES for key in d._front._entries) <= (1000 - MAX_ENTRIES) // ADMIT_ONE_IN + 1


def test_a_full_cache_takes_what_it_holds_anew_and_what_there_is_room_for(handles):
    """One that another has overwritten; and after one was removed, the next that is read."""
    d, other = handles
    d.update((str(number), number) for number in range(1000))
    for number in range(MAX_ENTRIES):
        assert d[str(number)] == number
    for number in range(0, MAX_ENTRIES, 5):
        other[str(number)] = -number
    for number in range(0, MAX_ENTRIES, 5):
        assert d[str(number)] == -number
        assert d._front._entries[str(number)][0] == -number
    for number in range(1, MAX_ENTRIES, 5):
        del d[str(number)]
        assert d[str(500 + number)] == 500 + number
        assert str(500 + number) in d._front._entries


def test_a_read_that_is_not_kept_shows_that_another_has_written(handles):
    """Else every hit would go to the store, until one is kept."""
    d, other = handles
    d.update((str(number), number) for number in range(1000))
    for number in range(MAX_ENTRIES):
        assert d[str(number)] == number
    for number in range(200, 200 + 3 * ADMIT_ONE_IN):
        other["x"] = number
        assert d[str(number)] == number
        assert d._front.mark == d._store.begin().id()


def test_large_values_are_not_kept_in_the_default_cache(handles):
    d, _ = handles
    d["k"] = "x" * 100_000
    assert d["k"] == d["k"] == "x" * 100_000
    d["k"] = "small"
    d["k"] = "x" * 100_000
    assert not d._front._entries
    assert d["k"] == "x" * 100_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: cachetools.LRUCache(4),
        lambda: cachetools.LFUCache(4),
        lambda: cachetools.TTLCache(4, ttl=1000),
        lambda: cachetools.LRUCache(1, getsizeof=lambda copy: 2),
        dict,
        LRUCache128,
        FastLRUCache128,
    ],
)
def test_any_cachetools_cache_may_be_passed_and_shared(tmp_path, make):
    cache = make()
    with (
        PersistDict(tmp_path / "d", caching=cache, **QUIET) as d,
        PersistDict(tmp_path / "e", caching=cache, **QUIET) as e,
    ):
        for number in range(20):
            d["k"], e["k"], d[number] = number, -number, [number]
            assert (d["k"], e["k"], d[number]) == (number, -number, [number])
            assert d[number] is not d[number]
        del d["k"]
        assert d.get("k") is None
        assert e["k"] == -19
        d.update(k=5)
        assert d["k"] == 5
        d.clear()
        assert d.get("k") is None
        assert e["k"] == -19


def test_the_lru_behaves_as_that_of_cachetools():
    ours, theirs = FastLRUCache128(), LRUCache128()
    for number in range(1000):
        for cache in (ours, theirs):
            cache[number % 200] = number
            cache.get((number * 7) % 150)
            if number % 13 == 0:
                cache.pop((number * 3) % 200, None)
    assert [ours.popitem() for _ in range(50)] == [theirs.popitem() for _ in range(50)]
    assert set(ours) == set(theirs)
    assert (ours.currsize, ours.maxsize, len(ours)) == (theirs.currsize, 128, len(theirs))
    ours.clear()
    with pytest.raises(KeyError):
        ours.popitem()


def test_a_front_without_cache_keeps_nothing():
    front = Front(None)
    front.admit("k", ("value", None, b"", 5, None), 5)
    assert front.lookup("k") is None
