"""Rounds of samples, and the ratios between them.

Every cell is measured once in a round, the libraries in another order each time, and a ratio is taken within its round.
So what changes slowly (the clock of the processor, the load of the disk) touches both sides of a ratio alike.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import median, quantiles
from typing import Any, NamedTuple

__all__ = ["Cell", "Deadline", "Ratio", "Samples", "short"]


class Cell(NamedTuple):
    """What was measured."""

    value: str  # its label in values.STORED or values.CODEC_VALUES
    size: int  # the number of entries
    operation: str
    library: str


class Ratio(NamedTuple):
    """The median over rounds, and the quartiles."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.middle)} ({short(self.low)}-{short(self.high)})"


class Samples:
    """Numbers by cell and round: seconds per operation unless the operation says otherwise."""

    def __init__(self) -> None:
        self._numbers: dict[Cell, dict[int, float]] = defaultdict(dict)

    def add(self, cell: Cell, number: int, sample: float) -> None:
        """The sample of a cell in the round with this number."""
        self._numbers[cell][number] = sample

    def merge(self, other: Samples) -> None:
        self._numbers.update(other._numbers)

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._numbers

    def __iter__(self) -> Iterator[Cell]:
        return iter(self._numbers)

    def middle(self, cell: Cell) -> float:
        """The median."""
        return median(self._numbers[cell].values())

    def spread(self, cell: Cell) -> Ratio:
        return _quartiles(list(self._numbers[cell].values()))

    def ratio(self, cell: Cell, base: Cell) -> Ratio | None:
        """How many times `base` a cell is; None if they were never measured in the same round."""
        ours, theirs = self._numbers.get(cell, {}), self._numbers.get(base, {})
        rounds = sorted(ours.keys() & theirs.keys())
        return _quartiles([ours[number] / theirs[number] for number in rounds]) if rounds else None

    def rounds(self, value: str, size: int) -> int:
        """The rounds of one kind of value and size: of the cell that had most."""
        return max((len(r) for cell, r in self._numbers.items() if cell[:2] == (value, size)), default=0)

    def as_json(self) -> list[dict[str, Any]]:
        return [{**cell._asdict(), "rounds": rounds} for cell, rounds in self._numbers.items()]

    @classmethod
    def from_json(cls, cells: Iterable[dict[str, Any]]) -> Samples:
        made = cls()
        for cell in cells:
            name = Cell(cell["value"], cell["size"], cell["operation"], cell["library"])
            made._numbers[name] = {int(number): sample for number, sample in cell["rounds"].items()}
        return made


def _quartiles(numbers: list[float]) -> Ratio:
    low, middle, high = quantiles(numbers, n=4, method="inclusive") if len(numbers) > 1 else numbers * 3
    return Ratio(middle, low, high)


class Deadline:
    """Tells whether there is time for another round: some at least, then until the seconds are over."""

    def __init__(self, seconds: float, least: int = 3) -> None:
        self._end = time.perf_counter() + seconds
        self._least = least
        self._rounds = 0

    def another(self) -> bool:
        self._rounds += 1
        return self._rounds <= self._least or time.perf_counter() < self._end


def short(number: float) -> str:
    """About three digits."""
    size = abs(number)
    if size < 0.001:
        return f"{number:.1g}"
    if size < 0.1:
        return f"{number:.3f}"
    return f"{number:.2f}" if size < 10 else f"{number:.1f}" if size < 100 else f"{number:,.0f}"
