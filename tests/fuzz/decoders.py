"""Targets: one function for each decoder of bytes that come from a disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zlib import crc32
from zoneinfo import ZoneInfo

import numpy
import ormsgpack
from ormsgpack import Ext
from strategies import equal_keys, same

from fuzz.mutate import make_tree, with_checksum
from fuzz.table import target
from persistdict import SafeCodec, ValueTypeError
from persistdict.codecs import JsonCodec, RawCodec
from persistdict.keys import KeyCodec
from persistdict.leases import _holder
from persistdict.processes import is_alive, this_process
from persistdict.queuestate import State
from persistdict.stores.lmdb.access import pack_access, parse_access
from persistdict.stores.lmdb.pieces import head_of, parse_head, parse_piece_key, piece_key
from persistdict.stores.lmdb.quarantine import _HEAD, _parsed
from persistdict.stores.lmdb.recent import _base_row, base_of, parse_row
from persistdict.stores.lmdb.record import (
    LARGE,
    PIECES,
    label_key,
    large_body,
    large_size,
    pack_index,
    pack_record,
    parse_index,
    parse_label_key,
    parse_record,
    seq_bytes,
)
from persistdict.stores.lmdb.rows import Rows
from persistdict.stores.lmdb.times import clocks_of
from persistdict.stores.lmdb.totals import total_of, total_size

__all__ = ["records"]

# Records


def records() -> list[bytes]:
    kb = KeyCodec().encode("key")[0]
    version = 5 << 20
    return [
        pack_record(1, kb, b"", version, 1.5, 2.5, b"value"),
        pack_record(8, kb, b"if", version, 1.5, 2.5, b"", deadline=10**15, label=b"tag"),
        pack_record(1, kb, b"", version, 1.5, 2.5, large_body(b"x" * 40_000), flags=LARGE, label="é".encode()),
        pack_record(1, kb, b"", version, 1.5, 2.5, large_body(b"x" * 90_000), deadline=1, flags=LARGE | PIECES),
        pack_record(0, kb, b"", version, 0.0, 0.0, b"", flags=4),
        crc32(b"").to_bytes(4, "little"),
    ]


@target(records, mend=with_checksum)
def record(data: bytes) -> None:
    found = parse_record(data)
    again = parse_record(pack_record(
        found.tag, found.kb, found.hint, found.version, found.ctime, found.mtime, found.body, found.deadline,
        found.flags, found.label,
    ))  # fmt: skip
    assert repr(again) == repr(found)  # (a time may be nan)
    if found.flags & LARGE:
        assert large_size(found.body) >= 0


def rows() -> list[bytes]:
    return [seq_bytes(5 << 20) + raw for raw in records()]


@target(rows, mend=with_checksum)
def recent_row(data: bytes) -> None:
    found = parse_row(data)
    assert found.gone in (True, False) and len(found.seq) == 8


@target(lambda: [_base_row(7, (1, 2)), _base_row(7, (1, 2))[:-4], b""], mend=with_checksum)
def recent_base(data: bytes) -> None:
    found = base_of(data)
    assert found is None or (len(found) == 3 and found[0] >= 0)


@target(lambda: [pack_index([(seq_bytes(n), n) for n in range(many)]) for many in (1, 2, 5)] + [seq_bytes(9)])
def index(data: bytes) -> None:
    slots = parse_index(data)
    assert parse_index(pack_index(slots)) == slots


@target(lambda: [label_key(label, seq_bytes(77)) for label in (b"a", b"tag", b"x" * 255)])
def label_row(data: bytes) -> None:
    assert label_key(*parse_label_key(data)) == data


@target(lambda: [piece_key(seq_bytes(1 << 63), 4), head_of(5 << 20, 3) + b"bytes"])
def piece(data: bytes) -> None:
    place, head = parse_piece_key(data), parse_head(data)
    assert place is None or piece_key(*place) == data
    assert head is None or data.startswith(head_of(*head))


@target(lambda: [pack_access(1.5e9, uses) for uses in (0, 3)])
def access(data: bytes) -> None:
    found = parse_access(data)
    assert found is None or (math.isfinite(found[0]) and parse_access(pack_access(*found)) == found)


def quarantined() -> list[bytes]:
    return [with_checksum(_HEAD.pack(1, ord("e"), 6, 3, 1.5) + b"recordkeyraw" + bytes(4))]


@target(quarantined, mend=with_checksum)
def quarantine_row(data: bytes) -> None:
    assert len(_parsed(b"\x01", data).kind) == 1


class _Info:
    """Stands for a snapshot whose info has the same text under all names."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def get(self, name: bytes, default: Any = None, db: Any = None) -> bytes:
        return self._text


@target(lambda: [b"0", b"123", b"12 3456", b"1.5e9", b"nan", b"-inf", b"9" * 30, b"9" * 5000, "\u0663".encode()])
def info(data: bytes) -> None:
    place = Rows.__new__(Rows)
    place.meta = None
    size, usage, clocks = (
        total_size(place, _Info(data)),
        total_of(place, _Info(data), b""),
        clocks_of(place, _Info(data)),
    )
    assert size is None or 0 <= size < 1 << 64
    assert 0 <= usage.entries < 1 << 64 and 0 <= usage.size < 1 << 64
    assert clocks.noted is None or math.isfinite(clocks.noted)


# Keys

