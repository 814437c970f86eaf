"""What to make of a clock that jumps.

A store notes what time it was when it last did something. If the clock is far ahead of that, it may be wrong: what is
over by it is absent, but nothing is removed before the clock has gone on from there for an hour. Where it is behind,
what was written meanwhile has times that lie in the future, and would stay too long: such entries begin their time
anew. So a wrong clock that is set right loses nothing, and leaves nothing for ever.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

from persistdict.log import Log

__all__ = ["FAR", "SLACK", "Clocked", "Clocks", "is_believed", "next_clocks", "settle_clock"]

FAR = 30 * 86400.0  # seconds ahead that are believed at once
GRACE = 3600.0  # seconds that a clock must have gone on before it is believed
SLACK = 3600.0  # seconds that a time may lie in the future
STEP = 512  # entries that one small transaction looks at


class Clocks(NamedTuple):
    """When something was done last, and since when a clock far ahead of that is not believed; None for never."""

    noted: float | None
    suspected: float | None


class Clocked(abc.ABC):  # abstract, so that what stands for a store is one, too
    """The part of a store that knows what time it was."""

    clock: Callable[[], float]

    def clocks(self) -> Clocks:
        """What was noted."""
        return Clocks(None, None)

    def set_clocks(self, clocks: Clocks) -> None:  # noqa: B027 - most stores need none
        """Note it."""

    def rebase(self, budget: int, after: bytes = b"") -> tuple[int, bytes | None]:
        """Of about `budget` entries behind the position `after`, let those whose times lie in the future begin now.

        Returns how many these were, and the position to go on from (None: the pass is done).
        """
        return 0, None


def next_clocks(clocks: Clocks, now: float) -> Clocks:
    """What is to be noted when something is done now."""
    noted, suspected = clocks
    if noted is None or noted < now <= noted + FAR:
        return Clocks(now, suspected)
    return Clocks(noted, now if now > noted and suspected is None else suspected)


def is_believed(clocks: Clocks, now: float) -> bool:
    """Whether what is over now may be removed."""
    noted, suspected = clocks
    return noted is None or now <= noted + FAR or (suspected is not None and now >= suspected + GRACE)


def settle_clock(store: Clocked, log: Log, proceed: Callable[[], bool]) -> bool:
    """Whether what is over by the clock may be removed; and after the clock was set back, put right what is ahead."""
    now = store.clock()
    noted, suspected = clocks = store.clocks()
    if noted is None:
        return True
    if now < max(noted, suspected or noted) - SLACK:
        log.warning("the clock was set back: entries that were written in the future begin their time now")
        position: bytes | None = b""
        while position is not None and proceed():
            _, position = store.rebase(STEP, position)
        if position is None:
            store.set_clocks(Clocks(now, None))
        return position is None
    believed = is_believed(clocks, now)
    if believed and (suspected is not None or now > noted + FAR / 2):  # (nobody may have written for so long)
        store.set_clocks(Clocks(now, None))
    if not believed and suspected is None:
        days = (now - noted) / 86400
        log.warning(
            f"it is {days:.0f} days later than when last noted: nothing is removed for an hour, lest that be wrong"
        )
        store.set_clocks(next_clocks(clocks, now))
    return believed
