"""The reads of the store contract that concern several keys, from one pair of snapshots; and noting reads."""

from __future__ import annotations

import contextlib

from persistdict.checksum import crc32
from persistdict.statistics import Counts
from persistdict.store import Found, Record
from persistdict.stores.lmdb.pair import Pair
from persistdict.stores.lmdb.record import HEADER_SIZE, PREFIX, RESIDUE

__all__ = ["MAX_TOUCHED", "Reading"]

MAX_TOUCHED = 1 << 16
_prefix = PREFIX.unpack_from


class Reading(Pair):
    """Counts in `counts` what is there but over, and notes when each entry was read."""

    counts: Counts

    def _note(self, seq: bytes, now: float) -> None:
        """Note a read. The list is bounded; what is lost costs an access time that is older than it should be."""
        touched = self.touched
        if len(touched) >= MAX_TOUCHED:
            with contextlib.suppress(StopIteration, RuntimeError, KeyError):  # other threads change it too
                del touched[next(iter(touched))]
        touched[seq] = None if self.idle is None else now

    def get_many(self, kbs: list[bytes]) -> list[Record | None]:
        records, over = self.env.attempt(self._get_many, kbs)
        self.counts.expired.add(over)
        now = self.clock()
        for record in records:
            if record is not None:
                self._note(record.seq, now)
        return records

    def _get_many(self, kbs: list[bytes]) -> tuple[list[Record | None], int]:
        d, r = self.snapshots()
        places = [self.locate(r, d, kb) for kb in kbs]
        found = zip(kbs, places, strict=True)
        records = [None if place is None else self.entry_of(d, kb, place) for kb, place in found]
        return records, records.count(None) - places.count(None)

    def read_many(self, kbs: list[bytes]) -> list[Found | None]:
        answers, over = self.env.attempt(self._read_many, kbs)
        self.counts.expired.add(over)
        now, touched = self.clock(), self.touched
        plain = self.idle is None and len(touched) + len(kbs) < MAX_TOUCHED
        for found in answers:
            if found is not None:
                if plain:
                    touched[found[2]] = None
                else:
                    self._note(found[2], now)
        return answers

    def _read_many(self, kbs: list[bytes]) -> tuple[list[Found | None], int]:
        d, r = self.snapshots()
        get, k, e, over = d.get, self.k, self.e, 0
        limit = self.limit if self.idle is None else 0
        answers: list[Found | None] = []
        for kb in kbs:
            if len(kb) < limit:  # what follows, for most, without a call
                row = None if r is None else r.get(kb)
                if row is not None:
                    seq, raw = row[:8], row[8:]
                else:
                    seq = get(kb, None, k)
                    if seq is None:
                        answers.append(None)
                        continue
                    raw = get(seq, b"", e) if len(seq) == 8 else b""
                if len(raw) > HEADER_SIZE and crc32(raw) == RESIDUE:
                    tag, flags, hint_size, key_size = _prefix(raw)
                    key_at = HEADER_SIZE + hint_size
                    if not flags and raw[key_at : key_at + key_size] == kb:
                        answers.append((tag, raw[key_at + key_size : -4], seq, None, -1))
                        continue
            place = self.locate(r, d, kb)
            record = None if place is None else self.entry_of(d, kb, place)
            if record is None:
                over += place is not None
                answers.append(None)
            else:
                answers.append(record.found())
        return answers, over
