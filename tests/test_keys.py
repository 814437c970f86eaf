"""Keys: what comes back, which are one key, how they sort, what is refused, and long ones that share a digest."""

import codecs
import collections
import decimal
import enum
import fractions
import math
import random
import struct
from pathlib import Path

import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import (
    CLOSE_KEYS,
    KEYS,
    SPECIAL_NUMBERS,
    TUPLE_KEYS,
    equal_keys,
    examples,
    key_order,
    same,
    twin,
)

from persistdict import DecodeError, KeyTypeError, MismatchError, PersistDict
from persistdict.keys import DIGEST_SIZE, KeyCodec, crop, key_digest
from persistdict.spans import Span
from persistdict.stores.lmdb.rows import LARGE_VALUE

CODEC = KeyCodec()
Point = collections.namedtuple("Point", "x y")


class Name(str):
    """A str of a class of its own."""


class Data(bytes):
    """The same of bytes."""


class Colour(enum.IntEnum):
    RED = 7


class Mood(str, enum.Enum):
    GOOD = "good"


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", **options)


def round_trip(key):
    return CODEC.decode(*CODEC.encode(key))


# What comes back


@examples(600)
@given(KEYS)
def test_every_key_comes_back_as_it_was(key):
    assert same(round_trip(key), key)


def test_every_kind_of_number_comes_back_as_it_was():
    """Alone and in a tuple: zeros of both signs, subnormals, and the ints around every change of length."""
    for key in SPECIAL_NUMBERS:
        assert same(round_trip(key), key)
        assert same(round_trip((key, "x", (key,))), (key, "x", (key,)))


def test_keys_of_subclasses_come_back_as_the_plain_type():
    """As they are equal in a dict, they are one key here, and what comes back is equal too."""
    for key, plain in [
        (Name("a\x00b"), "a\x00b"),
        (Data(b"a"), b"a"),
        (Point(1, (2.0, Point(True, None))), (1, (2.0, (True, None)))),
        (Colour.RED, 7),
        (Mood.GOOD, "good"),
        (numpy.float64(1.5), 1.5),
        (numpy.str_("x"), "x"),
        ((Name("a"), Colour.RED), ("a", 7)),
    ]:
        assert same(round_trip(key), plain)
        assert CODEC.encode(key) == CODEC.encode(plain)


def test_text_with_lone_surrogates_and_nul_comes_back():
    """Surrogates that are two in a row are not taken for the character that they could stand for."""
    for key in ["\ud800", "a\udfffb", "\x00", "", "\ud83d\ude00", "😀", "\x00\x00\ud800\x00"]:
        assert same(round_trip(key), key)
        assert same(round_trip((key, key)), (key, key))
    assert CODEC.encode("\ud83d\ude00") != CODEC.encode("😀")


@pytest.mark.parametrize("limit", [1, 511])
def test_the_object_stored_first_is_the_one_that_is_kept(limit, tmp_path):
    """As in a dict: an overwrite with an equal key keeps the key; after a deletion the new one counts."""
    first = [True, -0.0, 2.0, (1, False, (0.0,)), 3, math.inf, "a"]
    again = [1.0, 0, 2, (True, -0.0, (0,)), 3.0, math.inf, Name("a")]
    with opened(tmp_path / "d", key_size_limit=limit) as d:
        d.update((key, "old") for key in first)
        for write in (
            lambda key: d.__setitem__(key, "new"),
            lambda key: d.set(key, "new", ttl=1000),
            lambda key: d.set(key, "x" * 40_000),
            lambda key: d.update({key: "new"}),
            lambda key: d.set_many({key: "new"}, ttl=1000),
            lambda key: d.setdefault(key, "other"),
        ):
            for key in again:
                write(key)
            assert same(list(d), first)
        assert set(d.values()) == {"new"}
        for key in first:
            del d[key]
        d.set_many((key, "new") for key in again)
        assert same(list(d), [*again[:-1], "a"])


# Which are one key


