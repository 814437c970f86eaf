"""The integrity pass and the repair: every kind of damage is planted behind the store's back, found, and mended."""

import collections
import gc
import random
import struct
import time
from typing import Any

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

from persistdict import CorruptEntryError, PersistDict
from persistdict.keys import KeyCodec, crop, key_digest
from persistdict.stores.lmdb.pieces import piece_key
from persistdict.stores.lmdb.quarantine import quarantined
from persistdict.stores.lmdb.record import (
    label_key,
    pack_index,
    pack_record,
    parse_index,
    parse_record,
    seq_bytes,
    seq_number,
)
from persistdict.stores.lmdb.repair import repair
from persistdict.stores.lmdb.verify import verify, verify_step

NOW = 1_700_000_000.0
LARGE = b"L" * 40_000
HUGE = b"LLLL" + bytes(range(256)) * 650  # in five pieces
LIMITS = pytest.mark.parametrize("limit", [1, 20, 511])


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", caching=False, clock=lambda: NOW, **options)


def filled(path, limit=511, count=60):
    """A store with entries of all sorts."""
    d = opened(path, key_size_limit=limit)
    d.update({f"key {n}": f"value {n}" for n in range(count)})
    d.set_many({f"ends {n}": n for n in range(20)}, ttl=1e6)
    d["large"], d["long " * 200] = LARGE, "long key"
    d.set("large and ends", LARGE, ttl=1e6)
    d.set_many({f"tagged {n}": n for n in range(10)}, tag="TAG")
    d.set("large and tagged", LARGE, ttl=1e6, tag="OTHER TAG")
    d["large, in pieces"] = HUGE
    assert [d[f"key {n}"] for n in range(10)]
    d.flush()
    return d


def rows_of(d) -> Any:
    return d._store


def change(d, work):
    """Write to the databases behind the store's back."""
    return d._store.env.data.update(work)


def seq_of(d, key):
    """The sequence number of an entry."""
    store = d._store
    kb = KeyCodec().encode(key)[0]
    slots = parse_index(store.begin_data(store.k).get(crop(kb, store.limit) if len(kb) >= store.limit else kb))
    return next(seq for seq, _ in slots if parse_record(store.begin_data(store.e).get(seq)).kb == kb)


def row_key(d, key):
    kb = KeyCodec().encode(key)[0]
    return kb if len(kb) < d._store.limit else crop(kb, d._store.limit)


def contents(d):
    """All databases, byte by byte."""
    store = d._store
    return {
        name: [(bytes(key), bytes(value)) for key, value in store.begin_data(store.env.dbs[name]).cursor()]
        for name in ("k", "e", "v", "p", "x", "t", "a")
    }


def put(d, name, key, value):
    change(d, lambda txn: txn.put(key, value, db=d._store.env.dbs[name]))


def drop(d, name, key, value=b""):
    assert change(d, lambda txn: txn.delete(key, value, db=d._store.env.dbs[name]))


def flip(d, name, key, at=-1):
    """Change a byte of a value."""
    store = d._store
    raw = bytearray(store.begin_data(store.env.dbs[name]).get(key))
    raw[at] ^= 0x10
    put(d, name, key, bytes(raw))


def slots_of(d, key):
    return parse_index(d._store.begin_data(d._store.k).get(row_key(d, key)))


def other_seq(d, key="key 3"):
    """A sequence number that no entry has."""
    return seq_bytes(seq_number(seq_of(d, key)) + 77)


# Each plants one kind of damage, and tells the kinds of the faults that are to be found, the keys that are lost.


def a_record_is_damaged(d):
    flip(d, "e", seq_of(d, "key 5"), -3)
    return {"record"}, ["key 5"]


def a_record_is_cut_short(d):
    put(d, "e", seq_of(d, "key 5"), b"short")
    return {"record"}, ["key 5"]


def a_record_is_gone(d):
    drop(d, "e", seq_of(d, "key 5"))
    return {"dangling"}, ["key 5"]


def a_record_with_everything_is_damaged(d):
    flip(d, "e", seq_of(d, "large and ends"), 3)
    return {"record"}, ["large and ends"]


def a_large_value_is_damaged(d):
    flip(d, "v", seq_of(d, "large"), 20_000)
    return {"value"}, ["large"]


