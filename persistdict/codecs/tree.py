"""Containers and everything in them, as one MessagePack tree.

The common case is one call of ormsgpack, which asks `_extend` for the types that it lacks. It refuses dict keys that
are not str, and lone surrogates; and it turns bytearray and memoryview into bytes without asking, which would come
back as another type (so a tree whose bytes could hold binary data at all is walked once in Python). Then the whole
value is built anew with extensions in place of all these, once, and packed as that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import ormsgpack
from ormsgpack import Ext

from persistdict.codecs.extensions import (
    BYTEARRAY,
    DECODERS,
    DICT,
    ENCODERS,
    REGISTERED,
    STR,
    TUPLE,
    check_keys,
    encode_numpy,
)
from persistdict.codecs.nesting import MAX_LEVELS, nests_too_deep
from persistdict.errors import DecodeError, ValueTypeError

__all__ = ["Tree"]

OPTIONS = (
    ormsgpack.OPT_PASSTHROUGH_BIG_INT
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_UUID
)
_NATIVE = frozenset((str, bytes, int, float, bool, type(None), list, dict))
_LEAVES = frozenset((str, int, float, bool, type(None), bytes))
_TOO_DEEP = "the value is nested too deep, or contains itself"


class _Again(TypeError):
    """Raised within ormsgpack where a value has to be built anew before it can be packed."""


class _Calls(threading.local):
    """What one thread is in the middle of."""

    level = 0  # extensions within each other
    error: BaseException | None = None  # what a hook raised: ormsgpack replaces it, even KeyboardInterrupt


class Tree:
    """Packs and unpacks values, with the types that were registered.

    `packb` and `unpackb` are the plain calls of ormsgpack, for a caller that deals with the rest itself.
    """

    def __init__(self) -> None:
        self._encoders: dict[type, tuple[str, Callable[[Any], Any]]] = {}
        self._decoders: dict[str, tuple[type, Callable[[Any], Any]]] = {}
        self._calls = _Calls()
        self.packb: Callable[[Any], bytes] = partial(ormsgpack.packb, default=self._extend, option=OPTIONS)
        self.unpackb: Callable[[bytes], Any] = partial(ormsgpack.unpackb, ext_hook=self._restore)

    def register(self, cls: type, encode: Callable[[Any], Any], decode: Callable[[Any], Any], name: str) -> None:
        """Store instances of `cls` under `name`. Raises ValueError if either is taken."""
        numpy = sys.modules.get("numpy")
        of_numpy = numpy is not None and (cls is numpy.ndarray or issubclass(cls, numpy.generic))
        if cls in ENCODERS or cls in _NATIVE or of_numpy:
            raise ValueError(f"{cls.__qualname__} is stored already and cannot be registered")
        if name in self._decoders and self._decoders[name][0] is not cls:
            raise ValueError(f"the name {name!r} is registered for {self._decoders[name][0].__qualname__}")
        self._encoders[cls] = (name, encode)
        self._decoders[name] = (cls, decode)

    def registrations(self) -> list[tuple[type, Callable[[Any], Any], Callable[[Any], Any], str]]:
        """What `register` was called with."""
        known = []
        for name, (cls, decode) in self._decoders.items():
            current, encode = self._encoders[cls]
            known.append((cls, encode, decode, name, name == current))
        return [entry[:4] for entry in sorted(known, key=lambda entry: entry[4])]  # a class's present name last

    def raise_lost_error(self) -> None:
        """Raise what a hook raised within the last call of ormsgpack, if it did."""
        error, self._calls.error = self._calls.error, None
        if error is not None and not isinstance(error, _Again):
            raise error from error.__cause__

    # Packing

    def pack(self, value: Any) -> bytes:
        """The bytes of any supported value. Raises ValueTypeError."""
        try:
            packed = self.packb(value)
        except TypeError:
            return self.repack(value)
        return self.unless_changed(value, packed)

    def unless_changed(self, value: Any, packed: bytes) -> bytes:
        """What `packb` made of the value; packed anew if that made bytes of a bytearray or a memoryview."""
        return self.repack(value) if _changed(value, packed) else packed

    def repack(self, value: Any) -> bytes:
        """Pack what `packb` refused or changed. Raises what was raised within `packb`, if that says more."""
        self.raise_lost_error()
        try:
            return self._pack_rebuilt(value, 0)
        except (TypeError, RecursionError) as error:
            if isinstance(error, ValueTypeError) or error.__cause__ is not None:
                raise
            raise ValueTypeError(_TOO_DEEP) from error

    def _extend(self, value: Any) -> Ext:
        """Called by ormsgpack for every value that is not MessagePack's own."""
        calls = self._calls
        if type(value) is tuple and calls.level < MAX_LEVELS and _LEAVES.issuperset(map(type, value)):
            try:
                return Ext(TUPLE, ormsgpack.packb(list(value), option=OPTIONS))
            except TypeError:
                pass  # a lone surrogate or a large int
        try:
            calls.level += 1
            if calls.level > MAX_LEVELS:
                raise ValueTypeError(_TOO_DEEP)
            return self._extension(value, self._pack_within)
        except BaseException as error:
            if calls.error is None or not isinstance(error, _Again):
                calls.error = error
            raise
        finally:
            calls.level -= 1

    def _pack_within(self, value: Any) -> bytes:
        """Pack what is within an extension; what `packb` cannot do makes the outermost value be built anew."""
        try:
            packed = self.packb(value)
        except TypeError:
            self.raise_lost_error()
            raise _Again from None
        if _changed(value, packed):
            raise _Again
        if nests_too_deep(packed, self._calls.level):
            raise ValueTypeError(_TOO_DEEP)
        return packed

    def _extension(self, value: Any, pack: Callable[[Any], bytes]) -> Ext:
        """The extension that stands for a value."""
        kind = type(value)
        encode = ENCODERS.get(kind)
        if encode is not None:
            return encode(value, pack)
        known = self._encoders.get(kind)
        if known is not None:
            name, encode_own = known
            return Ext(REGISTERED, pack([name, encode_own(value)]))
        extension = encode_numpy(value) if kind.__module__ == "numpy" else None
        if extension is not None:
            return extension
        raise ValueTypeError(
            f"values of type {kind.__module__}.{kind.__qualname__} cannot be stored safely: register the type "
            '(d.codec.register(cls, encode, decode)), or choose codec="pickle" with allow_pickle=True'
        )

    def _pack_rebuilt(self, value: Any, level: int) -> bytes:
        packed = ormsgpack.packb(self._rebuilt(value, level, 0), option=OPTIONS)
        if level and nests_too_deep(packed, level):
            raise ValueTypeError(_TOO_DEEP)
        return packed

    def _rebuilt(self, value: Any, level: int, depth: int) -> Any:
        """The value with extensions in place of everything that ormsgpack refuses, changes or would ask for."""
        if level > MAX_LEVELS or depth > 250:
            raise ValueTypeError(_TOO_DEEP)
        kind = type(value)
        if kind is list:
            return [self._rebuilt(item, level, depth + 1) for item in value]
        if kind is dict:
            if all(type(key) is str and key.isascii() for key in value):
                return {key: self._rebuilt(item, level, depth + 1) for key, item in value.items()}
            check_keys(value)
            flat = [part for pair in value.items() for part in pair]
            return Ext(DICT, self._pack_rebuilt(flat, level + 1))
        if kind is str:
            try:
                value.encode()
            except UnicodeEncodeError:
                _check_level(level + 1)
                return Ext(STR, value.encode("utf-8", "surrogatepass"))
            return value
        if kind is bytearray:
            _check_level(level + 1)
            return Ext(BYTEARRAY, bytes(value))
        if kind is memoryview:
            raise ValueTypeError("a memoryview cannot be stored; store bytes(view)")
        if kind in _NATIVE and (kind is not int or -(1 << 63) <= value < 1 << 64):
            return value
        _check_level(level + 1)
        return self._extension(value, lambda within: self._pack_rebuilt(within, level + 1))

    # Unpacking

    def unpack(self, blob: bytes) -> Any:
        """The value. Raises DecodeError, or ValueError for bytes that are no MessagePack."""
        try:
            return self.unpackb(blob)
        except ValueError:
            self.raise_lost_error()
            raise

    def _restore(self, code: int, data: Any) -> Any:
        """Called by ormsgpack for every extension."""
        calls = self._calls
        if code == TUPLE and not calls.level:
            try:
                items = ormsgpack.unpackb(data)
                if type(items) is list:
                    return tuple(items)
            except ValueError:
                pass  # there are extensions within, or it is damaged
        try:
            calls.level += 1
            data = bytes(data)
            if code == REGISTERED:
                return self._registered(data)
            decode = DECODERS.get(code)
            if decode is None:
                raise DecodeError(f"the entry holds the unknown extension {code}")
            return decode(data, self._unpack_within)
        except BaseException as error:
            calls.error = error
            raise
        finally:
            calls.level -= 1

    def _unpack_within(self, data: bytes) -> Any:
        """Unpack what is within an extension. What others hold, such as arrays, is no MessagePack and not looked at."""
        if nests_too_deep(data, self._calls.level):
            raise DecodeError("the entry nests deeper than any that is ever written")
        return self.unpack(data)

    def _registered(self, data: bytes) -> Any:
        """The instance of a registered type that `data` stands for."""
        name, parts = self._unpack_within(data)
        if type(name) is not str:
            raise DecodeError("the entry holds an instance of a type without a name")
        known = self._decoders.get(name)
        if known is None:
            raise DecodeError(f"the entry holds a {name[:100]!r}, which is not registered with this codec")
        return known[1](parts)


