"""Tags: what is listed and evicted by them, and that they come and go with the writes."""

import os
import subprocess
import sys
import threading

import pytest

from persistdict import Entry, PersistDict, salvage
from persistdict.store import Transaction
from persistdict.stores.lmdb.record import LABELLED, parse_record
from persistdict.tags import BATCH, label_of
from persistdict.testing import Clock

QUIET = {"background_thread": "disabled"}
LARGE = {"large": b"x" * 40_000, "very large": b"y" * ((1 << 20) + 1)}


def test_what_has_a_tag_is_listed_in_order_of_insertion_by_every_handle(opened):
    d, other = opened(), opened()
    d.set("c", 1, tag="news")
    d["b"] = 2
    d.set(("a", 1.5), LARGE["large"], tag="news")
    d.set_many({None: 3, "e": 4}, tag="météo 😀")
    other.set("f", LARGE["very large"], tag="news")
    for handle in (d, other):
        assert list(handle.tagged("news")) == ["c", ("a", 1.5), "f"]
        assert list(handle.tagged("météo 😀")) == [None, "e"]
        assert list(handle.tagged("new")) == []
        assert handle.tags() == ["météo 😀", "news"]
        assert [handle.entry(key).tag for key in ("b", "c", None, "f")] == [None, "news", "météo 😀", "news"]
    assert d.get_many(["f", ("a", 1.5)]) == {"f": LARGE["very large"], ("a", 1.5): LARGE["large"]}
    assert Entry._fields[-1] == "tag"
    d.clear()
    assert d.tags() == other.tags() == list(other.tagged("news")) == []


def test_the_tag_belongs_to_the_write(opened):
    d = opened()
    for write in (
        lambda: d.__setitem__("k", 2),
        lambda: d.set("k", 2),
        lambda: d.set("k", 2, ttl=99),
        lambda: d.set("k", 2, tag=None),
        lambda: d.update(k=2),
        lambda: d.set_many({"k": 2}),
        lambda: d.set_many(dict.fromkeys(["k", *range(600)], 2)),
        lambda: d.__setitem__("k", LARGE["large"]),
        lambda: d.__setitem__("k", LARGE["very large"]),
        lambda: d.pop("k"),
        lambda: d.clear(),
    ):
        for value in (1, LARGE["large"], LARGE["very large"]):
            for flush in (lambda: None, d.flush):
                d.set("k", value, tag="news")
                flush()
                assert d["k"] == value
                assert list(d.tagged("news")) == ["k"]
                write()
                assert d.tags() == []
                flush()
                assert list(d.tagged("news")) == []
                assert "k" not in d or d.entry("k").tag is None
                d.set("k", value, tag="other")
                assert d.tags() == ["other"]
                del d["k"]
                assert d.tags() == []
    d.set("k", 1, tag="news")
    assert d.setdefault("k", 2) == 1
    assert d.tags() == ["news"]


def test_a_tag_and_a_time_limit_stand_beside_each_other(opened):
    clock = Clock()
    d = opened(clock=clock, ttl=100)
    d.set("short", 1, ttl=5, tag="news")
    d.set("default", 1, tag="news")
    d.set("ever", 1, ttl=None, tag="news")
    d.set_many({"both": LARGE["large"]}, ttl=5, tag="short")
    assert [d.entry(key).expires_at for key in ("short", "default", "ever")] == [clock.now + 5, clock.now + 100, None]
    clock.now += 5
    assert list(d.tagged("news")) == ["default", "ever"]
    assert d.tags() == ["news"]
    d.set("both", 1, ttl=5, tag="again")
    assert d.expire() == 1
    clock.now += 95
    assert list(d.tagged("news")) == ["ever"]
    assert d.evict(tag="news") == 1
    assert d.evict(tag="again") == 0
    assert len(d) == 0


def test_evict_removes_what_has_the_tag_and_no_cached_value_is_left(opened):
    d, other = opened(), opened()
    d.set_many({n: n for n in range(3 * BATCH)}, tag="old")
    d.set_many({("b", n): "x" * n for n in range(50)}, tag="new")
    d.flush()
    other.set("late", LARGE["large"], tag="old")
    other[3] = "without"
    other.set(4, "changed", tag="new")
    assert [d[n] for n in (3, 4, 5)] == ["without", "changed", 5]
    assert other[5] == 5
    assert d.evict(tag="old") == 3 * BATCH - 1
    for handle in (d, other):
        assert handle.get(5) is None
        assert "late" not in handle
        assert (handle[3], handle[4], len(handle)) == ("without", "changed", 52)
    assert d.evict(tag="old") == 0
    assert d.tags() == ["new"]
    assert other.evict(tag="new") == 51
    assert dict(d) == {3: "without"}