def a_large_value_is_gone(d):
    drop(d, "v", seq_of(d, "large and ends"))
    return {"value"}, ["large and ends"]


def a_large_value_belongs_to_nobody(d):
    put(d, "v", other_seq(d), b"something")
    return {"dangling"}, []


def a_large_value_belongs_to_a_small_record(d):
    put(d, "v", seq_of(d, "key 1"), b"something")
    return {"dangling"}, []


def piece_of(d, key, number):
    return piece_key(seq_of(d, key), number)


def a_piece_is_damaged(d):
    flip(d, "p", piece_of(d, "large, in pieces", 1), 20_000)
    return {"value"}, ["large, in pieces"]


def a_piece_is_gone(d):
    drop(d, "p", piece_of(d, "large, in pieces", 1))
    return {"value"}, ["large, in pieces"]


def all_pieces_are_gone(d):
    change(d, lambda txn: txn.drop(d._store.p, delete=False))
    return {"value"}, ["large, in pieces"]


def a_piece_belongs_to_nobody(d):
    put(d, "p", piece_key(other_seq(d), 0), b"something")
    put(d, "p", piece_of(d, "large, in pieces", 5), b"more")
    put(d, "p", piece_of(d, "large", 0), b"of a whole value")
    put(d, "p", piece_of(d, "key 1", 0), b"of a small one")
    put(d, "p", b"no key of a piece", b"something")
    return {"dangling"}, []


def a_piece_names_another_entry(d):
    flip(d, "p", piece_of(d, "large, in pieces", 1), 3)
    return {"piece"}, []


def a_value_is_there_whole_and_in_pieces(d):
    put(d, "v", seq_of(d, "large, in pieces"), HUGE)
    return {"dangling"}, []


def a_record_of_pieces_is_damaged(d):
    flip(d, "e", seq_of(d, "large, in pieces"), 3)
    return {"record"}, ["large, in pieces"]


def a_record_of_pieces_is_gone(d):
    drop(d, "e", seq_of(d, "large, in pieces"))
    return {"dangling"}, ["large, in pieces"]


def an_entry_of_pieces_has_an_impossible_number(d):
    seq, wrong = seq_of(d, "large, in pieces"), seq_bytes(1 << 62)
    raw = d._store.begin_data(d._store.e).get(seq)
    drop(d, "e", seq)
    put(d, "e", wrong, raw)
    for number in range(5):
        piece = d._store.begin_data(d._store.p).get(piece_key(seq, number))
        drop(d, "p", piece_key(seq, number))
        put(d, "p", piece_key(wrong, number), piece)
    return {"number", "index", "dangling"}, []


def a_row_of_the_index_is_gone(d):
    drop(d, "k", row_key(d, "key 7"))
    return {"index"}, []


def a_row_of_the_index_has_no_form(d):
    put(d, "k", row_key(d, "key 7"), b"12345")
    return {"index"}, []


def a_row_of_the_index_has_no_form_and_no_entry(d):
    put(d, "k", row_key(d, "nobody"), b"12345")
    return {"index"}, []


def a_row_of_the_index_leads_nowhere(d):
    put(d, "k", row_key(d, "key 7"), other_seq(d))
    return {"dangling", "index"}, []


def a_row_of_the_index_leads_to_another_key(d):
    put(d, "k", row_key(d, "nobody"), pack_index([*_row(d, "nobody"), (seq_of(d, "key 7"), 0)]))
    return {"dangling"} if d._store.limit > 1 else set(), []


def _row(d, key):
    raw = d._store.begin_data(d._store.k).get(row_key(d, key))
    return parse_index(raw) if raw is not None else []


def a_row_of_the_index_names_an_entry_twice(d):
    put(d, "k", row_key(d, "key 7"), pack_index([*slots_of(d, "key 7"), (seq_of(d, "key 7"), 0)]))
    return {"index", "twice"}, []


def a_deadline_is_gone(d):
    seq, deadline = next(slot for slot in slots_of(d, "ends 3") if slot[0] == seq_of(d, "ends 3"))
    drop(d, "x", struct.pack("=Q", deadline), seq)
    return {"expiry"}, []


