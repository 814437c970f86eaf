"""Value codecs: what comes back exactly, what is refused, and that no bytes of a file run code or raise strangely."""

import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import io
import json
import math
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import textwrap
import types
import uuid
import warnings
import zoneinfo
from pathlib import Path
from typing import Any

import numpy
import ormsgpack
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ormsgpack import Ext
from strategies import ARRAYS, JSON_VALUES, SPECIAL_NUMBERS, VALUES, examples, same

from persistdict import (
    DamagedEntryWarning,
    DecodeError,
    MismatchError,
    PersistDict,
    PersistDictError,
    SafeCodec,
    ValueTypeError,
)
from persistdict.codecs import JsonCodec, PickleCodec, RawCodec, make_codec, names_agree
from persistdict.codecs.other import CallableCodec, ObjectCodec
from persistdict.keys import KeyCodec
from persistdict.stores.lmdb import LmdbStore

CODEC = SafeCodec()
TREE, ARRAY = 8, 9


def round_trip(value, codec=CODEC):
    tag, blob = codec.encode(value)
    return codec.decode(tag, blob)


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", **options)


# The safe codec: what comes back

UTC = datetime.timezone.utc
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ZERO_DAY = datetime.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)  # happens twice
MOMENTS = [
    datetime.datetime.min, datetime.datetime.max, datetime.datetime(2020, 1, 1, fold=1), ZERO_DAY,
    ZERO_DAY.replace(fold=1),
    datetime.datetime(2020, 1, 1, 1, 1, 1, 1, UTC), datetime.datetime(2020, 1, 1, tzinfo=zoneinfo.ZoneInfo("UTC")),
    datetime.datetime(2020, 1, 1,
    tzinfo=datetime.timezone(datetime.timedelta(seconds=-1, microseconds=1), "odd \ud800")),
    datetime.time(1, 2, 3, 4), datetime.time.max, datetime.time(2, 30, tzinfo=BERLIN, fold=1),
    datetime.time(0, tzinfo=UTC),
    datetime.date.min, datetime.date.max, datetime.timedelta.min, datetime.timedelta.max, datetime.timedelta(0),
    datetime.timedelta(-1, 5, 7), UTC, datetime.timezone(datetime.timedelta(0), "UTC"), datetime.timezone.min, BERLIN,
]  # fmt: skip
HASHABLE: list[Any] = [
    None, True, False, "", "text", "\x00", "\ud800", "\ud83d\ude00", "x" * 70_000, b"", b"\x00\xff", b"y" * 70_000,
    *SPECIAL_NUMBERS, 2**64 - 1, 2**64, -(2**63) - 1, -(2**64), 10**5000, 1j, complex(-0.0, math.nan),
    complex(math.inf, -0.0),
    *MOMENTS, uuid.UUID(int=0), uuid.uuid5(uuid.NAMESPACE_DNS, "x"), decimal.Decimal("-0E-7"),
    decimal.Decimal("1E+9999"),
    decimal.Decimal("NaN12"), decimal.Decimal("-Infinity"), decimal.Decimal("0.1000"), fractions.Fraction(-1, 3),
    fractions.Fraction(10**50, 3), (), (1, (2.0, ("3",))), frozenset(), frozenset([1, frozenset(["a"])]),
    pathlib.PurePosixPath("a/../b"), pathlib.PurePosixPath("/\udcff\x00"), pathlib.PureWindowsPath("c:\\x\\y"),
    Path("x"), Path(),
    numpy.int8(-5), numpy.uint64(2**64 - 1), numpy.float16(0.1), numpy.float64(-0.0), numpy.bool_(True),
    numpy.longdouble(0.1),
    numpy.complex64(1j), numpy.str_("é"), numpy.str_(""), numpy.bytes_(b"x"), numpy.datetime64("NaT"),
    numpy.datetime64("2020-01-01T00:00:00.123456789"), numpy.timedelta64(5, "D"),
]  # fmt: skip
OTHER: list[Any] = [
    [], {}, set(), bytearray(), bytearray(b"\x00\xff"), [[], {}, ()], {1, "a", (2,)}, decimal.Decimal("sNaN5"),
    numpy.void(b"abc"), numpy.zeros(1, [("a", "i4"), ("b", "U3")])[0],
    {"a": 1, "é": [2], "\ud800": 3, "": 4}, [bytearray(b"x"), b"x", [bytearray(b"y")]],
    {"deep": [{"er": (bytearray(b"z"),)}]},
]  # fmt: skip


def test_every_type_comes_back_as_it_was():
    """Alone, and in every kind of container."""
    for value in HASHABLE + OTHER:
        assert same(round_trip(value), value), repr(value)[:80]
        for within in ([value], (value,), {"k": value}, {1: value}, {"\ud800": value}, [{"é": (value, [value])}]):
            assert same(round_trip(within), within), repr(value)[:80]


def test_every_hashable_type_may_be_a_key_of_a_dict_and_be_in_a_set():
    for value in HASHABLE:
        for within in ({value: 1}, {"a": {value: value}}, {value}, frozenset([value]), ({value: (value,)},)):
            assert same(round_trip(within), within), repr(value)[:80]


@examples(500)
@given(VALUES)
def test_every_tree_of_values_comes_back_as_it_was(value):
    assert same(round_trip(value), value)


def test_a_dict_keeps_the_order_of_its_keys():
    for value in ({"b": 1, "a": 2}, {2: 1, 1: 2, "x": 3}, {"é": bytearray(b"1"), "a": 2}):
        assert list(round_trip(value)) == list(value)


def test_a_bytearray_of_any_length_comes_back_from_any_place():
    """Its only trace in what ormsgpack packs is a marker and the length, among bytes that look like both."""
    around: list[Any] = [[], [-0.5, 1e300, 2**40], ["\u0105\u0145\u0185" * 50], list(range(300)), [b"\xc4" * 300]]
    for size in (0, 1, 31, 32, 254, 255, 256, 257, 0xC4, 0xC5C5, 65_534, 65_535, 65_536, 65_537, 200_000):
        for before in around:
            for after in around:
                for value in (
                    [*before, bytearray(size), *after],
                    {"a": before, "b": {"c": bytearray(size)}, "d": after},
                ):
                    assert same(round_trip(value), value), (size, before, after)


def test_a_large_number_of_values_comes_back():
    value = {
        "ints": list(range(100_000)),
        "pairs": [(number, str(number)) for number in range(20_000)],
        "b": b"x" * 10**6,
    }
    assert same(round_trip(value), value)


def test_what_is_read_is_the_callers_own(tmp_path):
    """Changing a value that was read, or the value that was stored, changes nothing in the store."""
    with opened(tmp_path / "d") as d:
        value = {"list": [1], "array": numpy.zeros(3), "bytes": bytearray(b"x")}
        d["k"] = value
        for found in (value, d["k"], d["k"], d.get_many(["k"])["k"]):
            found["list"].append(2)
            found["array"][0] = 5
            found["bytes"].extend(b"y")
            assert same(d["k"], {"list": [1], "array": numpy.zeros(3), "bytes": bytearray(b"x")})


@pytest.mark.parametrize("caching", [True, False], ids=["cache", "none"])
def test_values_come_back_through_a_dictionary_and_its_file(caching, tmp_path):
    values = [*HASHABLE, *OTHER, numpy.arange(10_000.0), [numpy.arange(5), "x" * 40_000]]
    with opened(tmp_path / "d", caching=caching) as d:
        d.update(enumerate(values[::2]))
        for number, value in enumerate(values[1::2]):
            d[f"{number}"] = value
        stored = dict(enumerate(values[::2])) | {f"{n}": value for n, value in enumerate(values[1::2])}
        assert all(same(d[key], value) for key, value in stored.items())
        assert all(same(d[key], value) for key, value in stored.items())
    with opened(tmp_path / "d", caching=caching) as d:
        assert all(same(d[key], value) for key, value in stored.items())
        assert same(list(d.values()), list(stored.values()))


# numpy arrays

