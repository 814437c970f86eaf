"""Keys that have one hash: a set or a dict compares each of them with all the others.

The hashes of str and bytes are drawn anew for every process, those of numbers are not: the multiples of 2**61 - 1, for
one, all have the hash 0, and a megabyte of them keeps who makes a set of it busy for minutes. So the rule, for writing
and for reading alike: a key of a set or a dict has to be compared with no more than FEW others, on average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

__all__ = ["FEW", "is_crowded"]

FEW = 512
_SCATTERED = frozenset((str, bytes))
_INTS = {int}
_FAR = 1 << 64  # of the ints below, no more than 16 have one hash


def is_crowded(keys: Collection[Any]) -> bool:
    """Whether too many keys have one hash. Raises TypeError for what has none."""
    if len(keys) <= FEW:
        return False
    kinds = set(map(type, keys))
    if kinds <= _SCATTERED or (kinds == _INTS and min(keys) > -_FAR and max(keys) < _FAR):
        return False
    if len(keys) - len(set(map(hash, keys))) <= FEW:
        return False
    counts = Counter(map(hash, keys)).values()
    return sum(count * count for count in counts) > FEW * len(keys)
