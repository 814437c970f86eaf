r"""Names: keys, hints, labels, and the names of spaces and queues, as they lie in a sealed store. Format 1.

Not encrypted, they are as they are; but signed, a hint is followed (or, where a key has none, replaced) by a signature.

    hint    := key u8, first 16 bytes of HMAC-SHA-256 of the key and the hint, hint     if it is signed

Encrypted, nothing is left of them in the clear. siv(x, context) is AES-SIV (RFC 5297): a keyed hash of x, 16 bytes,
which is the same for equal x, followed by x, encrypted. So they can be looked up, and told again.

    key     := head 0x60 siv(kb, "key" head)        of the dictionary itself, where the head is empty, or of a space;
                                                    or of what lies beside them, see spans.py
             | head row                             of a queue; a row tells its number, and is as it is
    head    := 0xf0 size siv(name, "space")         of a space; size: one byte, of the name
             | 0xf1 size siv(name, "queue")         of a queue
             | 0xf2 | 0xf3 | 0xf4
    hint    := siv(0x00 hint, "hint" key)           where there is one, or may be: of keys with numbers
    label   := siv(label, "label")

The lengths are those of the names and 16. The secret for this is random, made with the store, and kept in it encrypted
by the caller's keys: so it stays what it is when these change.
"""

from __future__ import annotations

from typing import Any, cast

from persistdict.errors import MissingPackageError, TamperedError, WrongKeyError
from persistdict.keys import NUMBER, TUPLE
from persistdict.seals.protection import Signing, refused, tampered
from persistdict.spans import KEPT_FROM, LEASE, OUTSIDE, Span, head_of

__all__ = ["OVERHEAD", "SECRET_SIZE", "EncryptedNames", "Names", "SignedNames"]

OVERHEAD = 16  # bytes that a name becomes longer
SECRET_SIZE = 64
SEALED, _BEHIND = b"\x60", b"\x61"  # no key that keys.py makes begins so
KEY = b"key"
MAX_LABEL = 255 - OVERHEAD
MAC_SIZE = 16
MAX_HEADS = 1024  # that are remembered


class Names:
    """Names as they are."""

    def key(self, kb: bytes) -> bytes:
        """The key in the store."""
        return kb

    def open_key(self, sealed: bytes) -> bytes:
        """The key itself. Raises TamperedError if this is none."""
        return sealed

    def hint(self, kb: bytes, hint: bytes) -> bytes:
        """The hint in the store, of a key."""
        return hint

    def open_hint(self, kb: bytes, sealed: bytes) -> bytes:
        """The hint itself. Raises TamperedError if it is not that of the key."""
        return sealed

    def is_old(self, sealed: bytes) -> bool:
        """Whether a hint in the store is sealed with another key than the current one."""
        return False

    def label(self, label: bytes) -> bytes:
        """The label in the store; b"" stays so."""
        return label

    def open_label(self, sealed: bytes) -> bytes:
        """The label itself. Raises TamperedError."""
        return sealed

    def span(self, span: Span) -> Span:
        """The span in the store, which has the keys in it that are in this one.

        If it is more than a Span, others lie in between its ends, which it knows; who has only its ends must open them.
        One that begins with a name or behind it, and ends with all names, has the names that come later in the store.
        """
        return span

    def has_order(self, span: Span) -> bool:
        """Whether the keys of a span are in their order there. Of one of all names: whether each name is together."""
        return True