def _check_level(level: int) -> None:
    if level > MAX_LEVELS:
        raise ValueTypeError(_TOO_DEEP)


def _changed(value: Any, packed: bytes) -> bool:
    """Whether `packb` has made bytes of a bytearray or a memoryview."""
    return _may_hold_binary(packed) and _holds_buffer(value)


def _may_hold_binary(packed: bytes) -> bool:
    """Whether a marker of binary data, with a length that fits, stands anywhere; within a float it is a false alarm.

    MessagePack marks by the shortest form: C4 for up to 255 bytes, C5 for up to 65,535, C6 for more.
    """
    if b"\xc4" in packed:
        return True
    at = packed.find(b"\xc5")
    while at >= 0:
        if 255 < int.from_bytes(packed[at + 1 : at + 3], "big") <= len(packed) - at - 3:
            return True
        at = packed.find(b"\xc5", at + 1)
    return len(packed) > 65_535 and b"\xc6" in packed


def _holds_buffer(value: Any) -> bool:
    """Whether lists and dicts within the value hold a bytearray or a memoryview."""
    kind = type(value)
    if kind is not list and kind is not dict:
        return kind is bytearray or kind is memoryview
    containers = [value]  # grows on the way; a value within itself did not get here
    for container in containers:
        items = container.values() if type(container) is dict else container
        if len(items) > 16 and _LEAVES.issuperset(map(type, items)):
            continue
        for item in items:
            kind = type(item)
            if kind in _LEAVES:
                continue
            if kind is list or kind is dict:
                containers.append(item)
            elif kind is bytearray or kind is memoryview:
                return True
    return False
