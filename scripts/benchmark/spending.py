"""What was counted of the operations, as Markdown."""

from __future__ import annotations

from benchmark.goals import GOALS, Goal
from benchmark.instructions import GROUPS, by_group
from benchmark.profiling import SPENT, SYSTEM
from benchmark.registry import BASE, LEAN
from benchmark.repeating import NAMES
from benchmark.results import Results

__all__ = ["goals", "table"]

Counts = dict[str, float]
SAME = 0.1  # persistdict without its cache is left out where it differs less
CHECKED, VALID = "floor: lmdb + checksum", "floor: dict + number"
# What a goal compares, and the floor that does the same.
COMPARED = {
    "hot get against lmdb, lean": ("get, hot", LEAN, VALID),
    "cold get against lmdb, lean": ("get, cold", LEAN, CHECKED),
    "cold get, times faster than diskcache": ("get, cold", "diskcache", CHECKED),
    "new key against rocksdict": ("set, new key", "rocksdict", CHECKED),
    "new key, times faster than diskcache": ("set, new key", "diskcache", CHECKED),
    "overwrite against rocksdict": ("set, overwrite", "rocksdict", CHECKED),
    "bulk load against lmdb, lean, sync": ("bulk load", LEAN, CHECKED),
    "iterate items against diskcache": ("iterate items", "diskcache", CHECKED),
    "1 MB, cold get against lmdb, usual": ("get, cold, 1 MB", "lmdb, usual", CHECKED),
}


def goals(results: Results) -> str:
    """For the goals that compare operations, what the instructions say instead of the time."""
    found = {goal.text: goal for goal in GOALS}
    rows = [_reached(results, found[text], *compared) for text, compared in COMPARED.items()]
    head = ["goal", "limit of the time", "instructions", "of the floor", "ours", "floor", "the other"]
    return _markdown([head, *(row for row in rows if row)])


def _reached(results: Results, goal: Goal, operation: str, other: str, floor: str) -> list[str]:
    counts = results.profile.get(operation, {})
    ours, least, theirs = (sum(_spent(counts.get(name, {})).values()) for name in (BASE, floor, other))
    if not (ours and least and theirs):
        return []
    ratios = [theirs / one if goal.faster else one / theirs for one in (ours, least)]
    numbers = [f"{one:,.0f}" for one in (ours, least, theirs)]
    limit = f"{'≥' if goal.faster else '≤'} {goal.limit:g}{goal.unit}"
    return [goal.text, limit, *(f"{ratio:.2f}" for ratio in ratios), *numbers]


def table(results: Results) -> str:
    """For each operation, what one takes of each library."""
    lines = [["operation", "library", "calls", "instructions", "times lean", *GROUPS, "rest", "system calls"]]
    for operation in NAMES:
        rows = results.profile.get(operation, {})
        lean = sum(_spent(rows.get(LEAN, {})).values())
        lines += [[operation, name, *_row(counts, lean)] for name, counts in rows.items() if _tells(name, rows)]
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    """Nothing if there is nothing below the head."""
    head, *rows = lines
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)) if rows else ""


def _tells(name: str, rows: dict[str, Counts]) -> bool:
    """Whether a row says what others do not. A plain dict is there for want of a floor."""
    if name == "dict":
        return not any(one.startswith("floor") for one in rows)
    ours, without = (sum(_spent(rows.get(one, {})).values()) for one in (BASE, name))
    return not name.startswith(f"{BASE}, ") or abs(without - ours) > SAME * ours


def _spent(counts: Counts) -> Counts:
    return by_group({kind.removeprefix(SPENT): number for kind, number in counts.items() if kind.startswith(SPENT)})


def _row(counts: Counts, lean: float) -> list[str]:
    system = {kind.removeprefix(SYSTEM): number for kind, number in counts.items() if kind.startswith(SYSTEM)}
    often = sorted(((number, name) for name, number in system.items() if number >= 0.05), reverse=True)
    calls = [f"{counts[kind]:,.0f}" for kind in ("Python calls", "C calls") if kind in counts]
    spent = _spent(counts)
    total = sum(spent.values())
    rest = {name: number for name, number in spent.items() if name not in GROUPS}
    by_size = sorted(rest.items(), key=lambda one: -one[1])
    large = [f"{name} {number:,.0f}" for name, number in by_size[:2] if number > sum(rest.values()) / 10]
    shown = [f"{total:,.0f}", *(f"{max(0.0, spent.get(group, 0)):,.0f}" for group in GROUPS)]
    shown.append(f"{sum(rest.values()):,.0f}" + (f" ({', '.join(large)})" if sum(rest.values()) > total / 5 else ""))
    shown.insert(1, f"{total / lean:.2f}" if lean else "")
    kernel = ", ".join(f"{number:,.1f} {name}" for number, name in often[:4])
    return [" + ".join(calls), *(shown if total else [""] * len(shown)), kernel]
