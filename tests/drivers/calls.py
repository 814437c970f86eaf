"""What each operation asks of the operating system, counted by calls.c, which must be preloaded.

    LD_PRELOAD=calls.so python -m drivers.calls LIBRARY FOLDER alone|accompanied SEAL

Prints a line for each operation: its name, and the calls of ten of it with their numbers.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable

from persistdict import PersistDict

TIMES = 10
OTHER = """
import sys
from persistdict import PersistDict
with PersistDict(sys.argv[1], {}) as d:
    d["x"] = 1
    print(len(d), flush=True)
    input()
"""
SEALS = {"plain": {}, "sealed": {"compression": "zlib", "encryption_key": b"k" * 32}}


def main() -> None:
    library, folder, company, seal = sys.argv[1:]
    options = {"background_thread": "disabled", **SEALS[seal]}
    d = PersistDict(folder, **options)
    d.update({f"key {number}": "v" * 420 for number in range(2000)})
    uncached = PersistDict(folder, caching=False, **options)
    durable = PersistDict(folder, durability="commit", **options)
    numbers = iter(range(10**6))
    operations: dict[str, Callable[[], object]] = {
        "hit": lambda: d["key 1"],
        "cold get": lambda: uncached["key 2"],
        "contains": lambda: "key 3" in d,
        "contains, absent": lambda: "nothing" in d,
        "len": lambda: len(d),
        "overwrite": lambda: d.__setitem__("key 1", "w" * 420),
        "new key": lambda: d.__setitem__(f"new {next(numbers)}", "w" * 420),
        "delete": lambda: d.__delitem__(f"key {next(numbers) + 500}"),
        "durable": lambda: durable.__setitem__("key 1", "w" * 420),
    }
    other = None
    if company == "accompanied":
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        program = OTHER.format(", ".join(f"{name}={value!r}" for name, value in options.items()))
        other = subprocess.Popen(
            [sys.executable, "-c", program, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert other.stdout is not None
        other.stdout.readline()
    counter = ctypes.CDLL(library)
    text = ctypes.create_string_buffer(1 << 12)
    for name, operation in operations.items():
        for _ in range(3):
            operation()
        counter.calls_reset()
        for _ in range(TIMES):
            operation()
        counter.calls_report(text, len(text))
        print(f"{name}: {', '.join(text.value.decode().splitlines())}")
    if other is not None:
        other.communicate(b"\n")


if __name__ == "__main__":
    main()