STRUCTURED = numpy.dtype([("a", "<i4"), ("é", "S3", (2,)), ("in", [("x", ">f8"), ("y", "U2", (2, 2))])])
ORDINARY_ARRAYS = [
    *(numpy.arange(6).astype(code).reshape(2,
    3) for code in ["?", *"bBhHiIlLefdgFDG", ">i4", ">f8", "<u2", ">c16"]),
    numpy.array(["a", "bcd", ""]), numpy.array([b"a\x00b", b""]), numpy.array("é"), numpy.array(["x"], ">U3"),
    numpy.array(["2020-01-01", "NaT"], "M8[25s]"), numpy.array([1], ">M8[us]"), numpy.array([5], "m8[ns]"),
    numpy.zeros(2, "M8"),
    numpy.zeros(3, STRUCTURED), numpy.zeros((2, 2), [("a", "i1"), ("b", "f8")]), numpy.zeros(2, "V5"),
    numpy.zeros(2, "V0"),
    numpy.zeros(2, {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 12], "itemsize": 20}),
    numpy.zeros(3, []),
    numpy.array(5), numpy.array(5.5, ">f4"), numpy.zeros(0), numpy.zeros((0, 3), "U4"),
    numpy.zeros((3, 0, 2), STRUCTURED),
    numpy.zeros((0, 2**62), "i1"), numpy.zeros((1,) * 32), numpy.array([math.nan, -0.0, math.inf]),
    numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3)), numpy.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    numpy.arange(10)[::-2], numpy.arange(100).reshape(10, 10)[2:8:3, ::-1], numpy.broadcast_to(numpy.arange(3), (4, 3)),
    numpy.zeros((3, 4), "i2", order="F").T, numpy.asfortranarray(numpy.zeros((2, 3, 4), STRUCTURED)),
]  # fmt: skip


def test_arrays_come_back_with_dtype_shape_and_order():
    """Numbers of both byte orders, text, times, structures, empty ones, views that are not contiguous."""
    for value in ORDINARY_ARRAYS:
        for within in (value, [value], {1: (value,)}):
            assert same(round_trip(within), within), (value.dtype, value.shape)


@examples(200)
@given(ARRAYS)
def test_any_array_of_values_comes_back(value):
    assert same(round_trip(value), value)
    assert same(round_trip([value.T]), [value.T])


def test_an_array_that_was_read_is_writable_and_owns_its_memory():
    for found in (round_trip(numpy.arange(3)), round_trip([numpy.arange(3)])[0], round_trip(numpy.zeros(0))):
        assert found.flags.writeable
        assert found.flags.owndata
        found += 1


def test_numpy_data_with_objects_or_of_subclasses_is_refused():
    masked = numpy.ma.array([1, 2], mask=[0, 1])
    record = numpy.zeros(1, [("a", "O")])
    for value in (
        numpy.array([None]), numpy.array([[1], [1, 2]], object), record, record[0], masked,
        masked[1],
        numpy.rec.array([(1, 2.0)]), numpy.char.array(["a"]), numpy.zeros(1, [("a", "i4"), ("b", [("c", "O")])]),
        numpy.array(["a"], numpy.dtypes.StringDType()), numpy.zeros(2, numpy.dtype("U4", metadata={"a": 1})),
        numpy.dtype("i4"), numpy.int64, numpy.add,
    ):  # fmt: skip
        for within in (value, [value], {"k": (value,)}):
            with pytest.raises(ValueTypeError):
                CODEC.encode(within)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        matrix = numpy.matrix([[1]])
    with pytest.raises(ValueTypeError):
        CODEC.encode(matrix)


def kept_or_refused(value, unchanged):
    """The rule for whatever the codec may not know: it comes back unchanged or is refused, and nothing else."""
    for within in (value, [value]):
        try:
            tag, blob = CODEC.encode(within)
        except ValueTypeError:
            continue
        found = CODEC.decode(tag, blob)
        assert unchanged(found[0] if within is not value else found)


def test_metadata_of_a_dtype_is_kept_or_refused():
    """Of numbers too, and within a structure; numpy's own description of a dtype leaves it out."""
    number = numpy.dtype("i4", metadata={"unit": "m"})
    kept_or_refused(numpy.zeros(2, number), lambda found: found.dtype.metadata == {"unit": "m"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns that the metadata will be lost
        kept_or_refused(numpy.zeros(2, [("a", number)]), lambda found: found.dtype["a"].metadata == {"unit": "m"})


def test_titles_of_fields_are_kept_or_refused():
    value = numpy.zeros(2, [(("a title", "name"), "i4")])
    kept_or_refused(value, lambda found: found.dtype.fields["name"] == value.dtype.fields["name"])


def test_records_are_kept_or_refused():
    """An array whose elements are numpy.record does not come back with elements that are numpy.void."""
    value = numpy.zeros(2, numpy.dtype((numpy.record, [("a", "i4")])))
    kept_or_refused(value, lambda found: found.dtype.type is numpy.record)
    kept_or_refused(value[0], lambda found: type(found) is numpy.record)


def test_nul_at_the_end_of_a_numpy_str_is_kept_or_refused():
    kept_or_refused(numpy.str_("a\x00"), lambda found: str(found) == "a\x00")
    kept_or_refused(numpy.bytes_(b"a\x00"), lambda found: bytes(found) == b"a\x00")


def test_arrays_of_empty_text_are_kept_or_refused():
    """Only a field of a structure can have such a dtype; numpy.zeros makes it one letter long."""
    value = numpy.zeros(3, [("a", "S0"), ("b", "i4")])["a"]
    kept_or_refused(value, lambda found: found.dtype == value.dtype)


def test_a_dtype_that_cannot_be_described_is_refused_as_any_other_value():
    """Overlapping fields, names that are not UTF-8, more fields than the header has room for."""
    for dtype in (
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]},
        [("\udcff", "i4")],
        [(f"field {number}", "i1") for number in range(8000)],
    ):
        value = numpy.zeros(2, dtype)
        kept_or_refused(value, lambda found, value=value: same(found, value))


def test_a_structured_scalar_comes_back_whatever_is_between_its_fields():
    """The bytes of padding mean nothing; numpy does not always copy them."""
    for dtype in (
        numpy.dtype({"names": ["a", "b"], "formats": ["<i4", "<i4"], "offsets": [4, 12], "itemsize": 20}),
        numpy.dtype([("a", "i1"), ("b", "<i8")], align=True),
    ):
        for byte in (b"\x00", b"\x07"):
            value = numpy.frombuffer(byte * dtype.itemsize, dtype)[0]
            assert same(round_trip([value]), [value])


def test_a_structured_scalar_that_was_read_can_be_changed():
    """As the one that was stored could."""
    for found in (round_trip([numpy.zeros(1, [("a", "i4")])[0]])[0], round_trip(numpy.zeros(1, [("a", "i4")])[0])):
        found["a"] = 5
        assert found["a"] == 5


# The safe codec: what is refused


class Text(str):
    pass


class Number(int):
    pass


class Real(float):
    pass


class Data(bytes):
    pass


class Buffer(bytearray):
    pass


class List(list):
    pass


class Dict(dict):
    pass


class Tuple(tuple):
    pass


class Set(set):
    pass


class Frozen(frozenset):
    pass


class Moment(datetime.datetime):
    pass


class Zone(datetime.tzinfo):
    def utcoffset(self, _):
        return datetime.timedelta(0)


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Mood(str, enum.Enum):
    GOOD = "good"


class Flags(enum.Flag):
    A = 1
    B = 2


Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass(frozen=True)
class Point:
    x: Any
    y: Any


class Model(pydantic.BaseModel):
    x: int
    y: list[float]


