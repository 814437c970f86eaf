"""The goals, and what was measured of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmark.probes import OUR_CLASS, PER_KEY
from benchmark.registry import BASE, LEAN
from benchmark.results import Results
from benchmark.timing import Cell, Ratio
from benchmark.values import BYTES

__all__ = ["GOALS", "MAIN", "Goal", "sizes_of", "table"]

MAIN = "420 B"  # the value with which the goals are measured
USUAL, ROCKS, DISKCACHE, SYNCED = "lmdb, usual", "rocksdict", "diskcache", "lmdb, lean, sync"
Measured = list[tuple[str, Ratio]]


class Goal(NamedTuple):
    """What is to be reached.

    Args:
        text: what is compared.
        limit: what the median may be at most; at least if `faster`.
        measured: where, and the median and quartiles over the rounds.
        unit: of the limit; ratios have none.
        faster: the ratios tell how many times as long the other takes.
    """

    text: str
    limit: float
    measured: Callable[[Results], Measured]
    unit: str = ""
    faster: bool = False

    def is_reached(self, ratio: Ratio) -> bool:
        return ratio.middle >= self.limit if self.faster else ratio.middle <= self.limit


def sizes_of(results: Results, value: str = MAIN) -> list[int]:
    """The numbers of entries that were measured with a kind of value."""
    return sorted(
        {
            cell.size
            for cell in results.samples
            if cell[::3] == (value, LEAN) and cell.size and cell.operation == "get, cold"
        }
    )


def against(operation: str, other: str, value: str = MAIN, faster: bool = False) -> Callable[[Results], Measured]:
    """persistdict against another library, at every size."""

    def measured(results: Results) -> Measured:
        found = []
        for size in sizes_of(results, value):
            ours, theirs = Cell(value, size, operation, BASE), Cell(value, size, operation, other)
            ratio = results.samples.ratio(theirs, ours) if faster else results.samples.ratio(ours, theirs)
            if ratio:
                found.append((f"{size:,} of {value}", ratio))
        return found

    return measured


def flat(results: Results) -> Measured:
    """A hot get in the largest store against one in the smallest."""
    small, *_, large = sizes_of(results)
    ratio = results.samples.ratio(Cell(MAIN, large, "get, hot", BASE), Cell(MAIN, small, "get, hot", BASE))
    return [(f"{large:,} against {small:,}", ratio)] if ratio and large > small else []


def space(results: Results) -> Measured:
    found = []
    for value in BYTES:
        cells = [cell for cell in results.samples if cell.value == value and cell.operation == "bytes on the disk"]
        for size in sorted({cell.size for cell in cells if cell.library == BASE}):
            base = Cell(value, size, "bytes on the disk", LEAN)
            ratio = results.samples.ratio(base._replace(library=BASE), base)
            if ratio:
                found.append((f"{size:,} of {value}", ratio))
    return found


def memory(results: Results) -> Measured:
    return [
        (f"{cell.size:,} of {cell.value}", Ratio(*(bytes_ / 1e6 for bytes_ in results.samples.spread(cell))))
        for cell in results.samples
        if cell.operation == "private memory, without pages of files" and cell.library == BASE
    ]


def imports(results: Results) -> Measured:
    """Of the package, which loads nothing, and of the class that everybody needs of it."""
    cells = {"persistdict itself": Cell("", 0, "import", BASE), "with PersistDict": Cell("", 0, "import", OUR_CLASS)}
    ratios = {where: results.samples.ratio(cell, cell._replace(library="lmdb")) for where, cell in cells.items()}
    return [(where, ratio) for where, ratio in ratios.items() if ratio]


def opening(results: Results) -> Measured:
    size = max(sizes_of(results))
    cell = Cell(MAIN, size, "open + one get", BASE)
    if cell not in results.samples:
        return []
    return [(f"{size:,} of {MAIN}", Ratio(*(seconds * 1e3 for seconds in results.samples.spread(cell))))]


GOALS = [
    Goal(f"hot get against {LEAN}", 0.4, against("get, hot", LEAN)),
    Goal(f"hot get against {ROCKS}", 0.4, against("get, hot", ROCKS)),
    Goal("hot get, flat with the size", 1.2, flat),
    Goal(f"cold get against {LEAN}", 2.2, against("get, cold", LEAN)),
    Goal(f"cold get, times faster than {DISKCACHE}", 3, against("get, cold", DISKCACHE, faster=True), faster=True),
    Goal(f"contains, hit, against {ROCKS}", 0.6, against("contains, hit", ROCKS)),
    Goal(f"contains, miss, against {ROCKS}", 0.6, against("contains, miss", ROCKS)),
    Goal(f"new key against {ROCKS}", 1.5, against("set, new key", ROCKS)),
    Goal(f"new key, times faster than {DISKCACHE}", 10, against("set, new key", DISKCACHE, faster=True), faster=True),
    Goal(f"overwrite against {ROCKS}", 2, against("set, overwrite", ROCKS)),
    Goal(f"bulk load against {SYNCED}", 1.2, against("bulk load", SYNCED)),
    Goal(f"delete, times faster than {DISKCACHE}", 4, against("delete", DISKCACHE, faster=True), faster=True),
    Goal(f"iterate items against {DISKCACHE}", 0.25, against("iterate items", DISKCACHE)),
    Goal(f"space on the disk against {LEAN}", 0.7, space),
    Goal(f"1 MB, cold get against {USUAL}", 0.8, against("get, cold", USUAL, "1 MB")),
    Goal("private memory after reading", 25, memory, " MB"),
    Goal("import against lmdb", 1.5, imports),
    Goal("open + one get", 10, opening, " ms"),
    Goal("memoize, hit, against lru_cache + bind", 3, against("memoize, hit", "dict")),
]


def table(results: Results) -> str:
    """The goals as Markdown; nothing if no operation was measured."""
    if not sizes_of(results):
        return ""
    lines = ["| goal | limit | where | measured | reached |", "|---|---|---|---|---|"]
    for goal in GOALS:
        limit = f"{'≥' if goal.faster else '≤'} {goal.limit:g}{goal.unit}"
        found = goal.measured(results)
        for where, ratio in found:
            reached = "yes" if goal.is_reached(ratio) else "**no**"
            lines.append(f"| {goal.text} | {limit} | {where} | {ratio}{goal.unit} | {reached} |")
        if not found:
            lines.append(f"| {goal.text} | {limit} | | not measured in this run | |")
    return "\n".join(lines)


def named_databases(results: Results) -> str:
    """What a named database for each key takes, in a sentence."""
    parts = []
    for value in BYTES:
        cells = [cell for cell in results.samples if cell.value == value and cell.library == PER_KEY]
        parts += [f"{results.samples.middle(cell):,.0f} bytes for {value}" for cell in cells]
    return f"With a named LMDB database for every key an entry takes {', '.join(parts)}." if parts else ""
