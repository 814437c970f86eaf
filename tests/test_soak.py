"""Bounded stores under load, and the space that they take; in short. The long forms are in scripts/soak.

PERSISTDICT_SOAK sets the seconds of the soak; PERSISTDICT_SEED repeats what was drawn.
"""

import os
import random
import sys

import pytest
from drivers.running import ask_child, run_driver
from drivers.soak_faults import FAULTS

from persistdict import PersistDict

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")


@pytest.mark.parametrize("shape", ["steady", "phases"])
def test_four_processes_that_write_ten_times_the_bound_stay_within_it_and_lose_nothing(tmp_path, shape):
    """Nothing that is over is read, nothing fresh is lost, no file, thread or descriptor is left over."""
    seconds = float(os.environ.get("PERSISTDICT_SOAK", "8"))
    counts = run_driver("soak", tmp_path / "d", seconds, 2000, 7, shape, timeout=60 + 6 * seconds)
    assert counts["failures"] == []
    assert counts["times the bound written"] >= 10
    assert counts["evicted"] > 2000 and counts["found"] > 2000
    assert counts["gone by eviction"] > 0 and counts["absent"] > 0


@pytest.mark.parametrize("fault", FAULTS)
def test_the_soak_notices_a_planted_fault(tmp_path, fault):
    """Each is told by its own words, among others that follow from it."""
    for attempt in range(3):
        counts = run_driver("soak", tmp_path / f"d{attempt}", 2.5 * (1 + attempt), 1500, 5, "steady", fault, quiet=True)
        if any(FAULTS[fault] in failure for failure in counts["failures"]):
            return
    pytest.fail(f"it was not noticed: {counts['failures']}")


def test_space_that_is_freed_is_used_again(tmp_path):
    """What is overwritten ten times takes less than twice the space of what is there."""
    counts = run_driver("churn", tmp_path / "d", 40)
    assert counts["failures"] == []
    assert counts["ratio"] < 2
    assert counts["disk"] - counts["data"] < 20 << 20  # the recent writes


def test_the_file_of_a_full_store_stops_growing(tmp_path):
    """Values of all sizes take the room of others: also the long ones, though nowhere is much room in one piece."""
    bound, draw = 12 << 20, random.Random(1)
    pattern = draw.randbytes(1 << 20)
    sizes: list[tuple[int, int]] = []  # keys and sizes of what is there
    live, files = 0, [0]
    with PersistDict(tmp_path / "d", background_thread="disabled", caching=False) as d:
        for turn in range(1, 11):
            written = 0
            while written < bound:
                size = draw.randint(*((500_000, 1_000_000) if draw.random() < 0.02 else (2000, 60_000)))
                while live + size > bound:
                    at = draw.randrange(len(sizes))
                    sizes[at], sizes[-1] = sizes[-1], sizes[at]
                    key, less = sizes.pop()
                    del d[key]
                    live -= less
                key = turn << 32 | written
                d[key] = pattern[:size]
                sizes.append((key, size))
                if (written + size) >> 20 > written >> 20:
                    d.flush()
                live, written = live + size, written + size
            files.append(os.stat(tmp_path / "d" / "data.mdb").st_size)
    assert files[10] < 1.1 * files[3]
    assert files[10] < 1.6 * bound


def test_the_churn_notices_space_that_cannot_be_used_again(tmp_path):
    """A reader keeps all pages from being used again."""
    counts = run_driver("churn", tmp_path / "d", 20, 3, "old snapshot kept", quiet=True)
    assert counts["ratio"] > 2


def test_the_latency_driver_measures_in_both_processes_and_after_opening(tmp_path):
    """Its numbers are for people; that it runs, and what it measures, is tested."""
    counts = run_driver("latency", tmp_path / "d", 8000, 1500, 2, 0.05, quiet=True)
    assert len(counts["upkeep"]) == 8
    for numbers in counts["upkeep"].values():
        assert numbers["rounds"] >= 1 and 0 < numbers["median idle"] <= numbers["99.9 % idle"] <= numbers["worst idle"]
    for stores in counts["openings"].values():
        assert (
            stores["empty"].keys() == stores["full"].keys() == {"open", "first get", "first set", "slowest get after"}
        )


def test_a_handle_that_has_not_looked_for_long_does_not_go_far_beyond_the_bound(tmp_path):
    """It saw that all was empty; then another process has filled the store."""

    def fill():
        with PersistDict(tmp_path / "d", max_entries=1000, background_thread="disabled") as d:
            for number in range(1500):
                d[number] = number

    with PersistDict(tmp_path / "d", max_entries=1000, background_thread="disabled") as d:
        d["first"] = 1
        ask_child(fill)
        for number in range(300):
            d[f"late {number}"] = number
            assert number % 20 or len(d) <= 1050