REFUSED = [
    Text("a"), Number(1), Real(1.0), Data(b"a"), Buffer(b"a"), List([1]), Dict(a=1), Tuple((1,)), Set([1]), Frozen([1]),
    Moment(2020, 1, 1), type("Day", (datetime.date,), {})(2020, 1, 1), type("Span", (datetime.timedelta,), {})(1),
    type("Dec", (decimal.Decimal,), {})(1), type("Com", (complex,), {})(1), type("Id", (uuid.UUID,), {})(int=1),
    type("Ratio", (fractions.Fraction,), {})(1), type("Way", (pathlib.PurePosixPath,), {})("x"),
    Colour.RED, Level.LOW, Mood.GOOD, Flags.A | Flags.B, Pair(1, 2), Point(1, 2), Model(x=1, y=[]), object(), int,
    len, math,
    lambda: None, memoryview(b"x"), array.array("i", [1]), range(3), iter([1]), (number for number in ()), slice(1),
    ..., Zone(),
    NotImplemented, collections.OrderedDict(a=1), collections.defaultdict(int), collections.Counter("a"),
    collections.deque(),
    types.MappingProxyType({}), types.SimpleNamespace(), {}.keys(), {}.items(), io.BytesIO(), re.compile("x"),
    ValueError("x"),
    datetime.time(1, tzinfo=Zone()),
]  # fmt: skip


def places(value):
    """A value in every kind of place: in containers of all sorts, beside values that need care, as key and member."""
    yield from (
        value, [value], (value,), {"k": value}, {"é": value}, {1: value}, {(): [value]}, [bytearray(b"x"), value],
        ["\ud800", value], {"a": [(value,)]}, {"a": {2: [value]}}, ([{"a": {"b": value}}],), [numpy.zeros(1), value],
        [b"x", value],
    )  # fmt: skip
    try:
        hash(value)
    except TypeError:
        return
    yield from (
        {value: 1},
        {"other": 1, value: 2},
        {77: 1, value: 2},
        [{value: 1}],
        {value},
        frozenset([value]),
        {"a": {value}},
    )
    yield from ({(value,): 1}, ({"a": {(1, value): 1}},), {frozenset([value]): bytearray(b"x")})


def test_every_other_type_is_refused_wherever_it_is():
    """Subclasses of what is stored, enums, dataclasses, views, functions: never are they stored as something else."""
    for value in REFUSED:
        for within in places(value):
            with pytest.raises(ValueTypeError):
                CODEC.encode(within)
                pytest.fail(f"{type(value)} was stored in {type(within)}")


def test_the_refusal_says_what_to_do():
    for within in (Point(1, 2), [Point(1, 2)], {1: {Point(1, 2)}}, (bytearray(b"x"), Pair(1, Point(1, 2)))):
        with pytest.raises(ValueTypeError, match=r"(Point|Pair).*register.*allow_pickle") as error:
            CODEC.encode(within)
        assert isinstance(error.value, TypeError)


def test_a_refused_value_leaves_the_entry_as_it_was(tmp_path):
    with opened(tmp_path / "d") as d:
        d["k"] = 1
        for write in (
            lambda: d.__setitem__("k", object()),
            lambda: d.set("k", [object()]),
            lambda: d.update({"a": 1, "k": object()}),
            lambda: d.set_many([("k", object())]),
            lambda: d.setdefault("new", object()),
            lambda: d(k=object()),
        ):
            with pytest.raises(ValueTypeError):
                write()
        assert dict(d) == {"k": 1}


def test_the_types_of_ormsgpack_itself_are_refused():
    """As values. Within a container it writes them without asking, and to look for them would cost everybody."""
    for value in (Ext(6, b"2020-01-01"), Ext(99, b""), ormsgpack.Fragment(b"\x01")):
        with pytest.raises(ValueTypeError):
            CODEC.encode(value)


WRAPS: dict[str, Any] = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "dict": lambda value: {"a": value},
    "int dict": lambda value: {1: value},
    "frozenset": lambda value: frozenset([value]),
    "bytearray": lambda value: [value, bytearray(b"x")],
    "surrogate": lambda value: {"\ud800": value},
    "beside": lambda value: (value, {2: 3}, "\ud800"),
}


def nested(kinds, depth, inmost=None):
    """A value of so many levels, of these kinds by turns."""
    value = inmost
    for level in range(depth):
        value = WRAPS[kinds[level % len(kinds)]](value)
    return value


def levels(value):
    """How deep a value goes, found without recursion."""
    count = 0
    while isinstance(value, (list, tuple, dict, frozenset)) and value:
        value = next(iter(value.values() if isinstance(value, dict) else value))
        count += 1
    return count


def from_deep(call, depth):
    """Call from within so many more calls."""
    return call() if depth == 0 else from_deep(call, depth - 1)


def check_depth(value):
    """Refused, or read again from a deeper stack than the writer's: encoded once more, it has the same bytes."""
    try:
        tag, blob = CODEC.encode(value)
    except ValueTypeError as error:
        assert "deep" in str(error)
        return False
    found = from_deep(lambda: CODEC.decode(tag, blob), 150)
    assert levels(found) == levels(value)
    assert CODEC.encode(found) == (tag, blob)
    return True


@pytest.mark.parametrize(
    "kinds",
    [["list"], ["tuple"], ["dict"], ["int dict"], ["frozenset"], ["surrogate"], ["list", "tuple", "dict", "int dict"]],
    ids="-".join,
)
def test_what_is_too_deep_is_refused_and_what_is_accepted_can_be_read(kinds):
    """At every depth around the limits, whatever is at the bottom."""
    for depth in (10, 30, *range(60, 68), 100, 150, 200, *range(245, 260), 280, 301, 500, 1023, 1024, 1025, 5000):
        for inmost in (None, (), bytearray(b"x"), "\ud800", 2**64, numpy.int8(1), datetime.date.min, Path("x"), {1: 2}):
            if kinds != ["frozenset"] or inmost.__hash__:
                assert check_depth(nested(kinds, depth, inmost)) or depth > 30


def test_chains_of_any_containers_are_refused_or_can_be_read():
    """1,000 of them, mixed at random."""
    chance = random.Random(3)
    accepted = 0
    for _ in range(1000):
        kinds = chance.choices([kind for kind in WRAPS if kind != "frozenset"], k=chance.choice([1, 2, 3, 30]))
        accepted += check_depth(nested(kinds, chance.randrange(1, 350), chance.choice([None, bytearray(b"x"), 2**64])))
    assert 100 < accepted < 900


def test_a_value_that_contains_itself_is_refused():
    row: list[Any] = []
    row.append(row)
    table: dict[Any, Any] = {}
    table["a"] = table
    numbered: dict[Any, Any] = {}
    numbered[1] = [numbered]
    inner: list[Any] = []
    through_tuple = (inner,)
    inner.append(through_tuple)
    for value in (row, table, numbered, through_tuple, [inner], {"a": {1: (inner, bytearray(b"x"))}}):
        with pytest.raises(ValueTypeError, match="deep, or contains itself"):
            CODEC.encode(value)


class Counted:
    """Counts how often it was encoded."""

    def __init__(self):
        self.times = 0


@pytest.mark.parametrize("beside", [{1: 2}, bytearray(b"x"), "\ud800"], ids=["int key", "bytearray", "surrogate"])
def test_nothing_is_encoded_many_times_over(beside):
    """What needs a second attempt must not double the work at every level: a value of 40 levels would take years."""
    codec, counted = SafeCodec(), Counted()

    def encode(found):
        found.times += 1
        return 1

    codec.register(Counted, encode, lambda _: Counted())
    value: Any = counted
    for _ in range(12):
        value = (value, beside)
    codec.encode(value)
    assert counted.times <= 3 * 12


# Registered types


def to_pair(parts):
    return Pair(*parts)


def registered():
    """A codec that knows some classes of all sorts."""
    codec = SafeCodec()
    codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts))
    codec.register(Colour, lambda colour: colour.name, Colour.__getitem__)
    codec.register(Level, int, Level)
    codec.register(Mood, lambda mood: mood.value, Mood)
    codec.register(Flags, lambda flags: flags.value, Flags)
    codec.register(Pair, tuple, lambda parts: Pair(*parts))
    codec.register(Model, lambda model: model.model_dump(), Model.model_validate)
    codec.register(Text, str, Text, name="my text")
    codec.register(List, list, List)
    codec.register(collections.OrderedDict, lambda value: list(value.items()), collections.OrderedDict)
    return codec


