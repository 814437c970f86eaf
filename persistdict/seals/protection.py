"""Protections of what a record holds: a signature, or encryption. Format 1; numbers are on disk: never change one.

    signed    := key u8, HMAC-SHA-256 (32 bytes), body
    encrypted := key u8, nonce (12 bytes, random), AES-256-GCM of body (with its tag of 16 bytes)

Both cover what is called associated data: "persistdict", the format, the kind (seal.py), and the key of the entry as it
lies in the store, which begins with the head of its space. So what is moved to another key, space or kind is noticed.

The keys for this are derived from the caller's and the salt of the store (HKDF), so that what is moved from another
store is noticed, too.

Sources: AES-GCM with random nonces, NIST SP 800-38D (at most 2^32 writes with one key); HMAC, RFC 2104.
"""

from __future__ import annotations

import hmac
import os
from typing import Any

from persistdict.errors import MissingPackageError, TamperedError, WrongKeyError
from persistdict.seals.keyring import Keyring, derive

__all__ = ["CONTEXT", "Encryption", "Protection", "Signing", "refused", "tampered"]

CONTEXT = b"persistdict\x01"
MAC_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
BODY_AT = 1 + NONCE_SIZE


class Protection:
    """What both have in common.

    Args:
        ring: the caller's keys.
        salt: of the store.
    """

    number = 0
    name = ""

    def __init__(self, ring: Keyring, salt: bytes) -> None:
        self.ring, self.salt = ring, salt
        self.current = ring.current
        self._front = bytes((ring.current,))

    def protect(self, kind: int, kb: bytes, body: bytes) -> bytes:
        """The body, protected."""
        raise NotImplementedError

    def check(self, kind: int, kb: bytes, sealed: bytes) -> bytes:
        """The body. Raises TamperedError if it is not what was protected, WrongKeyError if that key was not given."""
        raise NotImplementedError

    def enroll(self, number: int, secret: bytes) -> bytes:
        """What the store keeps of a key, to recognise it by: holds the secret of the store, which it alone can open."""
        raise NotImplementedError

    def recognise(self, number: int, note: bytes) -> bytes:
        """The secret of the store. Raises WrongKeyError if the note was made with another key."""
        raise NotImplementedError


class Signing(Protection):
    """HMAC-SHA-256: everybody can read it, and nobody without the key can change it unnoticed."""

    number = 1
    name = "hmac-sha256"

    def __init__(self, ring: Keyring, salt: bytes) -> None:
        super().__init__(ring, salt)
        self._keys = {number: derive(key, salt, b"signing") for number, key in ring.keys.items()}

    def sign(self, number: int, data: bytes) -> bytes:
        """The signature with one of the keys."""
        key = self._keys.get(number)
        if key is None:
            raise not_given(number)
        return hmac.digest(key, CONTEXT + data, "sha256")

    def protect(self, kind: int, kb: bytes, body: bytes) -> bytes:
        return self._front + self.sign(self.current, _covered(kind, kb) + body) + body

    def check(self, kind: int, kb: bytes, sealed: bytes) -> bytes:
        if len(sealed) <= MAC_SIZE:
            raise tampered()
        body = sealed[1 + MAC_SIZE :]
        if not hmac.compare_digest(sealed[1 : 1 + MAC_SIZE], self.sign(sealed[0], _covered(kind, kb) + body)):
            raise tampered()
        return body

    def enroll(self, number: int, secret: bytes) -> bytes:
        return self.sign(number, b"key %d" % number)

    def recognise(self, number: int, note: bytes) -> bytes:
        if not hmac.compare_digest(note, self.enroll(number, b"")):
            raise wrong_key(self.ring)
        return b""


class Encryption(Protection):
    """AES-256-GCM: nobody without the key can read it, or change it unnoticed."""

    number = 2
    name = "aes-256-gcm"

    def __init__(self, ring: Keyring, salt: bytes) -> None:
        super().__init__(ring, salt)
        self._ciphers = {number: _cipher(derive(key, salt, b"values")) for number, key in ring.keys.items()}
        self._refused = refused()

    def protect(self, kind: int, kb: bytes, body: bytes) -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        sealed: bytes = self._ciphers[self.current].encrypt(nonce, body, CONTEXT + bytes((kind,)) + kb)
        return self._front + nonce + sealed

    def check(self, kind: int, kb: bytes, sealed: bytes) -> bytes:
        if len(sealed) <= NONCE_SIZE + TAG_SIZE:
            raise tampered()
        cipher = self._ciphers.get(sealed[0])
        if cipher is None:
            raise not_given(sealed[0])
        try:
            body: bytes = cipher.decrypt(sealed[1:BODY_AT], sealed[BODY_AT:], CONTEXT + bytes((kind,)) + kb)
        except self._refused:
            raise tampered() from None
        return body

    def enroll(self, number: int, secret: bytes) -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        sealed: bytes = self._wrapping(number).encrypt(nonce, secret, CONTEXT + b"secret")
        return nonce + sealed

    def recognise(self, number: int, note: bytes) -> bytes:
        try:
            secret: bytes = self._wrapping(number).decrypt(note[:NONCE_SIZE], note[NONCE_SIZE:], CONTEXT + b"secret")
        except self._refused:
            raise wrong_key(self.ring) from None
        return secret

    def _wrapping(self, number: int) -> Any:
        return _cipher(derive(self.ring.keys[number], self.salt, b"secret"))


def _covered(kind: int, kb: bytes) -> bytes:
    """What a signature covers beside the body; of a length that it tells itself."""
    return bytes((kind,)) + len(kb).to_bytes(4, "little") + kb


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingPackageError(
            "encryption_key needs the package cryptography: pip install persistdict[crypto]"
        ) from error
    return AESGCM(key)


def refused() -> tuple[type[Exception], ...]:
    """What a cipher raises for bytes that are not its own."""
    from cryptography.exceptions import InvalidTag

    return InvalidTag, ValueError


def tampered() -> TamperedError:
    """The error for an entry that is not what was sealed."""
    return TamperedError("an entry is not as it was sealed: it was changed, or moved from another place")


def not_given(number: int) -> WrongKeyError:
    """The error for an entry whose key was not given."""
    return WrongKeyError(f"an entry is sealed with the key number {number}, which was not given; nothing was changed")


def wrong_key(ring: Keyring) -> WrongKeyError:
    """The error for a key that is not the one of the store."""
    return WrongKeyError(f"this is not the key that the dictionary was made with ({ring!r}); nothing was changed")
