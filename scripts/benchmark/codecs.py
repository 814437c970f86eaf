"""SafeCodec against pickle: encode, decode, and the size of the bytes."""

from __future__ import annotations

import pickle
import random
import timeit
from typing import Any

from benchmark.timing import Cell, Deadline, Samples, short
from benchmark.values import CODEC_VALUES, equal
from persistdict.codecs import SafeCodec

__all__ = ["measure", "table"]

OURS, PICKLE = "SafeCodec", "pickle"
BATCH = 0.002  # seconds for which one sample repeats its call
CODED = 0  # the size in the cells: there is no store
VARIANTS = 32  # values of a kind: what SafeCodec must do depends on which bytes happen to be there

Sizes = dict[str, list[int]]


def _timers(values: list[Any]) -> tuple[dict[tuple[str, str], timeit.Timer], list[int]]:
    """What is timed for values of one kind, and the sizes."""
    codec = SafeCodec()
    encoded = [codec.encode(value) for value in values]
    pickled = [pickle.dumps(value, 5) for value in values]
    for value, pair in zip(values, encoded, strict=True):
        if not equal(codec.decode(*pair), value):
            raise RuntimeError(f"the codec gave back another value for {value!r:.100}")
    names: dict[str, Any] = {"encode": codec.encode, "decode": codec.decode, "dumps": pickle.dumps}
    names |= {"loads": pickle.loads, "values": values, "encoded": encoded, "pickled": pickled}
    statements = {
        ("encode", OURS): "for value in values: encode(value)",
        ("encode", PICKLE): "for value in values: dumps(value, 5)",
        ("decode", OURS): "for tag, blob in encoded: decode(tag, blob)",
        ("decode", PICKLE): "for blob in pickled: loads(blob)",
    }
    timers = {cell: timeit.Timer(statement, globals=names) for cell, statement in statements.items()}
    return timers, [sum(len(blob) for _, blob in encoded), sum(map(len, pickled))]


def measure(seconds: float) -> tuple[Samples, Sizes]:
    """Rounds over all values for about so many seconds."""
    rng = random.Random(1)
    samples, sizes = Samples(), {}
    jobs: list[tuple[Cell, timeit.Timer, int]] = []
    for label, make in CODEC_VALUES.items():
        timers, sizes[label] = _timers([make(rng) for _ in range(VARIANTS)])
        for (direction, who), timer in timers.items():
            number = 1
            while (taken := timer.timeit(number)) < BATCH / 4:
                number *= 4
            jobs.append((Cell(label, CODED, direction, who), timer, max(1, int(number * BATCH / taken))))
    deadline, at = Deadline(seconds), 0
    while deadline.another():
        rows = [jobs[first : first + 2] for first in range(0, len(jobs), 2)]  # ours and pickle's together
        rng.shuffle(rows)
        for row in rows:
            rng.shuffle(row)
            for cell, timer, number in row:
                samples.add(cell, at, timer.timeit(number) / number / VARIANTS)
        at += 1
    return samples, sizes


def table(samples: Samples, sizes: Sizes) -> str:
    """The ratios as Markdown."""
    lines = [
        "| value | encode | decode | bytes | pickle dumps, µs | pickle loads, µs |",
        "|---|---|---|---|---|---|",
    ]
    for label, (ours, theirs) in sizes.items():
        pairs = [[Cell(label, CODED, direction, who) for who in (OURS, PICKLE)] for direction in ("encode", "decode")]
        ratios = [str(samples.ratio(*pair)) for pair in pairs]
        absolute = [short(samples.middle(pickled) * 1e6) for _, pickled in pairs]
        lines.append("| " + " | ".join([label, *ratios, short(ours / theirs), *absolute]) + " |")
    return "\n".join(lines)
