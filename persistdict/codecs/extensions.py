"""Containers and everything in them, as one MessagePack tree with extensions for what MessagePack lacks.

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

The common case is one call of ormsgpack. It turns bytearray and memoryview into bytes without asking, which would
come back as another type; so a tree whose bytes could hold binary data at all is walked once in Python. Dict keys
that are not str, and lone surrogates, make it raise; then `_rebuilt` puts extensions in their place and it is
called again.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import pathlib
import struct
import threading
import uuid
import zoneinfo
from collections.abc import Callable
from functools import partial
from typing import Any

import ormsgpack
from ormsgpack import Ext

from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["Tree", "raise_lost_error"]

OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
(TUPLE, SET, FROZENSET, INT, DATETIME, DATE, TIME, TIMEDELTA, UUID, DECIMAL, COMPLEX, PATH, BYTEARRAY, STR, DICT, ARRAY,
 NUMBER, REGISTERED, FRACTION, TIMEZONE, ZONE) = range(1, 22)  # fmt: skip
_COMPLEX = struct.Struct("<dd")
_PATHS = {cls.__name__: cls for cls in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))}
_LEAVES = frozenset((str, int, float, bool, type(None)))


class Tree:
    """Packs and unpacks values, with the types that were registered.

    `packb` and `unpackb` are the plain calls of ormsgpack, for a caller that deals with the rest itself.
    """

    def __init__(self) -> None:
        self._encoders: dict[type, tuple[str, Callable[[Any], Any]]] = {}
        self._decoders: dict[str, Callable[[Any], Any]] = {}
        self.packb: Callable[[Any], bytes] = partial(ormsgpack.packb, default=self._extend, option=OPTIONS)
        self.unpackb: Callable[[bytes], Any] = partial(ormsgpack.unpackb, ext_hook=self._restore)

    def register(self, cls: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], name: str) -> None:
        """Store instances of `cls` under `name`. Raises ValueError if the name is taken by another class."""
        if cls in _ENCODERS or cls in (str, bytes, int, float, bool, type(None), list, dict):
            raise ValueError(f"{cls.__qualname__} is stored already and cannot be registered")
        taken = [other for other, (known, _) in self._encoders.items() if known == name and other is not cls]
        if taken:
            raise ValueError(f"the name {name!r} is registered for {taken[0].__qualname__}")
        self._encoders[cls] = (name, encode)
        self._decoders[name] = decode

    def pack(self, value: Any) -> bytes:
        """The bytes of any supported value. Raises ValueTypeError."""
        try:
            packed = self.packb(value)
        except TypeError:
            return self.repack(value)
        return self.repack(value) if self.changed(value, packed) else packed

    @staticmethod
    def changed(value: Any, packed: bytes) -> bool:
        """Whether `packb` has made bytes of a bytearray or a memoryview."""
        # The markers of binary data in MessagePack; a false alarm costs only the walk.
        return (b"\xc4" in packed or b"\xc5" in packed or b"\xc6" in packed) and _holds_buffer(value)

    def repack(self, value: Any) -> bytes:
        """Pack what `packb` refused or changed; raises what it refused for good as ValueTypeError."""
        raise_lost_error()
        try:
            return self.packb(self._rebuilt(value))
        except (TypeError, RecursionError) as error:
            raise_lost_error()
            if isinstance(error, ValueTypeError):
                raise
            raise ValueTypeError("the value is nested too deep, or contains itself") from error

    def unpack(self, blob: bytes) -> Any:
        """The value. Raises DecodeError, or ValueError for bytes that are no MessagePack."""
        try:
            return self.unpackb(blob)
        except ValueError:
            raise_lost_error()
            raise

    def _extend(self, value: Any) -> Ext:
        """Called by ormsgpack for every value that is not MessagePack's own."""
        try:
            return self._extension(value)
        except BaseException as error:
            _lost.error = error
            raise

    def _extension(self, value: Any) -> Ext:
        kind = type(value)
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value)
        known = self._encoders.get(kind)
        if known is not None:
            name, encode_own = known
            return Ext(REGISTERED, self.pack([name, encode_own(value)]))
        if kind.__module__ == "numpy":
            from numpy import generic, ndarray

            from persistdict.codecs.arrays import pack_array, pack_number

            if kind is ndarray:
                return Ext(ARRAY, pack_array(value))
            if isinstance(value, generic):
                return Ext(NUMBER, pack_number(value))
        raise ValueTypeError(
            f"values of type {kind.__module__}.{kind.__qualname__} cannot be stored safely: register the type "
            '(d.codec.register(cls, encode, decode)), or choose codec="pickle" with allow_pickle=True'
        )

    def _rebuilt(self, value: Any, depth: int = 0) -> Any:
        """The value with extensions in place of what ormsgpack refuses or changes within lists and dicts."""
        if depth > 300:
            raise ValueTypeError("the value is nested too deep, or contains itself")
        kind = type(value)
        if kind is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                return Ext(STR, value.encode("utf-8", "surrogatepass"))
            return value
        if kind is bytearray:
            return Ext(BYTEARRAY, bytes(value))
        if kind is memoryview:
            raise ValueTypeError("a memoryview cannot be stored; store bytes(view)")
        if kind is list:
            return [self._rebuilt(item, depth + 1) for item in value]
        if kind is dict:
            if all(type(key) is str and key.isascii() for key in value):
                return {key: self._rebuilt(item, depth + 1) for key, item in value.items()}
            flat = [self._rebuilt(part, depth + 1) for pair in value.items() for part in pair]
            return Ext(DICT, self.packb(flat))
        return value

    def _restore(self, code: int, data: bytes) -> Any:
        """Called by ormsgpack for every extension."""
        try:
            return self._restored(code, data)
        except BaseException as error:
            _lost.error = error
            raise

    def _restored(self, code: int, data: bytes) -> Any:
        decode = _DECODERS.get(code)
        if decode is not None:
            return decode(self, bytes(data))
        if code in (ARRAY, NUMBER):
            from persistdict.codecs.arrays import unpack_array, unpack_number

            return (unpack_array if code == ARRAY else unpack_number)(bytes(data))
        raise DecodeError(f"the entry holds the unknown extension {code}")

    def registered(self, data: bytes) -> Any:
        """The instance of a registered type that `data` stands for."""
        name, parts = self.unpack(data)
        decode_own = self._decoders.get(name)
        if decode_own is None:
            raise DecodeError(f"the entry holds a {name!r}, which is not registered with this codec")
        return decode_own(parts)


