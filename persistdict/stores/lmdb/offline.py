"""The check of all pages of a data file, by py-lmdb's own verifier (`lmdb.verify`), in a child process.

The verifier reads the file and never gives it to LMDB. The child is there so that nothing that it meets can harm the
caller: neither a signal nor a loop nor the memory that it takes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

from persistdict.errors import NotAStoreError
from persistdict.reports import Fault
from persistdict.stores.lmdb import folder as files
from persistdict.stores.lmdb import registry
from persistdict.stores.lmdb.company import Company
from persistdict.stores.lmdb.engine import TIMEOUT
from persistdict.stores.lmdb.gate import DATA, RECENT, USERS, Gate, Patience
from persistdict.stores.lmdb.recent import recent_folder

__all__ = ["at_rest", "check_pages", "is_leak"]

T = TypeVar("T")

_CHILD = """
import json, sys
from lmdb.verify import VerifyError, verify
try:
    found = verify(sys.argv[1], subdir=False)
except VerifyError as error:
    found = [f"it cannot be verified: {error}"]
print(json.dumps(found))
"""
# What a transaction leaves that puts a large value and then a smaller one under one key, see `Rows._replace`: pages
# that belong to nothing, or to a value that does not need so many.
_LEAK = re.compile(
    r"neither reachable nor in the freeDB|walked (?P<less>\d+) overflow pages, record says (?P<more>\d+)"
    r"|header mp_pages (?P<many>\d+) != OVPAGES\(\d+\)=(?P<few>\d+)"
)


def check_pages(folder: str, timeout: float | None = None) -> list[Fault]:
    """Examine every page of a store and of its recent writes, and tell what is wrong: pages, trees, counters, the list
    of free pages.

    While it runs, about a second for 100 MB, nobody can write to the store; reads go on. Pages that are used for
    nothing ("leak") harm no entry and are only mentioned.

    Args:
        folder: that of the store.
        timeout: seconds after which it is given up, which is a fault too.
    """
    folder = os.path.realpath(folder)

    def work() -> list[Fault]:
        faults = _run(os.path.join(folder, files.DATA), timeout)
        recent = os.path.join(recent_folder(folder), files.DATA)
        return faults + (_run(recent, timeout) if os.path.exists(recent) else [])

    return at_rest(folder, work)


def at_rest(folder: str, work: Callable[[], T]) -> T:
    """Run `work` while nobody writes to the store in this folder; this process opens and closes no other meanwhile."""
    with registry.lock:
        try:
            key = files.identity(folder)
        except NotAStoreError:  # too short to be one, and so nobody has it open
            key = None
        environment = registry.environments.get(key) if key else None
        if environment is None:
            return _alone(folder, work)
        done: T = environment.attempt(environment.data.alone, environment.recent.alone, work)
        return done


def _alone(folder: str, work: Callable[[], T]) -> T:
    """The same for a store that this process has not open. The registry is locked: a file may have one gate only."""
    path = os.path.join(folder, files.GATE)
    if not os.access(path, os.W_OK):
        return work()  # there are no writers, or not where we can keep them out
    gate = Gate(path)
    try:
        for byte in (DATA, RECENT):
            _hold(gate, byte, folder)
        gate.share(USERS)
        Company(folder, gate).meet(TIMEOUT, make=False)
        return work()
    finally:
        gate.close()


def _hold(gate: Gate, byte: int, folder: str) -> None:
    hold, _ = gate.lock(byte)
    patience = Patience(gate, byte, TIMEOUT, folder)
    while True:
        try:
            hold()
            return
        except BlockingIOError:
            patience.pause()


def _run(path: str, timeout: float | None) -> list[Fault]:
    command = [sys.executable, "-I", "-X", "faulthandler", "-c", _CHILD, path]
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return [_fault(f"the check of the pages did not end within {timeout} seconds")]
    if done.returncode < 0:
        return [_fault(f"the check of the pages was ended by {_signal_name(-done.returncode)}")]
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return [_fault(f"the check of the pages failed: {''.join(reason)}")]
    return [_fault(sentence, "leak" if is_leak(sentence) else "page") for sentence in json.loads(done.stdout)]


def is_leak(sentence: str) -> bool:
    """Whether what the verifier says is no more than that pages are used for nothing."""
    found = _LEAK.search(sentence)
    if found is None:
        return False
    more, less = found["more"] or found["many"] or "1", found["less"] or found["few"] or "0"
    return int(more) > int(less)


def _fault(sentence: str, kind: str = "page") -> Fault:
    return Fault(kind, "pages", sentence)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
