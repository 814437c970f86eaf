"""Hostile bytes: whatever a file holds, a decoder gives a value or raises an error of ours, in bounded memory and time.

The targets are those of scripts/fuzz, each with a few hundred inputs; then what was found by them, one test for each.
"""

import fractions
import os
import random
import struct
import sys
import textwrap
import warnings
import zoneinfo
from collections import Counter

import lmdb
import numpy
import ormsgpack
import pytest
from drivers.limited import run_limited
from fuzz.mutate import mutated, with_checksum
from fuzz.planted import close
from fuzz.table import Target
from fuzz.targets import TARGETS, outcome
from hypothesis import given
from hypothesis import strategies as st
from ormsgpack import Ext
from strategies import examples

from persistdict import (
    CorruptEntryError,
    CorruptStoreError,
    DamagedEntryWarning,
    DecodeError,
    NotAStoreError,
    PersistDict,
    PersistDictError,
    SafeCodec,
    ValueTypeError,
)
from persistdict.codecs.crowds import FEW, is_crowded
from persistdict.codecs.extensions import MOST_BITS
from persistdict.keys import KeyCodec
from persistdict.queueparts import READY
from persistdict.queuestate import ID, State
from persistdict.spans import queue_head
from persistdict.stores.lmdb.pages import BRANCH, HEADER, TREE
from persistdict.stores.lmdb.record import LARGE, PIECES, label_key, pack_index, pack_record, seq_bytes

CODEC = SafeCodec()
KB = KeyCodec().encode("key")[0]
SEQ = seq_bytes(3)
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits a process as Linux does")


# The targets


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_bytes_are_decoded_or_raise_errors_of_ours(name):
    """What is not an error of ours fails."""
    target = TARGETS[name]
    seeds = target.seeds()

    @examples(max(20, min(300, int(3000 * target.share))))
    @given(st.randoms(use_true_random=False))
    def check(chance):
        chance = random.Random(chance.getrandbits(64))
        data = mutated(chance.choice(seeds), chance, seeds)
        if target.make is not None and chance.random() < 0.5:
            data = target.make(chance)
        outcome(target, target.mend(data) if chance.random() < 0.8 else data)

    try:
        check()
    finally:
        close()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_decodes_what_it_begins_with(name):
    """Else nothing behind its first check would ever be reached."""
    target = TARGETS[name]
    try:
        assert Counter(outcome(target, data) for data in target.seeds())["decoded"]
    finally:
        close()


def test_what_fails_is_told():
    """An error that is not ours, and memory that ran out on the way to one that is."""

    def fail(data):
        raise KeyError(data)

    def burst(data):
        try:
            raise MemoryError
        except MemoryError as error:
            raise DecodeError("it is too large") from error

    with pytest.raises(KeyError):
        outcome(Target(fail, list), b"")
    with pytest.raises(AssertionError):
        outcome(Target(burst, list), b"")


# Values


def extended(code, content):
    return ormsgpack.packb([Ext(code, content)])


def test_a_tuple_has_no_more_items_than_there_are_bytes():
    """An array without data may say that it has a million million rows; a tuple of them must not be made."""
    header = ormsgpack.packb(["<f8", [1 << 40, 0], False])
    array = ormsgpack.packb(Ext(16, len(header).to_bytes(2, "little") + header))
    assert ormsgpack.unpackb(array, ext_hook=CODEC._make_tree()._restore).shape == (1 << 40, 0)
    for code in (1, 2, 3, 8, 15, 18, 19):
        with pytest.raises(DecodeError):
            CODEC.decode(8, extended(code, array))


def test_what_a_sequence_is_made_of_is_a_list():
    for content in ("ab", {"a": 1}, 5, None, b"ab"):
        for code in (1, 2, 3, 15):
            with pytest.raises(DecodeError):
                CODEC.decode(8, extended(code, ormsgpack.packb(content)))


