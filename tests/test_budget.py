"""How many Python frames and system calls the hot paths cost. Exact: the limits are what was decided.

Run in a child process without beartype, which would add frames of its own.
"""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from drivers.shim import compiler

from persistdict import PersistDict

DRIVERS = Path(__file__).parent / "drivers"

PROGRAM = """
import sys
from persistdict import PersistDict

d = PersistDict(sys.argv[1], background_thread="disabled")
uncached = PersistDict(sys.argv[1], background_thread="disabled", caching=False)
value = {"text": "text", "number": 5, "tree": {"a": [1, 2]}}[sys.argv[2]]
d["key"] = value
d["key"]
fresh = iter(range(1000))
operations = {
    "hit": lambda: d["key"],
    "cold get": lambda: uncached["key"],
    "cold get, admitted": lambda: d["other"],
    "new key": lambda: d.__setitem__(f"new {next(fresh)}", value),
    "overwrite": lambda: d.__setitem__("key", value),
    "delete": lambda: d.__delitem__("other"),
    "contains": lambda: "key" in d,
    "contains, absent": lambda: "nothing" in d,
    "hit, sealed": lambda: sealed["other"],
    "cold get, sealed": lambda: sealed["key"],
    "overwrite, sealed": lambda: sealed.__setitem__("key", value),
}
if sys.argv[3].endswith("sealed"):
    sealed = PersistDict(sys.argv[1] + "s", background_thread="disabled", encryption_key=b"k" * 32)
    sealed["other"] = sealed["key"] = value
    sealed["other"]
    with PersistDict(sys.argv[1] + "s", background_thread="disabled", encryption_key=b"k" * 32) as another:
        another["key"] = value
    sealed["other"]
uncached["other"] = value
uncached["key"]
uncached["one more"] = value
d["key"]
if sys.argv[3] == "hit":
    d["key"]
operation = operations[sys.argv[3]]
frames = []


def count(frame, event, argument):
    if event == "call":
        frames.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)


sys.setprofile(count)
operation()
sys.setprofile(None)
print(*frames[1:])  # the first is the operation's own lambda
"""


@pytest.mark.parametrize("value", ["text", "number", "tree"])
@pytest.mark.parametrize(
    ("operation", "limit"),
    [
        ("hit", 2),
        ("cold get", 4),
        ("cold get, admitted", 4),
        ("new key", 6),
        ("overwrite", 6),
        ("delete", 8),
        ("contains", 2),
        ("contains, absent", 2),
        ("hit, sealed", 4),
        ("cold get, sealed", 9),
        ("overwrite, sealed", 16),
    ],
)
def test_a_hot_path_stays_within_its_frames(tmp_path, value, operation, limit):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "d"), value, operation]
    frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    extra = 1 if value == "tree" and "cold" in operation else 0  # a tree's decoder
    print(operation, value, len(frames), frames)
    assert 0 < len(frames) <= limit + extra, frames


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info < (3, 11), reason="there every instance has a dict"
)
@pytest.mark.parametrize("made", ["opened", "a copy"])
def test_attributes_lie_in_the_objects_themselves(tmp_path, made):
    """Once the dict of an instance was asked for, each attribute costs several times as much."""
    d = PersistDict(tmp_path / "d", background_thread="disabled")
    d["key"] = 1
    used = d if made == "opened" else d | {"other": 2}
    assert (used["key"], len(used), next(iter(used.items())), used.stats().entries) == (
        1,
        len(used),
        ("key", 1),
        len(used),
    )
    objects = [used, used._front, used._codec, used._store]
    objects += [d._store.env.recent, d._store.env.data, d._store.env.gate] if made == "opened" else []
    dicts = [type(each).__name__ for each in objects for held in gc.get_referents(each) if held is vars(each)]
    assert dicts == []
    d.close()


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    """The library that counts system calls."""
    if compiler() is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler, and Linux")
    library = tmp_path_factory.mktemp("calls") / "calls.so"
    command = [compiler(), "-O2", "-w", "-shared", "-fPIC", "-o", library, DRIVERS / "calls.c", "-ldl"]
    subprocess.run(command, check=True)
    return library


READS = ("hit", "cold get", "contains", "contains, absent", "len")
WRITES = ("overwrite", "new key", "delete")


@pytest.mark.parametrize("seal", ["plain", "sealed"])
@pytest.mark.parametrize("company", ["alone", "accompanied"])
def test_no_operation_but_a_shared_or_a_durable_write_asks_the_system(counter, tmp_path, mapped, company, seal):
    """Ten of each: reads ask for nothing, writes of a lone process neither, others for a lock; a durable one syncs."""
    command = [sys.executable, "-m", "drivers.calls", counter, tmp_path / "d", company, seal]
    environment = {**os.environ, "LD_PRELOAD": str(counter)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=DRIVERS.parent)
    calls = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for name in READS:
        assert calls[name] == "", name
    for name in WRITES:
        assert calls[name].replace("64", "") == ("" if company == "alone" else "fcntl 20"), name
    counts = dict(call.split() for call in calls["durable"].split(", "))
    assert (counts["fdatasync"], counts.get("fsync", "0"), counts.get("msync", "0")) == ("10", "0", "0")
    assert sum(map(int, counts.values())) <= (220 if company == "alone" else 300)
