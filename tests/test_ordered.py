"""Keys by their order: of the keys, of insertion, and at random."""

import collections
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import KEYS, examples, key_order

from persistdict import KeyTypeError, PersistDict
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


@pytest.fixture(params=["lmdb", "lmdb, short keys", "memory"])
def d(request, tmp_path):
    limit = 5 if request.param == "lmdb, short keys" else 511
    path = f"memory://{tmp_path}" if request.param == "memory" else tmp_path / "d"
    with PersistDict(path, key_size_limit=limit, clock=Clock(), **QUIET) as opened:
        yield opened


@examples(150)
@given(keys=st.lists(KEYS, max_size=12), start=st.none() | st.tuples(KEYS), stop=st.none() | st.tuples(KEYS))
def test_a_range_is_what_sorting_and_comparing_would_give(d, keys, start, stop):
    d.clear()
    half = len(keys) // 2
    d.update((key, None) for key in keys[:half])
    d.flush()
    for key in keys[half:]:
        d[key] = None
    bounds = {name: bound[0] for name, bound in (("start", start), ("stop", stop)) if bound is not None}
    expected = sorted(d, key=key_order)
    if start is not None:
        expected = [key for key in expected if key_order(key) >= key_order(start[0])]
    if stop is not None:
        expected = [key for key in expected if key_order(key) < key_order(stop[0])]
    assert list(map(repr, d.range(**bounds))) == list(map(repr, expected))
    assert list(map(repr, d.range(**bounds, reverse=True))) == list(map(repr, reversed(expected)))


def test_a_range_goes_on_while_others_write(d):
    d.update((number, None) for number in range(2000))
    seen = []
    for number in d.range(100, 1900):
        seen.append(number)
        if number == 500:
            del d[1000]
            d.update(dict.fromkeys(range(-100, 0), "new"))
            d[1500.5] = "new"
    assert seen == [number for number in range(100, 1900) if number != 1000]


def test_what_is_no_key_bounds_nothing(d):
    with pytest.raises(KeyTypeError):
        d.range(object())
    with pytest.raises(TypeError):
        d.range([1])
    assert list(d.range(2, 1)) == []


def test_a_range_with_a_key_serializer_has_the_order_of_its_bytes(tmp_path):
    options = {"key_serializer": lambda key: f"{key:04}", "key_unserializer": int}
    with PersistDict(tmp_path / "d", **QUIET, **options) as d:
        d.update(dict.fromkeys((30, 4, 1000, 200)))
        assert list(d.range(5, 1000)) == [30, 200]


def test_oldest_and_newest_go_by_insertion(d):
    d.update(c=1, a=2, b=3)
    d["c"] = "an overwrite"
    d.flush()
    d["late"] = 4
    assert (d.oldest(), d.oldest(2), d.newest(), d.newest(2)) == (["c"], ["c", "a"], ["late"], ["late", "b"])
    assert d.oldest(10) == list(d)
    assert d.newest(10) == list(reversed(d))
    assert d.oldest(0) == d.newest(0) == d.sample(0) == []
    for wrong in (-1, "1", 1.5):
        for call in (d.oldest, d.newest, d.sample):
            with pytest.raises((TypeError, ValueError)):
                call(wrong)


def test_every_key_is_as_likely_in_a_sample(d):
    """Drawn 3 of 10, 3000 times: each about 900 times, with a deviation of about 25; and in any order."""
    d.update(dict.fromkeys(range(10)))
    rng = random.Random(1)
    drawn = [d.sample(3, rng=rng) for _ in range(3000)]
    assert all(len(set(keys)) == 3 for keys in drawn)
    counts = collections.Counter(key for keys in drawn for key in keys)
    assert all(780 < counts[number] < 1020 for number in range(10)), counts
    firsts = collections.Counter(keys[0] for keys in drawn)
    assert all(225 < firsts[number] < 375 for number in range(10)), firsts
    assert sorted(d.sample(20)) == list(range(10))


def test_looking_at_keys_is_no_read_and_finds_nothing_that_is_over(d):
    d.set("over", 1, ttl=10)
    d.set("there", 1, ttl=100)
    d._options.clock.now += 20
    before = d.entry("there").atime
    assert d.oldest(5) == d.newest(5) == d.sample(5) == list(d.range()) == ["there"]
    d.flush()
    assert d.entry("there").atime == before
    stats = d.stats()
    assert (stats.hits, stats.misses) == (0, 0)
