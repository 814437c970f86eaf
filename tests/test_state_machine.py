"""PersistDict against a plain dict, with everything that may happen in between.

Operations go, at random, through a handle with the cache on, one with it off, and one in another process; the clock
steps forward and back; handles are closed and opened; a batch is applied at once. After every step the handle with
the cache must agree with the model on one key, and now and then on everything.

The model is a dict of (value, when it ends by its ttl, when it was used last); it shares no code with what it tests.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from persistdict import ABSENT, DELETE, KEEP, PersistDict
from persistdict.testing import Clock

SHORT_KEYS = ["", "a", "b", "ab", "a\x00", "\ud800", b"", b"a", 0, 1, True, 2.5, -1, None, (), ("a",), ("a", True)]
KEYS = st.sampled_from(SHORT_KEYS) | st.integers(1, 3).map(lambda number: "long key " * 100 + str(number))
VALUES = (
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3)
    | st.sampled_from([(1, (2,)), {"k": {1}}])
    | st.sampled_from([3000, 40_000]).map(lambda size: "x" * size)
)
TTLS = st.sampled_from([None, None, None, 5, 50, 500])
STEPS = int(os.environ.get("PERSISTDICT_STEPS", "2000"))  # for each of the option sets
steps_run = {"total": 0}


class OtherProcess:
    """A process with a handle of its own, told what to do through a pipe."""

    def __init__(self):
        self.child = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "drivers" / "obedient.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, *command):
        pickle.dump(command, self.child.stdin)
        self.child.stdin.flush()
        outcome, result = pickle.load(self.child.stdout)
        if outcome == "raised":
            raise result
        return result

    def close(self):
        self.child.stdin.close()
        assert self.child.wait() == 0
        self.child.stdout.close()


class Model(RuleBasedStateMachine):
    options: dict
    other: OtherProcess

    def __init__(self):
        super().__init__()
        base = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.mkdtemp(prefix="persistdict-model-", dir=base)
        self.clock = Clock()
        self.model: dict = {}
        self.handles: dict = {}
        self.idle = self.options.get("expiration_days", 0) * 86400 or None
        self.ttl = self.options.get("ttl")
        self.open_all()

    def open_all(self):
        common = {"background_thread": "disabled", "clock": self.clock, **self.options}
        self.handles = {
            "cached": PersistDict(f"{self.folder}/d", **common),
            "uncached": PersistDict(f"{self.folder}/d", caching=False, **common),
        }
        self.other("open", f"{self.folder}/d", self.options)

    def close_all(self):
        for handle in self.handles.values():
            handle.close()
        self.other("close", self.clock.now)

    def teardown(self):
        assert self.full_view("cached") == self.expected()
        store = self.handles["cached"]._store
        assert store.check(1 << 30) == ([], None)
        self.close_all()
        shutil.rmtree(self.folder)

    # The model

    def alive(self, key):
        if key not in self.model:
            return False
        _, ends, used = self.model[key]
        now = self.clock.now
        return (ends is None or now < ends) and (self.idle is None or now < used + self.idle)

    def expected(self):
        return [(key, self.model[key][0]) for key in self.model if self.alive(key)]

    def model_set(self, key, value, ttl):
        if key in self.model and not self.alive(key):
            del self.model[key]
        ends = None if ttl is None else self.clock.now + ttl
        used = self.model[key][2] if key in self.model else 0.0
        self.model[key] = (value, ends, max(used, self.clock.now))

    def used(self, key):
        if self.alive(key):
            value, ends, used = self.model[key]
            self.model[key] = (value, ends, max(used, self.clock.now))

    # Whom to ask

    def call(self, who, name, *args, **kwargs):
        steps_run["total"] += 1
        if who == "process":
            return self.other("call", self.clock.now, name, args, kwargs)
        result = getattr(self.handles[who], name)(*args, **kwargs)
        if self.idle is not None:  # so that the others see at once what was read here
            self.handles[who].flush()
        return result

    def full_view(self, who):
        return list(self.call(who, "_iter_items", False)) if who != "process" else self.call(who, "_items_list")

    WHO = st.sampled_from(["cached", "cached", "uncached", "process"])

    @rule(who=WHO, key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, who, key, value, ttl):
        self.call(who, "set", key, value, ttl=ttl)
        self.model_set(key, value, ttl)

    @rule(who=WHO, key=KEYS, ttl=TTLS)
    def touch(self, who, key, ttl):
        assert self.call(who, "touch", key, ttl=ttl) == self.alive(key)
        if self.alive(key):
            self.model_set(key, self.model[key][0], ttl)

    @rule(who=WHO, key=KEYS)
    def touch_with_the_time_to_live_of_the_handle(self, who, key):
        assert self.call(who, "touch", key) == self.alive(key)
        if self.alive(key) and self.ttl is not None:
            self.model_set(key, self.model[key][0], self.ttl)
        self.used(key)

    @rule(who=WHO, key=KEYS)
    def get(self, who, key):
        missing = "missing"
        assert self.call(who, "get", key, missing) == (self.model[key][0] if self.alive(key) else missing)
        self.used(key)

    @rule(who=WHO, key=KEYS)
    def contains(self, who, key):
        assert self.call(who, "__contains__", key) == self.alive(key)

    @rule(who=WHO, key=KEYS)
    def delete(self, who, key):
        if self.alive(key):
            self.call(who, "__delitem__", key)
        else:
            with pytest.raises(KeyError):
                self.call(who, "__delitem__", key)
        self.model.pop(key, None)

    @rule(who=WHO, key=KEYS)
    def pop(self, who, key):
        expected = self.model[key][0] if self.alive(key) else "default"
        assert self.call(who, "pop", key, "default") == expected
        self.model.pop(key, None)

    @rule(who=WHO, key=KEYS, value=VALUES)
    def setdefault(self, who, key, value):
        if self.alive(key):
            assert self.call(who, "setdefault", key, value) == self.model[key][0]
            self.used(key)
        else:
            assert self.call(who, "setdefault", key, value) == value
            self.model_set(key, value, self.ttl)

    @rule(who=WHO, key=KEYS, value=VALUES, ttl=TTLS)
    def add(self, who, key, value, ttl):
        assert self.call(who, "add", key, value, ttl=ttl) is not self.alive(key)
        if not self.alive(key):
            self.model_set(key, value, ttl)

    @rule(who=WHO, key=KEYS, value=VALUES)
    def replace(self, who, key, value):
        version = self.call(who, "replace", key, value)
        assert (version is not None) is self.alive(key)
        if self.alive(key):
            self.model_set(key, value, self.ttl)
            assert self.call(who, "get_versioned", key) == (value, version)

    @rule(reader=WHO, who=WHO, key=KEYS, value=VALUES, other=st.booleans())
    def replace_what_was_read(self, reader, who, key, value, other):
        read, version = self.call(reader, "get_versioned", key, "missing")
        assert read == (self.model[key][0] if self.alive(key) else "missing")
        self.used(key)
        if other:
            self.call("cached", "set", key, "of another", ttl=None)
            self.model_set(key, "of another", None)
        done = self.call(who, "replace", key, value, if_version=version, ttl=50)
        assert (done is None) is other
        if not other:
            self.model_set(key, value, 50)
        elif version is not ABSENT:
            assert self.call(who, "pop", key, "default", if_version=version) == "default"

    @rule(who=WHO, key=KEYS)
    def transform(self, who, key):
        alive = self.alive(key)
        text = repr(self.model[key][0] if alive else ABSENT)
        ends = self.model[key][1] if alive else None
        assert self.call(who, "transform", key, repr) == text
        self.model_set(key, text, ends - self.clock.now if ends is not None else None if alive else self.ttl)

    @rule(who=st.sampled_from(["cached", "uncached"]), key=KEYS, verdict=st.sampled_from([KEEP, DELETE]))
    def keep_or_delete(self, who, key, verdict):
        value = self.model[key][0] if self.alive(key) and verdict is KEEP else ABSENT
        assert self.call(who, "transform", key, lambda _: verdict) == value
        if verdict is DELETE:
            self.model.pop(key, None)

    @rule(who=WHO)
    def popitem(self, who):
        expected = self.expected()
        if expected:
            assert self.call(who, "popitem") == expected[-1]
            del self.model[expected[-1][0]]
        else:
            with pytest.raises(KeyError):
                self.call(who, "popitem")

    @rule(who=WHO, items=st.lists(st.tuples(KEYS, VALUES), max_size=5))
    def update(self, who, items):
        self.call(who, "update", items)
        for key, value in items:
            self.model_set(key, value, self.ttl)

    @rule(who=WHO, keys=st.lists(KEYS, max_size=5))
    def get_many(self, who, keys):
        found = self.call(who, "get_many", keys)
        assert list(found.items()) == [(key, self.model[key][0]) for key in dict.fromkeys(keys) if self.alive(key)]
        for key in keys:
            self.used(key)

    @rule(who=WHO, keys=st.lists(KEYS, max_size=5))
    def delete_many(self, who, keys):
        assert self.call(who, "delete_many", keys) == len({key for key in keys if self.alive(key)})
        for key in keys:
            self.model.pop(key, None)

    @rule(who=WHO)
    def everything(self, who):
        assert self.full_view(who) == self.expected()

    @rule(who=WHO)
    def length(self, who):
        if self.idle is None:
            assert self.call(who, "__len__") == len(self.expected())

    @rule(who=WHO)
    def expire(self, who):
        self.call(who, "expire")
        assert self.call(who, "__len__") == len(self.expected())
        self.model = {key: entry for key, entry in self.model.items() if self.alive(key)}

    @rule(who=WHO)
    def maintain(self, who):
        self.call(who, "maintain")
        assert self.call(who, "__len__") == len(self.expected())
        self.model = {key: entry for key, entry in self.model.items() if self.alive(key)}

    @precondition(lambda self: len(self.model) > 8)
    @rule(who=WHO)
    def clear(self, who):
        self.call(who, "clear")
        self.model = {}

    @rule(seconds=st.sampled_from([0.5, 1, 4, 30, 300, 100_000]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule(seconds=st.sampled_from([0.5, 3]))
    def the_clock_is_set_back(self, seconds):
        self.clock.now -= seconds

    @rule()
    def reopen(self):
        self.close_all()
        self.open_all()

    @initialize(value=VALUES)
    def begin(self, value):
        self.set("cached", "a", value, None)

    @invariant()
    def the_cache_agrees(self):
        if self.handles and "a" in self.model:
            self.get("cached", "a")


OPTION_SETS = {
    "default": {},
    "cropped keys": {"key_size_limit": 2},
    "idle limit": {"expiration_days": 0.002},
    "time to live": {"ttl": 50},
    "both, sealed": {"expiration_days": 0.0005, "ttl": 200, "compression": "zstd", "encryption_key": b"k" * 32},
    "pickle": {"codec": "pickle", "allow_pickle": True},
}


@pytest.mark.parametrize("options", OPTION_SETS.values(), ids=OPTION_SETS.keys())
def test_it_behaves_as_a_dict_whatever_happens(options):
    other = OtherProcess()
    machine = type("Machine", (Model,), {"options": options, "other": other})
    steps_run["total"] = 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(1, STEPS // 45),  # some end before their fiftieth step
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            phases=[Phase.generate] if os.environ.get("PERSISTDICT_NO_SHRINK") else list(Phase),
        ),
    )
    print(f"{steps_run['total']} steps")
    assert steps_run["total"] >= min(STEPS, 2500)
    other.close()