def test_what_is_set_anew_between_the_look_and_the_removal_stays(opened, monkeypatch):
    """Decided by what is there in the removing transaction."""
    d, other = opened(), opened()
    d.set_many(dict.fromkeys(range(8), "old"), tag="news")
    store, update, turns = d._store, d._store.update, []

    def meddle(work, **options):
        if not turns:
            turns.append(1)
            other[1] = "new"
            other.set(2, "new", tag="other")
            other.set(3, "new", tag="news")
            del other[4]
            other[4] = "made anew"
            other.set(5, LARGE["large"])
            other.set(9, "added", tag="news")
        return update(work, **options)

    monkeypatch.setattr(store, "update", meddle)
    assert d.evict(tag="news") == 4
    monkeypatch.undo()
    assert dict(d) == {1: "new", 2: "new", 5: LARGE["large"], 9: "added", 4: "made anew"}
    assert list(d.tagged("news")) == [9]


def test_each_batch_is_a_transaction_of_its_own(opened, monkeypatch):
    """So one that fails leaves the rest as it is."""
    d = opened()
    d.set_many({n: n for n in range(3 * BATCH)}, tag="news")
    update, turns = d._store.update, []

    def fail_at_the_second(work, **options):
        def failing(txn: Transaction):
            done = work(txn)
            turns.append(1)
            if len(turns) == 2:
                raise RuntimeError("no")
            return done

        return update(failing, **options)

    monkeypatch.setattr(d._store, "update", fail_at_the_second)
    with pytest.raises(RuntimeError):
        d.evict(tag="news")
    assert list(d) == list(d.tagged("news")) == list(range(BATCH, 3 * BATCH))
    assert d.evict(tag="news") == 2 * BATCH


def test_writers_go_on_while_tags_are_evicted(opened):
    d, other = opened(), opened()
    d.set_many({n: n for n in range(2000)}, tag="old")
    kept = []

    def write():
        for n in range(400):
            other[n * 5] = "kept"
            kept.append(n * 5)

    thread = threading.Thread(target=write)
    thread.start()
    d.evict(tag="old")
    thread.join()
    d.evict(tag="old")
    assert set(d) == set(kept)
    assert set(d.values()) == {"kept"}
    assert d.tags() == []


@pytest.mark.parametrize(
    ("tag", "error"),
    [
        ("", ValueError), ("é" * 128, ValueError), ("x" * 256, ValueError), ("secret \ud800", ValueError),
        (b"secret", TypeError), (5, TypeError), (["secret"], TypeError),
    ],
)  # fmt: skip
def test_what_is_no_tag_is_refused_and_not_shown(opened, tag, error):
    d = opened()
    with pytest.raises(error) as raised:
        label_of(tag)
    text, seen = str(raised.value), raised.value
    assert "tag must" in text
    assert "secret" not in text
    assert "ééé" not in text
    while seen is not None:
        assert "secret" not in repr(seen)
        seen = seen.__cause__
    for call in (
        lambda: d.set("k", 1, tag=tag),
        lambda: d.set_many({"k": 1}, tag=tag),
        lambda: d.tagged(tag),
        lambda: d.evict(tag=tag),
    ):
        with pytest.raises(error):
            call()
    assert len(d) == 0
    for none in (None, 0):
        with pytest.raises(TypeError):
            label_of(none)


def test_a_tag_of_a_subclass_of_str_counts_by_its_text(d_in_memory):
    class Text(str):
        def encode(self, *_):
            return b"another"

    d_in_memory.set("k", 1, tag=Text("news"))
    assert d_in_memory.tags() == ["news"]
    assert label_of("x" * 255) == b"x" * 255


@pytest.fixture
def d_in_memory():
    with PersistDict("memory://", **QUIET) as d:
        yield d


def test_a_key_that_cannot_be_decoded_is_passed_over_and_evicted(tmp_path):
    def decode(kb):
        if kb.endswith(b"bad"):
            raise ValueError("no")
        return kb.decode()

    with PersistDict(tmp_path / "d", key_serializer=str, key_unserializer=decode, **QUIET) as d:
        d.set_many({"a": 1, "bad": 2, "c": 3}, tag="news")
        with pytest.warns(UserWarning, match="passed over"):
            assert list(d.tagged("news")) == ["a", "c"]
        assert d.evict(tag="news") == 3
        assert len(d) == 0


# What tags survive