def a_deadline_of_the_index_is_wrong(d):
    mine = seq_of(d, "ends 3")
    put(d, "k", row_key(d, "ends 3"), pack_index([(s, t + (s == mine)) for s, t in slots_of(d, "ends 3")]))
    return {"index"}, []


def a_deadline_belongs_to_nobody(d):
    put(d, "x", struct.pack("=Q", 12345), other_seq(d))
    put(d, "x", struct.pack("=Q", 12345), seq_of(d, "key 1"))
    return {"dangling"}, []


def a_label_is_gone(d):
    drop(d, "t", label_key(b"TAG", seq_of(d, "tagged 3")))
    drop(d, "t", label_key(b"OTHER TAG", seq_of(d, "large and tagged")))
    return {"label"}, []


def all_labels_are_gone(d):
    change(d, lambda txn: txn.drop(d._store.t, delete=False))
    return {"label"}, []


def a_label_belongs_to_nobody(d):
    put(d, "t", label_key(b"TAG", other_seq(d)), b"")
    put(d, "t", label_key(b"TAG", seq_of(d, "key 1")), b"")
    put(d, "t", label_key(b"THIRD TAG", other_seq(d)), b"")
    return {"dangling"}, []


def a_row_of_the_labels_has_no_form(d):
    row = label_key(b"TAG", seq_of(d, "tagged 3"))
    for key in (b"\0", b"\xff", row[:5], row[:-1], row + b"\0", b"\0" + seq_of(d, "tagged 3"), b"\x03" * 300):
        put(d, "t", key, b"")
    return {"dangling"}, []


def a_label_belongs_to_an_entry_of_another(d):
    put(d, "t", label_key(b"TAG", seq_of(d, "large and tagged")), b"")
    put(d, "t", label_key(b"T", seq_of(d, "tagged 3")), b"")
    drop(d, "t", label_key(b"TAG", seq_of(d, "tagged 3")))
    return {"dangling", "label"}, []


def a_record_with_a_label_is_damaged(d):
    flip(d, "e", seq_of(d, "tagged 3"), -1)
    return {"record"}, ["tagged 3"]


def a_record_with_a_label_is_gone(d):
    drop(d, "e", seq_of(d, "large and tagged"))
    return {"dangling"}, ["large and tagged"]


def an_access_time_belongs_to_nobody(d):
    put(d, "a", other_seq(d), struct.pack("<d", NOW))
    return {"dangling"}, []


def an_access_time_is_none(d):
    put(d, "a", seq_of(d, "key 1"), b"123")
    put(d, "a", seq_of(d, "key 2"), struct.pack("<d", float("nan")))
    return {"access"}, []


def two_entries_have_one_key(d):
    """The newer version stays: here the one that the index does not know."""
    seq = seq_of(d, "key 9")
    old = parse_record(d._store.begin_data(d._store.e).get(seq))
    new = seq_number(seq_of(d, "large and ends")) + 5
    raw = pack_record(old.tag, old.kb, old.hint, new, NOW, NOW, b"newer 9")
    put(d, "e", seq_bytes(new), raw)
    return {"index"}, ["key 9"]  # its older value


def two_entries_have_one_key_in_one_row(d):
    seq = seq_of(d, "key 9")
    old = parse_record(d._store.begin_data(d._store.e).get(seq))
    new = seq_number(seq_of(d, "large and ends")) + 5
    put(d, "e", seq_bytes(new), pack_record(old.tag, old.kb, old.hint, new, NOW, NOW, b"newer 9"))
    put(d, "k", row_key(d, "key 9"), pack_index([*slots_of(d, "key 9"), (seq_bytes(new), 0)]))
    return {"twice"}, ["key 9"]


def an_entry_has_an_impossible_number(d):
    """Larger than its version: nothing could be added behind it."""
    seq = seq_of(d, "key 9")
    raw = d._store.begin_data(d._store.e).get(seq)
    drop(d, "e", seq)
    put(d, "e", seq_bytes(1 << 62), raw)
    return {"number", "index", "dangling"}, []


