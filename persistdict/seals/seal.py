"""Seals: compression first, then a protection. What each does is named in the record. Format 1; never reuse a number.

    tag of the record  := 0x80 | protection << 4 | compression          called the kind
    value of the record := what the protection makes of body            protection 0 none, 1, 2: see protection.py
    body := tag value                                                   compression 0: as the codec made it
          | size u32 (of tag and value), then these, compressed         1 zlib, 2 zstd, 3 lz4: see compression.py

The info of a sealed store:

    seal                what was asked for, such as "zstd+aes-256-gcm"; others are refused
    seal salt           random, of the protection, in hexadecimal
    seal keys           number:note of each of the caller's keys that entries may be sealed with; notes in hexadecimal
    seal dictionary     the number of the trained dictionary of zstd that is used for writing; all are entries with the
                        keys 0xf4 number (u32, big-endian), sealed as others, but not compressed

A handle must have all the keys that are noted. When one is noted that is newer than another, entries are sealed anew
with it, see resealing.py; then the notes of the others are removed.
"""

from __future__ import annotations

import os
import warnings

from persistdict.errors import DamagedEntryWarning, DecodeError, PersistDictError, TamperedError, WrongKeyError
from persistdict.records import Transaction
from persistdict.seals.compression import Compression
from persistdict.seals.keyring import Keyring
from persistdict.seals.names import SECRET_SIZE, EncryptedNames, Names, SignedNames
from persistdict.seals.protection import Encryption, Protection, Signing
from persistdict.spans import DICTIONARY
from persistdict.store import Store

__all__ = ["Asked", "Seal"]

SALT, KEYS, NEWEST = "seal salt", "seal keys", "seal dictionary"
MARK = 0x80
LEAST = 32  # bytes that are worth trying to compress
SIZE = 4


class Asked:
    """The seal that a handle was asked for; opened with what a store says of its own.

    Args:
        compression: None for none.
        encryption: the keys; None for none.
        signing: likewise.

    Raises MissingPackageError, so that no store is made that cannot be used.
    """

    def __init__(self, compression: Compression | None, encryption: Keyring | None, signing: Keyring | None) -> None:
        self.compression, self.ring = compression, encryption or signing
        self._protection: type[Protection] | None = Encryption if encryption else Signing if signing else None
        parts = [part.name for part in (compression, self._protection) if part is not None]
        self.name = "+".join(parts)
        if compression is not None:
            compression.compressor(lambda number: None)
        if encryption is not None:
            EncryptedNames(bytes(SECRET_SIZE))

    def enroll(self, txn: Transaction, *, is_new: bool = True) -> None:
        """Note the newest of the keys in the store, if it is not noted yet.

        Only in a new store there are no notes yet; in another one they were lost. To make them anew would leave what is
        there without a key for good.
        """
        if self._protection is None or self.ring is None:
            return
        salt, notes = _unhex(txn.get_info(SALT) or ""), _parsed(txn.get_info(KEYS) or "")
        if not notes:
            if not is_new or salt:
                raise _no_notes()
            salt = os.urandom(16)
            txn.set_info(SALT, salt.hex())
        if self.ring.current not in notes:
            protection = self._protection(self.ring, salt)
            secret = self._secret(protection, notes) if notes else os.urandom(SECRET_SIZE)
            notes[self.ring.current] = protection.enroll(self.ring.current, secret)
            txn.set_info(KEYS, _packed(notes))

    def is_enrolled(self, info: dict[str, str]) -> bool:
        """Whether `enroll` has nothing to do."""
        return self.ring is None or self.ring.current in _parsed(info.get(KEYS, ""))

    def open(self, source: Store) -> Seal:
        """The seal. Raises WrongKeyError if a key is missing or another one."""
        protection, names, others = None, Names(), False
        if self._protection is not None and self.ring is not None:
            settings = source.info()
            notes = _parsed(settings.get(KEYS, ""))
            protection = self._protection(self.ring, _unhex(settings.get(SALT, "")))
            secret = self._secret(protection, notes)
            names = EncryptedNames(secret) if isinstance(protection, Encryption) else names
            names = SignedNames(protection) if isinstance(protection, Signing) else names
            others = notes.keys() != {self.ring.current}
        return Seal(self.compression, protection, names, source, others)

    def _secret(self, protection: Protection, notes: dict[int, bytes]) -> bytes:
        """The secret of the store, which all keys that are noted must open."""
        if not notes:
            raise _no_notes()
        missing = notes.keys() - protection.ring.keys.keys()
        if missing:
            numbers = ", ".join(map(str, sorted(missing)))
            raise WrongKeyError(
                f"the dictionary is sealed with the key number {numbers}, which was not given ({protection.ring!r}); "
                "nothing was changed"
            )
        return [protection.recognise(number, note) for number, note in sorted(notes.items())][-1]


