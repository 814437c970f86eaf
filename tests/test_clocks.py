"""Clocks that jump: nothing fresh is lost, and nothing stale stays for ever."""

import contextlib

import pytest

from persistdict import CorruptEntryError, PersistDict
from persistdict.clocked import FAR, GRACE
from persistdict.testing import Clock

YEARS = 5 * 365 * 86400.0


@pytest.fixture(params=["lmdb", "memory"])
def opened(request, tmp_path):
    """A function that opens handles on one dictionary, with the clock of the test."""
    clock = Clock(1_800_000_000.0)
    with contextlib.ExitStack() as handles:

        def open_one(**options):
            path = f"memory://{tmp_path}" if request.param == "memory" else tmp_path / "d"
            options = {"clock": clock, "background_thread": "disabled", **options}
            return handles.enter_context(PersistDict(path, **options))

        open_one.clock = clock
        yield open_one


def rows_of(d):
    """How many entries the store still has, over or not."""
    return d._store.usage(exact=True).entries


@pytest.mark.parametrize("options", [{"ttl": 1000}, {"expiration_days": 1}])
def test_a_clock_that_is_years_ahead_for_a_while_loses_nothing(opened, options):
    """Meanwhile all is absent, as the clock says; upkeep, reopening and writes remove none of it."""
    d, clock = opened(**options), opened.clock
    d.update((number, number) for number in range(1000))
    d.maintain()
    clock.now += YEARS
    assert 7 not in d
    for _ in range(3):
        d.maintain()
        clock.now += 60
    with opened(**options) as other:
        other.maintain()
        other.flush()
    assert rows_of(d) == 1000
    clock.now -= YEARS + 100
    d.maintain()
    assert dict(d) == {number: number for number in range(1000)}


@pytest.mark.parametrize("options", [{"ttl": 1000}, {"expiration_days": 1}])
def test_a_clock_that_goes_on_from_there_is_believed(opened, options):
    """A store that nobody used for years is swept an hour after it was opened, by whatever process."""
    d, clock = opened(**options), opened.clock
    d.update((number, number) for number in range(1000))
    d.flush()
    clock.now += YEARS
    d["new"] = 1
    d.maintain()
    assert rows_of(d) == 1001
    clock.now += GRACE
    with opened(**options) as other:
        other["new"] = 1
        other.maintain()
    assert rows_of(d) == 1
    assert dict(d) == {"new": 1}


def test_a_pause_of_some_weeks_is_no_jump(opened):
    d, clock = opened(ttl=1000), opened.clock
    d.update(a=1, b=2)
    d.flush()
    clock.now += FAR
    d.maintain()
    assert rows_of(d) == 0


@pytest.mark.parametrize("wait", [0, 2 * GRACE])
def test_what_was_written_by_a_clock_years_ahead_does_not_stay_for_years(opened, wait):
    """After the clock was set right its time to live begins anew; and all else is as it was."""
    d, clock = opened(), opened.clock
    d.set("before", "x", ttl=10**9)
    d.flush()
    clock.now += YEARS
    d["lasting"] = "y" * 50_000
    d.set("short", [1, 2], ttl=60 + wait)
    clock.now += wait
    d.set("shorter", 3, ttl=30)
    d.maintain()
    clock.now -= YEARS + wait
    assert d["short"] == [1, 2]
    d.maintain()
    assert dict(d) == {"before": "x", "lasting": "y" * 50_000, "short": [1, 2], "shorter": 3}
    assert d.entry("short").expires_at == pytest.approx(clock.now + 60 + wait)
    assert d.entry("before").expires_at == pytest.approx(1_800_000_000 + 10**9)
    clock.now += 40
    assert list(d) == ["before", "lasting", "short"]
    clock.now += 30 + wait
    assert list(d) == ["before", "lasting"]
    d.maintain()
    assert rows_of(d) == 2
    assert d.verify().ok


def test_what_was_read_by_a_clock_years_ahead_ends_when_it_is_idle(opened):
    d, clock = opened(expiration_days=1), opened.clock
    d.update(read=1, unread=2)
    d.flush()
    clock.now += 3600
    assert d["read"] == 1
    clock.now += YEARS
    d["written"] = 3
    d.flush()
    d.maintain()
    clock.now -= YEARS
    d.maintain()
    assert sorted(d) == ["read", "unread", "written"]
    clock.now += 86400 - 1800
    assert sorted(d) == ["read", "written"]
    clock.now += 3600
    assert not list(d)