def test_registered_types_come_back_wherever_they_are():
    """Dataclasses, enums of all kinds, namedtuples, models, subclasses of what is stored anyway; one in another."""
    codec = registered()
    for value in [
        Point(1, Point((2,), {"a": Colour.RED})), Colour.RED, Level.LOW, Mood.GOOD, Flags.A | Flags.B,
        Pair(1, Pair(2, b"x")),
        Model(x=1, y=[2.5]), Text("a\ud800"), List([1, List([2])]), collections.OrderedDict(b=1, a=2),
    ]:  # fmt: skip
        for within in places(value):
            found = codec.decode(*codec.encode(within))
            assert found == within
            assert repr(found) == repr(within)  # which tells an IntEnum from an int


def test_a_registered_type_works_through_a_dictionary(tmp_path):
    with opened(tmp_path / "d") as d:
        d.codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts))
        d["k"] = [Point(1, 2)]
        assert d["k"] == [Point(1, 2)]
    with opened(tmp_path / "d") as d:
        with pytest.raises(DecodeError, match=r"test_codecs\.Point.*not registered"):
            d["k"]
        d.codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts))
        assert d["k"] == [Point(1, 2)]


def test_subclasses_of_a_registered_type_are_not_registered():
    class Point3(Point):
        pass

    with pytest.raises(ValueTypeError, match="Point3"):
        registered().encode(Point3(1, 2))


def test_what_a_registered_decode_refuses_raises_one_error():
    """Whatever it raises itself: a KeyError would read as an absent key."""
    writer, reader = SafeCodec(), SafeCodec()
    writer.register(Point, lambda point: [point.x, point.y], Point)
    for error in (
        KeyError("x"),
        ValueError("x"),
        StopIteration(),
        RecursionError(),
        DecodeError("mine"),
        AttributeError("x"),
    ):

        def decode(_, error=error):
            raise error

        reader.register(Point, lambda point: None, decode)
        with pytest.raises(DecodeError):
            reader.decode(*writer.encode([Point(1, 2)]))
    tag, blob = writer.encode([Point("1", "2")])
    checked = registered()
    checked.register(Point, lambda point: None, lambda parts: Model(x=parts[0], y=parts[1]))
    with pytest.raises(DecodeError) as failure:
        checked.decode(tag, blob)
    assert isinstance(failure.value.__cause__, pydantic.ValidationError) or failure.value.__cause__ is not None


def test_an_interruption_within_a_hook_is_not_swallowed():
    codec = SafeCodec()

    def interrupt(_):
        raise KeyboardInterrupt

    codec.register(Point, interrupt, lambda parts: parts)
    for value in (Point(1, 2), [(Point(1, 2),)]):
        with pytest.raises(KeyboardInterrupt):
            codec.encode(value)
    codec.register(Point, lambda point: 1, interrupt)
    for value in (Point(1, 2), [(Point(1, 2),)]):
        with pytest.raises(KeyboardInterrupt):
            codec.decode(*codec.encode(value))
    assert round_trip([(1,)], codec) == [(1,)]


def test_the_error_of_a_registered_encode_comes_through():
    """With its cause, and without a trace in the next call."""
    codec = SafeCodec()

    def encode(_):
        raise ZeroDivisionError("mine") from KeyError("why")

    codec.register(Point, encode, lambda parts: parts)
    for value in (Point(1, 2), [Point(1, 2)], {1: (Point(1, 2),)}):
        with pytest.raises(ZeroDivisionError, match="mine") as error:
            codec.encode(value)
        assert isinstance(error.value.__cause__, KeyError)
        assert same(round_trip([{1: 2}], codec), [{1: 2}])


def test_an_encode_that_leads_back_to_itself_is_refused():
    for back in (lambda point: point, lambda point: [point], lambda point: {1: point}):
        codec = SafeCodec()
        codec.register(Point, back, lambda parts: parts)
        with pytest.raises(ValueTypeError):
            codec.encode(Point(1, 2))


def test_what_is_stored_already_cannot_be_registered():
    known = (
        str,
        bytes,
        int,
        float,
        bool,
        type(None),
        list,
        dict,
        tuple,
        set,
        complex,
        uuid.UUID,
        type(Path()),
        type(BERLIN),
    )
    for cls in known:
        with pytest.raises(ValueError, match="already"):
            SafeCodec().register(cls, str, cls)


def test_numpy_arrays_cannot_be_registered():
    """They would be stored in one way alone and in another way within a list."""
    with pytest.raises(ValueError, match="already"):
        SafeCodec().register(numpy.ndarray, lambda value: value.tolist(), numpy.array)


def test_a_name_means_one_class_for_ever():
    """A name under which a class was registered before still reads its values, and cannot be given to another."""
    codec = SafeCodec()
    codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts), name="old")
    old = codec.encode(Point(1, 2))
    codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts), name="new")
    assert codec.encode(Point(1, 2)) != old
    assert codec.decode(*old) == Point(1, 2)
    with pytest.raises(ValueError, match="registered for Point"):
        codec.register(Pair, tuple, lambda parts: Pair(*parts), name="new")
    with pytest.raises(ValueError, match="registered for Point"):
        codec.register(Pair, tuple, lambda parts: Pair(*parts), name="old")
    assert codec.decode(*old) == Point(1, 2)


def test_a_codec_that_was_pickled_knows_what_was_registered():
    """Under all the names that a class ever had."""
    codec = SafeCodec()
    codec.register(Pair, tuple, to_pair, name="old")
    old = codec.encode(Pair(1, 2))
    codec.register(Pair, tuple, to_pair, name="new")
    for copy in (pickle.loads(pickle.dumps(codec)), pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(codec))))):
        assert copy.encode([Pair(1, 2)]) == codec.encode([Pair(1, 2)])
        assert copy.decode(*codec.encode(Pair(1, 2))) == Pair(1, 2)
        assert copy.decode(*old) == Pair(1, 2)
    assert same(round_trip([(1,)], pickle.loads(pickle.dumps(SafeCodec()))), [(1,)])


def test_codecs_do_not_share_what_is_registered():
    codec = registered()
    with pytest.raises(ValueTypeError):
        SafeCodec().encode(Point(1, 2))
    with pytest.raises(DecodeError):
        SafeCodec().decode(*codec.encode(Point(1, 2)))


# The other codecs


@examples(200)
@given(JSON_VALUES)
def test_json_brings_back_what_it_takes(value):
    tag, blob = JsonCodec().encode(value)
    assert same(JsonCodec().decode(tag, blob), value)
    assert same(json.loads(blob), value)


def test_json_refuses_what_it_would_change():
    """And what it cannot write. A nan and the infinities come back, though other readers of JSON may refuse them."""
    codec = JsonCodec()
    for value in [
        (1,), {1: 2}, {"a": {None: 1}}, {True: 1}, b"x", {1}, 1j, Text("a"), Number(1), Level.LOW, {Text("a"): 1},
        {Mood.GOOD: 1},
        [[(1,)]], Dict(a=1), List(), numpy.float64(1), datetime.date(2020, 1, 1), object(), decimal.Decimal(1),
        10**5000,
        nested(["list"], 5000), nested(["dict"], 1000),
    ]:  # fmt: skip
        with pytest.raises(ValueTypeError):
            codec.encode(value)
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(ValueTypeError):
        codec.encode(cycle)
    for value in (
        math.nan,
        [math.inf, -math.inf],
        -0.0,
        5e-324,
        2**64,
        10**4000,
        "\x00\u2028",
        "\ud800",
        {"\udfff": "é"},
    ):
        assert same(round_trip(value, codec), value)