@examples(400)
@given(KEYS, st.randoms(use_true_random=False))
def test_equal_keys_have_equal_bytes(key, chance):
    """1 == 1.0 == True, also within tuples, and 0 == -0.0, and all nans are one."""
    other = twin(key, chance)
    assert equal_keys(key, other)
    assert CODEC.encode(key)[0] == CODEC.encode(other)[0]
    assert same(round_trip(other), other)


def test_all_nans_are_one_key(tmp_path):
    """Otherwise nobody could ever read or remove what was stored under one."""
    (other,) = struct.unpack(">d", b"\xff\xf8\x00\x00\x00\x00\x01\x00")
    with opened(tmp_path / "d") as d:
        d[math.nan] = 1
        d[(other, 1)] = 2
        assert d[other] == 1
        assert d[(-math.nan, 1.0)] == 2
        assert len(d) == 2


@examples(500)
@given(KEYS | CLOSE_KEYS | TUPLE_KEYS, KEYS | CLOSE_KEYS | TUPLE_KEYS)
def test_different_keys_have_different_bytes(one, other):
    assert (CODEC.encode(one)[0] == CODEC.encode(other)[0]) == equal_keys(one, other)


def test_no_two_of_many_close_keys_share_their_bytes():
    """All pairs of the special numbers, and of the tuples made of few letters."""
    letters = ["", "\x00", "\x00\x00", "a", "a\x00", "\xff", b"", b"\x00", b"\xff", b"\x00\xff", None, 0, 0.5, ()]
    keys = [*SPECIAL_NUMBERS, *letters, *((a, b) for a in letters for b in letters), *((a,) for a in letters)]
    keys += [((a,), b) for a in letters for b in letters] + [((a, b),) for a in letters for b in letters]
    kept = {}
    for key in keys:
        known = kept.setdefault(CODEC.encode(key)[0], key)
        assert equal_keys(known, key)
    distinct = []
    for key in keys:
        if not any(equal_keys(key, other) for other in distinct):
            distinct.append(key)
    assert len(kept) == len(distinct)


# How they sort


@examples(400)
@given(st.lists(KEYS | CLOSE_KEYS | TUPLE_KEYS, max_size=12))
@example(SPECIAL_NUMBERS)
@example([(number, "x") for number in SPECIAL_NUMBERS] + [(number,) for number in SPECIAL_NUMBERS])
@example([((number,), 0) for number in SPECIAL_NUMBERS] + [((number, 0),) for number in SPECIAL_NUMBERS])
def test_encoded_keys_sort_as_the_keys_do(keys):
    """None, numbers by size, bytes, str by code point, tuples part by part."""
    by_bytes = sorted(keys, key=lambda key: CODEC.encode(key)[0])
    by_order = sorted(keys, key=key_order)
    assert all(map(equal_keys, by_bytes, by_order))


@st.composite
def prefixes_and_keys(draw):
    """A tuple, and a key that begins with it, nearly begins with it, or does not at all."""
    prefix = draw(TUPLE_KEYS)
    kind = draw(st.sampled_from(["longer", "changed", "any"]))
    if kind == "longer":
        return prefix, prefix + draw(TUPLE_KEYS)
    if kind == "changed" and prefix:
        last = prefix[-1]
        if isinstance(last, (str, bytes)):
            last = last + draw(
                st.sampled_from(["\x00", "\uffff", "a"] if isinstance(last, str) else [b"\x00", b"\xff"])
            )
        elif isinstance(last, tuple):
            last = (*last, draw(CLOSE_KEYS))
        elif isinstance(last, (int, float)) and abs(last) < 1e6:
            last = last + draw(st.sampled_from([0.5, 0.25, 1, -0.5]))
        return prefix, (*prefix[:-1], last, *draw(TUPLE_KEYS))
    return prefix, draw(KEYS)