DAMAGE = [
    a_record_is_damaged, a_record_is_cut_short, a_record_is_gone, a_record_with_everything_is_damaged,
    a_large_value_is_damaged, a_large_value_is_gone, a_large_value_belongs_to_nobody,
    a_large_value_belongs_to_a_small_record,
    a_piece_is_damaged, a_piece_is_gone, all_pieces_are_gone, a_piece_names_another_entry,
    a_piece_belongs_to_nobody,
    a_value_is_there_whole_and_in_pieces, a_record_of_pieces_is_damaged, a_record_of_pieces_is_gone,
    an_entry_of_pieces_has_an_impossible_number,
    a_row_of_the_index_is_gone, a_row_of_the_index_has_no_form,
    a_row_of_the_index_has_no_form_and_no_entry, a_row_of_the_index_leads_nowhere,
    a_row_of_the_index_leads_to_another_key, a_row_of_the_index_names_an_entry_twice, a_deadline_is_gone,
    a_deadline_of_the_index_is_wrong, a_deadline_belongs_to_nobody, a_label_is_gone, all_labels_are_gone,
    a_label_belongs_to_nobody, a_row_of_the_labels_has_no_form, a_label_belongs_to_an_entry_of_another,
    a_record_with_a_label_is_damaged,
    a_record_with_a_label_is_gone, an_access_time_belongs_to_nobody,
    an_access_time_is_none, two_entries_have_one_key, two_entries_have_one_key_in_one_row,
    an_entry_has_an_impossible_number,
]  # fmt: skip


@LIMITS
@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_every_kind_of_damage_is_found_and_mended(damage, limit, tmp_path):
    """Verify names it and changes nothing; repair leaves no fault, loses no intact entry, and nothing for good."""
    with filled(tmp_path / "d", limit) as d:
        assert verify(rows_of(d)).faults == ()
        before, order = dict(d), list(d)
        kinds, lost = damage(d)
        damaged = contents(d)
        report = verify(rows_of(d))
        found = {fault.kind for fault in report.faults}
        assert kinds <= found or (limit == 1 and (found or not kinds))
        assert report.left == report.faults
        assert contents(d) == damaged

        done = repair(rows_of(d))
        assert done.faults == report.faults
        assert done.left == ()
        assert done.ok
        assert verify(rows_of(d)).faults == ()
        assert {key: value for key, value in dict(d).items() if key not in lost} == {
            key: value for key, value in before.items() if key not in lost
        }
        assert [key for key in d if key not in lost] == [key for key in order if key not in lost]
        tagged = [f"tagged {n}" for n in range(10) if f"tagged {n}" not in lost]
        assert list(d.tagged("TAG")) == tagged
        assert d.tags() == (["OTHER TAG"] if "large and tagged" not in lost else []) + ["TAG"]
        kept = collections.Counter((row.kind, row.raw) for row in quarantined(rows_of(d)))
        now = contents(d)
        for name in ("e", "v", "p"):
            for key, raw in damaged[name]:
                assert (key, raw) in now[name] or kept[name, raw] or raw in [value for _, value in now[name]]
        assert done.quarantined == sum(kept.values())
        for key in lost:
            if key in d:
                assert d[key] == "newer 9" or d._store.get(KeyCodec().encode(key)[0]).blob == b"newer 9"
        d["after"] = 1
        again = repair(rows_of(d))
        assert (again.faults, again.repaired, again.quarantined) == ((), 0, 0)
    with opened(tmp_path / "d", key_size_limit=limit) as d:
        assert d["after"] == 1
        assert verify(rows_of(d)).ok


@examples(60)
@given(seed=st.integers(0, 2**32))
def test_after_any_damage_every_intact_entry_can_be_read(seed, tmp_path_factory):
    """Rows of all databases are changed, exchanged, dropped and made up at random."""
    chance = random.Random(seed)
    limit = chance.choice([1, 20, 511])
    path = tmp_path_factory.mktemp("d")
    with filled(path, limit, 30) as d:
        before = dict(d)
        originals = {key: (seq_of(d, key), d._store.begin_data(d._store.e).get(seq_of(d, key))) for key in before}
        for _ in range(chance.randrange(1, 12)):
            hurt(d, chance)
        now = dict(contents(d)["e"])
        values, pieces = dict(contents(d)["v"]), dict(contents(d)["p"])
        intact = {
            key
            for key, (seq, raw) in originals.items()
            if raw in now.values() and (b"LLLL" not in str(before[key]).encode() or values.get(seq) is not None)
        }
        report = repair(rows_of(d))
        assert report.left == ()
        readable = dict(d)
        for key in intact:
            if now.get(originals[key][0]) == originals[key][1] and "large" not in key:
                assert readable[key] == before[key]
        for key, value in readable.items():
            assert value == before[key]
            assert d[key] == value
        listed = {tag: list(d.tagged(tag)) for tag in d.tags()}
        assert listed == _by_tag(d)
        kept = {row.raw for row in quarantined(rows_of(d))}
        left = set(dict(contents(d)["e"]).values())
        assert set(now.values()) <= kept | left
        for name, rows in (("v", values), ("p", pieces)):
            assert set(rows.values()) <= kept | set(dict(contents(d)[name]).values())


