"""The secret keys that a caller gives, each with a number. They are never stored, shown or pickled."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

__all__ = ["KEY_SIZE", "Keyring", "derive"]

KEY_SIZE = 32  # bytes


class Keyring:
    """Numbered keys, of which the one with the highest number is in use.

    Args:
        option: what to call it in messages.
        given: 32 bytes (which is key number 0), a mapping of numbers (0-255) to such keys, or a function without
            arguments that returns one of these.

    Raises what the function raises.

    Attributes:
        keys: the keys by their numbers.
        current: the highest number.
        fault: the TypeError or ValueError for what are no keys. It is raised where no key is in sight, for there are
            tools that show what the lines of a traceback speak of.
    """

    def __init__(self, option: str, given: Any) -> None:
        self._option, self._given = option, given
        self.keys: dict[int, bytes] = {}
        self.current = 0
        self.fault: Exception | None = None
        keys: Any = given() if callable(given) else given
        try:
            self.keys = _checked(option, keys if isinstance(keys, Mapping) else {0: keys})
            self.current = max(self.keys)
        except (TypeError, ValueError) as error:
            self.fault = error.with_traceback(None)

    @classmethod
    def of(cls, option: str, given: Any) -> Keyring | None:
        """What an option means; None for none. Raises TypeError or ValueError for what is no key."""
        if given is None or isinstance(given, cls):
            return given
        ring = cls(option, given)
        if ring.fault is not None:
            raise ring.fault
        return ring

    def __repr__(self) -> str:
        return f"<{self._option}: the keys {', '.join(map(str, self.keys))}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if not callable(self._given):
            raise TypeError(
                f"a dictionary with an {self._option} cannot be pickled, for the key would be in the pickle; give "
                f"{self._option} a function that returns it"
            )
        return Keyring, (self._option, self._given)


def _checked(option: str, keys: Mapping[Any, Any]) -> dict[int, bytes]:
    advice = (
        f"{option} must be {KEY_SIZE} bytes, such as secrets.token_bytes({KEY_SIZE}), or a mapping of numbers to such"
    )
    if not keys:
        raise ValueError(f"{advice}; this mapping is empty")
    checked = {}
    for number, key in keys.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"the number of a key must be an int, not {type(number).__qualname__}")
        if not 0 <= number <= 255:
            raise ValueError("the number of a key must be from 0 to 255")
        if not isinstance(key, (bytes, bytearray)):
            raise TypeError(f"{advice}, not {type(key).__qualname__} (a password is no key; see hashlib.scrypt)")
        if len(key) != KEY_SIZE:
            raise ValueError(f"{advice}; this one has {len(key)} bytes")
        checked[number] = bytes(key)
    return dict(sorted(checked.items()))


def derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """A key of 32 bytes for one purpose: HKDF with SHA-256, RFC 5869."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), b"persistdict " + purpose + b"\x01", "sha256")