def test_json_keeps_or_refuses_surrogates_that_are_side_by_side():
    """Written as escapes they would come back as the one character that they stand for."""
    for value in ("\ud83d\ude00", ["x\ud83d\ude00"], {"\ud83d\ude00": 1}, ["\ud800", "\ud83d\ude00"]):
        try:
            encoded = JsonCodec().encode(value)
        except ValueTypeError:
            continue
        assert same(JsonCodec().decode(*encoded), value)


def test_raw_takes_bytes_only():
    assert same(round_trip(b"\x00\xff", RawCodec()), b"\x00\xff")
    for value in ("a", bytearray(b"a"), memoryview(b"a"), Data(b"a"), None, 1, [b"a"]):
        with pytest.raises(ValueTypeError, match="bytes only"):
            RawCodec().encode(value)


def test_pickle_brings_back_whatever_can_be_pickled(tmp_path):
    value = [Point(1, Colour.RED), Pair(1, 2), {1: {2}}, Text("a"), numpy.array([None, 1])]
    with opened(tmp_path / "d", codec="pickle", allow_pickle=True) as d:
        d["k"] = value
        assert repr(d["k"]) == repr(value)
        for bad in (lambda: None, (number for number in ()), Point(1, lambda: None)):
            with pytest.raises(ValueTypeError):
                d["k"] = bad
        assert repr(d["k"]) == repr(value)


def test_pickle_must_be_allowed(tmp_path):
    """By its name or as an object; nothing is made when it is refused."""
    for codec in ("pickle", PickleCodec()):
        with pytest.raises(ValueError, match="allow_pickle"):
            opened(tmp_path / "d", codec=codec)
    assert not (tmp_path / "d").exists()
    with opened(tmp_path / "d", codec=PickleCodec(), allow_pickle=True) as d:
        d["k"] = Point(1, 2)
        assert d["k"] == Point(1, 2)


class Upper:
    """A codec object of the caller that writes str."""

    name = "upper"

    def dumps(self, value):
        return value.upper()

    def loads(self, data):
        assert type(data) is bytes
        return data.decode().lower()


class Own:
    """A whole codec of the caller."""

    name = "own"

    def encode(self, value):
        return 200, repr(value).encode()

    def decode(self, tag, blob):
        assert tag == 200
        return int(blob)


@pytest.mark.parametrize(
    ("codec", "name", "value"),
    [
        (json, "object:json", {"a": [1, None]}),
        (pickle, "object:pickle", Pair(1, 2)),
        (Upper(), "object:upper", "text"),
        (Own(), "own", 5),
    ],
    ids=["module json", "module pickle", "object", "codec"],
)
def test_a_codec_of_the_caller_is_used_and_its_name_is_kept(codec, name, value, tmp_path):
    with opened(tmp_path / "d", codec=codec) as d:
        d["k"] = value
        assert d["k"] == value
        assert d.codec.name == name
        assert d._store.info()["codec"] == name
    with opened(tmp_path / "d", codec=codec) as d:
        assert dict(d) == {"k": value}
    with pytest.raises(MismatchError, match=name):
        opened(tmp_path / "d")


def to_text(value):
    return f"<{value}>"


def to_bytes(value):
    return f"<{value}>".encode()


def to_buffer(value):
    return bytearray(to_bytes(value))


def to_number(value):
    return 5


def from_bytes(data):
    assert type(data) is bytes
    return data.decode()[1:-1]


def test_a_value_serializer_may_return_str_or_bytes_and_its_inverse_gets_bytes(tmp_path):
    for number, serializer in enumerate([to_text, to_bytes, to_buffer]):
        with opened(tmp_path / f"{number}", value_serializer=serializer, value_unserializer=from_bytes) as d:
            d["k"] = "é"
            d["large"] = "x" * 40_000
            assert (d["k"], d["k"], d["large"]) == ("é", "é", "x" * 40_000)
            assert dict(d.items()) == {"k": "é", "large": "x" * 40_000}
            assert d._store.info()["codec"] == f"call:test_codecs|{serializer.__name__}"
    with pytest.raises(ValueTypeError, match="must return str or bytes"):
        CallableCodec(to_number, from_bytes).encode(1)


def test_lone_surrogates_may_be_in_what_a_value_serializer_returns():
    codec = CallableCodec(lambda value: value, lambda data: data.decode("utf-8", "surrogatepass"))
    assert round_trip("a\ud800", codec) == "a\ud800"


class Unreadable(Exception):
    pass


@pytest.mark.parametrize("raised", [KeyError("x"), Unreadable("x")], ids=["KeyError", "own error"])
def test_an_error_of_the_callers_unserializer_is_no_absent_key(raised, tmp_path):
    """`get` must not give the default, nor `setdefault` go on for ever, for an entry that is there but unreadable."""
    asked = []

    def loads(data):
        asked.append(data)
        if len(asked) > 20:
            pytest.exit("asked again and again")
        raise raised

    with opened(tmp_path / "d", value_serializer=to_text, value_unserializer=loads, caching=False) as d:
        d["k"] = 1
        for read in (
            lambda: d["k"],
            lambda: d.get("k", "default"),
            lambda: d.pop("k", "default"),
            lambda: d.popitem(),
            lambda: d.get_many(["k"]),
            lambda: (
                d.setdefault("k", "default") if not isinstance(raised, KeyError) or "loads" in str(asked) else d["k"]
            ),
        ):
            with pytest.raises((PersistDictError, Unreadable)):
                read()
        assert "k" in d
        assert len(d) == 1


def test_setdefault_ends_whatever_a_codec_raises(tmp_path):
    """An entry that is there, but whose codec raises KeyError: asked a few times, not for ever."""
    asked = []

    class Broken(Own):
        def decode(self, tag, blob):
            asked.append(tag)
            raise KeyError("x") if len(asked) < 50 else Unreadable

    with opened(tmp_path / "d", codec=Broken(), caching=False) as d:
        d["k"] = 1
        with pytest.raises((PersistDictError, KeyError)):
            d.setdefault("k", 2)
        assert len(asked) < 50


def test_make_codec_knows_what_is_asked_of_it():
    assert isinstance(make_codec("safe"), SafeCodec)
    assert isinstance(make_codec("json"), JsonCodec)
    assert isinstance(make_codec("raw"), RawCodec)
    assert isinstance(make_codec("pickle", allow_pickle=True), PickleCodec)
    assert isinstance(make_codec(json), ObjectCodec)
    assert isinstance(make_codec("safe", serializer=to_text, unserializer=from_bytes), CallableCodec)
    own = Own()
    assert make_codec(own) is own
    for wrong in ("yaml", "", "SAFE"):
        with pytest.raises(ValueError, match="one of safe, json, raw, pickle"):
            make_codec(wrong)
    for wrong in (object(), 5, None, math):
        with pytest.raises(TypeError):
            make_codec(wrong)
    for half in ({"serializer": to_text}, {"unserializer": from_bytes}):
        with pytest.raises(ValueError, match="together"):
            make_codec("safe", **half)
    with pytest.raises(ValueError, match="not both"):
        make_codec("json", serializer=to_text, unserializer=from_bytes)


def test_a_class_of_codecs_is_refused_where_a_codec_belongs():
    """Not accepted, to fail with the first value that is written."""
    with pytest.raises(TypeError):
        make_codec(SafeCodec)


OPTIONS: dict[str, dict[str, Any]] = {
    "safe": {},
    "json": {"codec": "json"},
    "raw": {"codec": "raw"},
    "pickle": {"codec": "pickle", "allow_pickle": True},
    "module": {"codec": json},
    "callables": {"value_serializer": to_text, "value_unserializer": from_bytes},
    "others": {"value_serializer": to_bytes, "value_unserializer": from_bytes},
    "own": {"codec": Own()},
}


def test_a_store_opens_only_with_the_codec_that_wrote_it(tmp_path):
    """Every pair of codecs: refused with both names, and not a byte is changed."""
    for name, options in OPTIONS.items():
        with opened(tmp_path / name, **options) as d:
            d["k"] = {"raw": b"x"}.get(name, 5)
        data = tmp_path / name / "data.mdb"
        before = data.read_bytes()
        for other, other_options in OPTIONS.items():
            if other == name:
                continue
            with pytest.raises(MismatchError, match="nothing was changed"):
                opened(tmp_path / name, **other_options)
        assert data.read_bytes() == before
        with opened(tmp_path / name, **options) as d:
            assert list(d) == ["k"]


