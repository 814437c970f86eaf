"""Ctrl-C at a chosen moment: KeyboardInterrupt where Python looks for signals, and what is looked at afterwards.

Python calls the handler of a signal in the main thread, between two instructions, and not between any two: it looks
when a function begins or goes on, when a call has returned, and when a loop begins anew. These are the moments here,
counted by a tracer; so each can be had, one at a time, and again. (A timer is left to chance, see interrupts.py.)
"""

from __future__ import annotations

import dis
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import cache
from types import CodeType
from typing import Any

LOOKING = {
    number
    for number, name in enumerate(dis.opname)
    if name.startswith(("CALL", "RESUME")) or ("JUMP" in name and ("BACKWARD" in name or "ABSOLUTE" in name))
}
CALLBACKS = ("WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "finalize")
BEGIN, RAISED = -1, -2  # no instructions


class Interruption:
    """Runs a piece of work, and raises KeyboardInterrupt at its so-manieth moment.

    Attributes:
        came: whether it was raised; else the work has fewer moments.
        raised: what came out. An interactive Python keeps it too, with all frames, while others look around.
        moments: how many there were.
        where: the innermost functions at that moment, the last one first.
        ignored: what Python has swallowed, in finalisers and callbacks, with the exception.
        in_callback: whether it came in a callback of a weak reference, those of the standard library's own weak
            dictionaries and sets, which Python runs wherever an object ends: from there nothing comes out.
    """

    def __init__(self, moment: int | None) -> None:
        self.moment = moment
        self.came, self.moments, self.where = False, 0, ""
        self.raised: KeyboardInterrupt | None = None
        self.ignored: list[str] = []
        self.in_callback = False

    def run(self, work: Callable[[], Any]) -> None:
        """Do it. Raises what comes out of it, but the KeyboardInterrupt."""
        hook, sys.unraisablehook = sys.unraisablehook, self._note
        try:
            sys.settrace(self._enter)
            work()
        except KeyboardInterrupt as error:
            if not self.came:
                raise
            self.raised = error
        finally:
            sys.settrace(None)
            sys.unraisablehook = hook

    def _note(self, what: Any) -> None:
        if not issubclass(what.exc_type, ResourceWarning):  # of a socket that was not noted yet; it is closed now
            self.ignored.append(f"{what.exc_type.__name__} in {what.object!r}"[:200])

    def _enter(self, frame: Any, event: str, _: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        code, handlers = _instructions(frame.f_code), _handlers(frame.f_code)
        before = BEGIN  # where it was

        def step(frame: Any, event: str, _: Any) -> Any:
            nonlocal before
            now = frame.f_lasti
            if event == "opcode":
                # What is raised is raised by what looks, and there it must be caught by the same as here.
                if before == BEGIN or (
                    before >= 0 and code[before] in LOOKING and handlers.get(before) == handlers.get(now)
                ):
                    self._look(frame)
                before = now
            elif event == "exception":
                before = RAISED  # and has not looked
            return step

        return step

    def _look(self, frame: Any) -> None:
        self.moments += 1
        if self.moments - 1 == self.moment:
            self._say_where(frame)
            raise KeyboardInterrupt

    def _say_where(self, frame: Any) -> None:
        self.came = True
        self.in_callback = frame.f_code.co_filename.endswith(("/weakref.py", "/_weakrefset.py"))
        stack = traceback.extract_stack(frame)[:-6:-1]
        self.where = " < ".join(f"{os.path.basename(at.filename)}:{at.lineno} {at.name}" for at in stack)


class Alarm(Interruption):
    """The same by a timer: so many seconds after the beginning, wherever Python or C is then; 0: never.

    `seconds`: how long it took.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self._after, self.seconds = seconds, 0.0

    def run(self, work: Callable[[], Any]) -> None:
        """Do it. Raises what comes out of it, but the KeyboardInterrupt."""
        hook, sys.unraisablehook = sys.unraisablehook, self._note
        signal.signal(signal.SIGALRM, self._ring)
        begun = time.perf_counter()
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, self._after)  # 0: never
                work()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_IGN)  # also one that is on its way
                self.seconds = time.perf_counter() - begun
        except KeyboardInterrupt as error:
            self.raised = error
        finally:
            sys.unraisablehook = hook

    def _note(self, what: Any) -> None:
        super()._note(what)
        self.in_callback = self.in_callback or any(name in repr(what.object) for name in CALLBACKS)

    def _ring(self, _: int, frame: Any) -> None:
        self._say_where(frame)
        raise KeyboardInterrupt


@cache
def _instructions(code: CodeType) -> bytes:
    return code.co_code


@cache
def _handlers(code: CodeType) -> dict[int, int]:
    """Where each instruction is led to by what it raises."""
    if sys.version_info < (3, 11):
        return {}  # there the end of `try` is an instruction
    table: Any = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    return {at: entry.target for entry in table for at in range(entry.start, entry.end)}


def descriptors() -> dict[int, str]:
    """What this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # that of the list itself
    return found


def threads_that_stay(seconds: float = 10) -> list[str]:
    """Where the other threads of this process stand, if they have not ended after that time."""
    end = time.monotonic() + seconds
    while len(sys._current_frames()) > 1:  # those that run, not those that are known to `threading`
        if time.monotonic() > end:
            mine = threading.get_ident()
            return [
                "".join(traceback.format_stack(frame)[-3:])
                for thread, frame in sys._current_frames().items()
                if thread != mine
            ]
        time.sleep(0.0005)
    return []


def in_thread(work: Callable[[], Any], seconds: float = 20) -> Any:
    """What another thread gets to do. Raises AssertionError if it cannot."""
    done: list[Any] = []

    def attempt() -> None:
        try:
            done.append(work())
        except BaseException as error:
            done.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    assert done, "a lock was left held: another thread waits for ever"
    if isinstance(done[0], BaseException):
        raise done[0]
    return done[0]
