"""How deep MessagePack nests, and how deep it may.

ormsgpack recurses on the stack of the machine, up to 1024 levels in one call; an extension within an extension is a
call within a call. Bytes that nest both as deep as they can would overflow the stack and kill the process. So the rule,
for writing and for reading alike: at most MAX_LEVELS extensions within each other, and behind the first FREE_LEVELS of
them no more than MAX_WITHIN containers within each other in each.
"""

from __future__ import annotations

__all__ = ["FREE_LEVELS", "MAX_LEVELS", "MAX_WITHIN", "nests_too_deep"]

MAX_LEVELS = 64
FREE_LEVELS = 1
MAX_WITHIN = 32

_CONTAINERS = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
# Bytes that follow a marker: of fixed size, or as many as the big-endian number in so many bytes says.
_FIXED = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_FIXED |= {0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}


def nests_too_deep(data: bytes, level: int) -> bool:
    """Whether the content of an extension at this level (the outermost is 1) nests deeper than the rule allows."""
    if level > MAX_LEVELS:
        return True
    if level <= FREE_LEVELS or len(data) - len(data.translate(None, _CONTAINERS)) <= MAX_WITHIN:
        return False
    return _depth(data) > MAX_WITHIN


def _depth(data: bytes) -> int:
    """How deep the containers of MessagePack bytes nest. Extensions count as opaque; bad bytes end the count."""
    open_counts: list[int] = []  # of every container that is open, how many items are still to come
    deepest = at = 0
    while at < len(data):
        marker = data[at]
        at += 1
        items = -1
        if 0x80 <= marker <= 0x9F:
            items = (marker & 0x0F) * (2 if marker < 0x90 else 1)
        elif 0xDC <= marker <= 0xDF:
            width = 2 if marker in (0xDC, 0xDE) else 4
            items = int.from_bytes(data[at : at + width], "big") * (2 if marker >= 0xDE else 1)
            at += width
        elif 0xA0 <= marker <= 0xBF:
            at += marker & 0x1F
        elif marker in _SIZED:
            width = _SIZED[marker]
            at += width + int.from_bytes(data[at : at + width], "big") + (1 if 0xC7 <= marker <= 0xC9 else 0)
        else:
            at += _FIXED.get(marker, 0)
        if items > 0:
            open_counts.append(items)
            deepest = max(deepest, len(open_counts))
            continue
        while open_counts:
            open_counts[-1] -= 1
            if open_counts[-1]:
                break
            open_counts.pop()
    return deepest
