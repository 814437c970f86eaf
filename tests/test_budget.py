"""How many Python frames the hot paths cost. Exact, so the limits are what was decided and not what was measured.

Run in a child process without beartype, which would add frames of its own.
"""

import subprocess
import sys

import pytest

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
    "contains": lambda: "key" in d,
    "contains, absent": lambda: "nothing" in d,
}
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
        ("contains", 2),
        ("contains, absent", 2),
    ],
)
def test_a_hot_path_stays_within_its_frames(tmp_path, value, operation, limit):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "d"), value, operation]
    frames = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    extra = 1 if value == "tree" and "cold" in operation else 0  # a tree's decoder
    print(operation, value, len(frames), frames)
    assert 0 < len(frames) <= limit + extra, frames
