"""Where an entry of the data is, and what can be told of it there."""

from typing import NamedTuple

from persistdict.spans import KEPT_FROM
from persistdict.store import ABSENT, ANY, Condition
from persistdict.stores.lmdb.record import Parsed, Slot

__all__ = ["NEVER", "Place", "has_label", "holds", "last_write"]

NEVER = float("inf")


class Place(NamedTuple):
    """Where a key is: all entries under its index key, its own, and the record (None: damaged)."""

    slots: list[Slot]
    slot: Slot
    record: Parsed | None


def holds(when: Condition, place: Place | None) -> bool:
    """Whether the condition of a write holds for what is there now (None: nothing)."""
    if when is ANY:
        return True
    if when is ABSENT:
        return place is None
    return place is not None and place.record is not None and place.record.version == when


def last_write(record: Parsed) -> float:
    """When an entry was written, as far as it ends by not being used."""
    return record.mtime if record.kb < KEPT_FROM else NEVER


def has_label(place: Place, label: bytes | None) -> bool:
    """Whether what is there has this label; None is any, or none."""
    return label is None or (place.record is not None and place.record.label == label)