def test_tags_are_there_after_reopening_backup_compaction_and_salvage(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, **QUIET) as d:
        d.set_many({n: n for n in range(1000)}, tag="many")
        d.set("k", LARGE["very large"], ttl=1e6, tag="large")
        d.set("gone", 1, tag="gone")
        d["gone"] = 2
        d.flush()
        d.set("recent", 1, tag="recent")
        d[5] = "plain"
        expected = [(key, d.entry(key)) for key in d]
        d.backup(tmp_path / "backup")
        d.compact()
        assert [(key, d.entry(key)) for key in d] == expected
        assert d.tags() == ["large", "many", "recent"]
    assert salvage(tmp_path / "d", tmp_path / "salvaged").written == 1003
    for name in ("d", "backup", "salvaged"):
        with PersistDict(tmp_path / name, clock=clock, **QUIET) as d:
            assert [(key, d.entry(key)) for key in d] == expected
            assert d.tags() == ["large", "many", "recent"]
            assert list(d.tagged("many")) == [n for n in range(1000) if n != 5]
            assert d.verify(pages=True).faults == ()
            assert d.evict(tag="many") == 999
            assert d.verify().ok


def test_tags_of_a_process_that_died_are_there(tmp_path):
    """Its writes are recent ones still."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.set_many({"a": 1, "b": 2, "c": 3}, tag="news")
    code = (
        "import os, sys; from persistdict import PersistDict\n"
        "d = PersistDict(sys.argv[1], background_thread='disabled')\n"
        "d['a'] = 5; d.set('b', 6, tag='other'); d.set('d', 7, tag='news'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], check=True)
    with PersistDict(tmp_path / "d", **QUIET) as d:
        for _ in range(2):
            assert list(d.tagged("news")) == ["c", "d"]
            assert d.tags() == ["news", "other"]
            d.flush()
            assert d.verify().ok


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_sees_and_evicts_tags(tmp_path):
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.set_many({"a": 1, "b": 2}, tag="news")
        child = os.fork()
        if not child:
            try:
                d.set("c", 3, tag="other")
                os._exit(int(d.evict(tag="news") != 2 or d.tags() != ["other"]))
            finally:
                os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert d.tags() == ["other"]
        assert list(d) == ["c"]


def test_setting_or_removing_a_damaged_entry_leaves_no_label_behind(tmp_path):
    """Its record does not tell its label any more."""
    with PersistDict(tmp_path / "d", caching=False, **QUIET) as d:
        store = d._store
        for heal in (lambda: d.__setitem__("b", 2), lambda: d.set("b", 2, tag="other"), lambda: d.__delitem__("b")):
            d.set_many({"a": 1, "b": 2}, tag="news")
            d.flush()
            seq = store.begin_data(store.k).get(b"0b")
            store.env.data.update(lambda txn, seq=seq: txn.put(seq, b"garbage", db=store.e))
            heal()
            d.flush()
            assert list(d.tagged("news")) == ["a"]
            assert d.verify().ok


def test_an_entry_without_a_tag_is_written_as_ever(tmp_path):
    """No flag and no byte more, also where there was a tag before; so the fast paths are taken."""
    with PersistDict(tmp_path / "d", **QUIET) as d:
        d.set("k", "value", tag="news")
        d.flush()
        d["k"] = "value"
        d["other"] = "value"
        d.flush()
        store = d._store
        rows = [bytes(raw) for _, raw in store.begin_data(store.e).cursor()]
        assert [parse_record(raw).flags & LABELLED for raw in rows] == [0, 0]
        assert [len(raw) for raw in rows] == [32 + 2 + 5 + 4, 32 + 6 + 5 + 4]
        assert store.begin_data(store.t).stat(store.t)["entries"] == 0


def test_a_copy_in_memory_keeps_tags_and_times_to_live(opened):
    """And so does what `|` makes, but for the entries of its other side."""
    clock = Clock()
    d = opened(clock=clock, expiration_days=1)
    d.set("a", 1, tag="news", ttl=100)
    d.set("b", 2, ttl=200)
    d.set_many({f"c{number}": number for number in range(1500)}, tag="many")
    d["large"] = LARGE["large"]
    clock.now += 50
    for copy in (d.copy(), d | {"b": 3}):
        with copy:
            assert list(copy.tagged("news")) == ["a"]
            assert list(copy.tagged("many")) == list(d.tagged("many"))
            assert copy["large"] == LARGE["large"]
            ends = {key: copy.entry(key).expires_at for key in ("a", "b", "large")}
            day = clock.now + 86400
            assert ends == {"a": clock.now + 50, "b": clock.now + 150 if copy["b"] == 2 else day, "large": day}
