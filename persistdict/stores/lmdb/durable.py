"""When recent writes are drained: at once, after an interval by a thread, or by the writers where there is none."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any

from persistdict.errors import BusyError, DiskFullError, PersistDictError, StoreError, StoreGoneError
from persistdict.stores.lmdb.drain import drain
from persistdict.stores.lmdb.environment import LOOKS, Environment
from persistdict.stores.lmdb.layout import LAST, parse_number
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import COUNTER_BITS, GONE, pack_record, parse_record
from persistdict.stores.lmdb.reserve import refuse_without_room
from persistdict.stores.lmdb.totals import pages_of

__all__ = ["Durable"]

ENOUGH = 60.0  # seconds after a drain failed from which on writers try it, and raise what is wrong


class Durable(Pair):
    """Sees to it that what is written becomes durable in time."""

    def paid(self, size: int = 0, *, urgent: bool = False) -> Environment:
        """The environment, drained if that is due; before a write, so that a failure changes nothing.

        Args:
            size: bytes that will be written.
            urgent: for deletions, which go on when the disk is full.
        """
        env = self.env
        overdue = time.monotonic() > env.due
        if (env.pending + size > env.look_at and not self._is_little(env, size)) or overdue:
            try:
                self.sync()
                if size > env.much:
                    env.attempt(refuse_without_room, env, size)
            except DiskFullError:
                if not urgent:
                    raise
        return env

    def _is_little(self, env: Environment, size: int) -> bool:
        """Whether there is room for so many bytes more before a drain is due; sees what others have written."""
        room = env.much - size - env.attempt(lambda: pages_of(self.begin().stat()))
        env.look_at = env.pending + max(room, 0) // LOOKS
        return room > 0

    def owe(self, env: Environment, size: int) -> None:
        """Account for so many bytes of recent writes. The handle may be closed by now; the write is none the less."""
        env.pending += size
        if not env.armed:
            self.arm(env)

    def arm(self, env: Environment) -> None:
        """See to it that somebody drains in time."""
        if self.interval:  # else whoever writes waits for it, see `confirm`
            env.armed = True
            try:
                if True not in [call(self.interval) for call in env.unsynced]:
                    env.due = time.monotonic() + self.interval
            except BaseException:  # interrupted: the next write sees to it
                env.armed = False
                raise

    def confirm(self, commit: int) -> None:
        if self.interval:
            return
        try:
            drain(self, self.base + commit, self.timeout)
        except PersistDictError as error:
            try:
                is_durable = self._take_back(self.base + commit, self.undo.get(commit, {}))
            except PersistDictError:
                raise _neither_nor(error, self.place) from error
            if isinstance(error, StoreGoneError) or not is_durable:
                raise
        finally:
            self.undo.pop(commit, None)

    def waive(self, commit: int) -> None:
        self.undo.pop(commit, None)

    def _take_back(self, number: int, before: dict[bytes, bytes | None]) -> bool:
        """Undo the write of that number, which could not be made durable. Whether it was durable after all."""
        update = self.env.recent.update_urgently
        try:
            is_durable = self.env.data.alone(update, self._undo, number, before, False, timeout=0.0)
        except BusyError:
            is_durable = update(self._undo, number, before, True)
        return bool(is_durable)

    def _undo(self, r: Any, number: int, before: dict[bytes, bytes | None], draining: bool) -> bool:
        """Put back the rows that a write has replaced; `draining`: it may be about to be brought into the data."""
        d = self.begin_data(self.k)
        if (parse_number(d.get(LAST, None, self.meta)) or 0) >= number:
            return True
        for key, raw in before.items():
            now = r.get(key)
            if now is None or parse_record(now[8:]).version >> COUNTER_BITS != number:
                continue  # overwritten
            if raw is None and draining:
                raw = self._as_in(d, now)
            if raw is None:
                r.delete(key)
            else:
                r.put(key, raw)
        return False

    def _as_in(self, d: Any, row: bytes) -> bytes:
        """A row that, drained later than this one, leaves its key as it is in the data now."""
        written = parse_record(row[8:])
        place = self.find(d, written.kb)
        if place is None:
            gone = pack_record(0, written.kb, b"", written.version, written.ctime, written.mtime, b"", 0, GONE)
            return row[:8] + gone
        if place.record is None:
            raise self.damaged(written.kb)
        old = place.record
        blob = self.blob(d, place.slot[0], old)
        rest = old.ctime, old.mtime, blob, old.deadline, 0, old.label
        return place.slot[0] + pack_record(old.tag, old.kb, old.hint, old.version, *rest)

    def sync(self) -> None:
        env = self.env
        if env.read_only:
            return
        env.armed, env.due = False, float("inf")
        try:
            drain(self)
        except (DiskFullError, StoreGoneError):
            env.due = 0.0  # nothing more is taken for now: it could not be kept
            raise
        except BaseException:
            env.due = time.monotonic() + ENOUGH
            raise

    def on_unsynced(self, call: Callable[[float], bool]) -> None:
        self.env.unsynced.append(call)


def _neither_nor(error: PersistDictError, place: str) -> PersistDictError:
    """The error for a write that could not be made durable, nor be taken back."""
    kind = type(error) if isinstance(error, (DiskFullError, BusyError)) else StoreError
    text = (
        "the write could not be made durable, nor be taken back: it is there, and is made durable once that is possible"
    )
    return kind(getattr(error, "errno", None) or errno.EIO, text, place)
