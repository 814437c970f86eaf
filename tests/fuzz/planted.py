"""Targets that go all the way: hostile rows in a store, read through a dictionary and a queue.

The rows are what a hostile file may hold: each has a checksum that fits.
"""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
import warnings
from functools import cache
from typing import Any

from fuzz.decoders import records
from fuzz.mutate import with_checksum
from fuzz.table import target
from persistdict import DamagedEntryWarning, PersistDict, PersistDictError, QueueEmptyError, QueueFullError
from persistdict.keys import KeyCodec
from persistdict.queueparts import HELD, LEASE, LEASED, READY
from persistdict.queuerows import STATE
from persistdict.queuestate import ID, State
from persistdict.spans import queue_head, space_head
from persistdict.stores.lmdb.record import pack_index, seq_bytes

KB = KeyCodec().encode("key")[0]
SEQ = seq_bytes(3)


@cache
def opened() -> PersistDict[Any, Any]:
    """A store in which a row is planted again and again."""
    folder = tempfile.mkdtemp(prefix="persistdict-fuzz-")
    d: PersistDict[Any, Any] = PersistDict(folder, background_thread="disabled", caching=False)
    d["other"] = 1
    d.flush()
    return d


@atexit.register
def close() -> None:
    """Close the store and remove it."""
    if opened.cache_info().currsize:
        d = opened()
        opened.cache_clear()
        with contextlib.suppress(PersistDictError):  # what is planted there may not be drained
            d.close()
        shutil.rmtree(d.path)


def _attempt(read: Any) -> None:
    with contextlib.suppress(KeyError, PersistDictError):
        read()


def _use(d: PersistDict[Any, Any]) -> None:
    """Every way to read an entry, and some to write it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        for use in (
            lambda: d["key"], lambda: "key" in d, lambda: d.get_many(["key"]), lambda: d.entry("key"),
            lambda: d.get_versioned("key"), lambda: list(d), lambda: list(d.items()), lambda: len(d), d.tags,
            lambda: list(d.tagged("tag")), d.spaces, d.queues, lambda: list(d.range("a", "z")), lambda: d.verify().ok,
            lambda: list(d.oldest(2)), lambda: list(d.newest(2)), d.expire, lambda: d.set("key", 1, ttl=1e9),
            lambda: d.evict(tag="tag"), lambda: d.pop("key", None), lambda: d.update(key=2), d.flush,
        ):  # fmt: skip
            _attempt(use)


@target(records, mend=with_checksum, share=0.01)
def entry(data: bytes) -> None:
    """A record in the data, with an index that leads to it."""
    d = opened()
    env = d._store.env
    with env.data.raw.begin(write=True) as txn:
        for name, kb, raw in (
            ("e", SEQ, data),
            ("k", KB, pack_index([(SEQ, 0)])),
            ("t", b"\x03tag" + b"\0" * 7 + b"\x03", b""),
        ):
            txn.put(kb, raw, db=env.dbs[name])
    _use(d)


@target(lambda: [SEQ + raw for raw in records()], mend=with_checksum, share=0.02)
def recent_write(data: bytes) -> None:
    """A row among the recent writes."""
    d = opened()
    with d._store.env.recent.raw.begin(write=True) as txn:
        txn.put(KB, data)
    try:
        _use(d)
    finally:
        with d._store.env.recent.raw.begin(write=True) as txn:
            txn.delete(KB)


HEAD = queue_head("q")


def queue_rows() -> list[bytes]:
    """The kind of a row, the length of its key, its key, its blob; and so on."""
    state = State("fifo", 0)
    state.next_id, state.ready, state.leased, state.unfinished, state.soonest = 3, 1, 1, 2, 5
    rows = [
        (STATE, state.pack()),
        (READY + ID.pack(1), HELD.pack(0, 0) + b"item"),
        (READY + ID.pack(2), HELD.pack(0, 1)),
        (LEASED + ID.pack(5) + ID.pack(2), LEASE.pack(1, 8) + ID.pack(2) + HELD.pack(1, 0) + b"item"),
    ]
    packed = [bytes((len(key),)) + key + len(blob).to_bytes(2, "big") + blob for key, blob in rows]
    return [b"".join(packed), *packed, b"".join(packed[1:])]


@target(queue_rows, share=0.05)
def queue(data: bytes) -> None:
    """Rows of a queue, then everything that is done with one."""
    with PersistDict("memory://", background_thread="disabled") as d, warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        d["some"] = 1
        at, store = 0, d._store
        while at + 3 < len(data):
            key = data[at + 1 : at + 1 + data[at]]
            at += 1 + len(key)
            size = int.from_bytes(data[at : at + 2], "big")
            store.put(HEAD + key, b"", 1, data[at + 2 : at + 2 + size])
            at += 2 + size
        q = d.queue("q")
        for use in (
            q.qsize, q.empty, q.peek, lambda: q.put("x", block=False), lambda: q.get(lease=5, block=False).nack(),
            lambda: q.get(lease=5, block=False).ack(), lambda: [q.get(block=False) for _ in range(5)], q.clear,
        ):  # fmt: skip
            with contextlib.suppress(PersistDictError, QueueEmptyError, QueueFullError):
                use()


@target(lambda: [space_head("s") + KB, HEAD + STATE, b"\xf0\x02\xff\xfea", b"\xf0", b"\xf1\x05a"], share=0.05)
def strange_key(data: bytes) -> None:
    """An entry under a key that nobody has made."""
    with PersistDict("memory://", background_thread="disabled") as d, warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedEntryWarning)
        d.space("s")["a"] = 1
        d._store.put(data[:600] or b"\x00", data[600:], 1, b"value", None, label=data[:255])
        for read in (lambda: list(d), d.tags, d.spaces, d.queues, lambda: d.copy(), lambda: len(d)):
            _attempt(read)