# ormsgpack replaces whatever its hooks raise by an error of its own, even KeyboardInterrupt; here it is kept meanwhile.
_lost = threading.local()


def raise_lost_error() -> None:
    """Raise what a hook raised within the last call of ormsgpack, if it did."""
    error = _lost.__dict__.pop("error", None)
    if error is not None:
        raise error from None


def _holds_buffer(value: Any) -> bool:
    """Whether lists and dicts within the value hold a bytearray or a memoryview."""
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind in _LEAVES:
            continue
        if kind is bytearray or kind is memoryview:
            return True
        if kind is dict:
            pending.extend(item.values())
        elif kind is list:
            pending.extend(item)
    return False


def _sequence(code: int) -> Callable[[Tree, Any], Ext]:
    return lambda tree, value: Ext(code, tree.pack(list(value)))


def _encode_moment(code: int) -> Callable[[Tree, Any], Ext]:
    def encode(tree: Tree, moment: Any) -> Ext:
        zone = moment.tzinfo
        if zone is not None and type(zone) not in (datetime.timezone, zoneinfo.ZoneInfo):
            raise ValueTypeError(
                f"time zones of type {type(zone).__qualname__} cannot be stored; use zoneinfo.ZoneInfo"
            )
        return Ext(code, tree.pack([moment.replace(tzinfo=None).isoformat(), moment.fold, zone]))

    return encode


def _decode_moment(cls: Any) -> Callable[[Tree, bytes], Any]:
    def decode(tree: Tree, data: bytes) -> Any:
        text, fold, zone = tree.unpack(data)
        return cls.fromisoformat(text).replace(tzinfo=zone, fold=fold)

    return decode


