"""Logs, warnings and errors show neither keys nor values; drivers/canary.py does the looking."""

import contextlib
import subprocess
import traceback

import pytest
from drivers.canary import STATES
from drivers.running import run_driver

from persistdict import DecodeError, MaintenanceError, PersistDict, Report
from persistdict.errors import PersistDictError, WithheldError, told, withheld
from persistdict.maintenance import keeper_of

# What must have come up for the state to be what it is meant to be.
MET = {
    "adapted": {"ValueTypeError", "DecodeError"},
    "sound": {"ValueTypeError", "KeyTypeError", "DecodeError", "ConflictError", "TransactionError", "LeaseLostError"},
    "background": {"MaintenanceError"},
    "damaged": {"CorruptEntryError"},
    "torn": {"DecodeError"},
    "undecodable": {"DecodeError", "MismatchError"},
    "read_only": {"ReadOnlyError", "ImmutableError"},
    "closed": {"ClosedError"},
    "bounded": {"FullError"},
    "full": {"DiskFullError"},
    "sealed": {"TamperedError", "WrongKeyError", "DecodeError"},
}


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a small file system, which is taken away at the end."""
    with contextlib.ExitStack() as stack:

        def mount():
            disk = tmp_path / "disk"
            disk.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "none", str(disk)]
            if subprocess.run(command, check=False, capture_output=True).returncode:
                pytest.skip("cannot mount a file system here")
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=True)
            return disk

        yield mount


@pytest.mark.parametrize(
    ("state", "sink"), [*((state.__name__, "loguru") for state in STATES), ("sound", "logging"), ("damaged", "logging")]
)
def test_nothing_that_is_said_shows_a_key_or_a_value(state, sink, tmp_path, small_disk):
    """Whatever is done, by every public method, to a dictionary in this state; in no text, argument or cause."""
    found = run_driver("canary", small_disk() if state == "full" else tmp_path, state, sink, quiet=True)
    assert not found["hits"], "\n\n".join(found["first"])
    assert found["calls"] > 1000
    assert MET[state] <= found["met"].keys(), found["met"]


def test_every_state_is_looked_at():
    assert {state.__name__ for state in STATES} == MET.keys()


class Point:
    pass


def test_the_cause_of_an_error_says_where_it_came_from_and_not_what_it_was_about(tmp_path):
    """The caller's own function is in the traceback; the error itself is there for who asks for it."""

    def decode(parts):
        raise LookupError(parts)

    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d.codec.register(Point, lambda point: "secret", decode)
        d["k"] = Point()
        with pytest.raises(DecodeError) as caught:
            d["k"]
    shown = "".join(traceback.format_exception(caught.value))
    assert "secret" not in shown
    assert "in decode" in shown
    assert "LookupError" in shown
    cause = caught.value.__cause__
    assert isinstance(cause, WithheldError)
    assert isinstance(cause.__context__, LookupError)


def test_a_report_does_not_show_where_it_can_go_on():
    """There is a key in that, which is for `verify(resume=)`."""
    report = Report(checked=1, position=b"ksecret")
    assert "secret" not in f"{report} {report!r}"


def test_errors_of_ours_are_shown_as_they_are():
    error = DecodeError("the bytes of a key end too early")
    assert withheld(error) is error
    assert told(error) == "DecodeError: the bytes of a key end too early"
    assert told(OSError(5, "Input/output error")) == "OSError: [Errno 5] Input/output error"
    assert told(ValueError("secret")) == "ValueError"
    assert not isinstance(withheld(ValueError("secret")), PersistDictError)


def test_what_failed_in_the_background_is_told_by_its_type(tmp_path, monkeypatch):
    """An error of other code may be about an entry; the log, the statistics and what is raised do not say."""
    secret = "secret"

    def fail(*_):
        raise ValueError(secret)

    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        monkeypatch.setattr(d._store, "expire", fail)
        keeper_of(d._store).run_now(d._charge)
        monkeypatch.undo()
        assert d.stats().tasks["expire"].last_error == "ValueError"
        with pytest.raises(MaintenanceError, match=r"failed: ValueError$") as caught:
            d.expire()
        assert "ValueError(secret)" in "".join(traceback.format_exception(caught.value))
        assert f"ValueError: {secret}" not in "".join(traceback.format_exception(caught.value))
        assert str(caught.value.__cause__.__context__) == "secret"
