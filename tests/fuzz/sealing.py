"""Targets: what seals read, and what a store notes of its seal."""

from __future__ import annotations

import contextlib
from typing import Any

from fuzz.table import target
from persistdict import TamperedError
from persistdict.seals.compression import Compression, Lz4, Zlib, Zstd
from persistdict.seals.keyring import Keyring
from persistdict.seals.seal import Asked, Seal
from persistdict.store import Store
from persistdict.stores.memory import MemoryStore

KEY, KB, BOUND = bytes(range(32)), b"\x30key", 1 << 20
VALUES = [b"", b"short", b"text that is like itself " * 20, bytes(range(256)) * 4, bytes(5000)]


def seal_of(compression: Compression | None = None, **keys: bytes) -> Seal:
    """A seal of a new store."""
    rings = {option: Keyring(f"{option}_key", key) for option, key in keys.items()}
    asked = Asked(compression, rings.get("encryption"), rings.get("signing"))
    store: Store = MemoryStore(None)
    store.update(asked.enroll, whole=True)
    return asked.open(store)


SEALS = {
    "zlib": seal_of(Zlib(max_size=BOUND)),
    "zstd": seal_of(Zstd(max_size=BOUND)),
    "lz4": seal_of(Lz4(max_size=BOUND)),
    "signed": seal_of(Zlib(max_size=BOUND), signing=KEY),
    "encrypted": seal_of(Zlib(max_size=BOUND), encryption=KEY),
}


def sealed(name: str) -> list[bytes]:
    """Kinds and bytes as in records."""
    pairs = [SEALS[name].seal(KB, 1, value) for value in VALUES]
    return [bytes((kind,)) + body for kind, body in pairs]


def unseal(name: str, data: bytes) -> None:
    """What comes out is no larger than it may be, and is sealed to what opens to the same."""
    seal = SEALS[name]
    tag, blob = seal.unseal(KB, data[0] if data else 0, data[1:])
    assert len(blob) <= max(BOUND, len(data))
    assert seal.unseal(KB, *seal.seal(KB, tag, blob)) == (tag, blob)


def protected(name: str) -> Any:
    """Makes of any bytes what was sealed by whoever has the key, so that what is within is reached."""

    def mend(data: bytes) -> bytes:
        protection = SEALS[name].protection
        assert protection is not None
        kind = 0x80 | protection.number << 4 | (data[0] & 3 if data else 0)
        return bytes((kind,)) + protection.protect(kind, KB, data[1:])

    return mend


@target(lambda: sealed("zlib"))
def sealed_zlib(data: bytes) -> None:
    unseal("zlib", data)


@target(lambda: sealed("zstd"))
def sealed_zstd(data: bytes) -> None:
    unseal("zstd", data)


@target(lambda: sealed("lz4"))
def sealed_lz4(data: bytes) -> None:
    unseal("lz4", data)


@target(lambda: sealed("signed"), mend=protected("signed"))
def sealed_signed(data: bytes) -> None:
    unseal("signed", data)


@target(lambda: sealed("encrypted"), mend=protected("encrypted"))
def sealed_encrypted(data: bytes) -> None:
    unseal("encrypted", data)


NAMES = SEALS["encrypted"].names
KBS = [b"\x30key", b"\x10\x81\x05", b"\xf0\x01s\x30key", b"\xf1\x01q\x01", b"\xf2\x30key", b"\xf4\0\0\0\1"]


@target(lambda: [NAMES.key(kb) for kb in KBS])
def sealed_name(data: bytes) -> None:
    """A key as it lies in an encrypted store; and a hint and a label, of which the same is true."""
    with contextlib.suppress(TamperedError):
        NAMES.open_label(data)
    with contextlib.suppress(TamperedError):
        NAMES.open_hint(b"\x10\x81\x05", data)
    kb = NAMES.open_key(data)
    assert NAMES.key(kb) == data


def notes() -> list[bytes]:
    store: Store = MemoryStore(None)
    asked = Asked(None, Keyring("encryption_key", {1: KEY}), None)
    store.update(asked.enroll, whole=True)
    info = store.info()
    return [f"{info['seal salt']}\n{info['seal keys']}".encode()]


@target(notes, share=0.1)
def seal_notes(data: bytes) -> None:
    """What a store keeps to recognise keys by."""
    salt, _, keys = data.decode("utf-8", "replace").partition("\n")
    store: Store = MemoryStore(None)
    store.update(lambda txn: (txn.set_info("seal salt", salt), txn.set_info("seal keys", keys)), whole=True)
    Asked(None, Keyring("encryption_key", {1: KEY}), None).open(store)
