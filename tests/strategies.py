"""What the property tests draw: keys and values of every kind, and how to tell exactly equal ones.

`same`, `equal_keys` and `key_order` share no code with the package: they say again, in another way, what it must do.
"""

import datetime
import decimal
import fractions
import functools
import math
import pathlib
import random
import uuid
import zoneinfo
from typing import Any

import numpy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

TEXT = st.text(st.characters(exclude_categories=()), max_size=12)  # with lone surrogates and NUL
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"]
fixtures_kept = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def examples(number: int) -> settings:
    """So many examples, however long each takes; the fixtures of the test are kept between them."""
    return settings(max_examples=number, deadline=None, suppress_health_check=fixtures_kept)


# Keys

_limits = [2**exponent for exponent in (7, 8, 16, 31, 32, 53, 63, 64, 8 * 120 - 1, 8 * 120, 8 * 121, 4000)]
SPECIAL_NUMBERS: list[Any] = [
    0, -0.0, 0.0, False, True, 1, 1.0, -1, -1.0, 0.5, -0.5, 1.5, -1.5, 2.0, 2, 5e-324, -5e-324, 2.2250738585072014e-308,
    1.7976931348623157e308, -1.7976931348623157e308, math.inf, -math.inf, math.nan, math.nextafter(1, 2), 0.1, 1e16,
    float(2**63), float(2**53), 255, 256, 255.5, -255.5, -256.5, 65535.9999,
    *(sign * limit + step for limit in _limits for step in (-1, 0, 1) for sign in (1, -1)),
]  # fmt: skip