def _by_tag(d):
    """The keys of each tag, from the entries alone."""
    found = {}
    for key in d:
        if d.entry(key).tag is not None:
            found.setdefault(d.entry(key).tag, []).append(key)
    return dict(sorted(found.items()))


def hurt(d, chance):
    """One random change of a row."""
    name = chance.choice("kkeexavttp")
    rows = contents(d)[name]
    if not rows:
        return
    key, value = chance.choice(rows)
    kind = chance.randrange(4)
    if kind == 0:
        drop(d, name, key, value if name == "x" else b"")
    elif kind == 1 and name not in "xt":
        raw = bytearray(value)
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        put(d, name, key, bytes(raw))
    elif kind == 2:
        put(d, name, key, chance.choice(rows)[1])
    elif name == "k":
        put(d, name, chance.randbytes(chance.choice([1, 5, 20]))[: d._store.limit], value)
    elif name == "t":
        put(
            d,
            name,
            chance.choice([chance.randbytes(chance.choice([1, 12, 300])), key[:-4] + bytes(4), key[1:] or b"t"]),
            b"",
        )
    elif name == "p":
        put(d, name, chance.choice([key[:-1] + b"\7", key[1:] or b"p", key[4:8] + key[4:]]), value)
    else:
        put(d, name, seq_bytes(chance.randrange(1, 1 << chance.choice([22, 30, 62]))), value)


def test_a_row_of_the_index_that_leads_to_another_entry_never_makes_a_lie(tmp_path):
    """The index has no checksum. Reading misses, writing adds; the other entry stays as it is."""
    with opened(tmp_path / "d") as d:
        d.update({"a": "of a", "b": "of b", "ab": "of ab"})
        d.flush()
        for key, other in (("a", "b"), ("a", "ab")):
            put(d, "k", row_key(d, key), seq_of(d, other))
            with pytest.raises(KeyError):
                d[key]
            assert d.get_many([key, other]) == {other: f"of {other}"}
            with pytest.raises(KeyError):
                del d[key]
            d[key] = "new"
            assert (d[key], d[other]) == ("new", f"of {other}")
            assert repair(rows_of(d)).ok
            assert d[other] == f"of {other}"
            assert d.pop(key) == "new"
            d[key] = f"of {key}"
            d.flush()


# Steps


def test_the_pass_goes_in_steps_from_any_position_and_tells_its_progress(tmp_path):
    with filled(tmp_path / "d", count=400) as d:
        a_record_is_damaged(d)
        a_large_value_is_gone(d)
        a_row_of_the_index_is_gone(d)
        a_deadline_belongs_to_nobody(d)
        whole = verify(rows_of(d))
        for budget in (1, 7, 100):
            found, position, steps = [], b"", 0
            while position is not None:
                step = verify_step(rows_of(d), budget, position)
                assert step.checked <= budget
                found += step.found
                position = step.position
                steps += step.checked
            assert tuple(each.fault for each in found) == whole.faults
            assert steps == whole.checked
        told = []
        verify(rows_of(d), progress=lambda done, total: told.append((done, total)))
        assert told[-1] == (whole.checked, whole.checked)
        assert told == sorted(told)
        turns = iter([True, False])
        part = verify(rows_of(d), progress=lambda done, total: next(turns))
        assert part.position is not None
        assert not part.ok
        rest = verify(rows_of(d), position=part.position)
        assert part.checked + rest.checked == whole.checked
        assert part.faults + rest.faults == whole.faults


