"""What is on the disk: golden files of format 1, records and index byte by byte, damage, and lmdb-dict as a neighbour.

The golden files were written once by `make_golden` and never change; a release that cannot read them exactly, or that
writes other bytes for the same keys and values, has changed the format and must give it another number.
"""

import collections
import dataclasses
import datetime
import decimal
import fractions
import gc
import gzip
import json
import math
import os
import pathlib
import random
import shutil
import struct
import sys
import uuid
import warnings
import zlib
import zoneinfo
from pathlib import Path
from typing import Any

import lmdb
import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lmdb_dict import StrLmdbDict
from strategies import examples, same

from persistdict import CorruptEntryError, DamagedEntryWarning, NotAStoreError, PersistDict, SafeCodec
from persistdict.codecs import JsonCodec, RawCodec
from persistdict.keys import KeyCodec, crop
from persistdict.stores.lmdb import LmdbStore
from persistdict.stores.lmdb.record import (
    check_large,
    large_body,
    pack_index,
    pack_record,
    parse_index,
    parse_record,
    seq_bytes,
    seq_number,
)

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_700_000_000.25


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


NAMES = {
    "inf": math.inf, "nan": math.nan, "datetime": datetime, "Decimal": decimal.Decimal, "Fraction": fractions.Fraction,
    "UUID": uuid.UUID, "ZoneInfo": zoneinfo.ZoneInfo, "pathlib": pathlib, "numpy": numpy, "Point": Point,
    "range": range, "bytes": bytes, "set": set, "frozenset": frozenset, "bytearray": bytearray, "complex": complex,
    "dict": dict,
}  # fmt: skip


def valued(expression):
    """The value of an expression of the golden files."""
    return eval(expression, {"__builtins__": {}}, NAMES)


def codec_with_point():
    codec = SafeCodec()
    codec.register(Point, lambda point: [point.x, point.y], lambda parts: Point(*parts), name="golden.Point")
    return codec


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", **options)


def read_golden(name):
    return json.loads((GOLDEN / name).read_text())


KEYS = [
    "None", "0", "-0.0", "0.0", "False", "True", "1", "1.0", "-1", "127", "128", "255", "256", "-255", "-256", "-257",
    "2**63",
    "2**64", "-2**64", "2**960 - 1", "2**960", "-2**960 + 1", "-2**960", "2**8000", "0.5", "-0.5", "1.5", "-1.5",
    "5e-324",
    "-5e-324", "0.1", "1e15 + 0.5", "1.7976931348623157e308", "inf", "-inf", "nan", "b''", "b'a'",
    "b'\\x00\\xff\\x00'", "''", "'a'",
    "'a\\x00b'", "'\\ud800'", "'\\ud83d\\ude00'", "'é😀'", "'long' * 300", "()", "(None,)", "('',)", "(b'',)",
    "('a', 1)",
    "('a\\x00', b'\\x00\\xff', 'b')", "(1, (2.5, (), ((),)), -0.0, True)", "((('x',), nan), inf)", "(0.5, 'z')",
    "(-1.5, 2)",
]  # fmt: skip
VALUES = [
    "''", "'text é😀'", "'\\ud800x'", "b''", "b'\\x00\\xff'", "0", "1", "-1", "127", "128", "-128", "-129", "2**64",
    "-2**100",
    "0.0", "-0.0", "1.5", "inf", "nan", "None", "False", "True", "[]", "[1, -1, 2**40, 1.5, 'x', b'y', None, True]",
    "{}",
    "{'a': 1, 'é': [2]}", "()", "(1, ('a',))", "{1}", "set()", "frozenset([(1, 2)])", "[2**64, -2**63 - 1]", "[2**63]",
    "[datetime.datetime(2024, 10, 27, 2, 30, 0, 5, ZoneInfo('Europe/Berlin'), fold=1)]", "datetime.datetime(1, 1, 1)",
    "datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)", "datetime.date(2020, 12, 31)",
    "datetime.time(1, 2, 3, 4)",
    "datetime.timedelta(-1, 5, 7)", "UUID(int=2**100)", "Decimal('-0.10')", "Decimal('NaN')", "[complex(1, -0.0)]",
    "pathlib.PurePosixPath('a/b')", "pathlib.PureWindowsPath('c:/x')", "bytearray(b'x')", "[bytearray(b'x'), b'x']",
    "['\\ud800', 'x']", "{1: 'a', (2, 'b'): [3]}", "{'\\udfff': 1}", "[numpy.zeros((2, 3), '<f4')]",
    "numpy.array(5, '>i2')",
    "numpy.array([[1, 2], [3, 4]], '<i8')", "numpy.array([[1, 2], [3, 4]], '<i8', order='F')",
    "numpy.zeros((0, 2), '|b1')",
    "numpy.array(['a', 'bc'], '<U2')", "numpy.array([b'a'], 'S3')", "numpy.array(['2020-01-01'], '<M8[D]')",
    "numpy.array([(1, [b'x', b'y'])], [('a', '<i4'), ('é', 'S1', (2,))])", "numpy.float64(1.5)", "[numpy.int8(-5)]",
    "numpy.str_('é')", "numpy.datetime64('2020-01-01T00:00', 'ns')", "Point(1, [Point(None, 2)])", "Fraction(-1, 3)",
    "datetime.timezone(datetime.timedelta(hours=1), 'X')", "datetime.timezone.utc", "ZoneInfo('UTC')",
]  # fmt: skip
OTHER_VALUES = [("json", "{'a': [1, 'é', None, 1.5]}"), ("raw", "b'\\x00x'")]
RECORDS = [
    {"tag": 1, "kb": "b'0key'", "hint": "b''", "version": 5 << 20, "ctime": 1.5, "mtime": 2.5, "body": "b'value'"},
    {"tag": 3, "kb": "b''", "hint": "b'f'", "version": 2**64 - 1, "ctime": 0.0, "mtime": -1.0, "body": "b''"},
    {"tag": 255, "kb": "b'k' * 600", "hint": "b'if'", "version": 1, "ctime": NOW, "mtime": NOW, "body": "b'\\x00'",
    "deadline": 7},
    {"tag": 8, "kb": "b'k'", "hint": "b''", "version": 0, "ctime": NOW, "mtime": NOW, "body": "b'x' * 12",
    "flags": 1},
]  # fmt: skip
LABELLED_RECORDS = [
    {"tag": 1, "kb": "b'0key'", "hint": "b''", "version": 5 << 20, "ctime": 1.5, "mtime": 2.5, "body": "b'value'",
    "label": "b'news'"},
    {"tag": 3, "kb": "b''", "hint": "b'f'", "version": 2**64 - 1, "ctime": 0.0, "mtime": -1.0, "body": "b''",
    "label": "b'\\x00'"},
    {"tag": 255, "kb": "b'k' * 600", "hint": "b'if'", "version": 1, "ctime": NOW, "mtime": NOW, "body": "b'\\x00'",
    "deadline": 7, "label": "b'\\xff' * 255"},
    {"tag": 8, "kb": "b'k'", "hint": "b''", "version": 0, "ctime": NOW, "mtime": NOW, "body": "b'x' * 12",
    "deadline": 2**64 - 1, "flags": 1, "label": "'é'.encode()"},
]  # fmt: skip
INDEXES: list[list[list[int]]] = [
    [[5 << 20, 0]],
    [[5 << 20, 1_700_000_000_000_000]],
    [[1, 0], [2, 3]],
    [[1, 0], [2, 0], [3, 2**64 - 1]],
]


