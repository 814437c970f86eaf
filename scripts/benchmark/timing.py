"""Rounds of samples, and the ratios between them.

Every library is measured once in every round, in another order each time, and a ratio is taken within its round. So
what changes slowly (the clock of the processor, the load of the disk) touches both sides of a ratio alike.
"""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median, quantiles
from typing import NamedTuple

__all__ = ["Deadline", "Ratio", "Samples"]


class Ratio(NamedTuple):
    """The median over rounds, and the quartiles."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(self.low)}-{short(self.high)})"


class Samples:
    """Seconds per operation, by row and column of a table; one sample per round."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def add(self, row: str, column: str, seconds: float) -> None:
        self._seconds[row, column].append(seconds)

    def middle(self, row: str, column: str) -> float:
        """The median in seconds."""
        return median(self._seconds[row, column])

    def ratio(self, row: str, column: str, base: str) -> Ratio | None:
        """How much longer `column` takes than `base`; None if it was not measured."""
        ours, theirs = self._seconds.get((row, column)), self._seconds[row, base]
        if not ours:
            return None
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        return Ratio(middle, low, high)

    def rounds(self) -> int:
        return min(map(len, self._seconds.values()))

    def as_json(self) -> list[dict[str, object]]:
        return [{"row": row, "column": column, "seconds": s} for (row, column), s in self._seconds.items()]


class Deadline:
    """Tells whether there is time for another round: three at least, then until the seconds are over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds
        self._rounds = 0

    def another(self) -> bool:
        self._rounds += 1
        return self._rounds <= 3 or time.perf_counter() < self._end


def short(number: float) -> str:
    """About three digits."""
    if number < 0.1:
        return f"{number:.3f}"
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:,.0f}"
