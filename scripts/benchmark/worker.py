"""What child processes of the benchmark do: `python -m benchmark.worker mixed|repeat ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark import mixing, profiling
from benchmark.registry import library


def main(task: str, name: str, path: str, label: str, size: str, *rest: str) -> None:
    """Run one task on the store of one library."""
    one, place = library(name), Path(path)
    if task == "mixed":
        mixing.work(one, place, label, int(size), float(rest[0]), int(rest[1]))
    elif task == "repeat":
        profiling.repeat(one, place, label, int(size), *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
