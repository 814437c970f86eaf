"""Instructions by the shared object they were spent in, as callgrind counts them.

callgrind runs a program on a processor of its own and counts each instruction outside of the kernel, so the numbers are
exact and nearly the same each time. They are not time: a miss of the caches, or a system call, is no instruction. That
processor has AVX2 and carry-less multiplication, but not AVX-512: what looks for that takes another way.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["GROUPS", "MARK", "by_group", "by_object", "parts"]

MARK = "getpgrp"  # the name of a function of C, and of a system call, that nobody else uses
MAIN = "01"  # the first thread
VALGRIND = ("valgrind", "--tool=callgrind", "--separate-threads=yes", "--dump-line=no", f"--dump-before={MARK}")
GROUPS = {
    "interpreter": ("libpython", "python3", "python"),
    "lmdb": ("lmdb/",),
    "checksum": ("libz.", "zlib.", "isal", "igzip"),
}


def parts(command: Sequence[str], environment: dict[str, str] | None = None) -> tuple[str, list[list[Counter[str]]]]:
    """Run a program; returns what it printed, and what was spent between its marks.

    For each part there are the instructions of the first thread by object, and those of all threads. The first part is
    what comes before the first mark; what comes after the last one is left out.

    Raises:
        subprocess.CalledProcessError: the program failed, or valgrind could not run it.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        watched = [*VALGRIND, f"--callgrind-out-file={out}", *command]
        child = subprocess.run(watched, env=environment, capture_output=True, text=True, check=True)
        found: list[list[Counter[str]]] = []
        while dumps := sorted(Path(folder).glob(f"out.{len(found) + 1}-*")):
            threads = {dump.name.rpartition("-")[2]: by_object(dump.read_text().splitlines()) for dump in dumps}
            found.append([threads[MAIN], sum(threads.values(), Counter())])
    return child.stdout, found


def by_object(lines: Iterable[str]) -> Counter[str]:
    """The instructions that a dump has for each object, of which none is counted for who called it.

    In a dump `ob=(1) path` names the object that the next lines are about, and `ob=(1)` is the same one again; `cob=`
    names the one of a function that is called. A line that begins with a position has a cost in its second column. One
    that follows on `calls=` is the cost of the function that was called, which has lines of its own.
    """
    names: dict[str, str] = {}
    found = Counter[str]()
    here, called, summary = "", False, 0
    for line in lines:
        what, _, rest = line.rstrip().partition("=")
        if what in ("ob", "cob"):
            number, _, name = rest.partition(" ")
            names[number] = name or names[number]
            here = names[number] if what == "ob" else here
        elif line.startswith("summary:"):
            summary = int(line.split()[1])
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not called:
                found[here] += int(line.split()[1])
            called = False
        called = called or what == "calls"
    if summary != found.total():
        raise ValueError(f"a dump of callgrind has {found.total()} instructions instead of {summary}")
    return Counter({"/".join(Path(name).parts[-2:]): count for name, count in found.items()})


def by_group(counts: Mapping[str, float]) -> dict[str, float]:
    """By groups, and what is in none of them by object."""
    found: dict[str, float] = defaultdict(float)
    for name, count in counts.items():
        folder, _, file = name.rpartition("/")
        places = (f"{folder}/", file)
        groups = (group for group, starts in GROUPS.items() if any(place.startswith(starts) for place in places))
        found[next(groups, file.partition(".")[0])] += count
    return found
