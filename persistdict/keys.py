r"""Keys: Python objects to bytes that sort as the objects do, and back.

Grammar (numbers are on disk: never change or reuse one; 0x00 and 0xff never begin a key):

    key     := none | number | bytes | str | tuple | custom
    none    := 0x01
    number  := 0x10 ( 0x01                            -inf
                    | class magnitude                 an integer
                    | class magnitude 0xff double     a float with a fraction: its floor, then itself
                    | 0xfe                            +inf
                    | 0xff                            nan (all nans are one key, sorted last)
    class   := 0x80 zero; 0x80 + n: positive, n <= 120 bytes; 0x80 - n: negative, n <= 120 bytes
               0xf9 / 0x07: longer; four bytes of length follow      (negative: everything complemented)
    double  := 8 bytes, IEEE 754 big-endian, sign bit flipped (negative: all bits flipped)
    bytes   := 0x20 body        body of a top-level key: the bytes as they are
    str     := 0x30 body        UTF-8; lone surrogates as the three bytes that UTF-8 would give them
    tuple   := 0x40 part*       each part a key, but: bodies escape 0x00 as 0x00 0xff and end with 0x00,
                                a tuple within a tuple ends with 0x00
    custom  := 0x50 body        what a key_serializer returned

Equal keys have equal bytes, in dict's sense: 1 == 1.0 == True, 0 == -0.0. To give back the object that was
stored first, a *hint* goes with the bytes: empty for nearly all keys, else one letter per number of the key in
order ("i" as it is, "f" float, "b" bool, "z" -0.0), where one is not as it is.

All tuples that begin with the parts of tuple p are the range [encode(p), encode(p) + 0xff): a part never begins
with 0xff, and the 0xff of a fraction sorts after every next part. The idea of typed, ordered, escaped parts is that
of the tuple layer of FoundationDB (its design document "tuple.md").

Cropping: an encoded key of `limit` bytes or more is looked up by its first (limit - 16) bytes followed by the 16-byte
BLAKE2b digest of the whole (limit <= 16: a digest of `limit` bytes). Different keys may share a cropped key; the
store compares the whole key.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

from persistdict.errors import DecodeError, KeyTypeError, withheld

__all__ = ["DIGEST_SIZE", "MAX_KEY_SIZE", "TEXT", "KeyCodec", "crop", "key_digest"]

MAX_KEY_SIZE = 511  # LMDB's own limit
DIGEST_SIZE = 16
MAX_DEPTH = 100  # of tuples in tuples
MAX_HINT = 0xFFFF  # bytes, see record.py

NONE, NUMBER, BYTES, STR, TUPLE, CUSTOM = 0x01, 0x10, 0x20, 0x30, 0x40, 0x50
MINUS_INFINITY, LONG_NEGATIVE, ZERO, LONG_POSITIVE, INFINITY, NAN = 0x01, 0x07, 0x80, 0xF9, 0xFE, 0xFF
FRACTION = 0xFF
SHORT = 120  # bytes of magnitude whose length fits into the class byte
TEXT = b"\x30"  # in front of a str key
_DOUBLE = struct.Struct(">d")

KeyBytes = tuple[bytes, bytes]  # the ordered bytes, the hint


def crop(kb: bytes, limit: int) -> bytes:
    """The bytes under which a key of `limit` bytes or more is looked up: exactly `limit` bytes."""
    from hashlib import blake2b  # slow to import, and long keys are rare

    if limit <= DIGEST_SIZE:
        return blake2b(kb, digest_size=limit).digest()
    return kb[: limit - DIGEST_SIZE] + blake2b(kb, digest_size=DIGEST_SIZE).digest()


def key_digest(kb: bytes) -> str:
    """A short name for a key in logs and errors, which never show the key itself."""
    from hashlib import blake2b

    return blake2b(kb, digest_size=6).hexdigest()


def _complement(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


def _encode_int(number: int) -> bytes:
    if number == 0:
        return bytes((NUMBER, ZERO))
    magnitude = abs(number)
    size = (magnitude.bit_length() + 7) // 8
    data = magnitude.to_bytes(size, "big")
    if size > SHORT:
        data = size.to_bytes(4, "big") + data
    if number > 0:
        return bytes((NUMBER, ZERO + size if size <= SHORT else LONG_POSITIVE)) + data
    return bytes((NUMBER, ZERO - size if size <= SHORT else LONG_NEGATIVE)) + _complement(data)


def _encode_float(number: float) -> KeyBytes:
    if number != number:
        return bytes((NUMBER, NAN)), b"i"
    if math.isinf(number):
        return bytes((NUMBER, INFINITY if number > 0 else MINUS_INFINITY)), b"i"
    floor = math.floor(number)
    if floor == number:
        return _encode_int(floor), b"z" if number == 0 and math.copysign(1, number) < 0 else b"f"
    raw = _DOUBLE.pack(number)
    ordered = _complement(raw) if number < 0 else bytes((raw[0] ^ 0x80,)) + raw[1:]
    return _encode_int(floor) + bytes((FRACTION,)) + ordered, b"i"


def _encode_str(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _encode(key: object, depth: int) -> KeyBytes:
    """Encode one key; `depth` is 0 for a key and the number of enclosing tuples for a part of one."""
    if isinstance(key, (str, bytes)):
        kind, body = (STR, _encode_str(key)) if isinstance(key, str) else (BYTES, bytes(key))
        if depth:
            body = body.replace(b"\x00", b"\x00\xff") + b"\x00"
        return bytes((kind,)) + body, b""
    if isinstance(key, bool):
        return _encode_int(key), b"b"
    if isinstance(key, int):
        return _encode_int(int(key)), b"i"
    if isinstance(key, float):
        return _encode_float(float(key))
    if key is None:
        return bytes((NONE,)), b""
    if isinstance(key, tuple):
        if depth == MAX_DEPTH:
            raise KeyTypeError(f"a key may not nest tuples more than {MAX_DEPTH} deep")
        parts = [_encode(part, depth + 1) for part in key]
        kb = bytes((TUPLE,)) + b"".join(part for part, _ in parts) + (b"\x00" if depth else b"")
        return kb, b"".join(hint for _, hint in parts)
    hash(key)  # an unhashable key gets dict's own TypeError
    raise KeyTypeError(
        f"keys of type {type(key).__qualname__} cannot be stored: use str, bytes, int, float, bool, None or a tuple "
        "of these, or give PersistDict a key_serializer and a key_unserializer"
    )


class _Reader:
    """Decodes one key from left to right."""

    def __init__(self, kb: bytes, hint: bytes) -> None:
        self.kb = kb
        self.at = 0
        self.hints = iter(hint)

    def take(self, size: int) -> bytes:
        piece = self.kb[self.at : self.at + size]
        if len(piece) != size:
            raise DecodeError("the bytes of a key end too early")
        self.at += size
        return piece

    def peek(self) -> int:
        return self.kb[self.at] if self.at < len(self.kb) else -1

    def key(self, depth: int = 0) -> Any:
        kind = self.take(1)[0]
        if kind == NUMBER:
            return self.number()
        if kind in (BYTES, STR):
            body = self.escaped() if depth else self.take(len(self.kb) - self.at)
            return body if kind == BYTES else body.decode("utf-8", "surrogatepass")
        if kind == NONE:
            return None
        if kind == TUPLE:
            return self.parts(depth)
        raise DecodeError(f"the bytes of a key hold the unknown type code {kind:#x}")

    def parts(self, depth: int) -> tuple[Any, ...]:
        if depth == MAX_DEPTH:
            raise DecodeError("the bytes of a key nest tuples too deep")
        parts = []
        while (following := self.peek()) > 0:
            parts.append(self.key(depth + 1))
        if following == 0:
            self.take(1)
        return tuple(parts)

    def escaped(self) -> bytes:
        pieces = []
        while True:
            end = self.kb.find(b"\x00", self.at)
            if end < 0:
                raise DecodeError("the bytes of a key end too early")
            pieces.append(self.take(end - self.at))
            self.take(1)
            if self.peek() != 0xFF:
                return b"\x00".join(pieces)
            self.take(1)

    def number(self) -> Any:
        spelling = next(self.hints, ord("i"))
        kind = self.take(1)[0]
        if kind == NAN:
            return math.nan
        if kind in (INFINITY, MINUS_INFINITY):
            return math.inf if kind == INFINITY else -math.inf
        number = self.integer(kind)
        if self.peek() == FRACTION:
            self.take(1)
            raw = self.take(8)
            return _DOUBLE.unpack(bytes((raw[0] ^ 0x80,)) + raw[1:] if raw[0] & 0x80 else _complement(raw))[0]
        if spelling == ord("i"):
            return number
        try:
            return {"f": float, "b": bool, "z": lambda _: -0.0}[chr(spelling)](number)
        except (KeyError, OverflowError):
            raise DecodeError("the hint of a key does not fit its bytes") from None

    def integer(self, kind: int) -> int:
        if kind == ZERO:
            return 0
        if kind in (LONG_POSITIVE, LONG_NEGATIVE):
            length = self.take(4)
            size = int.from_bytes(length if kind > ZERO else _complement(length), "big")
        else:
            size = abs(kind - ZERO)
            if size > SHORT:
                raise DecodeError(f"the bytes of a key hold the unknown number class {kind:#x}")
        data = self.take(size)
        return int.from_bytes(data, "big") if kind > ZERO else -int.from_bytes(_complement(data), "big")


class KeyCodec:
    """Turns keys into ordered bytes and back.

    Args:
        serializer: called with every key, returns str or bytes; None for the built-in, order-preserving encoding.
        unserializer: the inverse; is given bytes.

    Threads: holds no state that changes; any number of threads may use one.
    """

    def __init__(
        self,
        serializer: Callable[[Any], str | bytes] | None = None,
        unserializer: Callable[[bytes], Any] | None = None,
    ) -> None:
        self._serializer = serializer
        self._unserializer = unserializer
        self.plain = serializer is None

    def encode(self, key: object) -> KeyBytes:
        """The bytes and the hint of `key`. Raises KeyTypeError for a type that has no encoding."""
        if self._serializer is None:
            if type(key) is str:
                return TEXT + _encode_str(key), b""
            kb, hint = _encode(key, 0)
            if not hint.strip(b"i"):
                return kb, b""
            if len(hint) > MAX_HINT:
                raise KeyTypeError(f"a key may hold at most {MAX_HINT:,} numbers if one is a float or a bool")
            return kb, hint
        data = self._serializer(key)
        if isinstance(data, str):
            data = _encode_str(data)
        if not isinstance(data, (bytes, bytearray)):
            raise KeyTypeError(f"key_serializer returned {type(data).__qualname__}; it must return str or bytes")
        return bytes((CUSTOM,)) + bytes(data), b""

    def decode(self, kb: bytes, hint: bytes) -> Any:
        """The key that was stored first under these bytes. Raises DecodeError for bytes that are no key."""
        if self._unserializer is not None:
            if kb[:1] != bytes((CUSTOM,)):
                raise DecodeError("the key was not written by a key_serializer")
            return self._unserializer(kb[1:])
        try:
            if kb[:1] == TEXT:
                return kb[1:].decode("utf-8", "surrogatepass")
            reader = _Reader(kb, hint)
            key = reader.key()
        except UnicodeDecodeError as error:
            raise DecodeError("the bytes of a str key are not UTF-8") from withheld(error)
        if reader.at != len(kb):
            raise DecodeError("bytes are left over behind a key")
        return key
