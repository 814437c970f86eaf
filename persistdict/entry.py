"""What is known of one entry beside its value."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Entry"]


class Entry(NamedTuple):
    """The metadata of one entry, as `PersistDict.entry(key)` returns it.

    All times are float seconds since the epoch, UTC.

    Attributes:
        ctime: when the key was first set (an overwrite keeps it, as dict keeps the place of a key).
        mtime: when the value was last set.
        atime: when it was last read or set. Reads are noted in batches: without `expiration_days` the time is
            that of the batch (`background_timeout` seconds at most after the read).
        expires_at: when it stops existing if nobody touches it, or None for never.
        size: bytes of the encoded value.
        version: grows with every write of the key, in any process; never used twice in one store.
        tag: what the last write gave as `tag`, or None.
    """

    ctime: float
    mtime: float
    atime: float
    expires_at: float | None
    size: int
    version: int
    tag: str | None