def test_copies_in_memory_end_with_the_entries(opened):
    d, clock = opened(), opened.clock
    d["k"] = 1
    d.flush()
    clock.now += YEARS
    d.set("k", 2, ttl=60)
    assert d["k"] == 2
    d.flush()
    clock.now -= YEARS
    assert d["k"] == 2
    d.maintain()
    assert d["k"] == 2
    clock.now += 61
    assert "k" not in d
    assert d.get("k") is None


# Touching


def test_a_touch_begins_the_time_to_live_of_the_handle_anew(opened):
    d, clock = opened(ttl=100), opened.clock
    d.update(touched=[1], untouched=[2])
    clock.now += 60
    assert d.touch("touched")
    clock.now += 60
    assert dict(d) == {"touched": [1]}
    assert not d.touch("untouched")
    assert not d.touch("absent")
    assert "absent" not in d
    clock.now += 60
    assert not d


@pytest.mark.parametrize("value", [1, "x" * 50_000, b"y" * 3_000_000])
def test_a_touch_gives_an_entry_another_time_to_live(opened, value):
    d, clock = opened(), opened.clock
    d.update(a=value, b=value)
    assert d.touch("a", ttl=10)
    with opened() as other:
        assert other.entry("a").expires_at == pytest.approx(clock.now + 10)
    assert d.touch("a", ttl=20)
    clock.now += 19
    assert d["a"] == value
    assert list(d) == ["a", "b"]
    clock.now += 1
    assert list(d) == ["b"]
    d.set("c", value, ttl=10, tag="t")
    assert d.touch("c", ttl=None)
    clock.now += 1000
    assert d["c"] == value
    assert (d.entry("c").expires_at, d.entry("c").tag) == (None, "t")
    assert d.evict(tag="t") == d.stats().deletes == 1
    assert d.verify().ok


def test_a_touch_keeps_what_would_be_idle_too_long(opened):
    d, clock = opened(expiration_days=1), opened.clock
    d.update(touched=1, untouched=2)
    clock.now += 50_000
    version = d.entry("touched").version
    assert d.touch("touched")
    clock.now += 50_000
    assert list(d) == ["touched"]
    assert d.entry("touched").version == version
    assert not d.touch("untouched")


def test_a_touch_with_an_impossible_time_to_live_is_refused(opened):
    d = opened()
    d["k"] = 1
    for ttl in (0, -1, "1", float("nan")):
        with pytest.raises((ValueError, TypeError)):
            d.touch("k", ttl=ttl)
    assert d.entry("k").expires_at is None


def test_a_damaged_entry_does_not_keep_others_from_beginning_anew(tmp_path):
    clock = Clock(1_800_000_000.0)
    d = PersistDict(tmp_path / "d", clock=clock, background_thread="disabled")
    d["large"] = "y" * 50_000
    d["fine"] = 1
    d.flush()
    store = d._store
    store.env.data.update(lambda txn: [txn.put(seq, b"z", db=store.v) for seq, _ in list(txn.cursor(store.v))])
    clock.now -= 86400
    with pytest.raises(CorruptEntryError, match="1 faults were found"):  # by the integrity pass, which comes last
        d.maintain()
    assert d.entry("fine").mtime == clock.now
    assert d.maintain()
    d.close()


def test_a_dictionary_that_is_only_read_is_in_use(opened):
    """Its clock is no jump ahead of when something was written last."""
    d, clock = opened(expiration_days=40), opened.clock
    d.update(read=1, unread=2)
    d.flush()
    for _ in range(41):
        clock.now += 86400
        assert d["read"] == 1
        d.maintain()
    assert rows_of(d) == 1


def test_what_was_read_by_a_clock_ahead_keeps_its_time_to_live(opened):
    """A read does not prolong it, neither then nor afterwards."""
    d, clock = opened(expiration_days=100, ttl=10 * 86400), opened.clock
    d["key"] = 1
    before = d.entry("key")
    clock.now += 9 * 86400
    assert d["key"] == 1
    d["written"] = 2
    d.flush()
    clock.now -= 8 * 86400
    d.maintain()
    after = d.entry("key")
    assert (after.mtime, after.expires_at) == (before.mtime, before.expires_at)
    assert after.atime == clock.now
