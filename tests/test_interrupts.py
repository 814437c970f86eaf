"""Ctrl-C at any moment: an operation has happened or has not, everything else goes on, and the Ctrl-C comes out."""

import sys

import pytest
from drivers.interruptions import OPERATIONS
from drivers.running import rounds, run_driver

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and fork")


def interrupted(tmp_path, how, *arguments):
    counts = run_driver("interrupts", tmp_path / "d", how, *arguments)
    assert counts.pop("failures") == []
    counts.pop("seed")
    return {name: int(told.split(" ")[0]) for name, told in counts.items()}


def test_interrupted_at_any_moment_each_operation_has_happened_or_not(tmp_path):
    """Nothing is left held, running or half done, and no descriptor is closed twice; see drivers/interrupts.py."""
    assert min(interrupted(tmp_path, "step", rounds(5)).values()) > 2


def test_interrupted_by_a_timer_they_have_happened_or_not(tmp_path):
    """Also within C: in a system call, in a wait, in the collector."""
    assert sum(interrupted(tmp_path, "timer", rounds(5)).values()) > 2 * len(OPERATIONS)


def test_interrupted_at_every_moment_what_is_short_has_happened_or_not(tmp_path):
    """Nothing is closed twice where a folder is removed, no thread stays of a copy, no interrupt of a file of pages."""
    assert min(interrupted(tmp_path, "step", "remove", "pages", "copy", "set", 0).values()) > 40


def test_interrupted_anywhere_who_makes_a_value_lets_others_make_it(tmp_path):
    assert min(interrupted(tmp_path, "step", "get or create", rounds(150)).values()) > 100