def test_a_fraction_takes_no_more_time_than_its_bytes_are_worth():
    """To make one of two ints of a megabyte takes minutes: so large ones are neither written nor read."""
    largest = fractions.Fraction((1 << MOST_BITS) - 1, 1 << (MOST_BITS - 1))
    assert CODEC.decode(*CODEC.encode([largest, -largest])) == [largest, -largest]
    with pytest.raises(ValueTypeError):
        CODEC.encode([fractions.Fraction(1 << MOST_BITS, 3)])
    for parts in ([1 << MOST_BITS, 3], [3, 1 << MOST_BITS], [1, 0]):
        packed = [CODEC._make_tree()._extension(part, bytes) if part > 1 << 60 else part for part in parts]
        with pytest.raises(DecodeError):
            CODEC.decode(8, extended(19, ormsgpack.packb(packed)))


def crowd(many):
    """So many ints with the hash 0."""
    return [number * sys.hash_info.modulus for number in range(1, many + 1)]


def test_keys_with_one_hash_are_neither_written_nor_read_in_crowds():
    """A set of a hundred thousand such ints takes a minute to make, one of a million hours."""
    assert not is_crowded(crowd(FEW)) and is_crowded(crowd(FEW * 4))
    assert not is_crowded([number // 2 + number % 2 * sys.hash_info.modulus for number in range(8 * FEW)])
    assert not is_crowded([complex(number, 0) for number in range(5000)])
    fine, bad = crowd(FEW), crowd(FEW * 4)
    for value in (set(fine), frozenset(fine), dict.fromkeys(fine), set(range(100_000))):
        assert CODEC.decode(*CODEC.encode(value)) == value
    for value in (set(bad), frozenset(bad), dict.fromkeys(bad), (frozenset(bad),), {1: set(bad)}):
        with pytest.raises(ValueTypeError):
            CODEC.encode(value)
    items = CODEC._make_tree().pack(bad)
    pairs = CODEC._make_tree().pack([part for item in bad for part in (item, None)])
    tuples = CODEC._make_tree().pack([(item,) for item in bad])
    for code, content in ((2, items), (3, items), (15, pairs), (2, tuples)):
        with pytest.raises(DecodeError, match="hash"):
            CODEC.decode(8, extended(code, content))


def test_a_time_zone_imports_nothing_that_bytes_name():
    """zoneinfo makes the name of a package of what stands before the last slash of a key."""
    before = set(sys.modules)
    for key in ("os.path/x", "a.b/c", "..x/y", "Europe.Berlin", "Europe/Berlin/", "x" * 101, "Europe/\u00e9"):
        with pytest.raises(DecodeError):
            CODEC.decode(8, extended(21, key.encode()))
    assert not {name for name in set(sys.modules) - before if name.startswith("tzdata")}
    with open(zone_file(), "rb") as file:
        zone = zoneinfo.ZoneInfo.from_file(file, key="a.b/c")
    with pytest.raises(ValueTypeError):
        CODEC.encode([zone])


def zone_file():
    """Where a time zone is described."""
    found = [os.path.join(folder, "Europe", "Berlin") for folder in zoneinfo.TZPATH]
    return next(path for path in found if os.path.exists(path))


def test_text_in_arrays_is_made_of_characters():
    """Whoever looked at an element of another number would get a SystemError."""
    for order in "<>":
        for number, size in ((0x110000, "U1"), (0xFFFFFFFF, "U1"), (0x7FFFFFFF, "U3")):
            header = ormsgpack.packb([order + size, [1], False])
            data = number.to_bytes(4, "little" if order == "<" else "big") * int(size[1:])
            for tag, blob in ((9, header), (8, header)):
                packed = len(blob).to_bytes(2, "little") + blob + data
                with pytest.raises(DecodeError):
                    CODEC.decode(tag, packed if tag == 9 else extended(16, packed))
    for text in ("\U0010ffff", "a", ""):
        array = numpy.array([text, "b"])
        assert CODEC.decode(*CODEC.encode(array)).tolist() == array.tolist()


def test_units_of_time_have_no_factor_of_zero():
    for description in ("<M8[0s]", "<m8[00ns]", "<M8[\u0661s]"):
        with pytest.raises(DecodeError):
            CODEC.decode(8, extended(17, ormsgpack.packb([description, bytes(8)])))


def test_a_type_that_is_not_registered_is_named_only_by_a_str():
    """Whatever stands there instead is not shown."""
    for name in (5, ["canary"], {"canary": 1}, None, b"canary"):
        with pytest.raises(DecodeError) as caught:
            CODEC.decode(8, extended(18, ormsgpack.packb([name, 1])))
        assert "canary" not in str(caught.value)


@needs_proc
def test_bombs_of_every_type_take_neither_memory_nor_time():
    """In a process with 256 MB and 20 seconds."""
    code = """
        import ormsgpack, numpy, decimal, fractions, datetime, uuid, json
        from ormsgpack import Ext
        from persistdict import SafeCodec, DecodeError
        from persistdict.codecs import JsonCodec
        from persistdict.keys import KeyCodec
        codec, pack = SafeCodec(), ormsgpack.packb
        codec.decode(*codec.encode([(numpy.zeros(2), 1)]))
        limit()
        def decoded(blob, tag=8, of=codec):
            try:
                return of.decode(tag, blob)
            except DecodeError:
                return None
        def ext(code, *values):
            return Ext(code, pack(list(values)))
        def number(n):
            return Ext(4, n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True))
        def array(description, shape, data=b""):
            header = pack([description, shape, False])
            return len(header).to_bytes(2, "little") + header + data
        huge = (1 << 8_000_000) - 1
        decoded(pack(ext(19, number(huge), number(huge // 3 | 1))))
        decoded(pack(ext(2, *[Ext(10, b"1E+999999999999999999"), Ext(10, b"-1E-999999999999999999"), 1, 2.5])))
        for text in (b"1E+999999999", b"9" * 3_000_000, b"1E-999999999", b"sNaN" + b"9" * 1000, b"1_0"):
            value = decoded(pack([Ext(10, text)]))
            decoded(pack(ext(2, Ext(10, text), 5, ext(19, 1, 3), 0.5)))
        decoded(pack(ext(2, *[number(n * (2**61 - 1)) for n in range(1, 200_000)])))
        decoded(pack(ext(15, *[number(n // 2 * (2**61 - 1)) for n in range(2, 400_000)])))
        decoded(pack(ext(3, *[ext(1, number(n * (2**61 - 1))) for n in range(1, 100_000)])))
        decoded(pack(ext(2, *[Ext(9, (n * (2**61 - 1)).to_bytes(16, "big")) for n in range(1, 100_000)])))
        decoded(pack(ext(1, Ext(16, array("<f8", [1 << 40, 0])))))
        decoded(pack(Ext(1, pack(Ext(16, array("<f8", [1 << 62, 0]))))))
        for description in ("|S999999999", "|V999999999", [["a", "|S99999999", [9, 9]]], "<U99999999"):
            for shape in ([0], [0, 1 << 40], [], [1]):
                decoded(array(description, shape), 9)
                decoded(pack(ext(17, description, b"")))
        for day in (10**9, -10**9, 10**18):
            decoded(pack(ext(8, day, day, day)))
        for text in ("9999-12-31T23:59:59.999999", "0001-01-01T00:00:00", "99999-01-01T00:00:00", "-001-01-01"):
            decoded(pack(ext(2, ext(5, text, 1, ext(20, ext(8, -1, 1, 0), None)), 1)))
        decoded(b"\\x7f" * 5_000_000, 3)
        for text in (b"9" * 5_000_000, b"[" * 5_000_000, b"1e999999999", b'{"a":' * 1_000_000, b"1E-9999999999999"):
            decoded(text, 32, JsonCodec())
        keys = KeyCodec()
        for kb in (
            b"\\x10\\xf9\\xff\\xff\\xff\\xff", b"\\x10\\x07\\x00\\x00\\x00\\x00", b"\\x40" * 1_000_000,
            b"\\x40\\x30" + b"\\x00\\xff" * 500_000,
            b"\\x10\\xf9" + (1_000_000).to_bytes(4, "big") + b"\\xff" * 1_000_000, b"\\x40" + b"\\x01" * 1_000_000,
        ):
            for hint in (b"", b"f", b"fbz" * 1000):
                try:
                    hash(keys.decode(kb, hint))
                except DecodeError:
                    pass
    """
    assert run_limited(code) == ("end", 0, "")


# Rows of a store


@pytest.fixture
def planted(tmp_path):
    """A dictionary, and a function that plants rows in its data behind its back: database, key, row."""
    with PersistDict(tmp_path / "d", background_thread="disabled", caching=False) as d:
        d["other"] = 1
        d.flush()
        env = d._store.env

        def plant(*rows):
            with env.data.raw.begin(write=True) as txn:
                for name, key, raw in rows:
                    txn.put(key, raw, db=env.dbs[name])

        yield d, plant


def reads(d):
    """Every way to read the entry of "key"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        for read in (
            lambda: d["key"], lambda: "key" in d, lambda: d.get_many(["key"]), lambda: d.entry("key"), d.tags,
            lambda: list(d), lambda: list(d.items()), lambda: len(d), d.spaces, d.queues,
            lambda: list(d.range("a", "z")), lambda: d.set("key", 2), lambda: d.pop("key"),
        ):  # fmt: skip
            try:
                yield read()
            except (PersistDictError, KeyError) as error:
                yield error


def test_a_record_that_is_nothing_but_a_checksum_is_damaged(planted):
    """Of no bytes at all, or of one to seven, the checksum fits; there is no header to be read."""
    d, plant = planted
    for size in (0, 1, 3, 20):
        raw = with_checksum(bytes(size) + bytes(4))
        plant(("e", SEQ, raw), ("k", KB, SEQ))
        found = list(reads(d))
        assert isinstance(found[0], CorruptEntryError)
        assert d["other"] == 1
        with d._store.env.recent.raw.begin(write=True) as txn:
            txn.put(KB, SEQ[: size % 8] + raw)
        assert isinstance(next(reads(d)), CorruptEntryError) and list(reads(d))
        with d._store.env.recent.raw.begin(write=True) as txn:
            txn.delete(KB)


def test_what_a_record_says_of_a_large_value_has_one_length(planted):
    d, plant = planted
    for size in (0, 11, 13, 40):
        for flags in (LARGE, LARGE | PIECES):
            plant(("e", SEQ, pack_record(1, KB, b"", 5 << 20, 1.0, 1.0, bytes(size), flags=flags)), ("k", KB, SEQ))
            assert isinstance(next(reads(d)), CorruptEntryError)
            assert not d.verify().ok
            assert list(reads(d))
            d.flush()


def test_a_record_that_ends_says_when(planted):
    """The deadline 0 stands for none."""
    d, plant = planted
    raw = bytearray(pack_record(1, KB, b"", 5 << 20, 1.0, 1.0, b"v", deadline=1))
    raw[32 + len(KB)] = 0
    plant(("e", SEQ, with_checksum(bytes(raw))), ("k", KB, pack_index([(SEQ, 0)])))
    assert isinstance(next(reads(d)), CorruptEntryError)


@needs_proc
def test_a_large_value_has_as_many_pieces_as_are_there():
    """A few bytes say that it has two to the sixtieth: they are not looked for all at once."""
    code = """
        import struct, tempfile, warnings
        from persistdict import PersistDict, CorruptEntryError
        from persistdict.keys import KeyCodec
        from persistdict.stores.lmdb.pieces import head_of, piece_key
        from persistdict.stores.lmdb.record import LARGE, PIECES, pack_record, seq_bytes
        kb, seq = KeyCodec().encode("key")[0], seq_bytes(3)
        with tempfile.TemporaryDirectory() as folder, PersistDict(folder, background_thread="disabled") as d:
            d["other"] = 1
            d.flush()
            env = d._store.env
            limit()
            for size in (1 << 36, 1 << 47, 1 << 60, (1 << 64) - 1):
                raw = pack_record(1, kb, b"", 5 << 20, 1.0, 1.0, struct.pack("<QI", size, 0), flags=LARGE | PIECES)
                with env.data.raw.begin(write=True) as txn:
                    txn.put(seq, raw, db=env.dbs["e"])
                    txn.put(kb, seq, db=env.dbs["k"])
                    txn.put(piece_key(seq, 0), head_of(5 << 20, 0) + b"x", db=env.dbs["p"])
                for read in (lambda: d["key"], lambda: d.get_many(["key"]), lambda: d.copy().__getitem__("key")):
                    try:
                        read()
                    except (CorruptEntryError, KeyError):
                        pass
                assert not d.verify().ok
    """
    assert run_limited("import warnings; warnings.simplefilter('ignore')\n" + textwrap.dedent(code)) == ("end", 0, "")


def test_a_tag_that_is_no_text_is_passed_over(planted):
    d, plant = planted
    raw = pack_record(1, KB, b"", 5 << 20, 1.0, 1.0, b"v", label=b"\xff\xfe")
    plant(("e", SEQ, raw), ("k", KB, SEQ), ("t", label_key(b"\xff\xfe", SEQ), b""))
    d.set("tagged", 1, tag="news")
    assert d["key"] == "v"
    with pytest.raises(DecodeError):
        d.entry("key")
    with pytest.warns(DamagedEntryWarning):
        assert d.tags() == ["news"]


@pytest.mark.parametrize(
    "strange", [b"\xf0", b"\xf0\x00", b"\xf0\x01", b"\xf0\x02\xff\xfea", b"\xf0\x01s\xffa", b"\xf0\xfaab"]
)
def test_an_entry_of_no_possible_space_hides_no_other(planted, strange):
    """Nor does the list of spaces go on for ever."""
    d, _ = planted
    d.space("s")["a"] = 1
    d._store.put(strange, b"", 1, b"value")
    with pytest.warns(DamagedEntryWarning):
        assert d.spaces() == ["s"]
    d._store.put(b"\xf1" + strange[1:], b"", 1, b"value")
    d.queue("q").put(1)
    with pytest.warns(DamagedEntryWarning):
        assert d.queues() == ["q"]


def test_numbers_of_the_info_have_bounds(planted):
    """Python refuses to read ten thousand digits, and takes digits of any script; what is no number is counted anew."""
    d, plant = planted
    for text in (b"9" * 10_000, b"9" * 20, b"-1", "\u0663".encode(), b"", b"nan", b"inf", b"1e400"):
        plant(*[("info", name, text) for name in (b"size", b"outside", b"kept", b"clock", b"suspect", b"in f0")])
        assert d.stats().entries == 1
        d["other"] = 1
        d.maintain()
        d.flush()
        assert d["other"] == 1


@pytest.mark.parametrize(
    "name, text",
    [
        ("last", "9" * 10_000), ("last", str(1 << 44)), ("last", "\u0663"), ("format", "9" * 10_000),
        ("mode", "unheard of"), ("mode", ""),
    ],
)  # fmt: skip
def test_a_store_with_impossible_settings_is_refused(tmp_path, name, text):
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["a"] = 1
    with lmdb.open(str(tmp_path / "d"), max_dbs=32, map_size=1 << 24, lib_version=0) as env:
        info = env.open_db(b"info")
        with env.begin(write=True) as txn:
            txn.put(name.encode(), text.encode(), db=info)
    with pytest.raises(NotAStoreError):
        PersistDict(tmp_path / "d", background_thread="disabled")


def test_a_database_of_another_kind_is_refused(tmp_path):
    """Its keys would not have the length that everybody takes for granted."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["a"] = 1
    with lmdb.open(str(tmp_path / "d"), max_dbs=32, map_size=1 << 24, lib_version=0) as env:
        x = env.open_db(b"x", integerkey=True, dupsort=True, dupfixed=True)
        with env.begin(write=True) as txn:
            txn.drop(x, delete=True)
        x = env.open_db(b"x")
        with env.begin(write=True) as txn:
            txn.put(b"abc", b"de", db=x)
    with pytest.raises(NotAStoreError):
        PersistDict(tmp_path / "d", background_thread="disabled")


@needs_proc
@pytest.mark.parametrize("cut", [False, True])
def test_trees_that_lead_in_circles_are_refused_at_once(tmp_path, cut):
    """Of thirty branches, each of which leads to the next one twice, there are more ways than anybody can go."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d["a"] = 1
    path = tmp_path / "d" / "data.mdb"
    count = os.path.getsize(path) // 4096
    nodes = b"".join(struct.pack("=HHHH", count, 0, 0, size) + b"k" * size for size in (0, 8))
    branch = HEADER.pack(count, 0, BRANCH, 20, 4096 - len(nodes))
    branch += struct.pack("=HH", 4096 - len(nodes), 4096 - len(nodes) + 8)
    data = bytearray(path.read_bytes()[: count * 4096] + branch.ljust(4096 - len(nodes), b"\0") + nodes)
    main = HEADER.size + 24 + TREE.size
    for slot in (0, 4096):
        TREE.pack_into(data, slot + main, 0, 0, 31, 1, 1, 0, 2, count)
        struct.pack_into("=Q", data, slot + main + TREE.size, count + cut)
    path.write_bytes(data)
    code = f"""
        from persistdict import PersistDict, PersistDictError
        limit(256, 10)
        try:
            PersistDict({str(tmp_path / "d")!r}, background_thread="disabled")
        except PersistDictError:
            print("refused")
    """
    assert run_limited(code)[1:] == (0, "")


# Rows of a queue


@pytest.mark.parametrize(
    "raw", [b"", b"\x01", b"\x01" + b"\xff" * 200, State("fifo", 0).pack() + b"x", State("lifo", 0).pack()[:-1]]
)
def test_a_damaged_state_of_a_queue_is_an_error(raw):
    with PersistDict("memory://", background_thread="disabled") as d:
        q = d.queue("q")
        d._store.put(q._rows.state_key, b"", 0, raw)
        for use in (q.qsize, lambda: q.put(1), lambda: q.get(block=False), q.peek):
            with pytest.raises(CorruptEntryError):
                use()


def test_a_state_of_a_queue_has_room_for_more():
    """What counts further from the largest number that fits would not fit."""
    for name in ("next_id", "ready", "leased", "unfinished", "maxsize"):
        state = State("fifo", 0)
        setattr(state, name, (1 << 64) - 1)
        with pytest.raises(CorruptEntryError):
            State.parse(state.pack())
    state = State("fifo", 0)
    for state.order, state.edge in (("fifo", b"\xff" * 9), ("lifo", b"\x00" * 8)):
        assert state.neighbour(state.edge) == b""


@pytest.mark.parametrize("held", [b"", b"\x00" * 4, b"\x00" * 4 + b"\x02item", b"\xff" * 4 + b"\x00item"])
def test_a_damaged_item_of_a_queue_is_passed_over(held):
    with PersistDict("memory://", background_thread="disabled") as d:
        q = d.queue("q")
        q.put_many(["a", "b"])
        d._store.put(queue_head("q") + READY + ID.pack(0), b"", 1, held)
        with pytest.warns(DamagedEntryWarning):
            assert q.get(block=False) == "b"
        assert q.qsize() == 0


def test_a_damaged_lease_of_a_queue_is_passed_over():
    """One whose item is another's, that was never handed out, or has no length that fits."""
    for spoil in (
        lambda blob: blob[:9],
        lambda blob: blob[:8] + b"\xff\xff" + blob[10:],
        lambda blob: blob[:10] + b"\xff" * 8 + blob[18:],
        lambda blob: blob[:18] + bytes(5) + blob[23:],
    ):
        now = [1e9]
        with PersistDict("memory://", background_thread="disabled", clock=lambda now=now: now[0]) as d:
            q = d.queue("q")
            q.put_many(["a", "b"])
            job = q.get(lease=5)
            key = job._lease.key
            d._store.put(key, b"", 1, spoil(d._store.get(key).blob))
            with pytest.raises(PersistDictError):
                job.ack()
            now[0] += 100
            with pytest.warns(DamagedEntryWarning):
                assert q.get(block=False) == "b"
            assert q.qsize() == 0


def test_the_recent_writes_have_a_possible_base(tmp_path):
    """A number that leaves no room for the next one would be found out at the first write."""
    from persistdict.stores.lmdb.recent import _base_row, base_of

    assert base_of(_base_row(7, (1, 2))) == (7, 1, 2)
    assert base_of(_base_row((1 << 64) - 1, (1, 2))) is None
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        env = d._store.env
        with env.recent.raw.begin(write=True) as txn:
            txn.put(b"\x00base", _base_row((1 << 64) - 1, env.identity))
    with pytest.raises(CorruptStoreError):
        PersistDict(tmp_path / "d", background_thread="disabled")