def packed(record):
    """A record of the list above as bytes."""
    return pack_record(**{name: valued(part) if isinstance(part, str) else part for name, part in record.items()})


def pack_slots(slots):
    return pack_index([(seq_bytes(number), deadline) for number, deadline in slots])


# Golden files


def write_golden_store(path, limit, count):
    """A store with entries of all sorts; gives what is in it: key, value, ctime, mtime, end, version."""
    now = [NOW]

    def clock():
        now[0] += 0.5
        return now[0]

    written: dict[str, str] = {}
    with opened(path, key_size_limit=limit, clock=clock) as d:
        d.codec.register(Point, lambda point: [point.x, point.y], lambda parts: Point(*parts), name="golden.Point")

        def put(key, value, ttl=None):
            d.set(valued(key), valued(value), ttl=ttl)
            written[key] = value

        put("'removed'", "1")
        put("'small'", "1")
        put("('tuple', 1.5, None)", "[1, ('a', None)]")
        put("'large'", "bytes(range(256)) * 160")
        put("'expires'", "'far away'", 8e9)
        put("'large and expires'", "'é' * 20000", 8e9)
        put("True", "numpy.zeros((100, 2), '<f4')")
        put("nan", "{1: Point(1, 2)}")
        put("b'\\x00'", "bytearray(b'x')")
        put("'long' * 300", "None")
        put("('long' * 300, 1)", "'other'")
        put("'grows'", "'small'")
        put("'grows'", "'x' * 50000")
        put("'shrinks'", "'x' * 50000")
        put("'shrinks'", "'small'")
        put("'loses its end'", "1", 5.0)
        put("'loses its end'", "2")
        d.update((f"key {number}", number) for number in range(count))
        written.update((f"'key {number}'", f"{number}") for number in range(count))
        del d["removed"], written["'removed'"]
        d(initial=1)
        written["'initial'"] = "1"
        assert d["small"] == 1
        d.flush()
        entries = {key: d.entry(valued(key)) for key in written}
        return [
            [key, value, *entries[key][:2], entries[key].expires_at, entries[key].version]
            for key, value in written.items()
        ]


