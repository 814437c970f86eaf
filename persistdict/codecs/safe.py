"""The default codec: a closed set of types, each of which comes back with the same type and value; no code is run.

Tags on disk (never change or reuse one):

    1 str      UTF-8                          6 False    empty
    2 bytes    as they are                    7 True     empty
    3 int      two's complement, little end   8 tree     MessagePack, see tree.py
    4 float    IEEE 754 double, little end    9 array    numpy, see arrays.py
    5 None     empty                         10 str      UTF-8 with lone surrogates

Everything else is one MessagePack tree (ormsgpack), in which the types that MessagePack lacks are extensions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from persistdict.errors import DecodeError, ValueTypeError, withheld

__all__ = ["SafeCodec"]

T = TypeVar("T")

STR, BYTES, INT, FLOAT, NONE, FALSE, TRUE, TREE, ARRAY, SURROGATES = range(1, 11)
_DOUBLE = struct.Struct("<d")


class SafeCodec:
    """Stores str, bytes, int, float, bool, None, list, dict, tuple, set, frozenset, bytearray, complex, Decimal,
    Fraction, date, time, datetime, timedelta, UUID, Path, numpy arrays and numbers, and the types that you register.

    A value of another type raises ValueTypeError when it is written; nothing is ever stored as something else.

    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Point:
    ...     x: int
    ...     y: int
    >>> codec = SafeCodec()
    >>> codec.register(Point, lambda point: (point.x, point.y), lambda parts: Point(*parts))
    >>> codec.decode(*codec.encode([Point(1, 2)]))
    [Point(x=1, y=2)]
    """

    name = "safe"

    def __init__(self) -> None:
        self._tree: Any = None  # made for the first container, because its module is slow to import

    def _make_tree(self) -> Any:
        from persistdict.codecs.tree import Tree

        if self._tree is None:
            self._tree = Tree()
        return self._tree

    def __getstate__(self) -> list[Any]:
        return self._tree.registrations() if self._tree is not None else []

    def __setstate__(self, registrations: list[Any]) -> None:
        self._tree = None
        for registration in registrations:
            self._make_tree().register(*registration)

    def register(
        self, cls: type[T], encode: Callable[[T], Any], decode: Callable[[Any], T], *, name: str | None = None
    ) -> None:
        """Let this codec store instances of `cls`.

        Args:
            cls: exactly this class; subclasses are registered on their own.
            encode: turns an instance into something that the codec can store already.
            decode: the inverse. Is called with what is in the file: let it check what it gets.
            name: what is stored for the class, default its module and qualified name. It must never change.
        """
        (self._tree or self._make_tree()).register(cls, encode, decode, name or f"{cls.__module__}.{cls.__qualname__}")

    def encode(self, value: Any) -> tuple[int, bytes]:
        """The tag and the bytes. Raises ValueTypeError for a type that could not come back as it is."""
        kind = type(value)
        if kind is str:
            try:
                return STR, value.encode()
            except UnicodeEncodeError:
                return SURROGATES, value.encode("utf-8", "surrogatepass")
        if kind is bytes:
            return BYTES, value
        if kind is int:
            return INT, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        if kind is float:
            return FLOAT, _DOUBLE.pack(value)
        if value is None:
            return NONE, b""
        if kind is bool:
            return (TRUE if value else FALSE), b""
        if kind is not dict and kind is not list:
            if kind.__module__ == "numpy" and kind.__name__ == "ndarray":
                from persistdict.codecs.arrays import pack_array

                return ARRAY, pack_array(value)
            if kind.__module__ == "ormsgpack":
                raise ValueTypeError("the types of ormsgpack itself cannot be stored")
        tree = self._tree or self._make_tree()
        try:
            packed = tree.packb(value)
        except TypeError:
            return TREE, tree.repack(value)
        if b"\xc4" in packed or b"\xc5" in packed or b"\xc6" in packed:  # binary data, perhaps
            packed = tree.unless_changed(value, packed)
        return TREE, packed

    def decode(self, tag: int, blob: bytes) -> Any:
        """The value. Raises DecodeError for a tag or bytes that this codec did not write."""
        try:
            if tag == STR:
                return blob.decode()
            if tag == TREE:
                return (self._tree or self._make_tree()).unpackb(blob)
            if tag == BYTES:
                return blob
            if tag == INT:
                return int.from_bytes(blob, "little", signed=True)
            if tag == FLOAT:
                return _DOUBLE.unpack(blob)[0]
            if NONE <= tag <= TRUE and not blob:
                return (None, False, True)[tag - NONE]
            if tag == ARRAY:
                from persistdict.codecs.arrays import unpack_array

                return unpack_array(blob)
            if tag == SURROGATES:
                return blob.decode("utf-8", "surrogatepass")
        except DecodeError:
            raise
        except Exception as error:  # whatever hostile bytes or the decode of a registered type can cause
            cause = self._lost_error(tag) or error
            raise DecodeError(f"the bytes of the entry cannot be decoded ({type(cause).__name__})") from withheld(cause)
        raise DecodeError(f"the entry was not written by the codec 'safe' (its tag is {tag})")

    def _lost_error(self, tag: int) -> Exception | None:
        """What was raised within ormsgpack; is raised if it is an error of ours, or the end of the program."""
        if tag == TREE and self._tree is not None:
            try:
                self._tree.raise_lost_error()
            except DecodeError:
                raise
            except Exception as error:
                return error
        return None
