"""The charts, as SVG that suits a light and a dark page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from benchmark import goals
from benchmark.registry import BASE, LEAN
from benchmark.results import Results
from benchmark.timing import Cell, short

__all__ = ["CHARTS"]

SHOWN = [LEAN, "lmdb, usual", "rocksdict", "diskcache", "sqlitedict", "lmdb-dict-full"]
GROWING = [BASE, LEAN, "rocksdict", "diskcache"]
STYLES = {name: number for number, name in enumerate([BASE, *SHOWN])}  # the same one in all charts
ROWS = [
    "get, hot", "get, cold", "get_many", "contains, hit", "iterate items", "set, new key", "set, overwrite", "delete",
    "bulk load", "mixed", "mixed, 8 threads", "mixed, 4 processes", "open + one get",
]  # fmt: skip
CURVES = ["get, hot", "get, cold", "contains, hit", "set, new key", "delete", "open + one get"]
# The corners of the marks around their middle; a circle has none.
SHAPES: list[list[tuple[float, float]]] = [
    [(-4, -4), (4, -4), (4, 4), (-4, 4)],
    [],
    [(0, -5.5), (5, 4), (-5, 4)],
    [(0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)],
    [(0, 5.5), (5, -4), (-5, -4)],
    [(-5, -3), (-3, -5), (0, -2), (3, -5), (5, -3), (2, 0), (5, 3), (3, 5), (0, 2), (-3, 5), (-5, 3), (-2, 0)],
    [(-5, -2), (5, -2), (5, 2), (-5, 2)],
]
LIGHT = ["#c2410c", "#2563eb", "#0e7490", "#15803d", "#7c3aed", "#be185d", "#6b7280"]
DARK = ["#fb923c", "#60a5fa", "#22d3ee", "#4ade80", "#c4b5fd", "#f472b6", "#9ca3af"]


def style() -> str:
    """Classes c0, c1, ... for marks, and the colours of text and lines, for both kinds of page."""
    rules = [
        "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}.small{font-size:11px;fill:#59636e}"
        ".head{font-weight:600}.grid{stroke:#d1d9e0;stroke-width:1}.one{stroke:#59636e;stroke-width:1.5}"
        ".line{fill:none;stroke-width:2}.whisker{stroke-width:1.5;opacity:.6}"
    ]
    rules += [f".c{n}{{fill:{colour};stroke:{colour}}}" for n, colour in enumerate(LIGHT)]
    dark = "text{fill:#e6edf3}.small{fill:#9198a1}.grid{stroke:#30363d}.one{stroke:#9198a1}"
    dark += "".join(f".c{n}{{fill:{colour};stroke:{colour}}}" for n, colour in enumerate(DARK))
    # The curves come last: they have no area, whichever colour they are.
    return f"<style>{''.join(rules)}@media(prefers-color-scheme:dark){{{dark}}}.line{{fill:none}}</style>"


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [f'{head} role="img">', f"<title>{escape(title)}</title>", style(), *parts, "</svg>"]
    return "\n".join(lines) + "\n"


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def mark(x: float, y: float, number: int) -> str:
    """A shape for each library beside its colour."""
    corners = SHAPES[number]
    if not corners:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" class="c{number}"/>'
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}" class="c{number}"/>'


def legend(names: Sequence[str], x: float, y: float) -> list[str]:
    parts = []
    for name in names:
        parts += [mark(x, y - 4, STYLES[name]), text(x + 10, y, name)]
        x += 28 + 6.6 * len(name)
    return parts


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Places on a logarithmic axis."""
    span = math.log10(high / low)
    return lambda number: start + (end - start) * math.log10(number / low) / span