def make_golden():
    """Write the golden files. Only for a new format: PERSISTDICT_MAKE_GOLDEN=1 pytest tests/test_formats.py."""
    GOLDEN.mkdir(exist_ok=True)
    keys, codec = KeyCodec(), codec_with_point()

    def write(name, content):
        lines = ",\n".join(json.dumps(line) for line in content)
        (GOLDEN / name).write_text(f"[\n{lines}\n]\n")

    write("keys.json", [[text, *(part.hex() for part in keys.encode(valued(text)))] for text in KEYS])
    values = [("safe", text, codec.encode(valued(text))) for text in VALUES]
    values += [
        (name, text, {"json": JsonCodec(), "raw": RawCodec()}[name].encode(valued(text))) for name, text in OTHER_VALUES
    ]
    write("values.json", [[name, text, tag, blob.hex()] for name, text, (tag, blob) in values])
    write("records.json", [[record, packed(record).hex()] for record in RECORDS])
    write("indexes.json", [[slots, pack_slots(slots).hex()] for slots in INDEXES])
    stores = []
    for name, limit, count in (("whole", 511, 5), ("cropped", 1, 40)):
        shutil.rmtree(GOLDEN / "new", ignore_errors=True)
        stores.append([name, limit, write_golden_store(GOLDEN / "new", limit, count)])
        (GOLDEN / f"{name}.mdb.gz").write_bytes(gzip.compress((GOLDEN / "new" / "data.mdb").read_bytes(), mtime=0))
        shutil.rmtree(GOLDEN / "new")
    write("stores.json", stores)


MANY = 600  # entries that have the same tag


def write_labelled_store(path, limit):
    """A store with tags of all sorts; gives what is in it, but for the last: key, value, tag, end, version."""
    now = [NOW]

    def clock():
        now[0] += 0.5
        return now[0]

    written: dict[str, list[str | None]] = {}
    with opened(path, key_size_limit=limit, clock=clock) as d:

        def put(key, value, tag, ttl=None):
            d.set(valued(key), valued(value), ttl=ttl, tag=tag)
            written[key] = [value, tag]

        put("'plain'", "1", None)
        put("'small'", "'of news'", "news")
        put("'expires'", "'far away'", "news", 8e9)
        put("'large'", "bytes(range(256)) * 160", "é😀")
        put("'large and expires'", "'é' * 20000", "x" * 255, 8e9)
        put("'changes'", "1", "other")
        put("'loses'", "1", "other")
        put("'gets'", "1", None)
        put("'long' * 300", "None", "news")
        d.flush()
        put("'changes'", "2", "news")
        put("'loses'", "'x' * 50000", None)
        put("'gets'", "2", "other")
        d.set_many({("many", n): n for n in range(MANY)}, tag="many")
        d.flush()
        entries = {key: d.entry(valued(key)) for key in written}
        return [[key, *written[key], entries[key].expires_at, entries[key].version] for key in written]


def make_golden_labels():
    """Write the golden files of labels, which came later: PERSISTDICT_MAKE_GOLDEN=labels."""
    stores = []
    for name, limit in (("labelled", 511), ("labelled_cropped", 1)):
        shutil.rmtree(GOLDEN / "new", ignore_errors=True)
        stores.append([name, limit, write_labelled_store(GOLDEN / "new", limit)])
        (GOLDEN / f"{name}.mdb.gz").write_bytes(gzip.compress((GOLDEN / "new" / "data.mdb").read_bytes(), mtime=0))
        shutil.rmtree(GOLDEN / "new")
    for name, content in (
        ("labelled_stores.json", stores),
        ("labelled_records.json", [[record, packed(record).hex()] for record in LABELLED_RECORDS]),
    ):
        (GOLDEN / name).write_text("[\n" + ",\n".join(json.dumps(line) for line in content) + "\n]\n")


LONG = {
    "small": "1", "whole": "b'x' * 65500", "two pieces": "b'x' * 65600",
    "many pieces": "bytes(range(256)) * 2000", "grows": "'é' * 150000", "over": "b'y' * 300000",
}  # fmt: skip


def write_long_store(path):
    """A store with values that take several pieces, or are whole, as stores were before there were pieces."""
    with opened(path, clock=lambda: NOW) as d:
        for key in LONG:
            d.set(key, b"z" * 70_000 if key == "grows" else valued(LONG[key]), ttl=1e6 if key == "over" else None)
        d.flush()
        d["grows"] = valued(LONG["grows"])
        d.set_many({"gone": b"z" * 200_000})
        d.flush()
        del d["gone"]


def make_golden_pieces():
    """PERSISTDICT_MAKE_GOLDEN=pieces; likewise long.mdb.gz was written, by the last revision without pieces."""
    shutil.rmtree(GOLDEN / "new", ignore_errors=True)
    write_long_store(GOLDEN / "new")
    (GOLDEN / "pieces.mdb.gz").write_bytes(gzip.compress((GOLDEN / "new" / "data.mdb").read_bytes(), mtime=0))
    shutil.rmtree(GOLDEN / "new")


if not os.environ.get("CI"):
    {"1": make_golden, "labels": make_golden_labels, "pieces": make_golden_pieces}.get(
        os.environ.get("PERSISTDICT_MAKE_GOLDEN", ""), bool
    )()

little_endian = pytest.mark.skipif(sys.byteorder == "big", reason="the golden stores are of a little-endian machine")


def test_golden_keys_are_read_and_written_the_same():
    codec = KeyCodec()
    stored = read_golden("keys.json")
    assert [text for text, *_ in stored] == KEYS
    for text, kb, hint in stored:
        key = valued(text)
        assert same(codec.decode(bytes.fromhex(kb), bytes.fromhex(hint)), key), text
        assert codec.encode(key) == (bytes.fromhex(kb), bytes.fromhex(hint)), text


