"""Modes: reading only, adding only, writing once; whoever opens the dictionary."""

import os
import threading

import pytest
from drivers.running import answer_of, in_child

from persistdict import ABSENT, DELETE, ImmutableError, MismatchError, OpenError, PersistDict, ReadOnlyError
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}


@pytest.fixture(params=["lmdb", "lmdb commit", "memory"])
def opened(request, tmp_path):
    """A function that opens handles on one dictionary."""
    handles = []

    def open_one(**options):
        options = {"durability": "commit" if "commit" in request.param else "interval", **QUIET, **options}
        path = f"memory://{tmp_path}" if request.param == "memory" else tmp_path / "d"
        handles.append(PersistDict(path, **options))
        return handles[-1]

    yield open_one
    for handle in handles:
        if not handle.closed:
            assert handle.verify().ok
        handle.close()


def writes(d):
    """Every way to change the entry "k" that is there, or to remove it, through a handle."""

    def in_a_transaction(act):
        with d.transaction() as t:
            act(t)

    return {
        "set": lambda: d.__setitem__("k", "other"),
        "set with a tag": lambda: d.set("k", "other", tag="t"),
        "update": lambda: d.update(new=1, k="other"),
        "many": lambda: d.set_many(dict.fromkeys(range(600), "x" * 2000) | {"k": "other"}),
        "large": lambda: d.__setitem__("k", "o" * 2_000_000),
        "replace": lambda: d.replace("k", "other"),
        "version": lambda: d.replace("k", "other", if_version=d.get_versioned("k").version),
        "transform": lambda: d.transform("k", lambda _: "other"),
        "delete by transform": lambda: d.transform("k", lambda _: DELETE),
        "delete": lambda: d.__delitem__("k"),
        "delete many": lambda: d.delete_many(["nothing", "k"]),
        "pop": lambda: d.pop("k"),
        "popitem": lambda: d.popitem(),
        "clear": lambda: d.clear(),
        "evict": lambda: d.evict(tag="kept"),
        "touch": lambda: d.touch("k", ttl=5),
        "|=": lambda: d.__ior__({"k": "other"}),
        "set in a transaction": lambda: in_a_transaction(lambda t: t.update(new=1, k="other")),
        "delete in a transaction": lambda: in_a_transaction(lambda t: t.pop("k")),
        "clear in a transaction": lambda: in_a_transaction(lambda t: t.clear()),
    }


NAMES = sorted(writes(None))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["append", "write_once"])
def test_an_entry_that_is_there_stays(opened, mode, name):
    """Through the handle that said so, one that did not, and a view."""
    first, second = opened(mode=mode), opened()
    assert (first.mode, second.mode) == (mode, mode)
    for d in (first, second, second.space("s"), second.prefix("p")):
        d.add("k", "value", tag="kept")
        before = d.entry("k").version
        count = d._store.count()
        view_writes = writes(d)
        if not hasattr(d, "transaction"):
            view_writes["set in a transaction"] = view_writes["delete in a transaction"] = view_writes["set"]
            view_writes["clear in a transaction"] = view_writes["set"]
        with pytest.raises(ImmutableError, match=r"neither changed nor removed|stay for good"):
            view_writes[name]()
        assert (d["k"], d.entry("k").version, d._store.count()) == ("value", before, count)


@pytest.mark.parametrize("mode", ["append", "write_once"])
def test_entries_are_added_in_every_way(opened, mode):
    d = opened(mode=mode)
    d["a"] = 1
    d.set("b", [2], tag="news")
    d.update(c=3)
    d.set_many((number, number) for number in range(600))
    assert d.add("d", 4)
    assert not d.add("a", 4)
    assert d.setdefault("e", 5) == 5
    assert d.setdefault("e", 6) == 5
    assert d.transform("f", lambda value: 6 if value is ABSENT else value + 1) == 6
    assert d.incr("g", 7) == 7
    assert d.replace("h", 8, if_version=ABSENT)
    assert d.replace("h", 9, if_version=ABSENT) is None
    assert d.replace("h", 9, if_version=1) is None
    assert d.replace("nothing", 9) is None
    d["large"] = "x" * 3_000_000
    with d.transaction() as t:
        t["t"] = 1
        t.space("s")["x"] = 1
    assert d.pop("nothing", "default") == "default"
    assert d.delete_many(["nothing"]) == 0
    assert d.evict(tag="nothing") == 0
    d.space("empty").clear()
    assert d.touch("a")
    assert len(d) == 610
    with pytest.raises(ImmutableError, match="ttl"):
        d.set("new", 1, ttl=5)
    with pytest.raises(KeyError):
        del d["nothing"]
    assert d.copy().mode == "rw"


def test_what_is_written_once_may_be_written_again_as_it_is(opened):
    """If it is equal, though its bytes need not be; and append refuses that, too."""
    d = opened(mode="write_once")
    one, same = {"a": {1, 2}, "b": 2.0}, {"b": 2.0, "a": {2, 1}}
    d["k"] = one
    version = d.entry("k").version
    d["k"] = one
    d["k"] = same
    d.update(k=same, l=1)
    d.update(l=1, m=2)
    with d.transaction() as t:
        t["k"] = dict(same)
        t["n"] = 3
    assert list(d) == ["k", "l", "m", "n"]
    assert d.entry("k").version == version
    for value in ({**one, "b": 2.5}, {"a": [1, 2], "b": 2.0}, None):
        with pytest.raises(ImmutableError):
            d["k"] = value
    with pytest.raises(ImmutableError):
        d.update(o=1, l=2)
    assert "o" not in d


