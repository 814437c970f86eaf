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
import struct
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

from ormsgpack import Ext

from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["BYTEARRAY", "DECODERS", "DICT", "ENCODERS", "REGISTERED", "STR", "TUPLE", "encode_numpy"]

(TUPLE, SET, FROZENSET, INT, DATETIME, DATE, TIME, TIMEDELTA, UUID, DECIMAL, COMPLEX, PATH, BYTEARRAY, STR, DICT, ARRAY,
 NUMBER, REGISTERED, FRACTION, TIMEZONE, ZONE) = range(1, 22)  # fmt: skip
_COMPLEX = struct.Struct("<dd")
_PATHS = {cls.__name__: cls for cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}

Pack = Callable[[Any], bytes]
Unpack = Callable[[bytes], Any]


def encode_numpy(value: Any) -> Ext | None:
    """The extension of a numpy array or scalar; None for anything else of numpy."""
    from numpy import generic, ndarray

    from persistdict.codecs.arrays import pack_array, pack_number

    if type(value) is ndarray:
        return Ext(ARRAY, pack_array(value))
    return Ext(NUMBER, pack_number(value)) if isinstance(value, generic) else None


def _sequence(code: int) -> Callable[[Any, Pack], Ext]:
    return lambda value, pack: Ext(code, pack(list(value)))


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
    if zone.key is None:
        raise ValueTypeError("a ZoneInfo without a key cannot be stored")
    return Ext(ZONE, zone.key.encode())


def _decode_path(data: bytes, unpack: Unpack) -> pathlib.PurePath:
    flavour, text = unpack(data)
    if flavour not in _PATHS:
        raise DecodeError("a path of another system cannot be made on this one")
    return _PATHS[flavour](text)


def _ints(data: bytes, unpack: Unpack, count: int) -> list[int]:
    """So many ints and nothing else: Fraction, for one, takes a str too, and works on it for days."""
    parts = unpack(data)
    if len(parts) != count or any(type(part) is not int for part in parts):
        raise DecodeError("an extension holds something other than its numbers")
    return parts  # type: ignore[no-any-return]


def _decode_dict(data: bytes, unpack: Unpack) -> dict[Any, Any]:
    flat = unpack(data)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _decode_array(data: bytes, _: Unpack) -> Any:
    from persistdict.codecs.arrays import unpack_array

    return unpack_array(data)


def _decode_number(data: bytes, _: Unpack) -> Any:
    from persistdict.codecs.arrays import unpack_number

    return unpack_number(data)


ENCODERS: dict[type, Callable[[Any, Pack], Ext]] = {
    tuple: _sequence(TUPLE),
    set: _sequence(SET),
    frozenset: _sequence(FROZENSET),
    int: lambda v, _: Ext(INT, v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True)),
    datetime.datetime: _encode_moment(DATETIME),
    datetime.date: lambda v, _: Ext(DATE, v.isoformat().encode()),
    datetime.time: _encode_moment(TIME),
    datetime.timedelta: lambda v, pack: Ext(TIMEDELTA, pack([v.days, v.seconds, v.microseconds])),
    uuid.UUID: lambda v, _: Ext(UUID, v.bytes),
    decimal.Decimal: lambda v, _: Ext(DECIMAL, str(v).encode()),
    complex: lambda v, _: Ext(COMPLEX, _COMPLEX.pack(v.real, v.imag)),
    bytearray: lambda v, _: Ext(BYTEARRAY, bytes(v)),
    fractions.Fraction: lambda v, pack: Ext(FRACTION, pack([v.numerator, v.denominator])),
    datetime.timezone: _encode_timezone,
    zoneinfo.ZoneInfo: _encode_zone,
    **{cls: (lambda v, pack: Ext(PATH, pack([type(v).__name__, str(v)]))) for cls in _PATHS.values()},
}

DECODERS: dict[int, Callable[[bytes, Unpack], Any]] = {
    TUPLE: lambda data, unpack: tuple(unpack(data)),
    SET: lambda data, unpack: set(unpack(data)),
    FROZENSET: lambda data, unpack: frozenset(unpack(data)),
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
    ZONE: lambda data, _: zoneinfo.ZoneInfo(data.decode()),
}