def test_golden_values_are_read_and_written_the_same():
    codecs = {"safe": codec_with_point(), "json": JsonCodec(), "raw": RawCodec()}
    stored = read_golden("values.json")
    assert [text for _, text, *_ in stored] == VALUES + [text for _, text in OTHER_VALUES]
    for name, text, tag, blob in stored:
        value = valued(text)
        found = codecs[name].decode(tag, bytes.fromhex(blob))
        assert found == value if isinstance(value, Point) else same(found, value), text
        assert codecs[name].encode(value) == (tag, bytes.fromhex(blob)), text


def test_golden_values_cover_every_tag_and_extension():
    """So no type code is without a test case."""
    stored = read_golden("values.json")
    assert {tag for name, _, tag, _ in stored if name == "safe"} == set(range(1, 11))
    fixed = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
    found = set()
    for _, _, tag, blob in stored:
        raw = bytes.fromhex(blob)
        if tag == 8:
            for at in range(len(raw) - 2):
                if raw[at] in fixed:
                    found.add(raw[at + 1])
                elif raw[at] == 0xC7:
                    found.add(raw[at + 2])
    assert found >= set(range(1, 22))


@little_endian
def test_golden_records_and_indexes_are_read_and_written_the_same():
    assert [record for record, _ in read_golden("records.json")] == RECORDS
    assert [record for record, _ in read_golden("labelled_records.json")] == LABELLED_RECORDS
    for record, raw in read_golden("records.json") + read_golden("labelled_records.json"):
        assert packed(record).hex() == raw
        parsed = parse_record(bytes.fromhex(raw))
        expected = {name: valued(part) if isinstance(part, str) else part for name, part in record.items()}
        assert parsed.flags & 1 == expected.pop("flags", 0)
        assert {name: getattr(parsed, name) for name in expected} == expected
        assert (parsed.deadline, parsed.label) == (expected.get("deadline", 0), expected.get("label", b""))
    for slots, raw in read_golden("indexes.json"):
        assert pack_slots(slots).hex() == raw
        assert [[seq_number(seq), deadline] for seq, deadline in parse_index(bytes.fromhex(raw))] == slots


def unpacked(tmp_path, name):
    """A copy of a golden store; the original is never opened."""
    folder = tmp_path / name
    folder.mkdir(mode=0o700, parents=True)
    (folder / "data.mdb").write_bytes(gzip.decompress((GOLDEN / f"{name}.mdb.gz").read_bytes()))
    return folder


@little_endian
@pytest.mark.parametrize("number", [0, 1], ids=["whole", "cropped"])
def test_a_golden_store_is_read_exactly(number, tmp_path):
    """Small and large values, time limits, tuples, cropped and colliding keys, and all that is known of each entry."""
    name, limit, entries = read_golden("stores.json")[number]
    with opened(unpacked(tmp_path, name), key_size_limit=limit, clock=lambda: NOW + 1000) as d:
        d.codec.register(Point, lambda point: [point.x, point.y], lambda parts: Point(*parts), name="golden.Point")
        assert d._store.check(10_000) == ([], None)
        assert len(d) == len(entries)
        assert same(list(d), [valued(text) for text, *_ in entries])
        for text, value, ctime, mtime, expires_at, version in entries:
            key, expected = valued(text), valued(value)
            found = d[key]
            assert found == expected if "Point" in value else same(found, expected), text
            assert key in d
            entry = d.entry(key)
            assert (entry.ctime, entry.mtime, entry.expires_at, entry.version) == (ctime, mtime, expires_at, version)
        assert d(initial=2)["initial"] == 1  # that it was initialised is kept
        newest = max(version for *_, version in entries)
        d["new"] = 1
        assert d.entry("new").version > newest
        assert list(d)[-1] == "new"
        d.clear()
        assert len(d) == 0
    with opened(tmp_path / name, key_size_limit=limit) as d:
        assert dict(d) == {}


@little_endian
@pytest.mark.parametrize("number", [0, 1], ids=["whole", "cropped"])
def test_a_golden_store_with_tags_is_read_exactly(number, tmp_path):
    name, limit, entries = read_golden("labelled_stores.json")[number]
    many = [("many", n) for n in range(MANY)]
    by_tag: dict[str, list[Any]] = {"many": many}
    with opened(unpacked(tmp_path, name), key_size_limit=limit, clock=lambda: NOW + 2000) as d:
        assert d._store.check(10_000) == ([], None)
        assert list(d) == [valued(text) for text, *_ in entries] + many
        for text, value, tag, expires_at, version in entries:
            key = valued(text)
            assert same(d[key], valued(value))
            entry = d.entry(key)
            assert (entry.tag, entry.expires_at, entry.version) == (tag, expires_at, version)
            if tag is not None:
                by_tag.setdefault(tag, []).append(key)
        assert d.tags() == sorted(by_tag)
        assert {tag: list(d.tagged(tag)) for tag in d.tags()} == by_tag
        assert d.evict(tag="many") == MANY
        d.flush()
        assert d._store.check(10_000) == ([], None)
        assert len(d) == len(entries)
    found, _ = read_by_the_description(unpacked(tmp_path / "again", name), limit)
    codec = KeyCodec()
    expected = {codec.encode(valued(text))[0]: tag for text, _, tag, *_ in entries}
    expected |= {codec.encode(key)[0]: "many" for key in many}
    assert {kb: label.decode() or None for kb, (*_, label) in found.items()} == expected