def test_append_refuses_even_the_same(opened):
    d = opened(mode="append")
    d["k"] = 1
    with pytest.raises(ImmutableError):
        d["k"] = 1
    with pytest.raises(ImmutableError):
        d.update(k=1)


def test_of_many_writers_one_is_the_first(tmp_path):
    """In threads and processes, none of which asks for the mode."""
    PersistDict(tmp_path / "d", mode="append", **QUIET).close()

    def work(who):
        won = []
        with PersistDict(tmp_path / "d", **QUIET) as d:
            for number in range(100):
                try:
                    d[number] = who
                    won.append(number)
                except ImmutableError:
                    assert d[number] != who or number in won
        return won

    children = [in_child(lambda who=who: work(who)) for who in range(3)]
    mine = []
    threads = [threading.Thread(target=lambda who=who: mine.append((who, work(who)))) for who in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = dict(mine) | {who: answer_of(*child) for who, child in enumerate(children)}
    with PersistDict(tmp_path / "d", **QUIET) as d:
        assert sorted((number, who) for who, numbers in won.items() for number in numbers) == sorted(d.items())
        assert len(d) == 100


def test_a_mode_is_of_the_store_from_its_beginning(opened):
    d = opened()
    assert d.mode == "rw"
    for mode in ("append", "write_once"):
        with pytest.raises(MismatchError, match="mode='rw'"):
            opened(mode=mode)
    assert d.mode == "rw"
    d["k"] = 1
    d["k"] = 2


def test_a_mode_that_keeps_all_goes_with_nothing_that_ends(opened):
    opened(mode="append")
    with pytest.raises(MismatchError, match="'append'"):
        opened(mode="write_once")
    for options in ({"ttl": 5}, {"expiration_days": 1}, {"max_entries": 5}, {"max_bytes": 1 << 20}):
        with pytest.raises(ValueError, match="for good"):
            opened(mode="append", **options)
        with pytest.raises(MismatchError, match="for good"):
            opened(**options)
    for wrong in ("w", "", "read"):
        with pytest.raises(ValueError, match="mode must be"):
            opened(mode=wrong)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_written_through_a_handle_that_reads(opened, name):
    d = opened()
    d.set("k", "value", tag="kept")
    reader = opened(mode="r")
    assert reader.mode == "r"
    with pytest.raises(ReadOnlyError, match='mode="r"'):
        writes(reader)[name]()
    assert dict(reader) == dict(d) == {"k": "value"}
    d["k"] = "new"
    assert (reader["k"], reader.get("x"), len(reader), list(reader.tagged("kept"))) == ("new", None, 1, [])
    for view in (reader.space("s"), reader.prefix("p")):
        with pytest.raises(ReadOnlyError):
            view["a"] = 1
    with reader.transaction() as t:
        assert t["k"] == "new"
    reader.flush()
    assert reader.stats().entries == 1


def test_a_handle_that_reads_makes_nothing(tmp_path):
    with pytest.raises(OpenError, match="none is made"):
        PersistDict(tmp_path / "d", mode="r")
    assert not os.path.exists(tmp_path / "d")
    with PersistDict(tmp_path / "d") as d:
        d["k"] = 1
    with PersistDict(tmp_path / "d", mode="r") as reader:
        assert threading.active_count() == 1
        assert reader["k"] == 1
    with pytest.raises(ValueError, match="no effect"):
        PersistDict(tmp_path / "d", mode="r", ttl=5)
    with pytest.raises(ValueError, match="no effect"):
        PersistDict(tmp_path / "d", mode="r", max_entries=5)


def test_a_mode_survives_backup_and_salvage(tmp_path):
    from persistdict import salvage

    with PersistDict(tmp_path / "d", mode="write_once", **QUIET) as d:
        d["k"] = 1
        d.backup(tmp_path / "b")
        d.compact()
        d.flush()
    salvage(tmp_path / "d", tmp_path / "s")
    for name in "dbs":
        with PersistDict(tmp_path / name, **QUIET) as d:
            assert d.mode == "write_once"
            d["k"] = 1
            with pytest.raises(ImmutableError):
                d["k"] = 2


def test_upkeep_through_a_handle_that_reads_changes_nothing(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", **QUIET, clock=clock) as d:
        d.set("over", 1, ttl=5)
        d["k"] = 1
        d.flush()
        clock.now += 10
        with PersistDict(tmp_path / "d", mode="r", clock=clock) as reader:
            for act in (reader.expire, reader.maintain, reader.compact, lambda: reader.verify(repair=True)):
                with pytest.raises(ReadOnlyError, match='mode="r"'):
                    act()
            reader.flush()
            assert reader.verify().ok
            assert dict(reader) == {"k": 1}
        assert d.expire() == 1
