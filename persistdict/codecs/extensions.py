"""The types that MessagePack lacks, as extensions.

Extension codes on disk (never change or reuse one); "tree" is a nested MessagePack value:

    1 tuple      tree, a list               12 Path          tree [flavour, text]
    2 set        tree, a list               13 bytearray     the bytes
    3 frozenset  tree, a list               14 str           UTF-8 with lone surrogates
    4 int        two's complement           15 dict          tree, a list of alternating keys and values
    5 datetime   tree [isoformat, fold, tz] 16 array         see arrays.py
    6 date       isoformat                  17 numpy scalar  see arrays.py
    7 time       tree [isoformat, fold, tz] 18 registered    tree [name, what its encode returned]
    8 timedelta  tree [days, s, us]         19 Fraction      tree [numerator, denominator]
    9 UUID       16 bytes                   20 timezone      tree [offset timedelta, name or nil]
   10 Decimal    its str                    21 ZoneInfo      its key
   11 complex    two doubles, little end

An encoder is given a function that packs what is within; a decoder one that unpacks it. See tree.py.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import re
import struct
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from ormsgpack import Ext

from persistdict.codecs.crowds import is_crowded
from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["BYTEARRAY", "DECODERS", "DICT", "ENCODERS", "REGISTERED", "STR", "TUPLE", "check_keys", "encode_numpy"]

(TUPLE, SET, FROZENSET, INT, DATETIME, DATE, TIME, TIMEDELTA, UUID, DECIMAL, COMPLEX, PATH, BYTEARRAY, STR, DICT, ARRAY,
 NUMBER, REGISTERED, FRACTION, TIMEZONE, ZONE) = range(1, 22)  # fmt: skip
_COMPLEX = struct.Struct("<dd")
_PATHS = {cls.__name__: cls for cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}

# zoneinfo looks for a key in folders, and then imports the package that has such a name.
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
MOST_BITS = 1 << 16  # of the parts of a Fraction: to make one takes time that grows with the square of them

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]


def encode_numpy(value: Any) -> Ext | None:
    """The extension of a numpy array or scalar; None for anything else of numpy."""
    from numpy import generic, ndarray

    from persistdict.codecs.arrays import pack_array, pack_number

    if type(value) is ndarray:
        return Ext(ARRAY, pack_array(value))
    return Ext(NUMBER, pack_number(value)) if isinstance(value, generic) else None


def check_keys(keys: Any) -> None:
    """Refuse the keys of a set or a dict that could not be read again. Raises ValueTypeError."""
    if is_crowded(keys):
        raise ValueTypeError("too many keys of one set or dict have the same hash")


def _encode_set(code: int) -> Callable[[Any, Pack], Ext]:
    def encode(value: Any, pack: Pack) -> Ext:
        check_keys(value)
        return Ext(code, pack(list(value)))

    return encode


def _items(data: bytes, unpack: Unpack) -> list[Any]:
    """A list and nothing else: of an array without data, a tuple may have as many items as the array says."""
    items = unpack(data)
    if type(items) is not list:
        raise DecodeError("an extension holds something other than its items")
    return items


def _decode_set(cls: Any) -> Callable[[bytes, Unpack], Any]:
    def decode(data: bytes, unpack: Unpack) -> Any:
        items = _items(data, unpack)
        if is_crowded(items):
            raise DecodeError("too many items of a set have the same hash")
        return cls(items)

    return decode


def _encode_moment(code: int) -> Callable[[Any, Pack], Ext]:
    def encode(moment: Any, pack: Pack) -> Ext:
        zone = moment.tzinfo
        if zone is not None and type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
            raise ValueTypeError(
                f"time zones of type {type(zone).__qualname__} cannot be stored; use zoneinfo.ZoneInfo"
            )
        return Ext(code, pack([moment.replace(tzinfo=None).isoformat(), moment.fold, zone]))

    return encode


def _decode_moment(cls: Any) -> Callable[[bytes, Unpack], Any]:
    def decode(data: bytes, unpack: Unpack) -> Any:
        text, fold, zone = unpack(data)
        return cls.fromisoformat(text).replace(tzinfo=zone, fold=fold)

    return decode


def _encode_timezone(zone: datetime.timezone, pack: Pack) -> Ext:
    arguments = zone.__getinitargs__()  # type: ignore[attr-defined]
    return Ext(TIMEZONE, pack([arguments[0], arguments[1] if len(arguments) > 1 else None]))


def _decode_timezone(data: bytes, unpack: Unpack) -> datetime.timezone:
    offset, name = unpack(data)
    if name is not None:
        return datetime.timezone(offset, name)
    return datetime.timezone(offset) if offset else datetime.timezone.utc


def _encode_zone(zone: zoneinfo.ZoneInfo, _: Pack) -> Ext:
    if zone.key is None or not _ZONE.fullmatch(zone.key):
        raise ValueTypeError("a ZoneInfo without a key, or with a strange one, cannot be stored")
    return Ext(ZONE, zone.key.encode())


def _decode_zone(data: bytes, _: Unpack) -> zoneinfo.ZoneInfo:
    key = data[:100].decode()
    if len(data) > 100 or not _ZONE.fullmatch(key):
        raise DecodeError("a time zone has an impossible key")
    return zoneinfo.ZoneInfo(key)


def _decode_path(data: bytes, unpack: Unpack) -> pathlib.PurePath:
    flavour, text = unpack(data)
    if flavour not in _PATHS:
        raise DecodeError("a path of another system cannot be made on this one")
    return _PATHS[flavour](text)


def _ints(data: bytes, unpack: Unpack, count: int) -> list[int]:
    """So many ints and nothing else: Fraction, for one, takes a str too, and works on it for days."""
    parts = _items(data, unpack)
    if len(parts) != count or any(type(part) is not int or part.bit_length() > MOST_BITS for part in parts):
        raise DecodeError("an extension holds something other than its numbers")
    return parts


def _encode_fraction(value: fractions.Fraction, pack: Pack) -> Ext:
    parts = [value.numerator, value.denominator]
    if max(map(int.bit_length, parts)) > MOST_BITS:
        raise ValueTypeError(f"a Fraction whose parts have more than {MOST_BITS:,} bits cannot be stored")
    return Ext(FRACTION, pack(parts))


def _decode_dict(data: bytes, unpack: Unpack) -> dict[Any, Any]:
    flat = _items(data, unpack)
    keys = flat[::2]
    if is_crowded(keys):
        raise DecodeError("too many keys of a dict have the same hash")
    return dict(zip(keys, flat[1::2], strict=True))


def _decode_array(data: bytes, _: Unpack) -> Any:
    from persistdict.codecs.arrays import unpack_array

    return unpack_array(data)


def _decode_number(data: bytes, _: Unpack) -> Any:
    from persistdict.codecs.arrays import unpack_number

    return unpack_number(data)


ENCODERS: dict[type, Callable[[Any, Pack], Ext]] = {
    tuple: lambda v, pack: Ext(TUPLE, pack(list(v))),
    set: _encode_set(SET),
    frozenset: _encode_set(FROZENSET),
    int: lambda v, _: Ext(INT, v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True)),
    datetime.datetime: _encode_moment(DATETIME),
    datetime.date: lambda v, _: Ext(DATE, v.isoformat().encode()),
    datetime.time: _encode_moment(TIME),
    datetime.timedelta: lambda v, pack: Ext(TIMEDELTA, pack([v.days, v.seconds, v.microseconds])),
    uuid.UUID: lambda v, _: Ext(UUID, v.bytes),
    decimal.Decimal: lambda v, _: Ext(DECIMAL, str(v).encode()),
    complex: lambda v, _: Ext(COMPLEX, _COMPLEX.pack(v.real, v.imag)),
    bytearray: lambda v, _: Ext(BYTEARRAY, bytes(v)),
    fractions.Fraction: _encode_fraction,
    datetime.timezone: _encode_timezone,
    zoneinfo.ZoneInfo: _encode_zone,
    **{cls: (lambda v, pack: Ext(PATH, pack([type(v).__name__, str(v)]))) for cls in _PATHS.values()},
}

DECODERS: dict[int, Callable[[bytes, Unpack], Any]] = {
    TUPLE: lambda data, unpack: tuple(_items(data, unpack)),
    SET: _decode_set(set),
    FROZENSET: _decode_set(frozenset),
    INT: lambda data, _: int.from_bytes(data, "little", signed=True),
    DATETIME: _decode_moment(datetime.datetime),
    DATE: lambda data, _: datetime.date.fromisoformat(data.decode()),
    TIME: _decode_moment(datetime.time),
    TIMEDELTA: lambda data, unpack: datetime.timedelta(*_ints(data, unpack, 3)),
    UUID: lambda data, _: uuid.UUID(bytes=data),
    DECIMAL: lambda data, _: decimal.Decimal(data.decode()),
    COMPLEX: lambda data, _: complex(*_COMPLEX.unpack(data)),
    PATH: _decode_path,
    BYTEARRAY: lambda data, _: bytearray(data),
    STR: lambda data, _: data.decode("utf-8", "surrogatepass"),
    DICT: _decode_dict,
    ARRAY: _decode_array,
    NUMBER: _decode_number,
    FRACTION: lambda data, unpack: fractions.Fraction(*_ints(data, unpack, 2)),
    TIMEZONE: _decode_timezone,
    ZONE: _decode_zone,
}
