"""What a user can ask for of a sealed dictionary."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple, TypeVar

from persistdict.errors import Unsupported
from persistdict.tasks import go_on
from persistdict.upkeep import Upkeep

__all__ = ["Sealing", "Trained"]

K = TypeVar("K")
V = TypeVar("V")

PER_BYTE = 100  # bytes of values for each byte of a dictionary
LONGEST = 1 << 17  # bytes of a value to learn from
HELD_OUT = 5  # of so many values one is not learnt from, but measured with


class Trained(NamedTuple):
    """What came of `train_dictionary`.

    Attributes:
        kept: whether the dictionary is used from now on: it is, unless it makes values larger.
        size: its bytes.
        values: how many values it was made from.
        before: bytes that other values of the store took, compressed as until now.
        after: bytes that the same values take with it.
    """

    kept: bool
    size: int
    values: int
    before: int
    after: int


class Sealing(Upkeep[K, V]):
    """The part of a dictionary that looks after its seals."""

    def train_dictionary(self, *, size: int = 112_640, values: int = 10_000) -> Trained:
        """Let zstd learn from values that are here what values look like, so that small ones become much smaller.

        What is written from now on is compressed with that, by this handle, by those that are opened later, and by
        others once they have read such an entry. What is here already stays as it is, and is read as ever. Dictionaries
        stay in the store for good: train again when values have changed, not often.

        Args:
            size: bytes of the dictionary.
            values: how many values to learn from, taken evenly from all; up to 100 bytes of them for each of `size`.

        Atomic, and as durable as other writes. Cost: a look at every entry, and some seconds.

        Raises Unsupported without `compression="zstd"`; ValueError if there are too few values to learn from.

        >>> from persistdict import PersistDict
        >>> d = PersistDict("memory://", compression="zstd")
        >>> texts = {number: f'{{"user": {number}, "role": "reader", "active": true}}' for number in range(2000)}
        >>> d.update(texts)
        >>> trained = d.train_dictionary(size=1000)
        >>> trained.kept, trained.after < trained.before / 1.3
        (True, True)
        """
        store: Any = self._writable()
        compression = self._options.compression
        if compression is None or compression.name != "zstd":
            raise Unsupported('only with compression="zstd" there are dictionaries')
        if isinstance(size, bool) or not isinstance(size, int) or not 256 <= size <= 1 << 20:
            raise ValueError("size must be an int from 256 to 1,048,576")
        if isinstance(values, bool) or not isinstance(values, int) or values < 1:
            raise ValueError("values must be an int of at least 1")
        seal, samples = store.seal, self._samples(store, values, size * PER_BYTE)
        measured, learnt = samples[::HELD_OUT], [one for at, one in enumerate(samples) if at % HELD_OUT]
        compress = seal.compressor.compress
        before = sum(len(compress(sample)) for sample in measured)
        number, raw = seal.compressor.train(learnt, size)
        after = sum(len(packed) for packed in seal.compressor.compress_with(raw, measured))
        kept = after < before
        if kept:
            store.bare.update(lambda txn: seal.keep_dictionary(txn, number, raw), whole=True)
            seal.compressor.refresh()
        return Trained(kept, len(raw), len(learnt), before, after)

    def _samples(self, store: Any, values: int, size: int) -> list[bytes]:
        """Values as a codec has made them, with its tag, evenly from all of them."""
        step = max(store.count(self._span) // values, 1)
        samples = []
        for item in islice(store.scan(span=self._span), 0, None, step):
            if len(item.blob) < LONGEST:
                samples.append(bytes((item.tag,)) + item.blob)
                size -= len(item.blob)
            if size < 0:
                break
        return samples

    def reseal(self) -> int:
        """Seal all entries with the newest key, now, so that the others can be given up. Returns how many there were.

        Upkeep in the background does the same after a dictionary was opened with a key of a higher number. In batches,
        between which others read and write; what was done stays if it is interrupted. Entries keep their times and
        their order; their versions change.

        While there are entries with an older key, every handle must have all keys. One that was opened before, with the
        older keys alone, goes on to write with them: close all of these first. What was written so nevertheless raises
        WrongKeyError once the older keys are given up; open the dictionary with all keys then, and call this again.

        Keys, tags and names of spaces and queues stay encrypted as they are, by a secret of the dictionary that each of
        your keys opens. So somebody who had an older key, and the files at that time, can read these later, too: if a
        key has become known, copy the entries into a new dictionary.

        Cost: a look at every entry.

        >>> from persistdict import PersistDict
        >>> old, new = b"1" * 32, b"2" * 32
        >>> d = PersistDict("memory://vault", encryption_key={1: old})
        >>> d["a"] = "secret"
        >>> e = PersistDict("memory://vault", encryption_key={1: old, 2: new}, background_thread="disabled")
        >>> e.reseal(), PersistDict("memory://vault", encryption_key={2: new})["a"]
        (1, 'secret')
        """
        self._writable()
        own = self._charge.resealing  # which upkeep may be in the middle of
        return 0 if own is None else own.anew().go(go_on)