def test_codec_names_agree_when_they_mean_the_same_code():
    """The functions of a script are in __main__ when it runs and in its module when it is imported."""
    for stored, asked, agree in [
        ("safe", "safe", True),
        ("safe", "json", False),
        ("call:module|dump", "call:module|dump", True),
        ("call:module|dump", "call:module|dumps", False),
        ("call:module|dump", "call:other|dump", False),
        ("call:__main__|dump", "call:module|dump", True),
        ("call:module|dump", "call:__main__|dump", True),
        ("call:__main__|dump", "call:module|dumps", False),
        ("call:__main__|dump", "object:__main__|dump", False),
        ("object:json", "call:json|dumps", False),
        ("call:a|__main__", "call:b|__main__", False),
        ("safe", "safe:", False),
        ("", "safe", False),
    ]:
        assert names_agree(stored, asked) is agree, (stored, asked)


def test_an_object_named_main_does_not_agree_with_every_other():
    """The module of a script that has `dumps` and `loads` itself is called __main__."""
    assert not names_agree("object:upper", "object:__main__")
    assert not names_agree("object:__main__", "object:upper")


def test_every_codec_refuses_the_tags_of_the_others():
    codecs = {
        0: SafeCodec(),
        32: JsonCodec(),
        33: RawCodec(),
        34: PickleCodec(),
        35: CallableCodec(to_text, from_bytes),
    }
    for own, codec in codecs.items():
        for tag in [0, 11, 12, *range(30, 40), 255]:
            if tag != own or own == 0:
                with pytest.raises(DecodeError, match=f"its tag is {tag}"):
                    codec.decode(tag, b"5")


# A planted pickle


class Gadget:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def planted_blobs(marker):
    """Pickles of the gadget, bare and within whatever the safe codec might look into."""
    for protocol in (0, 2, 5):
        blob = pickle.dumps(Gadget(marker), protocol)
        yield blob
        yield pickle.dumps([numpy.array([Gadget(marker)], object)], protocol)
        for code in range(30):
            yield ormsgpack.packb(Ext(code, blob))
            yield ormsgpack.packb([Ext(code, ormsgpack.packb([blob, blob, None]))])
        yield ormsgpack.packb(Ext(18, ormsgpack.packb(["test_codecs.Gadget", str(marker)])))
        yield ormsgpack.packb(Ext(18, ormsgpack.packb(["os.mkdir", [str(marker)]])))
        for description in ("|O", "O", [["a", "|O"]], "i4,O"):
            header = ormsgpack.packb([description, [1], False])
            yield len(header).to_bytes(2, "little") + header + blob
    saved = io.BytesIO()
    numpy.save(saved, numpy.array([Gadget(marker)], object), allow_pickle=True)
    yield saved.getvalue()


def plant(path, entries, info=()):
    """Write entries behind the back of a dictionary, after one that is good, and settings."""
    store = LmdbStore(str(path))
    store.put(*KeyCodec().encode("good"), 1, b"value")
    for key, tag, blob in entries:
        store.put(*KeyCodec().encode(key), tag, blob)
    store.update(lambda txn: [txn.set_info(name, text) for name, text in info], whole=True)
    store.close()


def read_everything(d, key):
    """Read an entry by every method there is; errors and warnings are expected."""
    calls = [
        lambda: d["good"], lambda: d[key], lambda: d[key], lambda: d.get(key), lambda: d.get_many([key]),
        lambda: list(d.items()),
        lambda: list(d.values()), lambda: list(reversed(d.items())), lambda: list(d), lambda: repr(d), lambda: d.copy(),
        lambda: d == {key: 1}, lambda: {key: 1} == d, lambda: d == d, lambda: d | {}, lambda: {} | d,
        lambda: d.setdefault(key, 1),
        lambda: d.entry(key), lambda: key in d, lambda: 1 in d.values(), lambda: (key, 1) in d.items(), lambda: dict(d),
        lambda: d.items() & {(key, 1)}, lambda: d.pop(key), lambda: d.popitem() if key in d else None,
        lambda: d._store.check(10),
        lambda: d.expire(), lambda: d.flush(), lambda: d.keys() & {key}, lambda: len(d),
    ]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        for call in calls:
            try:
                call()
            except (DecodeError, KeyError, TypeError, ValueError):
                pass


def test_the_planted_pickle_is_live(tmp_path):
    """With pickle allowed it does run, so the tests below would notice."""
    marker = tmp_path / "fired"
    plant(tmp_path / "d", [("k", 34, pickle.dumps(Gadget(marker)))], [("codec", "pickle"), ("keys", "ordered")])
    with opened(tmp_path / "d", codec="pickle", allow_pickle=True) as d:
        assert d["k"] is None
    assert marker.exists()


def test_a_planted_pickle_in_a_safe_store_never_runs(tmp_path):
    """Whatever its tag, by whatever method it is read; and it is refused, not deleted."""
    marker = tmp_path / "fired"
    plant(tmp_path / "d", [("k", 34, pickle.dumps(Gadget(marker)))], [("codec", "safe"), ("keys", "ordered")])
    with opened(tmp_path / "d") as d:
        read_everything(d, "k")
        for read in (
            lambda: d["k"],
            lambda: d.get("k", 1),
            lambda: d.pop("k", 1),
            lambda: d.setdefault("k", 1),
            d.popitem,
        ):
            with pytest.raises(DecodeError, match="tag is 34"):
                read()
        with pytest.warns(DamagedEntryWarning):
            assert list(d.items()) == [("good", "value")]
        assert list(d) == ["good", "k"]
        for blob in planted_blobs(marker):
            for tag in [*range(12), 34, 255]:
                try:
                    d.codec.decode(tag, blob)
                except DecodeError:
                    pass
        for number, blob in enumerate(planted_blobs(marker)):
            d._store.put(*KeyCodec().encode("k"), number % 10 if number % 3 else 8, blob)
            if number % 7 == 0:
                read_everything(d, "k")
    assert not marker.exists()


def test_a_store_whose_settings_say_pickle_does_not_bring_anybody_to_unpickle(tmp_path):
    marker = tmp_path / "fired"
    for number, name in enumerate(["pickle", "object:pickle", "call:pickle|dumps", "call:__main__|dumps", "safe", ""]):
        path = tmp_path / f"{number}"
        plant(path, [("k", 34, pickle.dumps(Gadget(marker)))], [("codec", name), ("keys", "ordered")])
        for options in ({}, {"codec": "json"}, {"codec": "raw"}, {"codec": json}):
            try:
                with opened(path, **options) as d:
                    read_everything(d, "k")
            except MismatchError:
                pass
        for codec in ("pickle", PickleCodec()):
            with pytest.raises(ValueError, match="allow_pickle"):
                opened(path, codec=codec)
    assert not marker.exists()


# Bytes that are no value


def decoded(codec, tag, blob):
    """Decode; the one error that is allowed is passed over."""
    try:
        codec.decode(tag, blob)
    except DecodeError:
        return


@examples(300)
@given(st.binary(max_size=60), st.integers(0, 255))
def test_any_bytes_decode_or_raise_one_error(blob, any_tag):
    for tag in [*range(12), any_tag]:
        decoded(CODEC, tag, blob)
    for code in (*range(1, 23), any_tag % 128):
        decoded(CODEC, TREE, ormsgpack.packb(Ext(code, blob)))
    decoded(JsonCodec(), 32, blob)
    decoded(RawCodec(), 33, blob)