def test_a_step_is_short_and_holds_no_snapshot(tmp_path):
    """Also where values are large: a step ends after some megabytes."""
    with opened(tmp_path / "d") as d:
        d.update(dict.fromkeys(range(40), b"x" * 1000000))
        longest, position, steps = 0.0, b"", 0
        while position is not None:
            begun = time.perf_counter()
            position = verify_step(rows_of(d), 512, position).position
            longest = max(longest, time.perf_counter() - begun)
            steps += 1
        assert steps > 5
        assert longest < 0.25  # the work of 8 MB; the machine may be busy
        assert all(int(line.split()[-1].replace("-", "0") or 0) == 0 for line in _readers(d))


def _readers(d):
    return [line for line in d._store.env.data.raw.readers().splitlines()[1:] if line.split()[-1] != "-"]


def test_entries_that_are_written_meanwhile_are_no_faults(tmp_path):
    with filled(tmp_path / "d") as d:
        position, n = b"", 0
        while position is not None:
            step = verify_step(rows_of(d), 3, position)
            assert step.found == []
            position = step.position
            d[f"key {n % 60}"] = "x" * (n % 3) * 40_000
            d.set(f"new {n}", n, ttl=5)
            d.pop(f"new {n - 2}", None)
            n += 1


def test_no_report_shows_a_key_or_a_value(tmp_path):
    with opened(tmp_path / "d") as d:
        for n in range(3):
            d.set(f"SECRET-key-{n}", f"SECRET-value-{n}", ttl=99, tag=f"SECRET-tag-{n}")
        d["SECRET-large"] = b"SECRET" * 9000
        d.flush()
        tagged = seq_of(d, "SECRET-key-1")
        flip(d, "e", seq_of(d, "SECRET-key-0"))
        drop(d, "v", seq_of(d, "SECRET-large"))
        put(d, "k", row_key(d, "SECRET-gone"), other_seq(d, "SECRET-key-1"))
        drop(d, "k", row_key(d, "SECRET-key-1"))
        drop(d, "t", label_key(b"SECRET-tag-1", tagged))
        put(d, "t", label_key(b"SECRET-nobody", seq_bytes(1)), b"")
        told = repr(verify(rows_of(d))) + repr(repair(rows_of(d)))
        assert key_digest(KeyCodec().encode("SECRET-key-1")[0]) in told
        assert "SECRET" not in told
        assert b"SECRET".hex() not in told


# The quarantine


def test_the_quarantine_gives_back_what_was_moved_byte_by_byte(tmp_path):
    with filled(tmp_path / "d") as d:
        assert list(quarantined(rows_of(d))) == []
        seq = seq_of(d, "large and ends")
        flip(d, "e", seq, -3)
        raw = d._store.begin_data(d._store.e).get(seq)
        put(d, "k", b"0nobody", b"12345")
        report = repair(rows_of(d))
        rows = list(quarantined(rows_of(d)))
        assert report.quarantined == len(rows) == 3
        assert [row.number for row in rows] == [1, 2, 3]
        assert {(row.kind, row.key, row.raw, row.moved_at) for row in rows} == {
            ("e", seq, raw, NOW),
            ("v", seq, b"L" * 40_000, NOW),
            ("k", b"0nobody", b"12345", NOW),
        }
        assert "large and ends" not in d
    gc.collect()
    env = lmdb.open(str(tmp_path / "d"), max_dbs=20, readonly=True)
    with env.begin() as txn:
        entries = txn.stat(env.open_db(b"q", txn=txn, create=False))["entries"]
    env.close()
    assert entries == 3
    with opened(tmp_path / "d") as d:
        assert list(quarantined(rows_of(d))) == rows
        flip(d, "e", seq_of(d, "key 1"))
        repair(rows_of(d))
        assert [row.number for row in quarantined(rows_of(d))] == [1, 2, 3, 4]
        d.clear()
        assert len(list(quarantined(rows_of(d)))) == 4