KEYS = [
    "key", "\ud800", "", b"\x00\xff", 0, -1, 255, -(1 << 70), 1 << 2000, -(1 << 2000), 1.5, -0.5, 2.0, -0.0, True, None,
    float("nan"), float("inf"), 5e-324, (), ("a", 1), (b"\x00", ("\x00", (None, 1.5)), False), ("x",) * 20,
]  # fmt: skip


def keys() -> list[bytes]:
    return [bytes((len(hint),)) + hint + kb for kb, hint in map(KeyCodec().encode, KEYS)]


@target(keys)
def key(data: bytes) -> None:
    """The first byte is the length of the hint, which comes next."""
    codec, at = KeyCodec(), 1 + (data[0] if data else 0)
    found = codec.decode(data[at:], data[1:at])
    again = codec.decode(*codec.encode(found))
    assert equal_keys(found, again) and type(found) is type(again)
    hash(found)


# Values

VALUES: list[Any] = [
    None, True, 1, -(1 << 100), 1.5, float("nan"), "text", "\ud800", b"bytes", bytearray(b"b"), [1, [2, {"a": None}]],
    (1, ("a",), ()), {1, "a", (2, 3)}, frozenset((1.5,)), {1: 2, "a": (1,)}, {"a": {"b": [1]}}, 1 << 64, [1 << 70],
    datetime(2020, 2, 29, 1, 2, 3, 4), datetime(2020, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14), "é")), time(1, 2, tzinfo=timezone.utc), date.max,
    timedelta(-1, 5, 7), UUID(int=7), Decimal("1E+999999"), Decimal("sNaN7"), Decimal("-0.000"), complex(1, -2),
    Fraction(-3, 4), PurePosixPath("a/b"), [bytearray(b"x"), {b"k": "\ud800"}],
    numpy.arange(6, dtype="<i4").reshape(2, 3), numpy.zeros((0, 3)), numpy.array(["a", "bc"]), numpy.float32(1.5),
    numpy.asfortranarray(numpy.ones((2, 2), "<c16")), numpy.array([1, 2], "<M8[ns]"), numpy.array([b"ab"]),
    numpy.array([(1, 2.5)], dtype=[("a", "<i2"), ("b", "<f8")]), numpy.datetime64(5, "D"), numpy.void(b"abc"),
]  # fmt: skip
SAFE = SafeCodec()


def values() -> list[bytes]:
    return [bytes((tag,)) + blob for tag, blob in map(SAFE.encode, VALUES)]


def _tagged(tag: int) -> Callable[[], list[bytes]]:
    return lambda: [data[1:] for data in values() if data[0] == tag]


def _round_trip(codec: Any, tag: int, blob: bytes) -> None:
    found = codec.decode(tag, blob)
    try:
        encoded = codec.encode(found)
    except ValueTypeError:
        return  # deeper than what is written, or a dtype that has a better description
    again = codec.decode(*encoded)
    assert same(found, again), "it does not come back as it was decoded"


@target(values)
def safe(data: bytes) -> None:
    """The first byte is the tag."""
    _round_trip(SAFE, data[0] if data else 0, data[1:])


@target(_tagged(8), make=make_tree)
def tree(data: bytes) -> None:
    _round_trip(SAFE, 8, data)


@target(_tagged(9))
def array(data: bytes) -> None:
    _round_trip(SAFE, 9, data)


def extensions() -> list[bytes]:
    found = []
    for blob in _tagged(8)():
        ormsgpack.unpackb(blob, ext_hook=lambda code, data: found.append(bytes((code,)) + bytes(data)))
    return found


@target(extensions, make=lambda chance: bytes((chance.randint(1, 21),)) + make_tree(chance))
def extension(data: bytes) -> None:
    """The first byte is the code."""
    _round_trip(SAFE, 8, ormsgpack.packb([Ext(data[0] & 127 if data else 0, data[1:])]))


@target(lambda: [JsonCodec().encode(value)[1] for value in (None, [1, {"a": "é"}], "\ud800", 1.5, {"": [[[]]]})])
def json_text(data: bytes) -> None:
    _round_trip(JsonCodec(), 32, data)
    _round_trip(RawCodec(), 33, data)


# What lies beside the entries


def holders() -> list[bytes]:
    here = this_process()
    return [
        b"token %d %s %s" % (pid, here.began.encode() or b"-", here.place.encode())
        for pid in (here.pid, 1, -1, 1 << 70)
    ]


@target(holders)
def lease(data: bytes) -> None:
    holder = _holder(data)
    if holder is not None:
        assert is_alive(holder.process) in (True, False)


def states() -> list[bytes]:
    found = []
    for order in ("fifo", "lifo", "priority"):
        state = State(order, 5)
        found.append(state.pack())
        state.next_id, state.ready, state.edge = 9, 3, b"\x00" * 8
        state.strays, state.lost = [b"\x00" * 7 + b"\x01"], [b"\x02" + b"\x00" * 8]
        found.append(state.pack())
    return found


@target(states)
def queue_state(data: bytes) -> None:
    state = State.parse(data)
    assert vars(State.parse(state.pack())) == {**vars(state), "_stored": state.pack()}
    state.next_id, state.ready, state.unfinished = state.next_id + 1, state.ready + 1, state.unfinished + 1
    state.inserted(b"\x00" * 8)
    state.removed(b"\x00" * 8)
    state.neighbour(state.edge)
    state.pack()
