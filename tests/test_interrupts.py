"""Ctrl-C at any moment: an operation has happened or has not, everything else goes on, and the Ctrl-C comes out."""

import sys

import pytest
from drivers.interruptions import OPERATIONS
from drivers.running import rounds, run_driver

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and fork")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_interrupted_at_any_moment_it_has_happened_or_not(tmp_path, operation):
    """Nothing is left held, running or half done, and no descriptor is closed twice; see drivers/interrupts.py."""
    counts = run_driver("interrupts", tmp_path / "d", operation, rounds(30))
    assert counts["failures"] == []
    assert int(counts[operation].split("/")[0]) >= min(29, int(counts[operation].split("/")[1].split()[0]))
