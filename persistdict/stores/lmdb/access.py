"""Times of access: their rows, and eviction by them.

a     := f64 [u32]      when an entry was read last, and how often if that is counted; little-endian
"""

from __future__ import annotations

import struct
from typing import Any

from persistdict.errors import CorruptStoreError

__all__ = ["access_of", "pack_access", "parse_access"]

_TIME = struct.Struct("<d")
_COUNTED = struct.Struct("<dI")
_MOST = (1 << 32) - 1


def parse_access(raw: bytes | None) -> tuple[float, int] | None:
    """When an entry was read last, and how often; None for what is missing or damaged."""
    if raw is None or len(raw) not in (_TIME.size, _COUNTED.size):
        return None
    at, uses = _COUNTED.unpack(raw) if len(raw) == _COUNTED.size else (*_TIME.unpack(raw), 0)
    return (at, uses) if abs(at) < float("inf") else None


def pack_access(at: float, uses: int) -> bytes:
    """The bytes of a row."""
    return _COUNTED.pack(at, min(uses, _MOST)) if uses else _TIME.pack(at)


def access_of(txn: Any, db: Any, seq: bytes) -> tuple[float, int]:
    """The same of an entry; zeros if that is not known."""
    try:
        return parse_access(txn.get(seq, None, db)) or (0.0, 0)
    except CorruptStoreError:  # its page is damaged, which harms no entry
        return 0.0, 0
