"""Which keys are whose: those of the dictionary itself, of a space in the same store, or of what lies beside them.

Numbers are on disk: never change or reuse one. Keys of the dictionary itself (keys.py) begin with less than 0xf0.

    space  := 0xf0 size name key    an entry of the space of that name; size: one byte, of the name in UTF-8
    queue  := 0xf1 size name row    a row of the queue of that name, see queuerows.py
    lease  := 0xf2 kb               who computes the entry of a key now, see flight.py
    cost   := 0xf3 kb               how long that took the last time, likewise
    dictionary := 0xf4 number       of zstd, see seals/seal.py

What is kept (from 0xf1 on) is no cache: it is not evicted, and does not end by not being used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = [
    "ALL",
    "COST",
    "DICTIONARY",
    "INITIALISED",
    "KEPT_FROM",
    "LEASE",
    "MAX_NAME",
    "OUTSIDE",
    "OWN",
    "Span",
    "head_of",
    "name_in",
    "queue_head",
    "space_head",
]

OUTSIDE, KEPT_FROM, LEASE, COST, DICTIONARY = b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4"
INITIALISED = "initialised"  # and the hexadecimal beginning of the keys that were: a name in the info
MAX_NAME = 200  # bytes; a head, in hexadecimal, is a key of the info


class Span(NamedTuple):
    """The keys from `start` on and before `stop`."""

    start: bytes
    stop: bytes

    def __contains__(self, kb: object) -> bool:
        return isinstance(kb, bytes) and self.start <= kb < self.stop


ALL = Span(b"", b"\xff")
OWN = Span(b"", OUTSIDE)


def head_of(kb: bytes) -> bytes:
    """What all keys have in front that belong together with this one; nothing for those of the dictionary itself."""
    if kb < OUTSIDE:
        return b""
    return kb[:1] if kb >= LEASE else kb[: 2 + int.from_bytes(kb[1:2], "big")]


def name_in(head: bytes) -> str | None:
    """The name of a space or a queue, of which this is the head; None if it is none that is ever given."""
    name = head[2:]
    if not 0 < len(name) == head[1] <= MAX_NAME:
        return None
    try:
        return name.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def space_head(name: Any) -> bytes:
    """The head of a space. Raises TypeError or ValueError for what is no name."""
    return OUTSIDE + _name("space", name)


def queue_head(name: Any) -> bytes:
    """The head of a queue. Raises TypeError or ValueError for what is no name."""
    return KEPT_FROM + _name("queue", name)


def _name(kind: str, name: Any) -> bytes:
    if not isinstance(name, str):
        raise TypeError(f"the name of a {kind} must be a str, not {type(name).__qualname__}")
    raw = str.encode(name, "utf-8", "surrogatepass")
    if not 0 < len(raw) <= MAX_NAME:
        raise ValueError(f"the name of a {kind} must have 1 to {MAX_NAME} bytes in UTF-8, not {len(raw)}")
    return bytes((len(raw),)) + raw
