"""Fork, and processes that get a handle as an argument. The programs are in tests/drivers."""

import sys

import pytest
from drivers.fork_cases import CASES
from drivers.running import rounds, run_driver

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


@pytest.mark.parametrize("case", [case.__name__ for case in CASES])
def test_a_child_works_and_its_parent_does_not_notice(tmp_path, case):
    """Each case is a function of drivers/fork_cases.py, and says what it proves."""
    run_driver("fork_cases", tmp_path / "d", case, quiet=True)


@pytest.mark.parametrize("mode", ["steady", "opening", "twins"])
def test_forks_at_random_moments_while_threads_are_inside_everything(tmp_path, mode):
    """Every child reads, writes, iterates and opens; none hangs, none is wrong, and the parent goes on."""
    many = rounds(200 if mode == "steady" else 80)
    counts = run_driver("fork_storm", tmp_path / "d", many, mode)
    assert counts["children that were right"] == many


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_a_handle_is_an_argument_of_a_process(tmp_path, method):
    """multiprocessing.Process and Pool, and concurrent.futures.ProcessPoolExecutor."""
    counts = run_driver("pools", tmp_path / "d", method)
    assert counts["tasks"] == 45