def mutated(data, chance, others):
    """The bytes with a few changes: bits flipped, bytes replaced, inserted, removed, parts of other values put in."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at = chance.randrange(len(data) + 1)
        change = chance.randrange(7)
        if change == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif change == 1 and data:
            data[at % len(data)] = chance.choice([0, 0x7F, 0x80, 0x90, 0xC0, 0xC4, 0xC7, 0xC9, 0xDD, 0xDF, 0xFF])
        elif change == 2:
            data[at:at] = bytes(chance.choices(range(256), k=chance.choice([1, 1, 4])))
        elif change == 3:
            del data[at : at + chance.choice([1, 1, 4, 100])]
        elif change == 4:
            del data[at:]
        else:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            data[at : at + chance.choice([0, 8])] = other[start : start + 24]
    return bytes(data)


def test_damaged_values_decode_or_raise_one_error():
    """60,000 mutations of encodings of every type there is."""
    chance = random.Random(7)
    samples = HASHABLE + OTHER + ORDINARY_ARRAYS
    codec = registered()
    encoded = [codec.encode(value) for value in samples + [[value] for value in samples] + [Point(1, Colour.RED)]]
    encoded += [codec.encode([*chance.sample(samples, 3), {"a": tuple(chance.sample(samples, 2))}]) for _ in range(100)]
    encoded = [(tag, blob) for tag, blob in encoded if len(blob) < 2000]
    blobs = [blob for _, blob in encoded]
    for _ in range(60_000):
        tag, blob = chance.choice(encoded)
        decoded(codec, tag if chance.random() < 0.95 else chance.randrange(12), mutated(blob, chance, blobs))
    for _ in range(2000):
        text = json.dumps(chance.choice([{"a": [1, "é"]}, [None, 1.5], "x"])).encode()
        decoded(JsonCodec(), 32, mutated(text, chance, [text, b'"\\ud800', b"[" * 20]))


def packed_array(description, shape, fortran=False, data=b""):
    header = ormsgpack.packb([description, shape, fortran])
    return len(header).to_bytes(2, "little") + header + data


DESCRIPTIONS = [
    "<i4", "|S0", "<U0", "|V0", "|O", "O", "i4,O", "(2,)O", "(2,3)i4", "(1000000,1000000)i4", "(1000000000,0)i4",
    "V2147483647",
    "S99999999999", "xyz", "", "i4,", "a5", "(", ")", "T", "StringDType", "object", "M8[xx]", "M8[1000000000000s]",
    "M8[s/3]", "i4:{",
    "__import__('os')", [], [["a", "|O"]], [["a", [["b", "|O"]]]], [["a", "<i4", [2**30, 2**30]]],
    [["a", "<i4", [-1]]], [["a"]],
    [["a", "i4", [1], 5]], [[1, 2]], [["", "<i4"]], [["a", "<i4"], ["a", "<i4"]], [["a", "O", [2]]], {"a": 1}, 5,
    None, True, 1.5,
    b"<i4", [[["title", "name"], "<i4"]], "B1," * 20_000, [["a", "|S0", [1_000_000]]], "datetime64", "\x00", "é",
    "\uffff" * 100,
]  # fmt: skip
SHAPES = [
    [1], [], [0], [-1], [-5, 0], [2**62, 2**62], [0, 2**62], [0, -1], [2**40], [2**63 - 1], [2**64 - 1], [1.5], "ab",
    "", None, 5,
    [None], [0, None], [[0]], [1] * 100, {"a": 1}, [True], ["1"], b"\x01", [0] * 65,
]  # fmt: skip


def test_hostile_array_headers_decode_or_raise_one_error():
    """Impossible dtypes, dtypes with objects, huge and negative shapes; alone and within a tree."""
    for description in DESCRIPTIONS:
        for shape in SHAPES:
            if len(ormsgpack.packb([description, shape])) < 65_000:
                blob = packed_array(description, shape, data=b"\x00" * 8 if shape == [1] else b"")
                decoded(CODEC, ARRAY, blob)
                decoded(CODEC, TREE, ormsgpack.packb([Ext(16, blob)]))
        decoded(CODEC, TREE, ormsgpack.packb(Ext(17, ormsgpack.packb([description, b"\x00" * 8]))))
        decoded(CODEC, TREE, ormsgpack.packb(Ext(17, ormsgpack.packb([description, b""]))))
    for blob in (b"", b"\x05", b"\xff\xff", b"\x05\x00", b"\x01\x00\xc0", packed_array("<i4", [2], "zz", b"\x00" * 8)):
        decoded(CODEC, ARRAY, blob)


def test_no_array_of_a_file_has_objects_in_it():
    """Not even an empty one."""
    for description in (
        "|O",
        "O",
        "object",
        "i4,O",
        "(2,)O",
        [["a", "|O"]],
        [["a", [["b", "|O"]]]],
        [["a", "|O", [0]]],
    ):
        for shape in ([0], [1], [0, 2**40]):
            with pytest.raises(DecodeError):
                CODEC.decode(ARRAY, packed_array(description, shape, data=b"\x00" * 8 * (shape == [1])))
        with pytest.raises(DecodeError):
            CODEC.decode(TREE, ormsgpack.packb(Ext(17, ormsgpack.packb([description, b""]))))


def test_an_array_has_exactly_the_bytes_that_its_shape_says():
    for shape in ([0], [0, 5], [2], []):
        size = math.prod(shape) * 4
        for given_size in (size - 4, size - 1, size + 1, size + 4, size * 2 + 4):
            with pytest.raises(DecodeError):
                CODEC.decode(
                    ARRAY, packed_array("<i4", shape, data=bytes(max(0, given_size)) if given_size >= 0 else b"x")
                )


def test_an_array_gets_no_more_memory_than_it_has_bytes():
    """numpy makes one byte of an element of none: a few bytes of a file would be an array of gigabytes."""
    for description in ("|S0", "<U0", [["a", "|S0"]], "|V0"):
        try:
            found = CODEC.decode(ARRAY, packed_array(description, [1 << 24]))
        except DecodeError:
            continue
        assert found.nbytes == 0


LISTS = {
    "[1,2]": [1, 2],
    "'ab'": "ab",
    "[]": [],
    "5": 5,
    "[[1]]": [[1]],
    "None": None,
    "{}": {"a": 1},
    "[None]*9": [None] * 9,
}


def test_hostile_extensions_decode_or_raise_one_error():
    """Time zones outside the database, numbers that are none, lists where others belong, and what is not hashable."""
    payloads = [ormsgpack.packb(value) for value in LISTS.values()]
    payloads += [
        ormsgpack.packb([value] * count)
        for value in ("x", -1, 1.5, 2**63, None, True, b"", [1])
        for count in (1, 2, 3, 7)
    ]
    payloads += [
        b"../../etc/passwd", b"/etc/passwd", b"..", b".", b"", b"Europe", b"America", b"Europe/../Europe/Berlin",
        b"a\x00b", b"\xff",
        b"A" * 10_000, b"tzdata.zi", b"zone.tab", b"abc", b"1e99999999999999999999", b"--1", b"1/0", b"NaN1",
        b"2020-13-01", b"25:00",
        b"9999-12-31T23:59:60", b"-1-01-01", b"\x91", b"\xdd\xff\xff\xff\xff",
    ]  # fmt: skip
    extra = (
        ["2020-01-01T00:00:00", 9, None],
        ["2020-01-01T00:00:00", 0, 5],
        ["x", 0, None],
        [10**12, 1, 1],
        [1, 0],
        [5, None],
        ["", 5],
    )
    payloads += [ormsgpack.packb(value) for value in extra]
    payloads += [ormsgpack.packb([Ext(8, ormsgpack.packb([9, 0, 0])), None]), ormsgpack.packb([["PosixPath"], "x"])]
    for code in [*range(1, 25), 99, 127]:
        for payload in payloads:
            decoded(CODEC, TREE, ormsgpack.packb(Ext(code, payload)))
            decoded(CODEC, TREE, ormsgpack.packb([{"a": Ext(1, ormsgpack.packb([Ext(code, payload)]))}]))
    decoded(CODEC, TREE, b"\xd4\xff\x00")  # MessagePack's own extension for times


def test_zones_are_only_read_from_the_time_zone_database(monkeypatch, tmp_path):
    """No key leads out of it, whatever lies there."""
    (tmp_path / "zone").write_bytes(b"TZif2")
    for key in ("../zone", str(tmp_path / "zone"), "Europe/../../zone", "./zone", "..", "Europe//Berlin"):
        with pytest.raises(DecodeError):
            CODEC.decode(TREE, ormsgpack.packb(Ext(21, key.encode())))


def test_a_fraction_is_made_of_two_ints_only():
    """Fraction takes a str as well: eleven bytes of a file, "1e999999999", would keep the reader busy for days."""
    for parts in (
        ["1e2000"],
        ["1/3"],
        [1.5],
        ["1", "2"],
        [1, 2.0],
        [Ext(10, b"1e2000")],
        [Ext(10, b"1e2000"), 1],
        [True, 2],
    ):
        with pytest.raises(DecodeError):
            CODEC.decode(TREE, ormsgpack.packb(Ext(19, ormsgpack.packb(parts))))


def run_limited(code):
    """Run code in a process of its own with little memory and time; gives its output and how it ended."""
    setup = """
        import resource, sys, numpy, ormsgpack
        from ormsgpack import Ext
        from persistdict import SafeCodec, DecodeError
        codec = SafeCodec()
        codec.decode(*codec.encode([(numpy.zeros(2), 1)]))
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0], ) * 2)
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
        def decoded(tag, blob, what):
            print(what, flush=True)
            try:
                codec.decode(tag, blob)
            except DecodeError:
                pass
        def array(description, shape, data=b""):
            header = ormsgpack.packb([description, shape, False])
            return len(header).to_bytes(2, "little") + header + data
    """
    script = textwrap.dedent(setup) + textwrap.dedent(code) + "\nprint('end')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return (lines[-1] if lines else ""), done.returncode, done.stderr[-500:]


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="limits a process as Linux does")


@needs_proc
def test_bombs_take_neither_memory_nor_time():
    """Huge lengths, deep nesting, huge shapes, in a process with 256 MB and 20 seconds: none of them ends it."""
    code = """
        for kind in ("dd", "df", "c6", "db", "c9"):
            for size in ("ffffffff", "7fffffff", "08000000", "00ffffff"):
                head = bytes.fromhex(kind + size)
                for blob in (head, head * 1000, b"\\x91" * 100 + head, head + b"\\x01" * 100):
                    decoded(8, blob, kind + size)
                    decoded(8, ormsgpack.packb(Ext(1, blob)), "within a tuple " + kind + size)
                    decoded(8, ormsgpack.packb(Ext(15, blob)), "within a dict " + kind + size)
        for level in (b"\\x91", b"\\x81\\xa1a", b"\\x81\\x91"):
            for depth in (1000, 1024, 5000, 3_000_000):
                decoded(8, level * depth + b"\\xc0", f"nesting {level} {depth}")
        for code in (1, 2, 3, 15, 18):
            blob = b"\\xc0"
            for depth in range(1, 2001):
                blob = ormsgpack.packb(Ext(code, b"\\x92" + blob + b"\\xc0"))
                if depth in (100, 200, 300, 500, 1000, 2000):
                    decoded(8, blob, f"extension {code} nested {depth}")
        blob = b"\\xc0"
        for depth in range(20_000):
            blob = b"\\xc9" + (len(blob) + 1).to_bytes(4, "big") + b"\\x01\\x91" + blob
        decoded(8, blob, "extension nested 20,000")
        for shape in ([2**62, 2**62], [0, 2**62], [2**40], [-1, 2**40], [2**28]):
            for description in ("<i4", "|V0", "<f8", [["a", "<i4"]], "<c16"):
                decoded(9, array(description, shape), f"array {description} {shape}")
                decoded(9, array(description, shape, bytes(1600)), f"array {description} {shape}")
        description = "<i4"
        for depth in range(100):
            description = [["a", description]]
        decoded(9, array(description, [1], bytes(4)), "nested dtype")
        decoded(3, bytes(1_000_000), "int")
        decoded(8, ormsgpack.packb(Ext(10, b"9" * 1_000_000)), "decimal")
        decoded(8, ormsgpack.packb(Ext(10, b"1e999999999999999")), "decimal")
        decoded(8, ormsgpack.packb(Ext(2, ormsgpack.packb([Ext(10, b"1e999999999999999"), 5]))), "decimal in a set")
    """
    assert run_limited(code)[:2] == ("end", 0)


@needs_proc
@pytest.mark.parametrize("megabytes", [2, 8])
def test_no_nesting_of_a_file_overflows_the_stack(megabytes):
    """Of a thread of 2 MB, which is what Windows and musl give, or 8 MB: it would end the process."""
    code = f"""
        import threading
        def bombs():
            for level in (b"\\x91", b"\\x81\\xa1a"):
                for within in (31, 32, 33, 255, 256, 1000, 1023, 1024):
                    for extensions in (0, 1, 3, 4, 5, 10, 63, 64, 65, 200):
                        blob = b"\\xc0"
                        for _ in range(extensions):
                            blob = level * within + blob
                            blob = b"\\xc9" + len(blob).to_bytes(4, "big") + b"\\x01" + blob
                        decoded(8, level * within + blob, f"{{level}} {{within}} {{extensions}}")
        threading.stack_size({megabytes} << 20)
        thread = threading.Thread(target=bombs)
        thread.start()
        thread.join()
    """
    assert run_limited(code) == ("end", 0, "")


@needs_proc
@pytest.mark.parametrize("tag", [8, 9])
def test_memory_that_an_array_cannot_get_is_no_strange_error(tag):
    """An array that says that it is larger than the memory is damaged, alone or within a tree."""
    code = f"""
        for description in ("|S0", "<U0"):
            blob = array(description, [2**40])
            decoded({tag}, blob if {tag} == 9 else ormsgpack.packb([Ext(16, blob)]), "array")
    """
    assert run_limited(code) == ("end", 0, "")


@needs_proc
def test_no_dtype_of_a_file_kills_the_process():
    """numpy divides by zero in C when a unit of time is parsed that has the divisor 0."""
    code = """
        for description in ("<M8[s/0]", "<m8[ns/0]", [["a", "<M8[s/0]"]], "M8[D/0],i4"):
            decoded(9, array(description, [1], bytes(8)), f"array {description}")
            decoded(8, ormsgpack.packb(Ext(17, ormsgpack.packb([description, bytes(8)]))), f"number {description}")
    """
    assert run_limited(code) == ("end", 0, "")


@examples(60)
@given(st.binary(max_size=200), st.integers(0, 60), st.randoms(use_true_random=False))
def test_planted_garbage_reads_as_damage_through_every_method(blob, tag, chance):
    """In memory, where planting is cheap: an entry of any bytes raises DecodeError or has some value."""
    if chance.random() < 0.5:
        tag, good = CODEC.encode(chance.choice(OTHER))
        blob = mutated(good, chance, [blob or b"x"])
    with PersistDict("memory://", background_thread="disabled") as d:
        d["good"] = 1
        d._store.put(*KeyCodec().encode("k"), tag, blob)
        for read in (lambda: d["k"], lambda: d.get("k"), lambda: d.get_many(["k"]), lambda: d.pop("k")):
            try:
                read()
            except DecodeError:
                assert "k" in d
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DamagedEntryWarning)
            assert ("good", 1) in list(d.items())
            assert d.copy()["good"] == 1


@pytest.mark.parametrize("byte", [b"\x81", b"\x91", b"\xdc", b"\xdf"])
def test_the_bytes_of_an_array_are_not_taken_for_nesting(byte):
    """Whatever they are, and whatever is around the array."""
    array = numpy.frombuffer(byte * 400, dtype="u1")
    for value in ((array,), ((array, array),), {1: (array,)}, [{"a": ({2: array},)}], (bytearray(byte * 400),)):
        assert repr(CODEC.decode(*CODEC.encode(value))) == repr(value)