def briefly(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The same strategy, printed briefly: hypothesis prints strategies now and then, and warns of large ones."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Any:
        return draw(strategy)

    return drawn()


SPECIAL = briefly(st.sampled_from(SPECIAL_NUMBERS))
NUMBERS = (
    SPECIAL
    | st.integers()
    | st.integers(-(2**1000), 2**1000)
    | st.floats()
    | st.booleans()
    | st.integers(-300, 300).map(lambda number: number / 2)
)
SCALAR_KEYS = st.none() | NUMBERS | st.binary(max_size=12) | TEXT
# Few letters, among them those with a meaning in the encoding, so that keys often begin alike.
CLOSE_KEYS = (
    st.text("\x00\x01a\uffff\U0010ffff\ud800", max_size=4)
    | st.binary(max_size=4).map(lambda data: bytes(byte % 3 * 127 for byte in data))
    | SPECIAL
    | st.none()
)


def _tuples(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, max_size=4).map(tuple)


KEYS = st.recursive(SCALAR_KEYS | CLOSE_KEYS, _tuples, max_leaves=8)
TUPLE_KEYS = _tuples(st.recursive(CLOSE_KEYS, _tuples, max_leaves=6))


def equal_keys(one: Any, other: Any) -> bool:
    """Whether two keys are one key of a dict; all nans are one key."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(equal_keys, one, other))
    if isinstance(one, float) and isinstance(other, float) and one != one and other != other:
        return True
    return bool(one == other)


def twin(key: Any, chance: random.Random) -> Any:
    """An equal key of other types, where there is one."""
    if isinstance(key, tuple):
        return tuple(twin(part, chance) for part in key)
    if isinstance(key, (int, float)) and key == key and abs(key) < math.inf:
        others: list[Any] = [key]
        if key == int(key):
            others.append(int(key))
        if abs(key) < 2**1000 and int(float(key)) == key:
            others.append(float(key))
        if key == 0:
            others += [-0.0, False]
        if key == 1:
            others.append(True)
        return chance.choice(others)
    return key


def _kind(key: Any) -> int:
    for number, kinds in enumerate([type(None), (int, float), bytes, str, tuple]):
        if isinstance(key, kinds):
            return number
    raise AssertionError(f"no kind of key: {key!r}")


def _compare(one: Any, other: Any) -> int:
    if _kind(one) != _kind(other):
        return _kind(one) - _kind(other)
    if isinstance(one, tuple):
        for a, b in zip(one, other, strict=False):
            if order := _compare(a, b):
                return order
        return len(one) - len(other)
    if equal_keys(one, other):
        return 0
    if one != one or other != other:  # nan is the last of the numbers
        return 1 if one != one else -1
    return -1 if one < other else 1


key_order = functools.cmp_to_key(_compare)
"""None, numbers by size and nan last, bytes, str by code point, tuples part by part."""

# Values

MOMENTS = st.datetimes(timezones=st.none() | st.sampled_from(ZONES).map(zoneinfo.ZoneInfo), allow_imaginary=True)
OFFSETS = st.timedeltas(datetime.timedelta(hours=-23), datetime.timedelta(hours=23))
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | st.floats() | TEXT
    | st.binary(max_size=12)
)  # fmt: skip
HASHABLE_LEAVES = briefly(
    PLAIN
    | SPECIAL
    | st.complex_numbers()
    | st.decimals().filter(lambda number: not number.is_snan())
    | st.fractions()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | MOMENTS
    | st.tuples(MOMENTS, OFFSETS).map(lambda pair: pair[0].replace(tzinfo=datetime.timezone(pair[1])))
    | OFFSETS.map(datetime.timezone)
    | st.tuples(OFFSETS, TEXT).map(lambda pair: datetime.timezone(*pair))
    | st.sampled_from(ZONES).map(zoneinfo.ZoneInfo)
    | st.uuids()
    | TEXT.map(pathlib.PurePosixPath)
    | TEXT.map(pathlib.PureWindowsPath)
    | TEXT.map(pathlib.Path)
)


def _more_hashable(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(parts, max_size=3).map(tuple) | st.frozensets(parts, max_size=3)


HASHABLE = briefly(st.recursive(HASHABLE_LEAVES, _more_hashable, max_leaves=4))
_SIMPLE_DTYPES = (
    npst.scalar_dtypes()
    | npst.byte_string_dtypes(max_len=5)
    | npst.unicode_string_dtypes(max_len=5)
    | npst.datetime64_dtypes()
    | npst.timedelta64_dtypes()
)
_STRUCTURES = st.dictionaries(
    st.text(min_size=1, max_size=4),
    st.tuples(_SIMPLE_DTYPES, npst.array_shapes(max_dims=2, max_side=2) | st.just(())),
    max_size=3,
).map(lambda fields: numpy.dtype([(name, dtype, shape) for name, (dtype, shape) in fields.items()]))
DTYPES = _SIMPLE_DTYPES | _STRUCTURES
ARRAYS = DTYPES.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
NUMPY_SCALARS = DTYPES.flatmap(lambda dtype: npst.arrays(dtype, ())).map(lambda array: array[()])
LEAVES = (
    HASHABLE_LEAVES | NUMPY_SCALARS | st.binary(max_size=12).map(bytearray) | st.just(decimal.Decimal("sNaN7")) | ARRAYS
)


def _containers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(parts, max_size=4)
        | st.lists(parts, max_size=4).map(tuple)
        | st.dictionaries(TEXT, parts, max_size=3)
        | st.dictionaries(HASHABLE, parts, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    )


VALUES = st.recursive(LEAVES, _containers, max_leaves=10)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=10,
)


def same(one: Any, other: Any) -> bool:
    """Whether a value that was read is of the type of the other one, and the same in all that can be seen of it."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return same(list(one.items()), list(other.items()))
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(same(a, b) for b in other) for a in one)
    if isinstance(one, (numpy.ndarray, numpy.generic)):
        return _same_arrays(one, other)
    if isinstance(one, (datetime.datetime, datetime.time)):
        naive = one.replace(tzinfo=None) == other.replace(tzinfo=None)
        return naive and one.fold == other.fold and same(one.tzinfo, other.tzinfo)
    if isinstance(one, datetime.timezone):
        return one == other and one.tzname(None) == other.tzname(None)
    if isinstance(one, zoneinfo.ZoneInfo):
        return one.key == other.key
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, fractions.Fraction):
        return (one.numerator, one.denominator) == (other.numerator, other.denominator)
    if isinstance(one, (uuid.UUID, pathlib.PurePath, str, bytes, bytearray, int, datetime.date, datetime.timedelta)):
        return bool(one == other)
    return one is None


def _same_arrays(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.dtype.type is not other.dtype.type or one.shape != other.shape:
        return False
    if one.dtype.names:  # field by field: the bytes between fields mean nothing
        return all(_same_arrays(one[name], other[name]) for name in one.dtype.names)
    if one.dtype.char in "gG":  # so do some bytes of a long double
        return bool(numpy.array_equal(one, other, equal_nan=True))
    if other.flags.f_contiguous and not other.flags.c_contiguous and not one.flags.f_contiguous:
        return False
    return bool(one.tobytes() == other.tobytes())