@examples(600)
@given(prefixes_and_keys())
def test_tuples_that_begin_alike_are_exactly_one_range(prefix_and_key):
    """[encode(p), encode(p) + 0xff) holds the tuples whose first parts are those of p, and no other key."""
    prefix, key = prefix_and_key
    start, kb = CODEC.encode(prefix)[0], CODEC.encode(key)[0]
    begins = isinstance(key, tuple) and len(key) >= len(prefix) and equal_keys(key[: len(prefix)], prefix)
    assert (start <= kb < start + b"\xff") == begins


# What is refused

REFUSED = [
    object(), decimal.Decimal(1), fractions.Fraction(1, 2), numpy.int64(1), 1j, frozenset(), range(3), int, len, ...,
    (1, object()), ("a", ("b", (numpy.int64(1),))),
]  # fmt: skip


def test_a_key_of_another_type_is_refused_with_the_remedy(tmp_path):
    with opened(tmp_path / "d") as d:
        for key in REFUSED:
            for use in (
                lambda key=key: d[key],
                lambda key=key: d.__setitem__(key, 1),
                lambda key=key: key in d,
                lambda key=key: d.pop(key, None),
                lambda key=key: d.update({"a": 1, key: 2}),
            ):
                with pytest.raises(KeyTypeError, match="key_serializer"):
                    use()
        assert len(d) == 0


def test_an_unhashable_key_gets_the_error_that_dict_gives(tmp_path):
    with opened(tmp_path / "d") as d:
        for key in ([1], {}, set(), bytearray(b"x"), (1, [2])):
            with pytest.raises(TypeError) as expected:
                hash(key)
            for use in (
                lambda key=key: d[key],
                lambda key=key: d.__setitem__(key, 1),
                lambda key=key: key in d,
                lambda key=key: d.get(key),
            ):
                with pytest.raises(TypeError) as error:
                    use()
                assert str(error.value) == str(expected.value)


def test_tuples_nest_a_hundred_deep_and_no_deeper():
    deep = ()
    for _ in range(99):
        deep = (deep,)
    assert round_trip(deep) == deep
    with pytest.raises(KeyTypeError, match="deep"):
        CODEC.encode((deep,))


def test_a_tuple_of_very_many_numbers_is_a_key(tmp_path):
    """A record has two bytes for the length of the hint, which may have one letter for each number of the key."""
    with opened(tmp_path / "d") as d:
        for key in ((*range(65534), 1.0), tuple(range(65536)), tuple(range(200_000))):
            d[key] = 1
            assert same(next(reversed(d)), key)
        too_many = (*range(65535), 1.0, True)
        try:
            d[too_many] = 1
        except KeyTypeError:  # a refusal will do
            assert len(d) == 3
        else:
            assert same(next(reversed(d)), too_many)


# Bytes that are no key


def decoded(kb, hint=b""):
    """A key, or None if it is refused in the one way that is allowed. The key can be encoded again."""
    try:
        key = CODEC.decode(kb, hint)
    except DecodeError:
        return None
    CODEC.encode(key)
    return key


@examples(300)
@given(st.binary(max_size=40), st.binary(max_size=4), st.sampled_from(b"\x00\x01\x10\x20\x30\x40\x50\xff"))
def test_any_bytes_decode_to_a_key_or_raise_one_error(kb, hint, kind):
    decoded(kb, hint)
    decoded(bytes([kind]) + kb, hint)


def mutated(data, chance):
    """The bytes with a few changes: flipped bits, bytes replaced, inserted, removed or repeated."""
    data = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(data) + 1)
        change = chance.randrange(6)
        if change == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif change == 1 and data:
            data[at % len(data)] = chance.choice(
                [0, 1, 0x10, 0x30, 0x40, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)]
            )
        elif change == 2:
            data[at:at] = bytes(chance.choices(range(256), k=chance.choice([1, 1, 4])))
        elif change == 3:
            del data[at : at + chance.choice([1, 1, 4, 1000])]
        elif change == 4:
            start = chance.randrange(len(data) + 1)
            data[at:at] = data[start : start + 8]
        else:
            data = data[:at]
    return bytes(data)


