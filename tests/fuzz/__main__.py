"""Run the targets with many inputs, each target in a process of its own, and print a table of what became of them.

    python -m fuzz [-e atheris|simple] [INPUTS [TARGET...]]

With atheris, inputs are chosen by what code they reach; else they are drawn. An input that takes longer than LONGEST
seconds, or memory beyond ROOM, is a failure. PERSISTDICT_SEED repeats what was drawn.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 20  # seconds
ROOM = 1 << 30  # bytes beyond what a process has when it begins
TOLD = 5  # failures of a target that are shown
HERE = Path(__file__).parent.parent


class Run:
    """The inputs of one target, in this process."""

    def __init__(self, name: str, inputs: int, seed: int, path: str) -> None:
        from fuzz.mutate import mutated
        from fuzz.targets import TARGETS, outcome

        self.target, self.inputs = TARGETS[name], inputs
        self._mutated, self._outcome = mutated, outcome
        self.chance = random.Random(f"{name} {seed}")
        self.seeds = self.target.seeds()
        self.outcomes: Counter[str] = Counter()
        self.failures: dict[str, str] = {}
        self.done = 0
        self._last = open(path, "w+b", buffering=0)  # noqa: SIM115 - the input that may be the last one
        self._begun = time.monotonic()
        self._peak = _peak()

    def limit(self) -> None:
        """Bound memory and time; what is beyond is MemoryError, or ends this process."""
        if sys.platform == "win32":
            return
        import resource

        with contextlib.suppress(OSError, ValueError), open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def draw(self) -> bytes:
        """An input."""
        chance, target = self.chance, self.target
        if target.make is not None and chance.random() < 0.5:
            data = target.make(chance)
        else:
            data = self._mutated(chance.choice(self.seeds), chance, self.seeds)
        return target.mend(data) if chance.random() < 0.8 else data

    def one(self, data: bytes) -> None:
        """Give the target an input, and count what became of it."""
        if not self.done % 16 and hasattr(signal, "alarm"):
            signal.alarm(LONGEST)
        self._last.seek(0)
        self._last.write(len(data).to_bytes(4, "little") + data)
        try:
            word = self._outcome(self.target, data)
        except Exception as error:
            line = traceback.extract_tb(error.__traceback__)[-1]
            word = f"FAILED {type(error).__name__} in {line.name}"
            if word not in self.failures and len(self.failures) < TOLD:
                self.failures[word] = f"{data.hex()}\n{traceback.format_exc(limit=-6)}"
        self.outcomes[word] += 1
        self.done += 1

    def report(self) -> None:
        peak = max(0, _peak() - self._peak)
        seconds = round(time.monotonic() - self._begun, 1)
        print(json.dumps({
            "inputs": self.done, "outcomes": self.outcomes, "failures": self.failures, "peak": peak, "seconds": seconds,
        }), flush=True)  # fmt: skip


def _peak() -> int:
    """The most memory that this process had, in KB; 0 where it cannot be told."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_simple(name: str, inputs: int, seed: int, path: str) -> None:
    """Inputs that are drawn."""
    run = Run(name, inputs, seed, path)
    run.limit()
    for data in run.seeds:
        run.one(data)
    while run.done < inputs:
        run.one(run.draw())
    run.report()


def run_atheris(name: str, inputs: int, seed: int, path: str) -> None:
    """Inputs that atheris chooses by the code that they reach; half of them it changes itself."""
    import atheris

    with atheris.instrument_imports(include=["persistdict"], enable_loader_override=False):
        run = Run(name, inputs, seed, path)
    run.limit()

    def one(data: bytes) -> None:
        run.one(data)
        if run.done >= inputs:
            run.report()
            os._exit(0)

    def mutate(data: bytes, longest: int, _: int) -> bytes:
        data = atheris.Mutate(data, longest) if run.chance.random() < 0.5 else run.draw()
        return (run.target.mend(data) if run.chance.random() < 0.8 else data)[:longest]

    with tempfile.TemporaryDirectory() as corpus:
        for number, data in enumerate(run.seeds):
            Path(corpus, str(number)).write_bytes(data)
        options = ["-rss_limit_mb=0", "-max_len=4096", f"-seed={seed % (1 << 31)}", "-verbosity=0", "-timeout=60"]
        atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=mutate)
        atheris.Fuzz()


ENGINES: dict[str, Callable[[str, int, int, str], None]] = {"simple": run_simple, "atheris": run_atheris}


# The table


def run_child(engine: str, name: str, inputs: int, seed: int) -> dict[str, Any]:
    """What a process tells of a target, or how it ended."""
    with tempfile.TemporaryDirectory(prefix="persistdict-fuzz-") as folder:
        last = Path(folder, "last")
        command = [sys.executable, "-m", "fuzz", "--child", name, "-e", engine, str(inputs)]
        environment = {**os.environ, "PERSISTDICT_SEED": str(seed), "FUZZ_LAST": str(last), "TMPDIR": folder}
        done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0 and lines:
            found: dict[str, Any] = json.loads(lines[-1])
            return found
        raw = last.read_bytes() if last.exists() else bytes(4)
        data = raw[4 : 4 + int.from_bytes(raw[:4], "little")]
        text = f"ended with {done.returncode}"
        failure = {text: f"{data.hex()}\n{done.stderr[-3000:]}"}
        return {"inputs": 0, "outcomes": {f"FAILED {text}": 1}, "failures": failure, "peak": 0, "seconds": 0}


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description="Give hostile bytes to every decoder.")
    parser.add_argument("-e", dest="engine", choices=ENGINES)
    parser.add_argument("--child", metavar="TARGET", help=argparse.SUPPRESS)
    parser.add_argument("inputs", nargs="?", type=int, default=100_000)
    parser.add_argument("targets", nargs="*")
    asked = parser.parse_args()
    seed = int(os.environ.get("PERSISTDICT_SEED") or int.from_bytes(os.urandom(4), "little"))
    engine = asked.engine or ("atheris" if importlib.util.find_spec("atheris") else "simple")
    if asked.child:
        warnings.simplefilter("ignore")
        ENGINES[engine](asked.child, asked.inputs, seed, os.environ["FUZZ_LAST"])
        return 0

    from fuzz.targets import TARGETS

    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if engine == "simple" and not asked.engine:
        print("atheris is not installed for this Python: inputs are drawn, whatever code they reach")
    print(
        f"{'target':<14} {'engine':<8} {'inputs':>9} {'seconds':>8} {'peak MB':>8}  what became of them (seed {seed})"
    )
    failed = 0
    for name in asked.targets or TARGETS:
        found = run_child(engine, name, max(1, int(asked.inputs * TARGETS[name].share)), seed)
        words = ", ".join(f"{word} {n:,}" for word, n in sorted(found["outcomes"].items(), key=lambda item: -item[1]))
        times = f"{found['inputs']:>9,} {found['seconds']:>8} {found['peak'] / 1024:>8.0f}"
        print(f"{name:<14} {engine:<8} {times}  {words}", flush=True)
        for word, text in found["failures"].items():
            failed = 1
            print(f"    {word}\n        " + text.strip().replace("\n", "\n        "))
    return failed


if __name__ == "__main__":
    sys.exit(main())
