"""Puts the tables and charts of a run into the documentation; the prose around them stays."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.charts import CHARTS
from benchmark.results import Results
from benchmark.tables import TABLES

__all__ = ["PAGE", "write"]

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
MARK = re.compile(r"(<!-- bench: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(results: Results, page: Path = PAGE) -> None:
    """Replace what stands between the marks of the page, and draw its pictures beside it.

    A part that this run has not measured stays as it is.
    """

    def part(match: re.Match[str]) -> str:
        found = TABLES[match["name"]](results)
        return f"{match[1]}\n{found}\n\n{match[3]}" if found else match[0]

    page.write_text(MARK.sub(part, page.read_text()))
    pictures = page.with_suffix("")
    pictures.mkdir(exist_ok=True)
    for name, draw in CHARTS.items():
        if drawn := draw(results):
            (pictures / f"{name}.svg").write_text(drawn)