@examples(250)
@given(KEYS | TUPLE_KEYS, st.randoms(use_true_random=False))
def test_damaged_keys_decode_to_a_key_or_raise_one_error(key, chance):
    """20 mutations of each of 250 keys and of their hints."""
    kb, hint = CODEC.encode(key)
    for _ in range(20):
        decoded(mutated(kb, chance), mutated(hint, chance) if chance.random() < 0.3 else hint)


def test_hostile_key_bytes_are_refused_at_once():
    """Endless nesting, impossible lengths, ends missing: no recursion error, and no memory asked for."""
    for kb in [
        b"",
        b"\x40" * 100_000,
        b"\x40" + b"\x40\x00" * 50_000 + b"\x7f",
        b"\x10\xf9\xff\xff\xff\xff\x01",
        b"\x10\x07\x00\x00\x00\x00\x01",
        b"\x10\x06",
        b"\x10\x81\x01\xff\x00",
        b"\x40\x20abc",
        b"\x30\xff",
        b"\x50abc",
        b"\x01\x01",
    ]:
        assert decoded(kb) is None


def test_a_hint_that_does_not_fit_is_refused():
    with pytest.raises(DecodeError):
        CODEC.decode(CODEC.encode(5)[0], b"?")
    with pytest.raises(DecodeError):
        CODEC.decode(CODEC.encode(2**5000)[0], b"f")


# Serializers of the caller


def rot13(key):
    return codecs.encode(key, "rot13")


def unrot13(data):
    assert type(data) is bytes
    return codecs.encode(data.decode(), "rot13")


def to_bytes(key):
    return bytes(255 - byte for byte in repr(key).encode())


def from_bytes(data):
    return eval(bytes(255 - byte for byte in data), {})


@pytest.mark.parametrize("limit", [4, 20, 511])
def test_a_key_serializer_covers_all_of_the_key_that_reaches_the_disk(limit, tmp_path):
    """Short and cropped keys, large values, time limits, access times, initial entries: the plain key is nowhere."""
    plain = "TopSecretName"
    options = {"key_serializer": rot13, "key_unserializer": unrot13, "key_size_limit": limit, "expiration_days": 1}
    with opened(tmp_path / "d", **options) as d:
        d(initial=1)
        d[plain] = 1
        d.set(plain + "2", b"x" * 40_000, ttl=5)
        d.update({plain * 60: [1], plain + "3": 3})
        assert d[plain] == 1
        d.flush()
        assert list(d) == ["initial", plain, plain + "2", plain * 60, plain + "3"]
        del d[plain + "3"]
        assert d.popitem() == (plain * 60, [1])
    for file in (path for path in (tmp_path / "d").rglob("*") if path.is_file()):
        assert plain.encode() not in file.read_bytes()
        assert plain.encode("utf-16-le") not in file.read_bytes()
    assert rot13(plain).encode() in (tmp_path / "d" / "data.mdb").read_bytes()  # so the search would have found it


def test_a_key_serializer_may_take_any_key_and_return_bytes(tmp_path):
    keys = [{"a": [1]}, [1, 2], "text", 5, 5.0, None, {1, 2}]
    options = {"key_serializer": to_bytes, "key_unserializer": from_bytes}
    with opened(tmp_path / "d", **options) as d:
        for number, key in enumerate(keys):
            d[key] = number
        assert list(d) == keys
        assert [d[key] for key in keys] == list(range(7))
        assert [key in d for key in keys] == [True] * 7
        assert d.pop([1, 2]) == 1
        assert [1, 2] not in d
    with opened(tmp_path / "d", **options) as d:
        assert list(d) == [key for key in keys if key != [1, 2]]


