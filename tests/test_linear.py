"""Every single operation is atomic for all threads of all processes: their results are those of some order.

PERSISTDICT_ROUNDS=10 does ten times as much, a million operations each; PERSISTDICT_SEED repeats what was drawn.
PERSISTDICT_DURABILITY and PERSISTDICT_SYNC_INTERVAL are given to the dictionaries of the drivers.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from drivers.histories import PLANTS, Simulation, planted, sequence, spoiled, try_everything
from drivers.history import DONE, FAILED, KINDS, NUMBER_OF, UNDER_WAY, Recorder, note_deaths, read_history
from drivers.linear_check import check
from drivers.linear_faults import FAULTS
from drivers.running import in_child, rounds, run_driver, seed

needs_fork = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill")
SEED = seed()
MOST = 1_000_000  # operations of one history; more are done one history after another


# The dictionary


@needs_fork
@pytest.mark.parametrize("disturbance", ["", "kill+reopen", "stop+reopen"])
def test_what_threads_of_several_processes_see_is_linearizable(tmp_path, disturbance):
    """Quiet, with processes killed, stopped and continued, and with handles closed and opened again meanwhile."""
    left = rounds(100_000)
    while left > 0:
        folder = tmp_path / f"d{left}"
        mode = [os.environ.get(f"PERSISTDICT_{name}", "") for name in ("DURABILITY", "SYNC_INTERVAL")]
        counts = run_driver("linear", folder, min(left, MOST), 3, 2, disturbance, "", *mode)
        assert counts["first"] == [] and counts["violations"] == 0
        for kind in KINDS[1:]:
            assert counts[kind] > min(left, MOST) // 500
        for name in disturbance.split("+") if disturbance else []:
            assert counts[name + "s"] > 0
        left -= MOST


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory if there is such: faults are sooner seen where writes do not wait for a disk."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
    else:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            yield Path(folder)


@needs_fork
@pytest.mark.parametrize("fault", FAULTS)
def test_the_linearizability_driver_notices_a_planted_fault(quick_path, fault):
    """Weakened validation of cached copies, early acknowledgement and ignored conditions are noticed."""
    for attempt in range(15):
        folder = quick_path / f"d{attempt}"
        counts = run_driver("linear", folder, 10_000 * (1 + attempt), 2, 4, "", fault, quiet=True)
        if counts["violations"]:
            return
    pytest.fail("no violation was noticed")


# The checker


def verdicts(threads, deaths, strict, many):
    """Small histories, right ones and spoiled ones, with what either checker says."""
    draw = random.Random(SEED)
    for number in range(many):
        history = Simulation(draw, threads, deaths, strict).run(draw.randint(3, 7))
        right = number % 3 == 0
        for _ in range(0 if right else draw.randint(1, 2)):
            history = spoiled(draw, history)
        by_checker = not check(history, strict)
        assert by_checker or not right, f"seed {SEED}: a right history was refused: {history}"
        yield by_checker, try_everything(history, strict), history


@pytest.mark.parametrize(
    ("threads", "deaths", "strict"),
    [(2, 0, True), (4, 0, True), (4, 0.15, True), (4, 0.15, False), (3, 0.4, False), (6, 0.2, True)],
)
def test_the_checker_agrees_with_trying_every_order(threads, deaths, strict):
    """On small histories, of which about half can be explained, the search says what the definition says."""
    agreed = {True: 0, False: 0}
    for one, other, history in verdicts(threads, deaths, strict, rounds(300)):
        assert one == other, f"the checker says {one} of {history}"
        agreed[one] += 1
    assert min(agreed.values()) > rounds(300) // 20


@pytest.mark.parametrize("deaths", [0, 0.02])
@pytest.mark.parametrize("fault", PLANTS)
def test_the_checker_catches_a_single_fault_in_a_long_history(fault, deaths):
    """Of hundreds of operations one is changed; without the change the history is accepted."""
    draw = random.Random(SEED)
    caught = 0
    while caught < 20:
        history = Simulation(draw, 5, deaths).run(300)
        assert check(history) == [] and check(history, strict=False) == []
        wrong = planted(draw, history, fault)
        if wrong:
            assert check(wrong), f"seed {SEED}: {wrong}"
            assert check(wrong, strict=False)
            caught += 1


@pytest.mark.parametrize(
    "steps",
    [
        [("set", 2, 0), ("set", 3, 0), ("get", 0, 2)],
        [("set", 2, 0), ("transform", 3, 2), ("transform", 4, 2)],
        [("set", 2, 0), ("delete", 0, 1), ("get", 0, 2)],
        [("set", 2, 0), ("delete", 0, 1), ("delete", 0, 1)],
        [("set", 2, 0), ("pop", 0, 2), ("pop", 0, 2)],
        [("add", 2, 1), ("add", 3, 1)],
        [("set", 2, 0), ("add", 3, 1)],
        [("set", 2, 0), ("delete", 0, 1), ("setdefault", 3, 2)],
        [("set", 2, 0), ("set", 3, 0), ("replace", 2, 1)],
        [("set", 2, 0), ("replace", 2, 0)],
        [("set", 2, 0), ("contains", 0, 0)],
        [("get", 0, 7)],
    ],
)
def test_the_checker_refuses_what_a_dictionary_never_answers(steps):
    """One operation after the other, the last with an impossible answer."""
    history = sequence(*steps)
    assert [violation.operation for violation in check(history)] or not try_everything(history, True)
    assert check(history) and not try_everything(history, True)
    assert check(history[:-1]) == []
    assert history[-1].kind in str(check(history)[0])


def test_what_was_under_way_may_have_happened_or_not_but_not_after_the_death():
    """An operation without an answer explains what is seen until its end, and later only if that is allowed."""
    first, second = sequence(("set", 2, 0), ("get", 0, 2))
    cut = first._replace(outcome=UNDER_WAY)
    assert check([cut, second]) == []
    assert check([cut, second._replace(result=0)]) == []
    read_between = second._replace(result=0, begin=3, end=3)
    late = [cut, read_between, second]
    assert check(late) and check(late, strict=False) == []
    assert check([first._replace(outcome=FAILED), read_between, second], strict=False)
    assert check([cut._replace(end=None), read_between, second]) == []


def test_many_operations_that_never_ended_cost_no_explosion():
    """Hundreds of writes of killed processes, any of which may still happen, are checked in a moment."""
    before = time.perf_counter()
    for strict, many in ((True, 20_000), (False, 1_000)):
        history = Simulation(random.Random(SEED), 6, 0.1, strict).run(many)
        assert sum(operation.outcome == UNDER_WAY for operation in history) > many // 20
        assert check(history, strict) == []
    assert time.perf_counter() - before < 20


def test_the_checker_takes_microseconds_for_each_operation():
    """A hundred thousand operations of six threads on one key."""
    history = Simulation(random.Random(SEED), 6).run(100_000)
    before = time.perf_counter()
    assert check(history) == []
    assert time.perf_counter() - before < 20


# The record


@needs_fork
def test_a_record_survives_the_death_of_its_process(tmp_path):
    """What was answered is there with its answer, and what was under way without."""

    def work():
        recorder = Recorder(str(tmp_path), 3, 1, 10)
        recorder.begin(NUMBER_OF["set"], 4, 1 << 40)
        recorder.end(0)
        recorder.begin(NUMBER_OF["replace"], 5, 7, 6)
        os.kill(os.getpid(), signal.SIGKILL)

    pid, pipe = in_child(work)
    os.waitpid(pid, 0)
    os.close(pipe)
    note_deaths(str(tmp_path), {3: 1 << 62})
    done, cut = read_history(str(tmp_path))
    assert done[:7] == (3, 1, 4, "set", 1 << 40, 0, 0) and done.begin <= done.end and done.outcome == DONE
    assert cut[:7] == (3, 1, 5, "replace", 7, 6, 0) and cut.end == 1 << 62 and cut.outcome == UNDER_WAY
