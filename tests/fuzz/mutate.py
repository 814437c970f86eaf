"""Changing bytes: a little of everything that a decoder may stumble over; and making trees of MessagePack from nothing.

Everything is drawn from one `random.Random`, so an input can be drawn again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from zlib import crc32

import ormsgpack
from ormsgpack import Ext

__all__ = ["LONGEST", "make_tree", "mutated", "with_checksum", "without_change"]

LONGEST = 4096  # bytes of an input
# Edges of lengths, counts, years, exponents, and of the numbers that hash alike; all are MessagePack's own.
_BITS = (7, 8, 15, 16, 31, 32, 40, 61, 62, 63)
NUMBERS = (
    *(0, 1, 2, 9, 10, 99, 255, 9999, 10_000, 999_999_999, (1 << 64) - 1),
    *((1 << bits) + step for bits in _BITS for step in (-1, 0, 1)),
    *(-(1 << bits) + step for bits in _BITS for step in (0, 1)),
)
TEXTS = (
    "", "a", "\x00", "é", "\U0001f600", "UTC", "Europe/Berlin", "../x", "a.b/c", "PosixPath", "PurePosixPath", "NaN",
    "sNaN1", "-0", "Infinity", "1E+999999999", "1E-999999999", "9999-12-31", "0001-01-01T00:00:00", "24:00:00",
    "9999-12-31T23:59:59.999999", "<f8", "<i4", "|S0", "<U1", "|V8", "<M8[ns]", "<m8[0s]", "|b1", "<c16", "|O", "1/3",
    "\u0663",
)  # fmt: skip


def with_checksum(data: bytes) -> bytes:
    """The bytes with a checksum that fits in the place of the last four."""
    front = data[:-4]
    return front + crc32(front).to_bytes(4, "little")


def without_change(data: bytes) -> bytes:
    return data


def mutated(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """The bytes with one to four changes, some of which take a piece of `others`."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
        data = chance.choice(_CHANGES)(bytearray(data), chance, chance.choice(others) if others else b"")
    return data[:LONGEST]


def _flip(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    if data:
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0x80, 0xC0, 0xDD, 0xFF, chance.randrange(256)))
    return bytes(data)


def _insert(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    at = chance.randint(0, len(data))
    data[at:at] = chance.randbytes(chance.choice((1, 1, 2, 4, 8, 16)))
    return bytes(data)


def _remove(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    at = chance.randint(0, len(data))
    del data[at : at + chance.choice((1, 1, 2, 4, 8, 100))]
    return bytes(data)


def _number(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    """A number of a kind that decoders take for a length or a time, in either byte order."""
    size = chance.choice((1, 2, 4, 8))
    raw = (chance.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, chance.choice(("little", "big")))
    at = chance.randint(0, max(0, len(data) - size))
    data[at : at + size] = raw
    return bytes(data)


def _repeat(data: bytearray, chance: random.Random, _: bytes) -> bytes:
    at = chance.randint(0, len(data))
    piece = data[at : at + chance.choice((1, 2, 3, 8, 20))]
    data[at:at] = piece * chance.choice((1, 2, 10, 100))
    return bytes(data)


def _splice(data: bytearray, chance: random.Random, other: bytes) -> bytes:
    return bytes(data[: chance.randint(0, len(data))]) + other[chance.randint(0, len(other)) :]


def _graft(data: bytearray, chance: random.Random, other: bytes) -> bytes:
    at, begin = chance.randint(0, len(data)), chance.randint(0, len(other))
    piece = other[begin : begin + chance.randint(0, 64)]
    data[at : at + len(piece)] = piece
    return bytes(data)


_CHANGES: tuple[Callable[[bytearray, random.Random, bytes], bytes], ...] = (
    _flip, _overwrite, _insert, _remove, _number, _repeat, _splice, _graft,
)  # fmt: skip


# Trees


def make_tree(chance: random.Random, depth: int = 0) -> bytes:
    """A tree of MessagePack whose extensions hold what they should, or anything."""
    return ormsgpack.packb(_node(chance, depth), option=ormsgpack.OPT_NON_STR_KEYS)[:LONGEST]


def _node(chance: random.Random, depth: int) -> object:
    kind = chance.randrange(10 if depth < 5 else 4)
    if kind == 0:
        return chance.choice(NUMBERS)
    if kind == 1:
        return chance.choice(TEXTS)
    if kind == 2:
        return chance.choice((None, True, False, 0.5, float("nan"), float("inf"), 1e308, -0.0))
    if kind == 3:
        return chance.randbytes(chance.choice((0, 1, 4, 8, 16)))
    if kind == 4:
        return [_node(chance, depth + 1) for _ in range(chance.choice((0, 1, 2, 2, 3, 4, 9)))]
    if kind == 5:
        return {chance.choice(TEXTS): _node(chance, depth + 1) for _ in range(chance.randrange(4))}
    return Ext(chance.choice((*range(1, 22), 22, 127)), _content(chance, depth + 1))


def _content(chance: random.Random, depth: int) -> bytes:
    """What an extension may hold."""
    kind = chance.randrange(8)
    if kind == 0:
        return chance.choice(TEXTS).encode("utf-8", "surrogatepass")
    if kind == 1:
        return chance.randbytes(chance.choice((0, 1, 8, 16, 40)))
    if kind == 2:
        return _array(chance)
    if kind == 3:
        return ormsgpack.packb([chance.choice(TEXTS), chance.randbytes(chance.choice((0, 1, 4, 8, 16)))])
    if kind == 4:
        return ormsgpack.packb([chance.choice((0, 1, -1, 86400, *NUMBERS)) for _ in range(chance.choice((2, 2, 3)))])
    if kind == 5:
        return ormsgpack.packb([chance.choice(TEXTS), chance.choice((0, 1, 2)), _node(chance, depth)])
    return make_tree(chance, depth)


def _array(chance: random.Random) -> bytes:
    dtype: object = chance.choice(TEXTS)
    if chance.random() < 0.3:
        dtype = [[chance.choice(TEXTS), chance.choice(TEXTS), *chance.choice(([], [[2]], [[0]]))] for _ in range(2)]
    shape = [chance.choice((0, 1, 2, 3, *NUMBERS)) for _ in range(chance.choice((0, 1, 1, 2, 3, 33)))]
    header = ormsgpack.packb([dtype, shape, chance.random() < 0.5])
    return len(header).to_bytes(2, "little") + header + bytes(chance.choice((0, 4, 8, 16, 24, 48)))