def test_what_a_key_serializer_returns_may_be_str_with_surrogates_or_a_bytearray():
    codec = KeyCodec(lambda key: key, bytes)
    assert codec.encode("\ud800")[0] == b"\x50\xed\xa0\x80"
    assert codec.encode(b"a")[0] == b"\x50a"
    with pytest.raises(KeyTypeError, match="must return str or bytes"):
        codec.encode(5)
    with pytest.raises(DecodeError):
        codec.decode(CODEC.encode("a")[0], b"")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"key_serializer": rot13, "key_unserializer": unrot13}),
        ({"key_serializer": rot13, "key_unserializer": unrot13}, {}),
        (
            {"key_serializer": rot13, "key_unserializer": unrot13},
            {"key_serializer": to_bytes, "key_unserializer": from_bytes},
        ),
        ({"key_size_limit": 20}, {}),
        ({}, {"key_size_limit": 20}),
    ],
)
def test_other_keys_than_those_of_the_store_are_refused_and_nothing_is_deleted(first, second, tmp_path):
    with opened(tmp_path / "d", **first) as d:
        d.update({"a": 1, "b" * 600: 2})
    before = (tmp_path / "d" / "data.mdb").read_bytes()
    with pytest.raises(MismatchError):
        opened(tmp_path / "d", **second)
    assert (tmp_path / "d" / "data.mdb").read_bytes() == before
    with opened(tmp_path / "d", **first) as d:
        assert dict(d) == {"a": 1, "b" * 600: 2}


def test_half_a_pair_of_key_serializers_is_refused(tmp_path):
    for option in ("key_serializer", "key_unserializer"):
        with pytest.raises(ValueError, match="together"):
            opened(tmp_path / "d", **{option: rot13})


# Long keys


def test_a_cropped_key_has_exactly_the_size_of_the_limit():
    """So it is never mistaken for a whole key, which is shorter; and keys that differ anywhere have other digests."""
    kb = bytes(range(256)) * 3
    for limit in (1, 2, 15, 16, 17, 18, 100, 511):
        assert len(crop(kb, limit)) == limit
        assert crop(kb, limit)[: max(0, limit - DIGEST_SIZE)] == kb[: max(0, limit - DIGEST_SIZE)]
        if limit >= DIGEST_SIZE:
            assert len({crop(kb[:at] + b"?" + kb[at:], limit) for at in range(0, len(kb), 16)}) == len(kb) // 16


def test_a_digest_tells_nothing_of_the_key():
    assert len(key_digest(b"secret")) == 12
    assert key_digest(b"secret") != key_digest(b"secret2")


LIMITS = [1, 2, 5, 16, 17, 511]
# Keys whose digests of so many bytes are equal; found by trying.
COLLIDING = {
    1: [key for key in range(4000) if crop(CODEC.encode(key)[0], 1) == b"?"][:6],
    2: [f"key {number}" for number in (1057, 9371, 14966, 16495, 27319, 32466)],
    5: [f"key {number}" for number in (463780, 2148008, 1932449, 2254319)],
}
ALIKE = [
    "", "a", "ab", "abc", "abcd", "abcde", b"a", b"abcdefghijklmnopqrst", 0, 1, -1, 1.5, 300, 2**70, None, (), 0.0,
    True, -0.0, (1.0,),
    (1,), (1, 2),
    *("p" * length for length in (3, 13, 14, 15, 16, 493, 494, 495, 509, 510, 511, 600)),
    *("p" * length + letter for length in (14, 16, 509, 510) for letter in "\x00qr"),
    *(("p" * 20, number) for number in range(4)), *(("p" * 520, number) for number in range(4)), ("p" * 20,),
]  # fmt: skip
PLACES = st.integers(0, 5)  # which of the few keys that an example uses
STORED = st.sampled_from([0, "x", [1], b"y" * 100, b"z" * 40_000])
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), PLACES, STORED),
    st.tuples(st.just("set"), PLACES, STORED),
    st.tuples(st.just("set_ttl"), PLACES, st.integers(1, 6)),
    st.tuples(st.just("get"), PLACES),
    st.tuples(st.just("delete"), PLACES),
    st.tuples(st.just("pop"), PLACES),
    st.tuples(st.just("setdefault"), PLACES, STORED),
    st.tuples(st.just("update"), st.lists(st.tuples(PLACES, STORED), max_size=12)),
    st.tuples(st.just("delete_many"), st.lists(PLACES, max_size=6)),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("wait"), st.integers(1, 4)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("reopen")),
)