class SignedNames(Names):
    """Names as they are, with signed hints."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    def hint(self, kb: bytes, hint: bytes) -> bytes:
        if not hint and not _may_have_hint(kb):
            return b""
        return bytes((self._signing.current,)) + self._mac(self._signing.current, kb, hint) + hint

    def open_hint(self, kb: bytes, sealed: bytes) -> bytes:
        if not sealed and not _may_have_hint(kb):
            return b""
        hint = sealed[1 + MAC_SIZE :]
        if len(sealed) <= MAC_SIZE or sealed[1 : 1 + MAC_SIZE] != self._mac(sealed[0], kb, hint):
            raise tampered()
        return hint

    def is_old(self, sealed: bytes) -> bool:
        return sealed[:1] not in (b"", bytes((self._signing.current,)))

    def _mac(self, number: int, kb: bytes, hint: bytes) -> bytes:
        return self._signing.sign(number, b"hint" + len(kb).to_bytes(4, "little") + kb + hint)[:MAC_SIZE]


class EncryptedNames(Names):
    """Names of which nothing is left in the clear.

    Args:
        secret: of the store.
    """

    def __init__(self, secret: bytes) -> None:
        try:
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.ciphers.aead import AESSIV

            self._siv: Any = AESSIV(secret)
            self._refused = refused()
        except (ImportError, UnsupportedAlgorithm) as error:
            raise MissingPackageError(
                "encryption_key needs the package cryptography, with AES-SIV: pip install persistdict[crypto]"
            ) from error
        except ValueError:
            raise WrongKeyError("the secret of this dictionary is none; nothing was changed") from None
        self._heads: dict[bytes, bytes] = {}  # the head of a space or queue -> as it is in the store
        self._plain: dict[bytes, bytes] = {}  # and back

    def key(self, kb: bytes) -> bytes:
        if kb < OUTSIDE:
            return SEALED + self._siv.encrypt(kb, [KEY])  # type: ignore[no-any-return]
        head = self._head(kb)
        rest = kb[len(head_of(kb)) :]
        if KEPT_FROM <= kb < LEASE or not rest:
            return head + rest
        return head + SEALED + self._siv.encrypt(rest, [KEY + head])  # type: ignore[no-any-return]

    def _head(self, kb: bytes) -> bytes:
        """What stands before a key, as it is in the store."""
        plain = head_of(kb)
        if kb >= LEASE:
            return plain
        head = self._heads.get(plain)
        if head is None:
            name = self._siv.encrypt(plain[2:], [_context(plain)])
            head = plain[:1] + bytes((len(name),)) + name
            self._remember(plain, head)
        return head

    def _remember(self, plain: bytes, head: bytes) -> None:
        if len(self._heads) >= MAX_HEADS:
            self._heads, self._plain = {}, {}
        self._heads[plain], self._plain[head] = head, plain

    def open_key(self, sealed: bytes) -> bytes:
        head = head_of(sealed)
        if len(sealed) < 2:
            raise tampered()
        rest, plain = sealed[len(head) :], self._open_head(head)
        if KEPT_FROM <= sealed < LEASE or not rest:
            return plain + rest
        if rest[:1] != SEALED:
            raise tampered()
        return plain + self._open(rest[1:], KEY + head)

    def _open_head(self, head: bytes) -> bytes:
        """What stands before a key, as it was."""
        if len(head) < 2:
            return head
        plain = self._plain.get(head)
        if plain is None:
            if head[1] != len(head) - 2:
                raise tampered()
            name = self._open(head[2:], _context(head))
            plain = head[:1] + bytes((len(name),)) + name
            self._remember(plain, head)
        return plain

    def hint(self, kb: bytes, hint: bytes) -> bytes:
        if not hint and not _may_have_hint(kb):
            return b""
        return self._siv.encrypt(b"\x00" + hint, [b"hint", kb])  # type: ignore[no-any-return]

    def open_hint(self, kb: bytes, sealed: bytes) -> bytes:
        if not sealed and not _may_have_hint(kb):
            return b""
        return self._open(sealed, b"hint", kb)[1:]

    def label(self, label: bytes) -> bytes:
        if len(label) > MAX_LABEL:
            raise ValueError(f"where it is encrypted, a tag must have 1 to {MAX_LABEL} bytes in UTF-8")
        return self._siv.encrypt(label, [b"label"]) if label else b""

    def open_label(self, sealed: bytes) -> bytes:
        return self._open(sealed, b"label") if sealed else b""

    def span(self, span: Span) -> Span:
        start, stop = self._edge(span.start), self._edge(span.stop)
        named = {head_of(edge) for edge in span if edge >= OUTSIDE and len(edge) > 1}
        if start is not None and stop is not None and named <= {head_of(span.start)}:
            return Span(start, stop)
        part = _Part(*self._around(span))
        part.names, part.plain = self, span
        return part

    def _around(self, span: Span) -> Span:
        """The ends between which all keys of a span lie in the store, and others."""
        head, stop = head_of(span.start), span.stop
        if head == head_of(stop):
            head = self._head(head) if head else b""
            start = head + SEALED if head else b""  # from b"" on a store need not look for its keys
            return Span(start, head + _BEHIND)
        return Span(head[:1], _BEHIND if stop <= OUTSIDE else bytes((stop[0] + (len(stop) > 1),)))

    def has_order(self, span: Span) -> bool:
        if span.stop in (KEPT_FROM, LEASE):
            return span.start >= OUTSIDE
        return KEPT_FROM <= span.start < LEASE and head_of(span.start) == head_of(span.stop)

    def _edge(self, edge: bytes) -> bytes | None:
        """Where a span begins or ends in the store; None if there is no such place."""
        if len(edge) < 2:
            return edge if not edge or edge >= OUTSIDE else None
        if edge < OUTSIDE or edge >= LEASE:
            return None
        rest = edge[len(head_of(edge)) :]
        if edge < KEPT_FROM and rest not in (b"", b"\xff"):
            return None
        return self._head(edge) + rest

    def _open(self, sealed: bytes, *context: bytes) -> bytes:
        try:
            return self._siv.decrypt(sealed, [*context])  # type: ignore[no-any-return]
        except self._refused:
            raise tampered() from None


class _Part(Span):
    """The keys of a span that do not lie together: those between its ends that, opened, are in the plain one."""

    names: EncryptedNames
    plain: Span

    def __contains__(self, kb: object) -> bool:
        try:
            return Span.__contains__(self, kb) and self.names.open_key(cast(bytes, kb)) in self.plain
        except TamperedError:
            return False


def _context(head: bytes) -> bytes:
    return b"queue" if head >= KEPT_FROM else b"space"


def _may_have_hint(kb: bytes) -> bool:
    """Whether there may be a number in a key. Of such a key an empty hint, too, says something."""
    if kb >= KEPT_FROM:
        return False
    own = kb if kb < OUTSIDE else kb[len(head_of(kb)) :]
    return own[:1] in _SPELLED


_SPELLED = (bytes((NUMBER,)), bytes((TUPLE,)))