def decades(low: float, high: float) -> tuple[float, float, list[float]]:
    """Powers of ten around two numbers, and all between."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    return 10.0**first, 10.0**last, [10.0**n for n in range(first, last + 1)]


def operations(results: Results) -> str:
    """How many times as long as persistdict the others take, for each operation of the smallest store."""
    size = min(goals.sizes_of(results), default=0)
    if not size:
        return ""
    found = {}
    for row in ROWS:
        cells = [Cell(goals.MAIN, size, row, name) for name in SHOWN]
        found[row] = [results.samples.ratio(cell, cell._replace(library=BASE)) for cell in cells]
    numbers = [ratio.middle for ratios in found.values() for ratio in ratios if ratio]
    low, high, ticks = decades(min(numbers), max(numbers))
    left, right, top, step = 150.0, 810.0, 74.0, 28.0
    bottom = top + step * len(ROWS)
    at = scale(low, high, left, right)
    parts = [text(8, 20, f"Time as a multiple of persistdict's, {size:,} entries of {goals.MAIN}", "head")]
    parts += legend(SHOWN, left, 44)
    for tick in ticks:
        parts += [
            line(at(tick), top, at(tick), bottom, "grid"),
            text(at(tick), bottom + 18, f"{tick:g}", "small", "middle"),
        ]
    parts += [line(at(1), top - 8, at(1), bottom, "one")]
    parts += [text(at(1) - 8, top - 4, "← faster than persistdict", "small", "end")]
    parts += [text(at(1) + 8, top - 4, "slower →", "small")]
    for number, (row, ratios) in enumerate(found.items()):
        y = top + step * (number + 0.5)
        parts += [line(left, y, right, y, "grid"), text(left - 10, y + 4, row, "", "end")]
        for name, ratio in zip(SHOWN, ratios, strict=True):
            if ratio:
                parts.append(line(at(ratio.low), y, at(ratio.high), y, f"whisker c{STYLES[name]}"))
        named = zip(SHOWN, ratios, strict=True)
        parts += [mark(at(ratio.middle), y, STYLES[name]) for name, ratio in named if ratio]
    return svg(830, int(bottom + 32), "Time of each operation as a multiple of persistdict's", parts)


def growth(results: Results) -> str:
    """Microseconds by number of entries, a small chart for each operation."""
    sizes = goals.sizes_of(results)
    if len(sizes) < 2:
        return ""
    width, height, columns = 270.0, 190.0, 3
    parts = [text(8, 20, f"Microseconds for one operation by number of entries, {goals.MAIN}", "head")]
    parts += legend(GROWING, 16, 44)
    for number, operation in enumerate(CURVES):
        left, top = 50 + width * (number % columns), 84 + (height + 20) * (number // columns)
        parts += _curves(results, operation, sizes, left, top, width - 66, height - 50)
    rows = -(-len(CURVES) // columns)
    return svg(830, int(60 + rows * (height + 20)), "Time of an operation by number of entries", parts)


def _curves(
    results: Results, operation: str, sizes: Sequence[int], left: float, top: float, width: float, height: float
) -> list[str]:
    """One chart with a curve for each library."""
    curves = []
    for name in GROWING:
        cells = [Cell(goals.MAIN, size, operation, name) for size in sizes]
        points = [(cell.size, results.samples.middle(cell) * 1e6) for cell in cells if cell in results.samples]
        curves.append((STYLES[name], points))
    numbers = [number for _, points in curves for _, number in points]
    low, high, ticks = decades(min(numbers), max(numbers))
    across, up = scale(sizes[0], sizes[-1], left + 8, left + width - 8), scale(low, high, top + height, top)
    parts = [text(left, top - 10, operation)]
    for tick in ticks:
        parts += [line(left, up(tick), left + width, up(tick), "grid")]
        parts += [text(left - 6, up(tick) + 4, f"{tick:g}" if tick < 1e4 else short(tick), "small", "end")]
    for size in sizes:
        words = f"{size // 10**6}M" if size >= 10**6 else f"{size // 1000}k"
        parts.append(text(across(size), top + height + 16, words, "small", "middle"))
    for shape, points in curves:
        path = " ".join(f"{across(size):.1f},{up(number):.1f}" for size, number in points)
        parts.append(f'<polyline points="{path}" class="line c{shape}"/>')
        parts += [mark(across(size), up(number), shape) for size, number in points]
    return parts


CHARTS: dict[str, Callable[[Results], str]] = {"operations": operations, "growth": growth}