@little_endian
@pytest.mark.parametrize("number", [0, 1], ids=["whole", "cropped"])
def test_a_store_made_before_there_were_tags_gets_them(number, tmp_path):
    """It has no tags until one is set, and everything that was there is as it was."""
    name, limit, entries = read_golden("stores.json")[number]
    folder = unpacked(tmp_path, name)
    with opened(folder, key_size_limit=limit, clock=lambda: NOW + 1000) as d:
        key = valued(entries[0][0])
        assert d.tags() == list(d.tagged("news")) == []
        assert d.entry(key).tag is None
        assert d.evict(tag="news") == 0
        with opened(folder, key_size_limit=limit, clock=lambda: NOW + 1000) as other:
            other.set(key, 1, tag="news")
            assert d.tags() == ["news"]
            d.flush()
        assert list(d.tagged("news")) == [key]
        assert len(d) == len(entries)
        assert d._store.check(10_000) == ([], None)
    with opened(folder, key_size_limit=limit, clock=lambda: NOW + 1000) as d:
        assert d.evict(tag="news") == 1


@little_endian
@pytest.mark.parametrize(("name", "whole"), [("long", 5), ("pieces", 1)])
def test_long_values_are_read_whole_or_in_pieces(name, whole, tmp_path):
    """Those that were written whole stay so until they are overwritten; nothing of either is left over."""
    folder = unpacked(tmp_path, name)
    expected = {key: valued(text) for key, text in LONG.items()}
    found, _ = read_by_the_description(unpacked(tmp_path / "again", name), 511)
    codec = SafeCodec()
    assert {kb[1:].decode(): codec.decode(tag, body) for kb, (_, tag, body, *_) in found.items()} == expected
    with opened(folder, clock=lambda: NOW + 1000) as d:
        store: Any = d._store
        assert dict(d) == expected
        assert store.begin_data().stat(store.v)["entries"] == whole
        assert store.check(10_000) == ([], None)
        d["many pieces"] = d["many pieces"]
        del d["two pieces"]
        usage, txn = store.usage(exact=True), store.begin_data()
        large = [size for key in d if (size := d.entry(key).size) > 1000]
        assert usage.size == sum(len(raw) for _, raw in txn.cursor(store.e)) + sum(large)
        d.clear()
        assert store.usage(exact=True) == (0, 0)
        assert store.begin_data().stat(store.p)["entries"] == store.begin_data().stat(store.v)["entries"] == 0
        assert store.check(10_000) == ([], None)


@little_endian
def test_the_cropped_golden_store_has_keys_that_collide(tmp_path):
    folder = unpacked(tmp_path, "cropped")
    store = LmdbStore(str(folder), key_size_limit=1)
    index = [parse_index(raw) for _, raw in store.begin_data(store.k).cursor()]
    store.close()
    assert max(map(len, index)) >= 2
    assert any(deadline for slots in index for _, deadline in slots)


