"""What a handle and a store must agree about, because another codec or seal would misread what is there.

It is kept in the store's info by the first handle that writes; every other one is compared with that.
"""

from __future__ import annotations

from typing import Any

from persistdict.codecs import names_agree
from persistdict.errors import MismatchError, NotAStoreError, WrongKeyError
from persistdict.modes import IMMUTABLE, MODES
from persistdict.options import Options
from persistdict.store import Store, Transaction

__all__ = ["agree"]

PROTECTIONS = {"aes-256-gcm": ("encrypted", "encryption_key"), "hmac-sha256": ("signed", "signing_key")}


def agree(store: Store, options: Options, codec: str, seal: Any) -> str:
    """Keep what is asked for in the store, or compare it with what is kept there. Gives the mode.

    Args:
        store: the store.
        options: of the handle.
        codec: the name of its codec.
        seal: the seal that was asked for; None for none.

    Raises MismatchError, WrongKeyError; nothing was changed then.
    """
    names, mode = {"codec": codec, "keys": options.key_name()}, options.mode
    sealed = "" if seal is None else seal.name
    stored = store.info()
    is_empty = seal is None or "codec" in stored or not store.any()

    def work(txn: Transaction) -> None:
        is_new = txn.get_info("codec") is None
        if is_new:
            if mode in IMMUTABLE:
                txn.set_info("mode", mode)
            if seal is not None:
                txn.set_info("seal", sealed)
        for name, text in names.items():
            if txn.get_info(name) is None:
                txn.set_info(name, text)
        if txn.get_info("seal") == sealed and seal is not None:
            seal.enroll(txn, is_new=is_new and is_empty)

    writes = mode != "r" and not store.read_only
    if not names.keys() <= stored.keys() and mode != "r":
        store.update(work, whole=True)
        stored = store.info()
    _compare_names(store, stored, names)
    _compare_seals(store, stored.get("seal", sealed if "codec" not in stored else ""), sealed)
    if seal is not None and writes and not seal.is_enrolled(stored):
        store.update(work, whole=True)
    return _agree_on_mode(store, stored.get("mode", "rw"), options)


def _compare_names(store: Store, stored: dict[str, str], names: dict[str, str]) -> None:
    for name, text in names.items():
        if name in stored and not names_agree(stored[name], text):
            raise MismatchError(
                f"{store.place} was written with {name} {stored[name][:200]!r} and must be opened with it, not with "
                f"{text!r}; nothing was changed"
            )


def _compare_seals(store: Store, stored: str, asked: str) -> None:
    if stored == asked:
        return
    for protection, (how, option) in PROTECTIONS.items():
        if protection in stored and protection not in asked:
            raise WrongKeyError(f"{store.place} is {how}: give its {option}; nothing was changed")
    raise MismatchError(
        f"{store.place} was made {_described(stored)} and must be opened so, not {_described(asked)}; nothing was "
        "changed"
    )


def _described(seal: str) -> str:
    """The options that a seal is asked for with."""
    parts = [
        PROTECTIONS[part][1] if part in PROTECTIONS else f"compression={part!r}" for part in seal.split("+") if part
    ]
    return f"with {' and '.join(parts)}" if parts else "without compression, encryption_key and signing_key"


def _agree_on_mode(store: Store, kept: str, options: Options) -> str:
    mode = options.mode
    if kept not in MODES:
        raise NotAStoreError(f"{store.place} was made with a mode that this release does not know")
    if mode in IMMUTABLE and mode != kept:
        raise MismatchError(f"{store.place} was made with mode={kept!r}, and cannot be opened with {mode!r}")
    if kept in IMMUTABLE and not options.keeps_all:
        raise MismatchError(
            f"{store.place} was made with mode={kept!r}, so its entries stay for good: give no ttl, "
            "expiration_days, max_bytes or max_entries"
        )
    return mode if kept == "rw" else kept if mode == "rw" else mode
