"""Writes under a condition: every combination of condition, state and value; many processes; and KEEP and DELETE."""

import pickle
import threading

import pytest
from drivers.running import answer_of, in_child

from persistdict import ABSENT, ANY, DELETE, KEEP, FullError, PersistDict, ValueTypeError, Versioned
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}
VALUES = {
    "immutable": ("old", "new"),
    "mutable": ({"list": [1]}, {"list": [2]}),
    "None": (None, 0),
    "large": ("o" * 40_000, "n" * 100_000),
    "very large": (b"o" * (1 << 21), b"n" * (1 << 21)),
}


@pytest.fixture
def d(opened):
    return opened()


# The matrix


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("state", ["absent", "present", "written since", "deleted since", "made anew"])
@pytest.mark.parametrize("condition", ["any", "absent", "present", "version"])
def test_a_write_happens_if_and_only_if_its_condition_holds(opened, condition, state, values):
    """Whatever the values are, through whichever handle the entry came to be as it is."""
    old, new = values
    d, other = opened(), opened()
    if state != "absent":
        d["k"] = old
    read = d.get_versioned("k")
    assert read == ((old, d.entry("k").version) if state != "absent" else (None, ABSENT))
    if state == "written since":
        other["k"] = old
    elif state in ("deleted since", "made anew"):
        del other["k"]
        if state == "made anew":
            other["k"] = old
    there = state not in ("absent", "deleted since")
    holds = {"any": True, "absent": not there, "present": there, "version": state in ("absent", "present")}[condition]
    asked = {"any": {"if_version": ANY}, "absent": {"if_version": ABSENT}, "present": {}}.get(
        condition, {"if_version": read.version}
    )
    version = d.replace("k", new, **asked)
    assert (version is not None) is holds
    for handle in (d, other):
        if holds:
            assert handle.get_versioned("k") == (new, version)
            assert handle["k"] == new
        else:
            assert handle.get("k", "nothing") == (old if there else "nothing")


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("state", ["absent", "present", "written since", "deleted since"])
def test_an_entry_is_taken_out_if_it_has_the_version(opened, state, values):
    d, other = opened(), opened()
    d["k"] = values[0]
    version = d.get_versioned("k").version
    if state in ("absent", "deleted since"):
        del other["k"]
    elif state == "written since":
        other["k"] = values[1]
    if state == "present":
        assert d.pop("k", if_version=version) == values[0]
        assert "k" not in other
        return
    with pytest.raises(KeyError, match="k"):
        d.pop("k", if_version=version)
    assert d.pop("k", "default", if_version=version) == "default"
    assert other.get("k", "nothing") == (values[1] if state == "written since" else "nothing")


def test_an_entry_is_taken_out_under_any_condition(d):
    d["k"] = 1
    assert d.pop("k", "default", if_version=ABSENT) == "default"
    assert d.pop("k", if_version=ANY) == 1
    with pytest.raises(TypeError, match="if_version"):
        d.pop("k", if_version="1")


def test_add_tells_one_of_many_threads(d):
    told = []
    barrier = threading.Barrier(8)

    def add(number):
        barrier.wait()
        for n in range(50):
            if d.add(n, number):
                told.append((n, number))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == sorted(d.items())
    assert len(told) == 50


def test_versions_are_never_used_twice(d):
    seen = set()
    for _ in range(3):
        for value in (1, 2):
            d["k"] = value
            seen.add(d.get_versioned("k").version)
        del d["k"]
    d.clear()
    d["k"] = 1
    seen.add(d.get_versioned("k").version)
    assert len(seen) == 7


def test_what_is_over_is_absent(opened):
    clock = Clock()
    d = opened(clock=clock)
    d.set("k", 1, ttl=10)
    version = d.get_versioned("k").version
    clock.now += 10
    assert d.get_versioned("k", "gone") == Versioned("gone", ABSENT)
    assert d.replace("k", 2, if_version=version) is None
    assert d.replace("k", 2) is None
    assert d.add("k", 3, ttl=5, tag="new")
    assert (d["k"], d.entry("k").tag, d.entry("k").expires_at) == (3, "new", clock.now + 5)


def test_what_is_no_version_is_refused(d):
    d["k"] = 1
    for wrong in (None, "1", 1.0, True, d.entry("k")):
        with pytest.raises(TypeError, match="if_version"):
            d.replace("k", 2, if_version=wrong)
    with pytest.raises(ValueTypeError):
        d.replace("k", object())
    assert d["k"] == 1


# transform