def read_by_the_description(folder, limit):
    """All entries of a store, read with lmdb and struct alone, as record.py and rows.py describe the files."""
    env = lmdb.open(str(folder), max_dbs=10, readonly=True, lock=False)
    dbs = {name: env.open_db(name.encode(), create=False) for name in ("k", "info")}
    dbs |= {name: env.open_db(name.encode(), create=False, integerkey=True) for name in "eva"}
    dbs["x"] = env.open_db(b"x", create=False, integerkey=True, dupsort=True, dupfixed=True)
    entries, whole = {}, 0
    with env.begin() as txn:
        labels: collections.Counter[tuple[bytes, bytes]] = collections.Counter()
        if txn.get(b"t") is not None:  # else it was made before there were labels
            dbs["t"] = env.open_db(b"t", txn=txn, create=False)
            for key, nothing in txn.cursor(dbs["t"]):
                assert (len(key), nothing) == (key[0] + 9, b"")
                labels[key[1:-8], struct.pack("=Q", *struct.unpack(">Q", key[-8:]))] += 1
        pieces = {}
        if txn.get(b"p") is not None:  # else it was made before there were pieces
            dbs["p"] = env.open_db(b"p", txn=txn, create=False)
            pieces = {struct.unpack(">QI", key): piece for key, piece in txn.cursor(dbs["p"])}
        deadlines = collections.Counter((key, seq) for key, seq in txn.cursor(dbs["x"]))
        indexed = {}
        for key, raw in txn.cursor(dbs["k"]):
            slots = [(raw, 0)] if len(raw) == 8 else list(struct.iter_unpack("<8sQ", raw))
            indexed |= {seq: (key, deadline) for seq, deadline in slots}
        assert len(indexed) == txn.stat(dbs["e"])["entries"]
        for seq, raw in txn.cursor(dbs["e"]):
            tag, flags, hint_size, key_size, version, ctime, mtime = struct.unpack_from("<BBHIQdd", raw)
            assert int.from_bytes(raw[-4:], "little") == zlib.crc32(raw[:-4])
            at = 32 + hint_size + key_size
            hint, kb, body = raw[32 : 32 + hint_size], raw[32 + hint_size : at], raw[at:-4]
            deadline = 0
            if flags & 2:
                (deadline,), body = struct.unpack_from("<Q", body), body[8:]
                assert deadlines.pop((struct.pack("=Q", deadline), seq)) == 1
            label = b""
            if flags & 8:
                label, body = body[1 : 1 + body[0]], body[1 + body[0] :]
                assert labels.pop((label, seq)) == 1
            if flags & 1:
                size, checksum = struct.unpack("<QI", body)
                if flags & 16:
                    body = b""
                    for number in range(-(-(size - 8192) // 32736)):
                        piece = pieces.pop((int.from_bytes(seq, sys.byteorder), number))
                        assert piece[:12] == struct.pack("<QI", version, number)
                        assert piece[12:16] == struct.pack("<I", zlib.crc32(piece[:12]))
                        body += piece[16:]
                else:
                    whole += 1
                    body = txn.get(seq, db=dbs["v"])
                assert (len(body), zlib.crc32(body)) == (size, checksum)
            assert indexed[seq] == (kb if len(kb) < limit else crop(kb, limit), deadline)
            assert int.from_bytes(seq, sys.byteorder) <= version
            entries[kb] = (hint, tag, body, version, ctime, mtime, deadline, label)
        assert not deadlines
        assert not labels
        assert {seq for seq, _ in txn.cursor(dbs["a"])} <= indexed.keys()
        assert not pieces
        assert txn.stat(dbs["v"])["entries"] == whole
        info = {key.decode(): text.decode() for key, text in txn.cursor(dbs["info"])}
    env.close()
    return entries, info


@little_endian
@pytest.mark.parametrize("number", [0, 1], ids=["whole", "cropped"])
def test_a_reader_made_from_the_description_alone_reads_a_store(number, tmp_path):
    """The grammars in the heads of the files say all that there is to know."""
    name, limit, entries = read_golden("stores.json")[number]
    found, info = read_by_the_description(unpacked(tmp_path, name), limit)
    assert info == {
        "format": "1", "last": info["last"], "codec": "safe", "keys": "ordered", "key_size_limit": str(limit),
        "initialised": "yes",
    }  # fmt: skip
    assert int(info["last"]) >= max(entry[3] >> 20 for entry in found.values())
    keys, codec = KeyCodec(), codec_with_point()
    assert len(found) == len(entries)
    for text, value, ctime, mtime, expires_at, version in entries:
        kb, hint = keys.encode(valued(text))
        deadline = int((expires_at or 0) * 1e6)
        assert found[kb] == (hint, *codec.encode(valued(value)), version, ctime, mtime, deadline, b"")


@pytest.mark.parametrize("limit", [1, 20, 511])
def test_what_is_written_now_is_as_the_description_says(limit, tmp_path):
    """Values from 32 KB on lie apart, from 64 KB in pieces; what is overwritten, over or removed leaves nothing."""
    now = [NOW]
    sizes = [0, 1, 32 * 1024 - 1, 32 * 1024, 32 * 1024 + 1, 65_000, 66_000, 300_000]
    with opened(tmp_path / "d", key_size_limit=limit, clock=lambda: now[0]) as d:
        for size in sizes:
            d[("grown", size)] = b"x"
            d.update({("plain", size): b"x" * size, ("grown", size): b"x" * size, ("gone", size): b"x" * size})
            d.set(("shrunk", size), b"x" * size, ttl=50, tag="first")
            d.set(("shrunk", size), b"", ttl=100, tag="second")
            d.set(("over", size), b"x" * size, ttl=5)
            d.set(("over and set again", size), b"x" * size, ttl=5)
            del d["gone", size]
            assert d["plain", size] == d["over", size] == b"x" * size
        now[0] += 10
        d.flush()
        for size in sizes:
            d["over and set again", size] = b"x" * (sizes[-1] - size)
        d.expire()
        expected = {KeyCodec().encode(key)[0]: value for key, value in d.items()}
        assert len(expected) == 4 * len(sizes)
    found, _ = read_by_the_description(tmp_path / "d", limit)
    assert {kb: body for kb, (_, _, body, *_) in found.items()} == expected


def test_another_format_is_refused_and_not_touched(tmp_path):
    with opened(tmp_path / "d") as d:
        d["a"] = 1
    for text in ("2", "0", "", "1.0", "one"):
        env = lmdb.open(str(tmp_path / "d"), max_dbs=10)
        with env.begin(write=True) as txn:
            txn.put(b"format", text.encode(), db=env.open_db(b"info", txn=txn))
        env.close()
        before = (tmp_path / "d" / "data.mdb").read_bytes()
        with pytest.raises(NotAStoreError, match="format"):
            opened(tmp_path / "d")
        assert (tmp_path / "d" / "data.mdb").read_bytes() == before


# Records and indexes of any bytes


def parsed(parse, raw):
    try:
        parse(raw)
    except CorruptEntryError:
        return


def sealed(front):
    """With a checksum that fits, so that only the lengths can be wrong."""
    return front + zlib.crc32(front).to_bytes(4, "little")


@examples(300)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_record_or_an_index_or_raise_one_error(raw):
    parsed(parse_record, raw)
    parsed(parse_index, raw)
    parsed(lambda data: check_large(data, b"value"), raw)


def test_a_record_whose_lengths_do_not_fit_is_damaged_though_its_checksum_fits():
    """As the docstring says. Otherwise a wrong key, a cut value or struct.error would come out."""
    head = struct.Struct("<BBHIQdd")
    for flags, hint_size, key_size, rest in [
        (0, 0, 5, b"abcd"), (0, 65535, 0, b"abc"), (0, 0, 2**32 - 1, b""), (2, 0, 0, b"1234567"),
        (2, 2, 2, b"hhkk1234"),
        (2, 65535, 2**32 - 1, b""), (0, 3, 3, b"hhhkk"), (1, 0, 4, b"abc"),
        (8, 0, 0, b""), (8, 0, 0, b"\x00"), (8, 0, 0, b"\x02l"), (8, 1, 1, b"hk\x01"), (10, 0, 0, b"12345678"),
        (10, 0, 0, b"12345678\x01"), (9, 0, 0, b"\x01l12345678901"), (9, 0, 0, b"\xff" + b"l" * 254),
        (16, 0, 0, b"12345678"), (128, 0, 0, b""), (24, 0, 0, b"\x01l"),
    ]:  # fmt: skip
        with pytest.raises(CorruptEntryError):
            parse_record(sealed(head.pack(1, flags, hint_size, key_size, 1, 1.0, 1.0) + rest))
    chance = random.Random(1)
    for _ in range(3000):
        sizes = chance.choice([0, 1, 5, 200, 65535]), chance.choice([0, 1, 5, 200, 2**32 - 1])
        front = head.pack(1, chance.randrange(32), *sizes, 1, 1.0, 1.0) + bytes(chance.randrange(30))
        parsed(parse_record, sealed(front))


def test_every_flipped_bit_of_a_record_is_noticed():
    for record in RECORDS + LABELLED_RECORDS:
        raw = packed(record)
        for bit in range(len(raw) * 8):
            damaged = bytearray(raw)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CorruptEntryError):
                parse_record(bytes(damaged))
        for size in range(len(raw)):
            parsed(parse_record, raw[:size])
        with pytest.raises(CorruptEntryError):
            parse_record(raw + b"\x00")


def test_an_index_comes_back_in_both_forms():
    for slots in (
        [(b"12345678", 0)],
        [(b"12345678", 5)],
        [(b"1" * 8, 0), (b"2" * 8, 0)],
        [(b"1" * 8, 2**64 - 1)] * 300,
    ):
        raw = pack_index(slots)
        assert parse_index(raw) == slots
        assert (len(raw) == 8) == (len(slots) == 1 and not slots[0][1])
    for size in (0, 1, 7, 9, 15, 17, 24, 31):
        with pytest.raises(CorruptEntryError):
            parse_index(bytes(size))


def test_a_large_value_must_be_the_one_that_was_written():
    blob = bytes(range(256)) * 200
    assert check_large(large_body(blob), blob) == blob
    for other in (None, b"", blob[:-1], blob + b"\x00", b"\x01" + blob[1:]):
        with pytest.raises(CorruptEntryError):
            check_large(large_body(blob), other)


def test_sequence_numbers_sort_as_their_bytes_do_in_the_engine():
    for number in (0, 1, 2**20, 2**63, 2**64 - 1):
        assert seq_number(seq_bytes(number)) == number


# Damage


def damage_index(d, key, raw):
    """Put other bytes in the place of an index entry."""
    d.flush()
    d._store.env.data.update(lambda txn: txn.put(KeyCodec().encode(key)[0], raw, db=d._store.k))


@pytest.mark.parametrize("raw", [b"", b"12345", b"1" * 24, b"1" * 8, b"1" * 16], ids=len)
def test_a_damaged_index_entry_harms_nothing_else(raw, tmp_path):
    """Only its own key cannot be read; the rest is read, scanned and counted, and the integrity pass tells."""
    now = [NOW]
    with opened(tmp_path / "d", clock=lambda: now[0], caching=False) as d:
        d.set_many({key: key for key in "abc"})
        damage_index(d, "b", raw)
        with pytest.raises(CorruptEntryError):
            d["b"]
        assert (d["a"], d["c"]) == ("a", "c")
        assert list(d) == ["a", "b", "c"]
        assert d._store.check(10)[0] != []
        d["a"] = "new"
        del d["c"]
        assert dict(d.items()) == {"a": "new", "b": "b"}
        d.clear()
        assert len(d) == 0


@pytest.mark.parametrize("raw", [b"12345", seq_bytes(1)], ids=["impossible length", "leads nowhere"])
def test_a_damaged_index_entry_does_not_end_a_scan_by_key(raw, tmp_path):
    """It is passed over with a warning, as a damaged record is."""
    with opened(tmp_path / "d") as d:
        d.set_many({key: key for key in "abc"})
        damage_index(d, "b", raw)
        with pytest.warns(DamagedEntryWarning):
            found = [record.kb for record in d._store.scan(by_key=True)]
        assert found == [b"0a", b"0c"]


def test_a_damaged_index_entry_does_not_stop_the_removal_of_what_is_over(tmp_path):
    """Everything else that has expired is removed, in this pass and in all later ones."""
    now = [NOW]
    with opened(tmp_path / "d", clock=lambda: now[0]) as d:
        d.set_many({key: key for key in "abcd"}, ttl=5)
        damage_index(d, "b", b"12345")
        now[0] += 10
        assert d.expire() == 3
        d.flush()
        assert d._store.begin_data().stat(d._store.e)["entries"] == 1


def test_a_key_with_a_damaged_record_can_be_set_and_removed_again(tmp_path):
    with opened(tmp_path / "d") as d:
        for heal in (lambda: d.__setitem__("b", 2), lambda: d.update(b=2), lambda: d.set("b", 2, ttl=99)):
            d["b"] = 1
            d.flush()
            seq = d._store.begin_data(d._store.k).get(b"0b")[:8]
            d._store.env.data.update(lambda txn, seq=seq: txn.put(seq, b"garbage", db=d._store.e))
            with pytest.raises(CorruptEntryError):
                d["b"]
            heal()
            assert d["b"] == 2
            d.flush()
            assert d["b"] == 2
            assert d._store.check(10)[0] == []
        d._store.env.data.update(lambda txn: txn.put(seq, b"garbage", db=d._store.e))
        del d["b"]
        assert "b" not in d
        d.flush()
        assert "b" not in d
        assert d._store.check(10)[0] == []


def test_a_time_to_live_that_no_deadline_can_hold_is_refused(tmp_path):
    """Microseconds since the epoch have 64 bits; what does not fit is no struct.error, and nothing is stored."""
    with opened(tmp_path / "d") as d:
        d["k"] = 1
        for ttl in (datetime.timedelta.max, 2e13, 1e300):
            for write in (
                lambda ttl=ttl: d.set("k", 2, ttl=ttl),
                lambda ttl=ttl: d.set_many({"k": 2}, ttl=ttl),
            ):
                with pytest.raises((ValueError, OverflowError)):
                    write()
        assert d["k"] == 1
        d.set("k", 3, ttl=1e13)  # in the year 318,000
        assert d["k"] == 3


# lmdb-dict


def settings(mapping):
    return {name: mapping[name] for name in ("format", "codec", "keys", "key_size_limit")}


EXPECTED = {"format": "1", "codec": "safe", "keys": "ordered", "key_size_limit": "511"}


def test_lmdb_dict_reads_the_settings_of_a_store_that_is_open(tmp_path, monkeypatch):
    """By its absolute path, a relative one, one with dots, and links to it; all share the one environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "parent").symlink_to(".")
    with opened(tmp_path / "d") as d:
        d["a"] = 1
        for path in (str(tmp_path / "d"), tmp_path / "d", "d", "./d/../d/", "link", tmp_path / "parent" / "d"):
            mapping = StrLmdbDict(path, name="info", max_dbs=32)
            assert mapping._environ_ is d._store.env.data.raw
            assert settings(mapping) == EXPECTED
            assert set(mapping) >= set(EXPECTED)
        d["b"] = 2
        mapping["note"] = "hello"
        assert d._store.info()["note"] == "hello"
        assert dict(d) == {"a": 1, "b": 2}


@pytest.mark.parametrize("path", ["absolute", "relative", "link"])
def test_a_store_opens_while_lmdb_dict_has_it_open(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("d")
    with opened(tmp_path / "d") as d:
        d["a"] = 1
    gc.collect()
    mapping = StrLmdbDict(
        {"absolute": str(tmp_path / "d"), "relative": "d", "link": "link"}[path], name="info", max_dbs=32
    )
    assert settings(mapping) == EXPECTED
    with opened(tmp_path / "d") as d:
        assert d._store.env.data.raw is mapping._environ_
        d["b"] = "x" * 100_000
        assert dict(d) == {"a": 1, "b": "x" * 100_000}
        assert settings(mapping) == EXPECTED
    assert settings(mapping) == EXPECTED  # which outlives the handle
    with opened(tmp_path / "d") as d:
        assert list(d) == ["a", "b"]


def test_a_new_store_is_made_where_lmdb_dict_has_a_folder_open_with_nothing_in_it(tmp_path):
    """It has made the database of settings already, and nothing in it."""
    mapping = StrLmdbDict(str(tmp_path / "d"), name="info", max_dbs=32)
    with opened(tmp_path / "d") as d:
        d["a"] = 1
        assert settings(mapping) == EXPECTED
    with opened(tmp_path / "d") as d:
        assert dict(d) == {"a": 1}


def test_nothing_is_stored_that_lmdb_dict_could_not_read(tmp_path):
    """Settings are UTF-8 text, whatever the options."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(tmp_path / "d", value_serializer=str, value_unserializer=bytes.decode) as d:
            d({"é": "ü"})
            mapping = StrLmdbDict(str(tmp_path / "d"), name="info", max_dbs=32)
            assert all(isinstance(text, str) and text for text in dict(mapping).values())
