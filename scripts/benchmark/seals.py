"""What a seal costs: persistdict with each kind of seal beside persistdict without one."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from benchmark.keys import key_of
from benchmark.timing import Cell, Deadline, Samples, short
from benchmark.values import STORED
from persistdict import PersistDict

__all__ = ["KINDS", "NONE", "SEALS", "measure", "table"]

KEY = bytes(range(32))
NONE = "none"
TRAINED = "zstd, trained"
SEALS: dict[str, dict[str, Any]] = {
    NONE: {},
    "zlib": {"compression": "zlib"},
    "lz4": {"compression": "lz4"},
    "zstd": {"compression": "zstd"},
    TRAINED: {"compression": "zstd"},
    "HMAC": {"signing_key": KEY},
    "AES-GCM": {"encryption_key": KEY},
    "zstd, AES-GCM": {"compression": "zstd", "encryption_key": KEY},
}
KINDS = ("1 KB", "chat dict", "array")
ENTRIES = 1000
BATCH = 100

Sizes = dict[str, int]  # "seal: value" -> bytes in the store for one entry


def measure(folder: Path, seconds: float) -> tuple[Samples, Sizes]:
    """Rounds over all seals for about so many seconds. Each sample is a hundred sets, or gets past the cache."""
    rng, samples, sizes = random.Random(2), Samples(), {}
    for kind in KINDS:
        values = [STORED[kind](rng) for _ in range(ENTRIES)]
        stores = {name: _filled(folder / f"seal {kind} {name}", name, values) for name in SEALS}
        sizes |= {f"{name}: {kind}": _size_of(d) for name, d in stores.items()}
        deadline, at = Deadline(seconds / len(KINDS)), 0
        while deadline.another():
            keys = [key_of(rng.randrange(ENTRIES)) for _ in range(BATCH)]
            for name, d in rng.sample([*stores.items()], len(stores)):
                samples.add(Cell(kind, ENTRIES, "seal, set", name), at, _seconds(_set, d, keys, values))
                samples.add(Cell(kind, ENTRIES, "seal, get", name), at, _seconds(_get, d, keys, values))
                d.flush()
            at += 1
        for d in stores.values():
            d.close()
    return samples, sizes


def _filled(folder: Path, name: str, values: list[Any]) -> PersistDict[str, Any]:
    d: PersistDict[str, Any] = PersistDict(folder, background_thread="disabled", caching=False, **SEALS[name])
    entries = {key_of(number): value for number, value in enumerate(values)}
    d.update(entries)
    if name == TRAINED:
        d.train_dictionary(size=32_768)
        d.update(entries)
    for key, value in entries.items():
        if repr(d[key]) != repr(value):
            raise RuntimeError(f"the seal {name} gave back another value")
    return d


def _size_of(d: PersistDict[str, Any]) -> int:
    """The bytes that one value takes in the store."""
    store: Any = d._opened()
    items = [len(item.blob) for item in getattr(store, "bare", store).scan() if item.kb < b"\xf0"]
    return round(sum(items) / len(items))


def _set(d: PersistDict[str, Any], keys: list[str], values: list[Any]) -> None:
    for number, key in enumerate(keys):
        d[key] = values[number]


def _get(d: PersistDict[str, Any], keys: list[str], _: list[Any]) -> None:
    for key in keys:
        d[key]


def _seconds(work: Any, *arguments: Any) -> float:
    start = time.perf_counter()
    work(*arguments)
    return (time.perf_counter() - start) / BATCH


def table(samples: Samples, sizes: Sizes) -> str:
    """The ratios to no seal as Markdown."""
    lines = ["| value | seal | set | get, past the cache | bytes |", "|---|---|---|---|---|"]
    for kind in KINDS:
        for name in SEALS:
            cells = [Cell(kind, ENTRIES, operation, name) for operation in ("seal, set", "seal, get")]
            if cells[0] not in samples:
                continue
            size = sizes[f"{name}: {kind}"]
            if name == NONE:
                ratios = [f"{short(samples.middle(cell) * 1e6)} µs" for cell in cells]
            else:
                ratios = [str(samples.ratio(cell, cell._replace(library=NONE))) for cell in cells]
            lines.append("| " + " | ".join([kind, name, *ratios, f"{size:,}"]) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""
