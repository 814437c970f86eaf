"""What the drivers share: starting them, and waiting with a watchdog that shows where everybody stands.

A driver is a program of its own, so that it can be killed, forked and run without beartype. It prints one line of JSON,
its counts, as the last thing; whatever else comes out of it, on either stream, is a failure.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import json
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any, NoReturn

WATCHDOG = float(
    os.environ.get("PERSISTDICT_WATCHDOG", "30")
)  # seconds after which a process that should answer at once is taken for stuck


def rounds(normal: int, name: str = "PERSISTDICT_ROUNDS") -> int:
    """How often to do what is done `normal` times in CI; PERSISTDICT_ROUNDS=10 makes it ten times as often."""
    return max(1, int(normal * float(os.environ.get(name, "1"))))


def seed() -> int:
    """What random moments and operations are drawn from; printed with the counts, set by PERSISTDICT_SEED."""
    return int(os.environ.get("PERSISTDICT_SEED") or int.from_bytes(os.urandom(4), "little"))


# For tests


def start_driver(name: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a driver with all that it may write on pipes."""
    # Fork with threads around is what is tested; Python 3.12 and later warn of it.
    flags = ["-X", "faulthandler", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    return subprocess.Popen(
        [sys.executable, *flags, "-m", f"drivers.{name}", *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PERSISTDICT_SEED": str(seed())},
        **options,
    )


def run_driver(name: str, *arguments: object, timeout: float = 240, quiet: bool = False) -> dict[str, Any]:
    """Run a driver to its end and return its counts; fails with its stacks if it does not end."""
    driver = start_driver(name, *arguments)
    try:
        out, errors = driver.communicate(timeout=timeout * max(1.0, float(os.environ.get("PERSISTDICT_ROUNDS", "1"))))
    except subprocess.TimeoutExpired:
        os.killpg(driver.pid, signal.SIGABRT)  # every process of the driver shows its stacks
        out, errors = driver.communicate()
        raise AssertionError(f"{name} {arguments} hung:\n{out}\n{errors}") from None
    finally:
        kill_group(driver.pid)
    assert driver.returncode == 0, f"{name} {arguments} ended with {driver.returncode}:\n{out}\n{errors}"
    assert not errors, f"{name} {arguments} wrote to stderr:\n{errors}"
    counts: dict[str, Any] = json.loads(out.splitlines()[-1])
    if not quiet:
        print(f"\n{name} {' '.join(map(str, arguments[1:]))}: {counts}")
    return counts


def kill_group(leader: int) -> None:
    """End what a driver may have left running; its group is its own."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass


# For drivers


def preload() -> None:
    """Import what the first opening would import, so that forked processes are at work at once."""
    import lmdb_dict.mapping.abc  # noqa: F401

    import persistdict.lru
    import persistdict.stores.lmdb
    import persistdict.stores.memory  # noqa: F401


def hush() -> None:
    """Let the dictionaries log nothing, where what fails is part of the plan."""
    logging.getLogger("persistdict").setLevel(logging.CRITICAL + 1)
    with contextlib.suppress(ImportError):
        from loguru import logger

        logger.disable("persistdict")


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent is gone. Linux only."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def in_child(work: Callable[[], object]) -> tuple[int, int]:
    """Fork, run `work` in the child, and have it send what that returns as JSON. Returns pid and pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    status = 1
    try:
        os.close(reading)
        answer = json.dumps({"answer": work()})
        status = 0
    except BaseException:
        answer = json.dumps({"error": traceback.format_exc()})
    finally:
        try:
            data = answer.encode()
            while data:
                data = data[os.write(writing, data) :]
        finally:
            os._exit(status)


def answer_of(pid: int, reading: int, what: str = "a child") -> Any:
    """Wait for a child of `in_child`, at most as long as the watchdog; returns what its work returned."""
    data = b""
    while True:
        if not select.select([reading], [], [], WATCHDOG)[0]:
            abort([pid], f"{what} is stuck")
        part = os.read(reading, 1 << 16)
        if not part:
            break
        data += part
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    answer = json.loads(data) if data else {"error": "it sent nothing"}
    if status or "error" in answer:
        raise AssertionError(f"{what} ended with status {status}: {answer.get('error')}")
    return answer["answer"]


def ask_child(work: Callable[[], object], what: str = "a child") -> Any:
    """Run `work` in a forked child and return what it returns."""
    return answer_of(*in_child(work), what)


def outcome_of(work: Callable[[], object], error_type: type[Exception]) -> str:
    """How a child that does this ends: done, the name of an error of this type, or of the signal that killed it."""

    def attempt() -> str:
        faulthandler.disable()
        try:
            work()
        except error_type as error:
            return type(error).__name__
        return "done"

    pid, reading = in_child(attempt)
    try:
        return str(answer_of(pid, reading, "a child that may be killed"))
    except AssertionError as error:
        status = re.search(r"ended with status (\d+)", str(error))
        if status and os.WIFSIGNALED(int(status[1])):
            return signal.Signals(os.WTERMSIG(int(status[1]))).name
        raise


def abort(pids: list[int], message: str) -> NoReturn:
    """Have processes show their stacks and die (-X faulthandler), then fail."""
    for pid in pids:
        os.kill(pid, signal.SIGABRT)
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)
    raise AssertionError(message)


def finish(counts: dict[str, Any]) -> NoReturn:
    """Print the counts and end as a program ends."""
    print(json.dumps(counts))
    sys.exit(0)


def faults_of(dictionary: Any) -> list[str]:
    """What is wrong with a store: the integrity pass, and behind its back every invariant that rows.py states."""
    from persistdict.stores.lmdb.pieces import piece_key, pieces_of
    from persistdict.stores.lmdb.record import LARGE, PIECES, large_size, parse_index, parse_record
    from persistdict.stores.lmdb.rows import DEADLINE
    from persistdict.tasks import check_all

    store = dictionary._store
    store.sync()
    faults = check_all(store)
    txn = store.begin_data()
    index = {}  # seq -> deadline
    for _, raw in txn.cursor(store.k):
        for seq, deadline in parse_index(bytes(raw)):
            if seq in index:
                faults.append("a seq is in the index twice")
            index[seq] = deadline
    records = {bytes(seq): parse_record(bytes(raw)) for seq, raw in txn.cursor(store.e)}
    if index.keys() != records.keys():
        faults.append(f"index and entries differ in {len(index.keys() ^ records.keys())} seqs")
    if len({record.kb for record in records.values()}) != len(records):
        faults.append("a key is there twice")
    whole = {seq for seq, record in records.items() if record.flags & (LARGE | PIECES) == LARGE}
    divided = {seq: large_size(record.body) for seq, record in records.items() if record.flags & PIECES}
    pieces = {piece_key(seq, number) for seq, size in divided.items() for number in range(pieces_of(size))}
    if whole != set(_keys(txn, store.v)) or pieces != set(_keys(txn, store.p)):
        faults.append("large values without an entry, or the other way round")
    deadlines = {(DEADLINE.unpack(at)[0], bytes(seq)) for at, seq in txn.cursor(store.x)}
    if deadlines != {(record.deadline, seq) for seq, record in records.items() if record.deadline}:
        faults.append("the list of deadlines does not fit the entries")
    if any(index.get(seq) != record.deadline for seq, record in records.items()):
        faults.append("a deadline in the index is not that of its record")
    if not set(_keys(txn, store.a)) <= records.keys():
        faults.append("access times of entries that are gone")
    del txn
    return faults


def left_over(folder: str) -> list[str]:
    """Files in the folder of a store that should not be there."""
    names = {name for name in os.listdir(folder) if not name.startswith("recent-")}
    return sorted(names - {"data.mdb", "lock.mdb", "gate.lock", "flags.map"})


def _keys(txn: Any, db: Any) -> list[bytes]:
    return [bytes(key) for key in txn.cursor(db).iternext(keys=True, values=False)]


def verified(folder: str) -> list[str]:
    """What LMDB's offline verifier says of the file. Nobody may have the store open."""
    from lmdb.verify import verify

    gc.collect()
    return list(verify(folder))


def verify_copies(store: str, scratch: str) -> None:
    """Let the verifier look at copies of the files of a store that nobody writes; not at those of one boot only.

    A damaged file may kill the verifier: call it in a child. Raises AssertionError with what it found.
    """
    for path in glob(os.path.join(store, "**", "data.mdb"), recursive=True):
        name = os.path.relpath(path, store)
        if not name.startswith("recent-"):
            with tempfile.TemporaryDirectory(dir=scratch) as copy:
                shutil.copy(path, copy)
                faults = verified(copy)
                assert not faults, f"{name}: {faults[:3]}"