def test_a_repair_that_is_interrupted_goes_on(tmp_path):
    """After each single transaction the store is as before or mended in that point; repeating ends well."""
    with filled(tmp_path / "d") as d:
        for damage in DAMAGE:
            try:
                damage(d)
            except (TypeError, StopIteration, CorruptEntryError, AssertionError):
                continue  # its entry is gone already
        left = [0]

        def failing(write):
            def work(*args, **options):
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt
                return write(*args, **options)

            return work

        engines = (d._store.env.data, d._store.env.recent)
        for allowed in range(60):
            left[0] = allowed
            for engine in engines:
                engine.write, engine.update = failing(engine.write), failing(engine.update)
            try:
                repair(rows_of(d))
                break
            except KeyboardInterrupt:
                pass
            finally:
                for engine in engines:
                    del engine.write, engine.update
        assert repair(rows_of(d)).left == ()
        assert [d[f"key {n}"] for n in range(20, 60)] == [f"value {n}" for n in range(20, 60)]


# Recent writes


def test_what_a_recent_write_replaces_is_no_fault(tmp_path):
    """Damage in the data under a key that was written again is gone with the next drain; until then nobody reads it."""
    with filled(tmp_path / "d") as d:
        flip(d, "e", seq_of(d, "key 5"))
        drop(d, "v", seq_of(d, "large"))
        flip(d, "e", seq_of(d, "key 6"))
        assert len(d.verify().faults) == 3
        d["key 5"], d["large"] = "new 5", b"N" * 50_000
        del d["key 6"]
        assert d.verify().ok
        d.flush()
        assert d.verify().ok
        assert (d["key 5"], d["large"], "key 6" in d) == ("new 5", b"N" * 50_000, False)


def spoil_recent(d, key, at=-3):
    """Change a byte of a recent write behind the store's back; gives the row."""
    kb = KeyCodec().encode(key)[0]
    rows = {}

    def work(r):
        raw = bytearray(r.get(kb))
        raw[at] ^= 0x10
        rows[kb] = bytes(raw)
        r.put(kb, rows[kb])

    d._store.env.recent.update(work)
    return rows[kb]


def test_a_damaged_recent_write_is_reported_and_moved_away_with_its_bytes(tmp_path):
    """The version that it had replaced goes with it: nobody may take that for the newest. Others are drained."""
    with filled(tmp_path / "d") as d:
        old = d._store.begin_data(d._store.e).get(seq_of(d, "key 5"))
        d["key 5"], d["brand new"], d["key 6"] = "newer 5", 1, "newer 6"
        raws = {spoil_recent(d, "key 5"), spoil_recent(d, "brand new")}
        for key in ("key 5", "brand new"):
            with pytest.raises(CorruptEntryError):
                d[key]
        with pytest.raises(CorruptEntryError, match="repair"):
            d.flush()
        report = d.verify()
        assert {fault.kind for fault in report.faults} == {"record"}
        assert len(report.faults) == 2
        assert not report.ok
        done = d.verify(repair=True)
        assert done.ok
        assert {row.raw for row in d.quarantined() if row.kind == "r"} == raws
        assert [(row.reason, row.raw) for row in d.quarantined() if row.kind == "e"] == [("replaced", old)]
        assert "key 5" not in d
        assert "brand new" not in d
        assert d["key 6"] == "newer 6"
        d.flush()
        d["key 5"] = "again"
        assert d["key 5"] == "again"
        assert d.verify().ok


def test_a_recent_write_under_a_wrong_key_is_brought_where_it_belongs(tmp_path):
    with filled(tmp_path / "d") as d:
        d["key 5"] = "newer 5"
        kb = KeyCodec().encode("key 5")[0]

        def move(r):
            raw = r.get(kb)
            r.delete(kb)
            r.put(kb + b"!", raw)

        d._store.env.recent.update(move)
        assert [fault.kind for fault in d.verify().faults] == ["order"]
        assert d.verify(repair=True).ok
        assert d["key 5"] == "newer 5"
        assert len(d) == len(list(d))


@pytest.mark.parametrize("key", ["fresh", "key 9"])
def test_a_recent_write_with_the_number_of_another_entry_does_not_replace_it(key, tmp_path):
    """The number of a row has no checksum. The drain refuses it, and the repair gives it a possible one."""
    with filled(tmp_path / "d") as d:
        d[key] = "newer"
        kb, other = KeyCodec().encode(key)[0], seq_of(d, "key 3")
        d._store.env.recent.update(lambda r: r.put(kb, other + r.get(kb)[8:]))
        assert d[key] == "newer"
        with pytest.raises(CorruptEntryError, match="repair"):
            d.flush()
        assert (d["key 3"], d[key]) == ("value 3", "newer")
        assert [fault.kind for fault in d.verify().faults] == ["number"]
        assert d.verify(repair=True).ok
        assert (d["key 3"], d[key]) == ("value 3", "newer")
        assert list(d.quarantined()) == []