def test_a_function_sees_the_newest_value_and_is_called_again_only_if_it_was_not(d):
    d["k"] = [1]
    calls = []

    def change(value):
        calls.append(list(value))
        if len(calls) < 3:
            d["k"] = [*value, "in between"]
        value.append("mine")
        return value

    assert d.transform("k", change) == [1, "in between", "in between", "mine"] == d["k"]
    assert calls == [[1], [1, "in between"], [1, "in between", "in between"]]
    assert d.transform("new", lambda value: value is ABSENT) is True is d["new"]


def test_keep_changes_nothing_and_delete_removes(d):
    d["k"] = 1
    version = d.get_versioned("k").version
    assert d.transform("k", lambda value: KEEP) == 1
    assert d.transform("other", lambda value: KEEP) is ABSENT
    assert d.get_versioned("k") == (1, version)
    assert "other" not in d

    def delete(value):
        if value == 1:
            d["k"] = 2
        return DELETE

    assert d.transform("k", delete) is ABSENT
    assert d.transform("other", delete) is ABSENT
    assert len(d) == 0


def test_what_a_function_raises_changes_nothing(d):
    d["k"] = [1]

    def fail(value):
        value.append(2)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        d.transform("k", fail)
    assert d["k"] == [1]
    with pytest.raises(ValueTypeError):
        d.transform("k", lambda value: object())
    assert d["k"] == [1]


@pytest.mark.parametrize("codec", ["safe", "pickle"])
def test_keep_and_delete_are_no_values(tmp_path, codec):
    with PersistDict(tmp_path / "d", **QUIET, codec=codec, allow_pickle=codec == "pickle") as d:
        for verdict in (KEEP, DELETE):
            for write in (
                lambda verdict=verdict: d.__setitem__("k", verdict),
                lambda verdict=verdict: d.add("k", [verdict]),
                lambda verdict=verdict: d.transform("k", lambda _: {"k": verdict}),
            ):
                with pytest.raises(TypeError):
                    write()
        assert len(d) == 0
        with pytest.raises(TypeError, match="KEEP means something"):
            pickle.dumps(KEEP)


def test_what_is_transformed_keeps_its_tag_and_its_end_unless_others_are_given(opened):
    clock = Clock()
    d = opened(clock=clock, ttl=1000)
    d.set("k", 1, ttl=100, tag="news")
    clock.now += 40
    assert d.incr("k") == 2
    assert (d.entry("k").tag, d.entry("k").expires_at) == ("news", clock.now + 60)
    end = d.entry("k").expires_at
    for _ in range(20):
        clock.now += 0.1
        d.incr("k")
    assert d.entry("k").expires_at == end, "it drifted"
    d.transform("k", lambda value: value + 1)
    assert d.incr("k", ttl=7, tag=None) == 24
    assert (d.entry("k").tag, d.entry("k").expires_at) == (None, pytest.approx(clock.now + 7))
    assert d.incr("new", 5, default=10) == 15
    assert d.entry("new").expires_at == pytest.approx(clock.now + 1000)
    d.set("for ever", 1, ttl=None)
    d.incr("for ever")
    assert d.entry("for ever").expires_at is None


def test_a_sum_that_is_none_is_an_error_and_changes_nothing(d):
    d["k"] = "text"
    with pytest.raises(TypeError):
        d.incr("k")
    assert d["k"] == "text"


def test_bounds_hold_for_what_is_added_and_transformed(opened):
    d = opened(max_entries=2, eviction="none")
    assert d.add("a", 1)
    assert d.add("b", 1)
    with pytest.raises(FullError):
        d.add("c", 1)
    with pytest.raises(FullError):
        d.transform("c", lambda _: 1)
    assert d.incr("a") == 2
    assert sorted(d) == ["a", "b"]


def test_a_hundred_processes_add_up(tmp_path):
    """100 times each: the sum is 10,000, whoever came in between."""
    path = tmp_path / "d"
    PersistDict(path, **QUIET).close()

    def add():
        with PersistDict(path, **QUIET) as d:
            for _ in range(100):
                d.incr("sum")

    children = [in_child(add) for _ in range(100)]
    for pid, pipe in children:
        answer_of(pid, pipe, "a process")
    with PersistDict(path, **QUIET) as d:
        assert d["sum"] == 10_000


def test_threads_and_handles_add_up(opened):
    handles = [opened(), opened()]

    def add(number):
        for n in range(100):
            handles[(number + n) % 2].incr("sum")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [handle["sum"] for handle in handles] == [400, 400]


def test_counts_of_reads_and_writes(d):
    d["k"] = 1
    d.stats(reset=True)
    d.get_versioned("k"), d.get_versioned("nothing"), d.add("k", 1), d.add("new", 1), d.replace("k", 2), d.incr("k")
    d.transform("k", lambda _: DELETE)
    stats = d.stats()
    assert (stats.hits, stats.misses, stats.sets, stats.deletes) == (1, 1, 3, 1)
