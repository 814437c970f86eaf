"""Values to bytes that are equal for equal values, to be digested into keys.

What a codec writes will not do for that: it keeps the order of a dict, and for a set any order that comes. Grammar
(digests of it are on disk: never change or reuse a letter):

    value   := "K" text         None, bool, int, float, str, bytes: as a key, so equal numbers are alike (see keys.py)
             | "L" value* "."   a list
             | "T" value* "."   a tuple
             | "S" value* "."   a set or a frozenset, in order of the bytes
             | "D" pair* "."    a dict, in order of the bytes
             | "C" name         a class
             | "E" name name    a member of an Enum: its class, its name (of a Flag: its number)
             | "O" name pair* "."   a dataclass or a named tuple: its class, its fields
             | "X" tag text     anything else that the safe codec takes, as it writes it; tag is one byte
             | "Y" name value   only if types are to be told apart: the type of a number, a set
    pair    := value value
    name    := text             in UTF-8; of a class with its module
    text    := length bytes     length: 8 bytes, big-endian

Objects of other types raise. So do subclasses of str, int, list, dict and the like: what they add is not known.
"""

from __future__ import annotations

import enum
import struct
import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from persistdict.codecs import SafeCodec
from persistdict.errors import KeyTypeError, ValueTypeError
from persistdict.keys import KeyCodec

__all__ = ["Canonical", "digest", "field_names", "full_name"]

SIZE = 16  # bytes of a digest
PLAIN = frozenset((str, bytes, int, float, bool, type(None)))
_length = struct.Struct(">Q").pack
_key = KeyCodec().encode


def digest(data: bytes) -> str:
    """A digest as text."""
    return blake2b(data, digest_size=SIZE).hexdigest()


def full_name(thing: Any) -> str:
    """The name of a class or a function with its module; a script is called as it would be if it were imported."""
    module = thing.__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None) or module
        module = spec.name if spec is not None else file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    return f"{module}.{thing.__qualname__}"


def _text(data: bytes) -> bytes:
    return _length(len(data)) + data


def field_names(cls: type) -> tuple[str, ...] | None:
    """The names of the fields of a dataclass or a named tuple; None for others, and for what only derives from one."""
    if "__dataclass_fields__" in vars(cls):
        from dataclasses import fields

        return tuple(field.name for field in fields(cls))
    return vars(cls).get("_fields") if issubclass(cls, tuple) else None


class Canonical:
    """Turns values into bytes.

    Args:
        codec: for the types that have no way of their own here.
        typed: whether 1, 1.0 and True, and set and frozenset, are to be told apart.
        truth: whether True is to be told from 1.
    """

    def __init__(self, codec: SafeCodec, typed: bool = False, truth: bool = False) -> None:
        self._codec, self._typed = codec, typed
        self._told = (int, float, bool) if typed else (bool,) if truth else ()
        self._ways: dict[type, Callable[[Any], bytes]] = {
            list: lambda value: self._many(b"L", map(self._encode, value)),
            tuple: lambda value: self._many(b"T", map(self._encode, value)),
            set: self._set,
            frozenset: self._set,
            dict: lambda value: self._many(b"D", sorted(self._pairs(value.items()))),
        }

    def encode(self, value: Any) -> bytes:
        """The bytes of a value. Raises KeyTypeError for one that has none."""
        try:
            return self._encode(value)
        except RecursionError:
            raise KeyTypeError("it is nested too deep, or contains itself") from None
        except ValueTypeError as error:
            raise KeyTypeError(str(error)) from error

    def _encode(self, value: Any) -> bytes:
        cls = type(value)
        if cls in PLAIN:
            data = b"K" + _text(_key(value)[0])
            return b"Y" + _text(cls.__name__.encode()) + data if cls in self._told else data
        way = self._ways.get(cls)
        return self._other(value, cls) if way is None else way(value)

    def _many(self, letter: bytes, parts: Iterable[bytes]) -> bytes:
        return letter + b"".join(parts) + b"."

    def _set(self, value: Any) -> bytes:
        data = self._many(b"S", sorted(map(self._encode, value)))
        return b"Y" + _text(type(value).__name__.encode()) + data if self._typed else data

    def _pairs(self, items: Iterable[tuple[Any, Any]]) -> list[bytes]:
        return [self._encode(key) + self._encode(value) for key, value in items]

    def _other(self, value: Any, cls: type) -> bytes:
        if isinstance(value, type):
            return b"C" + _text(full_name(value).encode())
        name = _text(full_name(cls).encode())
        if isinstance(value, enum.Enum):
            member = str(value.value) if isinstance(value, enum.Flag) else value.name
            return b"E" + name + _text(member.encode())
        fields = field_names(cls)
        if fields is not None:
            return self._many(b"O" + name, self._pairs((field, getattr(value, field)) for field in fields))
        tag, blob = self._codec.encode(value)
        return b"X" + bytes((tag,)) + _text(blob)