class Seal:
    """Seals what a codec has made, and opens it. Threads: any number.

    Attributes:
        names: how names lie in the store.
        compressor: None for none.
        protection: None for none.
        is_changing: whether entries may be sealed with another key than the current one.
    """

    def __init__(
        self, compression: Compression | None, protection: Protection | None, names: Names, source: Store, others: bool
    ) -> None:
        self.names, self.protection, self.is_changing = names, protection, others
        self._kind = MARK | (protection.number << 4 if protection is not None else 0)
        self._source = source
        self.compressor = None if compression is None else compression.compressor(self._dictionary)

    def seal(self, kb: bytes, tag: int, blob: bytes) -> tuple[int, bytes]:
        """The kind and the bytes for a record; `kb` is the key in the store."""
        kind, body, compressor = self._kind, bytes((tag,)) + blob, self.compressor
        if compressor is not None and LEAST <= len(body) <= compressor.max_size:
            packed = compressor.compress(body)
            if len(packed) + SIZE < len(body):
                kind, body = kind | compressor.number, len(body).to_bytes(SIZE, "little") + packed
        return kind, body if self.protection is None else self.protection.protect(kind, kb, body)

    def unseal(self, kb: bytes, kind: int, sealed: bytes) -> tuple[int, bytes]:
        """The codec's tag and bytes.

        Raises TamperedError for what was not sealed so, WrongKeyError if the key was not given, and DecodeError for
        what cannot be decompressed.
        """
        if kind & 0xF0 != self._kind:
            raise TamperedError("an entry is not sealed as this dictionary is")
        body = sealed if self.protection is None else self.protection.check(kind, kb, sealed)
        if kind & 0x0F:
            body = self._decompress(kind & 0x0F, body)
        if not body:
            raise DecodeError("a sealed entry is empty")
        return body[0], body[1:]

    def _decompress(self, number: int, body: bytes) -> bytes:
        compressor = self.compressor
        if compressor is None or number != compressor.number:
            raise DecodeError(f"an entry is compressed in another way (number {number}) than this dictionary")
        size = int.from_bytes(body[:SIZE], "little")
        if len(body) < SIZE or size > compressor.max_size:
            raise DecodeError(f"an entry would become larger than max_size={compressor.max_size:,} bytes")
        plain: bytes = compressor.decompress(body[SIZE:], size)
        return plain

    def renew(self, kb: bytes, kind: int, sealed: bytes) -> bytes:
        """The same, sealed with the current key. Raises as `unseal`."""
        assert self.protection is not None
        if kind & 0xF0 != self._kind:
            raise TamperedError("an entry is not sealed as this dictionary is")
        return self.protection.protect(kind, kb, self.protection.check(kind, kb, sealed))

    def is_old(self, hint: bytes, sealed: bytes) -> bool:
        """Whether the hint or the bytes of a record are sealed with another key than the current one.

        The hint may be alone: an overwrite keeps it.
        """
        if self.protection is None:
            return False
        return sealed[:1] != bytes((self.protection.current,)) or self.names.is_old(hint)

    def misses_a_key(self) -> bool:
        """Whether somebody has noted a key since that this handle was not given."""
        if self.protection is None:
            return False
        noted = _parsed(self._source.info().get(KEYS, ""))
        return bool(noted.keys() - self.protection.ring.keys.keys())

    # Dictionaries of zstd

    def _dictionary(self, number: int | None) -> bytes | None:
        """The bytes of a trained dictionary; None if there is none. The newest for None."""
        if number is None:
            return self._newest_dictionary()
        kb = self.names.key(_dictionary_key(number))
        record = self._source.get(kb)
        return None if record is None else self.unseal(kb, record.tag, record.blob)[1]

    def _newest_dictionary(self) -> bytes | None:
        """If it cannot be read, writes can do without it, and so can those entries that were not made with it."""
        text = self._source.info().get(NEWEST, "")
        number = int(text) if text.isdecimal() and len(text) <= 10 else 0
        try:
            return self._dictionary(number) if 0 < number < 1 << 32 else None
        except PersistDictError as error:
            text = f"{self._source.place}: the dictionary of zstd cannot be read, and is not used for writing: {error}"
            warnings.warn(text, DamagedEntryWarning, stacklevel=2)
            return None

    def keep_dictionary(self, txn: Transaction, number: int, raw: bytes) -> None:
        """Keep a trained dictionary, in a transaction of the store itself. It is used from the next `refresh` on."""
        kb, body = self.names.key(_dictionary_key(number)), b"\0" + raw
        sealed = body if self.protection is None else self.protection.protect(self._kind, kb, body)
        txn.put(kb, b"", self._kind, sealed)
        txn.set_info(NEWEST, str(number))

    # Keys

    def forget_older_keys(self, txn: Transaction) -> None:
        """Note that no entry is sealed with a key that is older than the current one.

        Meanwhile somebody may have noted a newer one; then there are still entries with this one.
        """
        assert self.protection is not None
        notes = _parsed(txn.get_info(KEYS) or "")
        current = self.protection.current
        txn.set_info(KEYS, _packed({number: note for number, note in notes.items() if number >= current}))


def _dictionary_key(number: int) -> bytes:
    return DICTIONARY + number.to_bytes(4, "big")


def _packed(notes: dict[int, bytes]) -> str:
    return " ".join(f"{number}:{note.hex()}" for number, note in sorted(notes.items()))


def _parsed(text: str) -> dict[int, bytes]:
    """The notes about keys. Raises WrongKeyError for what is none."""
    try:
        pairs = [note.split(":") for note in text.split()]
        return {int(number): bytes.fromhex(note) for number, note in pairs}
    except ValueError:
        raise WrongKeyError("the notes about the keys of the dictionary are damaged; nothing was changed") from None


def _no_notes() -> WrongKeyError:
    return WrongKeyError("the notes about the keys of the dictionary are missing; nothing was changed")


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise WrongKeyError("the salt of the dictionary is damaged; nothing was changed") from None