class Twins:
    """A PersistDict and a plain dict to which the same is done."""

    def __init__(self, path, limit, ttls):
        self.path, self.limit, self.ttls = path, limit, ttls
        self.now = 1_000_000.0
        self.model = {}  # key -> (value, when it ends)
        self.open()

    def open(self):
        self.d = opened(self.path, key_size_limit=self.limit, clock=lambda: self.now)

    def begin(self, keys):
        self.keys = keys
        self.d.clear()
        self.model.clear()

    def do(self, name, place=None, argument=None):
        """Do one thing to both and compare what it gives."""
        key = self.key(place) if isinstance(place, int) else None
        d, model = self.d, self.model
        held = model.get(key, (None,))[0]
        if name == "set":
            d[key] = argument
            self.keep(key, argument)
        elif name == "set_ttl":
            d.set(key, argument, ttl=argument if self.ttls else None)
            self.keep(key, argument, self.now + argument if self.ttls else math.inf)
        elif name == "get":
            assert (key in d) == (key in model)
            assert d.get(key) == held
        elif name == "delete":
            if key in model:
                del d[key], model[key]
            else:
                with pytest.raises(KeyError):
                    del d[key]
        elif name == "pop":
            assert d.pop(key, None) == held
            model.pop(key, None)
        elif name == "setdefault":
            assert d.setdefault(key, argument) == (held if key in model else argument)
            if key not in model:
                self.keep(key, argument)
        elif name == "update":
            d.update((self.key(at), value) for at, value in place)
            for at, value in place:
                self.keep(self.key(at), value)
        elif name == "delete_many":
            keys = [self.key(at) for at in place]
            assert d.delete_many(keys) == len({key for key in keys if key in model})
            for key in keys:
                model.pop(key, None)
        elif name == "popitem" and model:
            key, (value, _) = model.popitem()
            assert d.popitem() == (key, value)
        elif name == "wait":
            self.now += place
            for key in [key for key, (_, ends) in model.items() if ends <= self.now]:
                del model[key]
        elif name == "expire":
            d.expire()
        elif name == "reopen":
            d.close()
            self.open()

    def key(self, place):
        return self.keys[place % len(self.keys)]

    def keep(self, key, value, ends=math.inf):
        self.model[key] = (value, ends)

    def compare(self):
        """Everything that can be read of the two."""
        d, expected = self.d, {key: value for key, (value, _) in self.model.items()}
        assert len(d) == len(expected)
        assert same(list(d.items()), list(expected.items()))
        assert list(reversed(d)) == list(reversed(expected))
        assert d.get_many(self.keys) == {key: expected[key] for key in self.keys if key in expected}
        for key in {*ALIKE, *self.keys}:
            assert (key in d) == (key in expected)
            assert d.get(key, "absent") == expected.get(key, "absent")
        self.check_databases(expected)
        by_key = sorted((CODEC.encode(key)[0], d.codec.encode(value)) for key, value in expected.items())
        assert [(r.kb, (r.tag, r.blob)) for r in d._store.scan(by_key=True)] == by_key

    def check_databases(self, expected):
        """The invariants of rows.py: nothing is left over in any database once what is over was removed."""
        self.d.expire()
        self.d.flush()
        store = self.d._store
        assert store.check(1000) == ([], None)
        txn = store.begin_data()
        entries = {seq for seq, _ in txn.cursor(store.e)}
        large = sum(isinstance(value, bytes) and len(value) >= LARGE_VALUE for value in expected.values())
        limited = sum(ends < math.inf for _, ends in self.model.values())
        assert len(entries) == len(expected)
        assert txn.stat(store.v)["entries"] == large
        assert txn.stat(store.x)["entries"] == limited
        assert {seq for seq, _ in txn.cursor(store.a)} <= entries


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_colliding_keys_do_collide(limit):
    """At least two by two, so that the test below tests what it should."""
    cropped = [crop(CODEC.encode(key)[0], limit) for key in COLLIDING[limit]]
    assert len(cropped) >= 4
    assert len(set(cropped)) <= len(cropped) / 2