def test_a_repair_is_seen_by_caches_of_other_handles(tmp_path):
    """It changes the data directly, under a mark."""
    with filled(tmp_path / "d") as d, PersistDict(tmp_path / "d", background_thread="disabled") as other:
        assert other["key 5"] == other["key 5"] == "value 5"
        flip(d, "e", seq_of(d, "key 5"))
        assert d.verify(repair=True).quarantined == 1
        with pytest.raises(KeyError):
            other["key 5"]


# As a user meets it


def test_verify_can_be_stopped_and_goes_on_in_another_handle(tmp_path):
    with filled(tmp_path / "d", count=600) as d:
        flip(d, "e", seq_of(d, "key 599"))
        part = d.verify(progress=lambda done, total: done < 100)
        assert part.position is not None
        assert not part.ok
        with pytest.raises(ValueError, match="begins anew"):
            d.verify(repair=True, resume=part.position)
        stopped = d.verify(repair=True, progress=lambda *_: False)
        assert (stopped.repaired, stopped.position is not None) == (0, True)
    with opened(tmp_path / "d") as d:
        told = []
        rest = d.verify(resume=part.position, progress=lambda *counts: told.append(counts))
        assert part.faults + rest.faults == d.verify().faults
        assert len(part.faults + rest.faults) == 1
        assert told


def test_verify_looks_at_the_pages_in_a_child_if_asked(tmp_path):
    with filled(tmp_path / "d") as d:
        assert d.verify(pages=True).ok
        assert d.verify(repair=True, pages=True).ok
        d["after"] = 1
        assert d.verify(pages=True).ok


def test_a_repair_warns_with_digests_and_settles_what_upkeep_had_found(tmp_path):
    from loguru import logger

    lines = []
    sink = logger.add(lines.append, level=0)
    try:
        with filled(tmp_path / "d") as d:
            flip(d, "e", seq_of(d, "key 5"))
        with PersistDict(tmp_path / "d", background_thread=False) as d:  # a pass at once, which finds it
            assert d.verify(repair=True).ok
            d.flush()  # raises nothing any more
    finally:
        logger.remove(sink)
    assert any("WARNING" in line and "quarantine" in line for line in lines)
    assert "key 5" not in "".join(lines)


def test_a_dictionary_without_a_disk_is_verified_too():
    d = PersistDict("memory://", background_thread="disabled")
    d["a"] = 1
    assert d.verify(repair=True, pages=True).ok
    assert list(d.quarantined()) == []
    d.close()


def test_a_store_of_the_first_format_has_no_quarantine_until_it_needs_one(tmp_path):
    with filled(tmp_path / "d") as d:
        assert d._store.begin_data().get(b"q") is None
        assert "q" not in d._store.env.dbs
        flip(d, "e", seq_of(d, "key 5"))
        d.verify(repair=True)
        assert d._store.begin_data().get(b"q") is not None


def test_new_entries_are_written_where_the_last_number_is_damaged_and_too_large(tmp_path):
    """One by one, and many at once; they are found, and stay when the damage is mended."""
    new = {f"new {n}": n for n in range(600)}
    with filled(tmp_path / "d") as d:
        before = dict(d)
        put(d, "e", seq_bytes(1 << 62), b"damaged")
        d["one"] = 1
        d.flush()
        d.update(new)
        assert {key: d[key] for key in ("one", *new)} == {"one": 1, **new}
        assert d.verify(repair=True).ok
        assert dict(d) == {**before, "one": 1, **new}


def test_reading_many_of_which_one_is_damaged_says_so(tmp_path):
    """As reading that one does; the others can still be read together."""
    with filled(tmp_path / "d") as d:
        flip(d, "e", seq_of(d, "key 5"), -3)
        keys = [f"key {n}" for n in range(10)]
        with pytest.raises(CorruptEntryError, match="digest"):
            d.get_many(keys)
        keys.remove("key 5")
        assert d.get_many(keys) == {key: f"value {key[4:]}" for key in keys}
        del d["key 5"]
        assert "key 5" not in d
