"""When recent writes are drained: at once, after an interval by a thread, or by the writers where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable

from persistdict.stores.lmdb.drain import drain
from persistdict.stores.lmdb.environment import Environment
from persistdict.stores.lmdb.pair import Pair

__all__ = ["MUCH", "Durable"]

MUCH = 16 << 20  # bytes of recent writes at which a writer drains them itself
ENOUGH = 60.0  # seconds after a drain failed from which on writers try it, and raise what is wrong


class Durable(Pair):
    """Sees to it that what is written becomes durable in time.

    Attributes:
        interval: seconds after which a write is on the disk at the latest; 0 for before it returns.
    """

    interval: float

    def paid(self) -> Environment:
        """The environment, drained if that is due; before a write, so that a failure changes nothing."""
        env = self.env
        if env.pending > MUCH or time.monotonic() > env.due:
            self.sync()
        return env

    def owe(self, env: Environment, size: int, commit: int) -> None:
        """Account for so many bytes of recent writes. The handle may be closed by now; the write is none the less."""
        env.pending += size
        if not env.armed or not self.interval:
            self.see_to_durability(env, commit)

    def see_to_durability(self, env: Environment, commit: int) -> None:
        """Drain at once if that was asked for; else see to it that somebody does in time."""
        if not self.interval:
            drain(self, self.base + commit)
        elif not env.armed:
            env.armed = True
            if True not in [call(self.interval) for call in env.unsynced]:
                env.due = time.monotonic() + self.interval

    def sync(self) -> None:
        env = self.env
        env.armed, env.due = False, float("inf")
        try:
            drain(self)
        except BaseException:
            env.due = time.monotonic() + ENOUGH
            raise

    def on_unsynced(self, call: Callable[[float], bool]) -> None:
        self.env.unsynced.append(call)