@pytest.mark.parametrize("ttls", [False, True], ids=["", "ttl"])
@pytest.mark.parametrize("limit", LIMITS)
def test_keys_that_share_a_cropped_key_never_mix(limit, ttls, tmp_path):
    """Against a plain dict: all operations, on keys that begin alike, with every size of digest."""
    twins = Twins(tmp_path / "d", limit, ttls)

    @examples(70)
    @given(
        st.lists(st.sampled_from(COLLIDING.get(limit, ALIKE)) | st.sampled_from(ALIKE), min_size=1, max_size=6),
        st.lists(OPERATIONS, min_size=15, max_size=60),
    )
    def run(keys, operations):
        twins.begin(keys)
        for operation in operations:
            twins.do(*operation)
        twins.compare()

    try:
        run()
    finally:
        twins.d.close()


@pytest.mark.parametrize("limit", LIMITS)
def test_scans_by_key_give_exactly_the_range_in_order(limit, tmp_path):
    """Forwards and backwards, with and without bounds, whatever is cropped."""
    with opened(tmp_path / "d", key_size_limit=limit) as d:
        d.update((key, number) for number, key in enumerate(ALIKE))
        kbs = sorted({CODEC.encode(key)[0] for key in ALIKE})
        bounds = st.none() | st.sampled_from(kbs).flatmap(
            lambda kb: st.sampled_from([kb, kb + b"\x00", kb + b"\xff", kb[:-1], kb[:2], kb[:20], b"", b"\xff"])
        )

        @examples(150)
        @given(bounds, bounds, st.booleans(), st.booleans())
        def run(start, stop, reverse, values):
            span = Span(b"" if start is None else start, b"\xff" if stop is None else stop)
            found = d._store.scan(by_key=True, span=span, reverse=reverse, values=values)
            expected = [kb for kb in kbs if (start is None or kb >= start) and (stop is None or kb < stop)]
            assert [record.kb for record in found] == (expected[::-1] if reverse else expected)

        run()


@pytest.mark.parametrize("limit", [1, 17, 40, 511])
def test_a_scan_by_key_over_many_batches_gives_every_entry_once_in_order(limit, tmp_path):
    """2,000 keys: groups of cropped keys lie across the ends of batches."""
    chance = random.Random(limit)
    keys = {("group", chance.randrange(30), "x" * chance.choice([0, 5, 30]), number) for number in range(1700)}
    keys |= {f"{number:05}" for number in range(300)}
    with opened(tmp_path / "d", key_size_limit=limit) as d:
        d.update((key, None) for key in keys)
        kbs = sorted(CODEC.encode(key)[0] for key in keys)
        assert [record.kb for record in d._store.scan(by_key=True)] == kbs
        assert [record.kb for record in d._store.scan(by_key=True, reverse=True)] == kbs[::-1]
        span = Span(kbs[300], kbs[1500])
        assert [record.kb for record in d._store.scan(by_key=True, span=span)] == kbs[300:1500]
        backwards = d._store.scan(by_key=True, span=span, reverse=True)
        assert [record.kb for record in backwards] == kbs[300:1500][::-1]


def test_keys_are_never_in_messages(tmp_path):
    """A damaged entry is named by a digest of its key."""
    secret = "TopSecretName"
    with opened(tmp_path / "d") as d:
        d[secret] = 1
        d.flush()
        seq = d._store.begin_data(d._store.k).get(CODEC.encode(secret)[0])
        d._store.env.data.update(lambda txn: txn.put(seq, b"garbage" * 10, db=d._store.e))
        with pytest.raises(ValueError, match=key_digest(CODEC.encode(secret)[0])) as error:
            d[secret]
        assert secret not in str(error.value)
        assert secret not in "".join(d._store.check(10)[0])
    assert Path(tmp_path / "d" / "data.mdb").exists()
