"""Changes sealed entries in every way that one can who may write to the store, and sees whether that is noticed.

    python -m drivers.tamper [CHANGES] [SEED]

Each change is made below the seal, with a right checksum: a bit of a hint, kind, value or key is flipped, something is
cut off or added, or parts of two entries are exchanged: of the same dictionary, of two spaces, or of two dictionaries
with the same key. Then the entry is read, by its key and by going through all. Anything but an error, or the absence
of an entry whose key was changed, which going through all tells, is a change that was not noticed.
"""

from __future__ import annotations

import random
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from persistdict import DamagedEntryWarning, PersistDict, TamperedError, WrongKeyError
from persistdict.records import Record
from persistdict.seals.sealed import Sealed

KEY = bytes(range(32))
SEALS: dict[str, dict[str, Any]] = {
    "aes-gcm": {"encryption_key": KEY},
    "aes-gcm, zstd": {"encryption_key": KEY, "compression": "zstd"},
    "hmac": {"signing_key": KEY},
    "hmac, zlib": {"signing_key": KEY, "compression": "zlib"},
}
KEYS = ["text", b"bytes", 1, 2.0, -0.0, True, None, ("a", 1), ("a", 2.5), (None, (3, "x")), "ä" * 300, 10**30]
NOTICED = (TamperedError, WrongKeyError)


@dataclass
class Outcome:
    """What came of the changes."""

    made: int = 0
    unnoticed: list[str] = field(default_factory=list)
    by_kind: Counter[str] = field(default_factory=Counter)


class Victim:
    """A sealed dictionary with a space, and one more with the same key."""

    def __init__(self, options: dict[str, Any], rng: random.Random) -> None:
        self.rng = rng
        self.d = PersistDict("memory://", background_thread="disabled", caching=False, **options)
        self.other = PersistDict("memory://", background_thread="disabled", caching=False, **options)
        for at, view in enumerate((self.d, self.d.space("s"), self.other)):
            for key in KEYS:
                view[key] = [str(key), at, "text " * rng.randrange(60)]
        self.store: Sealed = self.d._opened()  # type: ignore[assignment]
        self.kbs = [item.kb for item in self.store.bare.scan(values=False)]
        self.others = [item.kb for item in self.other._opened().bare.scan(values=False)]

    def record(self) -> Record:
        record = self.store.bare.get(self.rng.choice(self.kbs))
        assert record is not None
        return record

    def change(self) -> tuple[str, Record, Record]:
        """The kind of a change, the record before it, and as it is then."""
        record, rng = self.record(), self.rng
        kind = rng.choice(["kind", "hint", "key", *["value"] * 5, "cut", "more", "swap", "swap", "swap hint", "other"])
        partner = self.record()
        while partner.kb == record.kb:
            partner = self.record()
        if kind == "kind":
            changed = record._replace(tag=record.tag ^ 1 << rng.randrange(8))
        elif kind in ("hint", "value", "key"):
            name = {"hint": "hint", "value": "blob", "key": "kb"}[kind]
            changed = record._replace(**{name: flipped(getattr(record, name), rng)})
        elif kind == "cut":
            changed = record._replace(blob=record.blob[: rng.randrange(len(record.blob))])
        elif kind == "more":
            changed = record._replace(blob=record.blob + rng.randbytes(rng.randrange(1, 40)))
        elif kind == "swap":
            changed = record._replace(tag=partner.tag, blob=partner.blob)
        elif kind == "swap hint":
            changed = record._replace(hint=partner.hint)
        else:
            foreign = self.other._opened().bare.get(rng.choice(self.others))
            assert foreign is not None
            changed = record._replace(kb=foreign.kb, hint=foreign.hint, tag=foreign.tag, blob=foreign.blob)
        return kind, record, changed

    def put(self, record: Record, former: Record) -> None:
        bare = self.store.bare
        if record.kb != former.kb or record.hint != former.hint:
            bare.delete(former.kb)  # an overwrite keeps key and hint
        bare.put(*record[:4])

    def is_noticed(self, record: Record, changed: Record) -> bool:
        kb = self.store.names.open_key(record.kb)
        try:
            found = self.store.get(kb)
        except NOTICED:
            return True
        if changed.kb == record.kb or found is not None:
            return False
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DamagedEntryWarning)
            opened = sum(1 for _ in self.store.scan())
        return len(caught) == 1 and opened == self.store.bare.count() - 1


def flipped(data: bytes, rng: random.Random) -> bytes:
    """The same with one other bit; of nothing, one byte."""
    if not data:
        return rng.randbytes(1)
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def run(options: dict[str, Any], changes: int, seed: int) -> Outcome:
    """Make so many changes."""
    rng, outcome = random.Random(seed), Outcome()
    victim = Victim(options, rng)
    while outcome.made < changes:
        kind, record, changed = victim.change()
        if changed[:4] == record[:4] or (changed.kb != record.kb and changed.kb in victim.kbs):
            continue
        victim.put(changed, record)
        outcome.made += 1
        outcome.by_kind[kind] += 1
        if not victim.is_noticed(record, changed):
            outcome.unnoticed.append(f"{kind}: {record[:4]} -> {changed[:4]}")
        victim.put(record, changed)
    victim.d.close()
    victim.other.close()
    return outcome


def main() -> None:
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}")
    for name, options in SEALS.items():
        begun = time.monotonic()
        outcome = run(options, changes // len(SEALS), seed)
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in outcome.by_kind.most_common())
        print(
            f"{name}: {outcome.made:,} changes, {len(outcome.unnoticed)} not noticed, "
            f"{time.monotonic() - begun:.0f} s ({kinds})"
        )
        print("\n".join(outcome.unnoticed[:5]), end="\n" if outcome.unnoticed else "")


if __name__ == "__main__":
    main()
