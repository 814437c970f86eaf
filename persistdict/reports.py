"""What the integrity pass and `salvage` found, as they report it. Keys are named by digests; values are never shown."""

from typing import NamedTuple

__all__ = ["Fault", "Quarantined", "Report", "Salvaged"]


class Fault(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        kind: "record" an entry whose checksum is wrong; "value" its large value is missing or changed; "number" it has
            an impossible sequence number; "order" it is out of order, or lies under the key of another; "index",
            "expiry", "label", "access" it is missing from, or wrong in, the index, the list of deadlines, that of tags,
            the times of access; "dangling" a row of one of these, or a large value, that no entry belongs to; "twice"
            two entries for one key; "piece" a piece of a large value does not say so; "page" a page of the file; "leak"
            a page that is used for nothing, which harms no entry.
        name: the digest of the key, or the sequence number of the entry in hexadecimal.
        sentence: what is wrong.
    """

    kind: str
    name: str
    sentence: str


class Report(NamedTuple):
    """What an integrity pass found and did.

    Attributes:
        checked: rows that were examined: recent writes, entries, and those of the index, deadlines, labels, access
            times and large values.
        faults: what was found.
        repaired: how many faults were mended. Without repair 0.
        quarantined: how many rows were moved to the quarantine: what could not be read.
        left: the faults that are there after the repair; without repair the same as `faults`.
        position: where to go on, if the pass was stopped; None if it is complete.
    """

    checked: int
    faults: tuple[Fault, ...] = ()
    repaired: int = 0
    quarantined: int = 0
    left: tuple[Fault, ...] = ()
    position: bytes | None = None

    def __repr__(self) -> str:
        parts = [f"{name}={value!r}" for name, value in zip(self._fields[:-1], self, strict=False)]
        return f"Report({', '.join(parts)}{'' if self.position is None else ', position=...'})"  # there is a key in it

    @property
    def ok(self) -> bool:
        """Whether the pass is complete and nothing is wrong any more."""
        return not self.left and self.position is None


class Quarantined(NamedTuple):
    """A row that was moved out of the way because it could not be read, or led nowhere.

    Attributes:
        number: its number in the quarantine.
        kind: "e" a record, "v" a large value, "p" a piece of one, "k" a row of the index, "r" a recent write.
        moved_at: when it was moved, seconds since the epoch.
        reason: the kind of the fault.
        key: under what it lay: the sequence number of the entry, or the key in the index.
        raw: its bytes, as they were.
    """

    number: int
    kind: str
    moved_at: float
    reason: str
    key: bytes
    raw: bytes


class Salvaged(NamedTuple):
    """What `salvage` read.

    Attributes:
        written: entries that are in the new dictionary.
        reached: those of them that the old one's trees lead to.
        stranded: those of them on pages that are in use, but that no tree leads to any more.
        unsure: those of them of which it cannot be told whether they are living, because both the list of free pages
            and the index are damaged: a deleted entry or an old version may be among them.
        recent: recent writes (settings and deletions) that were not in the data yet, and are in the new dictionary.
        foreign: recent writes that were not taken, because they belong to another data file (that was in this folder
            when the machine was started); taken with `deep=True` only.
        remnants: keys that were found only where deleted entries and old versions are. They are taken with `deep=True`
            only; then they are in `written` too.
        damaged: entries of which something was found, but that could not be read.
        duplicates: older versions of entries that were found.
        pages: pages that should be something, and are not.
        settings: whether the settings (codec, key serializer, key size limit) were found; if not, the new dictionary
            takes the codec and the key serializer of who opens it first: give the old ones.
        key_size_limit: that of the new dictionary: of the old one, or 511 if it was not found.
    """

    written: int
    reached: int
    stranded: int
    unsure: int
    recent: int
    foreign: int
    remnants: int
    damaged: int
    duplicates: int
    pages: int
    settings: bool
    key_size_limit: int
