"""What child processes of the benchmark do: `python -m benchmark.worker mixed|repeat ...`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmark import mixing, profiling, repeating
from benchmark.registry import library


def main(task: str, name: str, path: str, *rest: str) -> None:
    """Run one task on the store of one library."""
    if task == "mixed":
        label, size, seconds, seed = rest
        mixing.work(library(name), Path(path), label, int(size), float(seconds), int(seed))
    elif task == "repeat":
        repeating.repeat(profiling.repeated(name), Path(path), *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
