"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmark import codecs, goals, seals, spending
from benchmark.operations import OPERATIONS
from benchmark.probes import COMPACTED
from benchmark.registry import BASE, LEAN, libraries
from benchmark.results import Results
from benchmark.timing import Cell, short
from benchmark.values import BYTES, DESCRIPTIONS

__all__ = ["TABLES", "everything"]

GROUPS = {
    "Reads": ["get, cold", "get, hot", "get_many", "contains, hit", "contains, miss", "len"],
    "Writes": ["set, new key", "set, overwrite", "delete", "bulk load", "1000 sets + sync"],
    "Many": ["iterate keys", "iterate items", "mixed", "mixed, 8 threads", "mixed, 4 processes"],
    "Other": ["memoize, hit", "open + one get"],
}
BY_VALUE = ["get, cold", "get, hot", "set, new key", "set, overwrite", "bulk load", "delete", "iterate items"]
BY_SIZE = [operation.name for operation in OPERATIONS]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def ratio(results: Results, cell: Cell) -> str:
    """How many times as long as persistdict; bold if it is faster; why there is no number."""
    if cell.library == BASE:
        return f"1 = {short(results.samples.middle(cell) * 1e6)} µs" if cell in results.samples else ""
    found = results.samples.ratio(cell, cell._replace(library=BASE))
    if found is None:
        return results.reason(cell)
    return f"**{found}**" if found.high < 1 else str(found)


def grid(results: Results, columns: Sequence[str], cell: Callable[[str, str], Cell]) -> str:
    """A table with a row for each library."""
    rows, without = [], []
    for library in libraries():
        cells = [cell(column, library.name) for column in columns]
        if any(one in results.samples for one in cells):
            rows.append([library.name, *(ratio(results, one) for one in cells)])
        elif reason := results.reason(cells[0]._replace(operation="")):
            without.append(f"{library.name} ({reason})")
    return markdown(["", *columns], rows) + (f"\n\nLeft out: {', '.join(without)}." if without else "")


def about(results: Results) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in results.about.items())


def durability(_: Results) -> str:
    rows = [[one.name, one.package, one.durability] for one in libraries()]
    return markdown(["library", "package", "a power cut may take"], rows)


def operations(results: Results) -> str:
    sizes = goals.sizes_of(results)
    if not sizes:
        return ""
    parts = []
    for title, names in GROUPS.items():
        table = grid(results, names, lambda name, library: Cell(goals.MAIN, sizes[0], name, library))
        parts.append(f"**{title}**, {sizes[0]:,} entries of {goals.MAIN}\n\n{table}")
    return "\n\n".join(parts)


def by_value(results: Results) -> str:
    where = {value: sizes[0] for value in BYTES if (sizes := goals.sizes_of(results, value))}
    if len(where) < 2:
        return ""
    kinds = "\n".join(f"- {value}: {DESCRIPTIONS[value]}; {where[value]:,} entries" for value in where)
    parts = []
    for name in BY_VALUE:

        def cell(value: str, library: str, name: str = name) -> Cell:
            return Cell(value, where[value], name, library)

        parts.append(f"**{name}**\n\n{grid(results, list(where), cell)}")
    return "\n\n".join([kinds, *parts])


def by_size(results: Results) -> str:
    sizes = {f"{size:,}": size for size in goals.sizes_of(results)}
    if len(sizes) < 2:
        return ""
    parts = []
    for name in BY_SIZE:

        def cell(size: str, library: str, name: str = name) -> Cell:
            return Cell(goals.MAIN, sizes[size], name, library)

        counts = {one.name: sum(cell(size, one.name) in results.samples for size in sizes) for one in libraries()}
        several = [one for one, count in counts.items() if count > 1]
        if BASE in several:
            rows = [[one, *(ratio(results, cell(size, one)) for size in sizes)] for one in several]
            parts.append(f"**{name}**\n\n{markdown(['', *sizes], rows)}")
    return "\n\n".join(parts)


def growth(results: Results) -> str:
    """What an operation costs in larger stores, as a multiple of the smallest."""
    small, *larger = goals.sizes_of(results) or [0]
    rows = []
    for operation in OPERATIONS:
        for library in (BASE, LEAN, "rocksdict", "diskcache"):
            base = Cell(goals.MAIN, small, operation.name, library)
            found = [results.samples.ratio(base._replace(size=size), base) for size in larger]
            if any(found):
                rows.append([operation.name, library, *(str(one or "") for one in found)])
    return markdown(["", "", *(f"{size:,} against {small:,}" for size in larger)], rows) if larger else ""


def space(results: Results) -> str:
    cells = [cell for cell in results.samples if cell.operation == "bytes on the disk" and cell.size >= 1000]
    columns = list(dict.fromkeys((cell.value, cell.size) for cell in cells))
    rows = []
    for name in [f"{one.name}{how}" for one in libraries() for how in ("", COMPACTED)]:
        found = [Cell(value, size, "bytes on the disk", name) for value, size in columns]
        if any(cell in results.samples for cell in found):
            row = [f"{results.samples.middle(cell):,.0f}" if cell in results.samples else "" for cell in found]
            rows.append([name, *row])
    table = markdown(["bytes for each entry", *(f"{size:,} of {value}" for value, size in columns)], rows)
    return f"{table}\n\n{goals.named_databases(results)}" if cells else ""


def memory(results: Results) -> str:
    kinds = ("before", "without pages of files", "all")
    rows = []
    for cell in results.samples:
        if cell.operation == "private memory, before":
            found = [results.samples.middle(cell._replace(operation=f"private memory, {kind}")) / 1e6 for kind in kinds]
            rows.append([cell.library, f"{cell.size:,} of {cell.value}", *(f"{number:.1f}" for number in found)])
    head = ["MB", "", "before opening", "afterwards, without pages of files", "with them"]
    return markdown(head, rows) if rows else ""


def imports(results: Results) -> str:
    rows = []
    for cell in results.samples:
        if cell.operation == "import":
            ratio = results.samples.ratio(cell, cell._replace(library="lmdb"))
            rows.append([cell.library, str(ratio), f"{results.samples.middle(cell) * 1e3:.1f}"])
    return markdown(["import", "times lmdb", "milliseconds"], rows) if rows else ""


def fidelity(results: Results) -> str:
    if not results.fidelity:
        return ""
    columns = list(next(iter(results.fidelity.values())))
    return markdown(["", *columns], [[name, *row.values()] for name, row in results.fidelity.items()])


def coding(results: Results) -> str:
    return codecs.table(results.samples, results.sizes) if results.sizes else ""


def sealing(results: Results) -> str:
    return seals.table(results.samples, results.sealed) if results.sealed else ""


TABLES: dict[str, Callable[[Results], str]] = {
    "about": about,
    "goals": goals.table,
    "durability": durability,
    "operations": operations,
    "values": by_value,
    "sizes": by_size,
    "growth": growth,
    "space": space,
    "memory": memory,
    "imports": imports,
    "fidelity": fidelity,
    "codecs": coding,
    "seals": sealing,
    "profile": spending.table,
    "floors": spending.goals,
}


def everything(results: Results) -> str:
    """All tables, for the terminal."""
    return "\n\n".join(f"## {name}\n\n{text}" for name, make in TABLES.items() if (text := make(results)))