def _encode_timezone(tree: Tree, zone: datetime.timezone) -> Ext:
    arguments = zone.__getinitargs__()  # type: ignore[attr-defined]
    return Ext(TIMEZONE, tree.pack([arguments[0], arguments[1] if len(arguments) > 1 else None]))


def _decode_timezone(tree: Tree, data: bytes) -> datetime.timezone:
    offset, name = tree.unpack(data)
    if name is not None:
        return datetime.timezone(offset, name)
    return datetime.timezone(offset) if offset else datetime.timezone.utc


def _encode_zone(_: Tree, zone: zoneinfo.ZoneInfo) -> Ext:
    if zone.key is None:
        raise ValueTypeError("a ZoneInfo without a key cannot be stored")
    return Ext(ZONE, zone.key.encode())


def _decode_path(tree: Tree, data: bytes) -> pathlib.PurePath:
    flavour, text = tree.unpack(data)
    if flavour not in _PATHS:
        raise DecodeError(f"a {flavour} cannot be made on this system")
    return _PATHS[flavour](text)


def _decode_dict(tree: Tree, data: bytes) -> dict[Any, Any]:
    flat = tree.unpack(data)
    return dict(zip(flat[::2], flat[1::2], strict=True))


_ENCODERS: dict[type, Callable[[Tree, Any], Ext]] = {
    tuple: _sequence(TUPLE),
    set: _sequence(SET),
    frozenset: _sequence(FROZENSET),
    int: lambda _, v: Ext(INT, v.to_bytes(v.bit_length() // 8 + 1, "little", signed=True)),
    datetime.datetime: _encode_moment(DATETIME),
    datetime.date: lambda _, v: Ext(DATE, v.isoformat().encode()),
    datetime.time: _encode_moment(TIME),
    datetime.timedelta: lambda tree, v: Ext(TIMEDELTA, tree.pack([v.days, v.seconds, v.microseconds])),
    uuid.UUID: lambda _, v: Ext(UUID, v.bytes),
    decimal.Decimal: lambda _, v: Ext(DECIMAL, str(v).encode()),
    complex: lambda _, v: Ext(COMPLEX, _COMPLEX.pack(v.real, v.imag)),
    bytearray: lambda _, v: Ext(BYTEARRAY, bytes(v)),
    fractions.Fraction: lambda tree, v: Ext(FRACTION, tree.pack([v.numerator, v.denominator])),
    datetime.timezone: _encode_timezone,
    zoneinfo.ZoneInfo: _encode_zone,
    **{cls: (lambda tree, v: Ext(PATH, tree.pack([type(v).__name__, str(v)]))) for cls in _PATHS.values()},
}

_DECODERS: dict[int, Callable[[Tree, bytes], Any]] = {
    TUPLE: lambda tree, data: tuple(tree.unpack(data)),
    SET: lambda tree, data: set(tree.unpack(data)),
    FROZENSET: lambda tree, data: frozenset(tree.unpack(data)),
    INT: lambda _, data: int.from_bytes(data, "little", signed=True),
    DATETIME: _decode_moment(datetime.datetime),
    DATE: lambda _, data: datetime.date.fromisoformat(data.decode()),
    TIME: _decode_moment(datetime.time),
    TIMEDELTA: lambda tree, data: datetime.timedelta(*tree.unpack(data)),
    UUID: lambda _, data: uuid.UUID(bytes=data),
    DECIMAL: lambda _, data: decimal.Decimal(data.decode()),
    COMPLEX: lambda _, data: complex(*_COMPLEX.unpack(data)),
    PATH: _decode_path,
    BYTEARRAY: lambda _, data: bytearray(data),
    STR: lambda _, data: data.decode("utf-8", "surrogatepass"),
    DICT: _decode_dict,
    REGISTERED: lambda tree, data: tree.registered(data),
    FRACTION: lambda tree, data: fractions.Fraction(*tree.unpack(data)),
    TIMEZONE: _decode_timezone,
    ZONE: lambda _, data: zoneinfo.ZoneInfo(data.decode()),
}
