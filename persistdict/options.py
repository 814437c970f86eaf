"""The options of a dictionary: checked once, kept for pickling, each with an effect."""

import errno
import os
import re
import time
from collections.abc import Callable, MutableMapping
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from persistdict.codecs import Codec, make_codec
from persistdict.codecs.other import name_of
from persistdict.errors import OpenError, Unsupported
from persistdict.eviction import Bounds
from persistdict.keys import MAX_KEY_SIZE, KeyCodec
from persistdict.log import Log
from persistdict.modes import IMMUTABLE, MODES
from persistdict.ranking import POLICIES
from persistdict.store import Store

__all__ = ["Options", "make_store", "number", "seconds"]

SECONDS_PER_DAY = 86400.0
LEAST_BYTES = 1 << 16  # a store takes some pages of 4 KB, however little is in it
PERMISSIONS = (0o700, 0o750, 0o755, 0o770, 0o775)  # of a folder; that everybody may write there, nobody wants
LONGEST = 1e13  # seconds; a deadline is a number of microseconds in 64 bits
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


def seconds(ttl: float | timedelta | None) -> float | None:
    """A time to live in seconds. Raises ValueError or TypeError for what is none."""
    if ttl is None:
        return None
    if isinstance(ttl, timedelta):
        ttl = ttl.total_seconds()
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl must be seconds, a timedelta or None, not {type(ttl).__qualname__}")
    if not 0 < ttl <= LONGEST:
        raise ValueError(f"ttl must be positive and at most {LONGEST:.0e} seconds; None means for ever")
    return float(ttl)


class Options(NamedTuple):
    """What the constructor of PersistDict was given."""

    database_path: str | bytes | os.PathLike[str] | os.PathLike[bytes]
    expiration_days: float = 0
    key_serializer: Callable[[Any], str | bytes] | None = None
    key_unserializer: Callable[[bytes], Any] | None = None
    key_size_limit: int = MAX_KEY_SIZE
    value_serializer: Callable[[Any], str | bytes] | None = None
    value_unserializer: Callable[[bytes], Any] | None = None
    caching: bool | MutableMapping[Any, Any] = True
    verbose: bool = False
    background_thread: bool | Literal["disabled"] = True
    background_timeout: float = 30
    name: str | None = None
    codec: Any = "safe"
    allow_pickle: bool = False
    ttl: float | timedelta | None = None
    max_bytes: int | None = None
    max_entries: int | None = None
    eviction: str = "lru"
    durability: str = "interval"
    sync_interval: float = 1.0
    timeout: float = 60.0
    network_filesystem: str = "refuse"
    mode: str = "rw"
    compression: Any = None
    encryption_key: Any = None
    signing_key: Any = None
    clock: Callable[[], float] = time.time
    permissions: int = PERMISSIONS[0]

    def __repr__(self) -> str:
        """Not what they are: there may be keys among them, and tools that show tracebacks show this, too."""
        return f"<{type(self).__name__}>"

    def checked(self) -> "Options":
        """These options, with the path made absolute. Raises TypeError or ValueError for impossible ones."""
        if not os.fspath(self.database_path):
            raise ValueError("database_path must name a folder")
        number("expiration_days", self.expiration_days, at_least=0)
        number("background_timeout", self.background_timeout, more_than=0)
        if type(self.key_size_limit) is not int or not 1 <= self.key_size_limit <= MAX_KEY_SIZE:
            raise ValueError(f"key_size_limit must be an int from 1 to {MAX_KEY_SIZE}")
        if (self.key_serializer is None) != (self.key_unserializer is None):
            raise ValueError("key_serializer and key_unserializer must be given together")
        if not isinstance(self.background_thread, bool) and self.background_thread != "disabled":
            raise ValueError('background_thread must be True, False or "disabled"')
        if not isinstance(self.caching, (bool, MutableMapping)):
            raise TypeError("caching must be True, False or a mutable mapping such as a cachetools cache")
        for option in ("key_serializer", "key_unserializer", "value_serializer", "value_unserializer", "clock"):
            if getattr(self, option) is not None and not callable(getattr(self, option)):
                raise TypeError(f"{option} must be callable")
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError("name must be a str")
        for option in ("verbose", "allow_pickle"):
            if not isinstance(getattr(self, option), bool):
                raise TypeError(f"{option} must be True or False")
        if self.durability not in ("interval", "commit"):
            raise ValueError('durability must be "interval" or "commit"')
        number("sync_interval", self.sync_interval, more_than=0)
        number("timeout", self.timeout, at_least=0)
        if self.network_filesystem not in ("refuse", "allow"):
            raise ValueError('network_filesystem must be "refuse" or "allow"')
        seconds(self.ttl)
        self._check_permissions()
        self._check_bounds()
        self._check_mode()
        return self._with_seals()._replace(database_path=self.path)

    def _with_seals(self) -> "Options":
        """These options, with keys that nothing shows, and a compression that has its own options."""
        if self.compression is self.encryption_key is self.signing_key is None:
            return self
        from persistdict.seals.compression import compression_of
        from persistdict.seals.keyring import Keyring

        if self.encryption_key is not None and self.signing_key is not None:
            raise ValueError("give encryption_key or signing_key, not both: what is encrypted is signed as well")
        compression = None if self.compression is None else compression_of(self.compression)
        encryption, signing = (Keyring.of(name, getattr(self, name)) for name in ("encryption_key", "signing_key"))
        return self._replace(compression=compression, encryption_key=encryption, signing_key=signing)

    def seal(self) -> Any:
        """What the dictionary is to be sealed with; None for nothing."""
        if self.compression is self.encryption_key is self.signing_key is None:
            return None
        from persistdict.seals.seal import Asked

        return Asked(self.compression, self.encryption_key, self.signing_key)

    @property
    def row_limit(self) -> int:
        """Keys whose order matters must be shorter, as they are above a seal."""
        if self.encryption_key is None:
            return self.key_size_limit
        from persistdict.seals.names import OVERHEAD

        return self.key_size_limit - OVERHEAD

    def _check_permissions(self) -> None:
        if type(self.permissions) is not int or self.permissions not in PERMISSIONS:
            raise ValueError(f"permissions must be one of {', '.join(map(oct, PERMISSIONS))}")
        if self.permissions != PERMISSIONS[0] and (_SCHEME.fullmatch(self.path) or os.name != "posix"):
            raise ValueError("permissions have an effect only on a folder of a POSIX system")

    def _check_bounds(self) -> None:
        for option, least in (("max_bytes", LEAST_BYTES), ("max_entries", 1)):
            bound = getattr(self, option)
            if bound is not None and (type(bound) is not int or bound < least):
                raise ValueError(f"{option} must be an int of at least {least:,}, or None for no bound")
        if self.eviction not in POLICIES:
            raise ValueError(f"eviction must be one of {', '.join(map(repr, POLICIES))}")
        if self.eviction != "lru" and not self.is_bounded:
            raise ValueError("eviction has no effect without max_bytes or max_entries; give one of them")

    def _check_mode(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}")
        if self.mode in IMMUTABLE and not self.keeps_all:
            raise ValueError(
                f"with mode={self.mode!r} entries stay for good: give no ttl, expiration_days, max_bytes or max_entries"
            )
        if self.mode == "r" and (self.is_bounded or self.ttl is not None):
            raise ValueError('with mode="r" nothing is written, and ttl, max_bytes and max_entries have no effect')

    @property
    def keeps_all(self) -> bool:
        """Whether nothing ends and nothing is evicted."""
        return not self.expiration_days and self.ttl is None and not self.is_bounded

    @property
    def is_bounded(self) -> bool:
        """Whether there is a bound."""
        return self.max_bytes is not None or self.max_entries is not None

    def make_bounds(self, store: Any, log: Log) -> Bounds | None:
        """What keeps the store within the bounds; None if there are none."""
        if not self.is_bounded:
            return None
        return Bounds(store, self.max_entries, self.max_bytes, self.eviction, log)

    @property
    def label(self) -> str:
        """What messages call the dictionary."""
        return self.name or os.path.basename(self.path) or self.path

    @property
    def path(self) -> str:
        """The folder as an absolute path, or the URL."""
        path = os.fsdecode(self.database_path)
        return path if _SCHEME.fullmatch(path) else os.path.abspath(path)

    def make_keys(self) -> KeyCodec:
        return KeyCodec(self.key_serializer, self.key_unserializer)

    def make_codec(self) -> Codec:
        return make_codec(
            self.codec,
            allow_pickle=self.allow_pickle,
            serializer=self.value_serializer,
            unserializer=self.value_unserializer,
        )

    def key_name(self) -> str:
        """The name of the key encoding, kept in the store."""
        return "ordered" if self.key_serializer is None else f"call:{name_of(self.key_serializer)}"


def number(option: str, value: Any, at_least: float | None = None, more_than: float | None = None) -> float:
    """The number that an option must be. Raises TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option} must be a number, not {type(value).__qualname__}")
    if not value < float("inf") or (at_least is not None and value < at_least):
        raise ValueError(f"{option} must be a finite number" + ("" if at_least is None else f" of at least {at_least}"))
    if more_than is not None and value <= more_than:
        raise ValueError(f"{option} must be more than {more_than}")
    return float(value)


def make_store(options: Options) -> Store:
    """Open the store that a path or a URL names. Engines are imported when they are used."""
    idle = options.expiration_days * SECONDS_PER_DAY or None
    url = _SCHEME.fullmatch(options.path)
    if url is None:
        if options.mode == "r" and not os.path.exists(os.path.join(options.path, "data.mdb")):
            raise OpenError(errno.ENOENT, 'there is no dictionary, and with mode="r" none is made', options.path)
        from persistdict.stores.lmdb import LmdbStore

        return LmdbStore(
            options.path,
            key_size_limit=options.key_size_limit,
            idle=idle,
            interval=options.sync_interval if options.durability == "interval" else 0.0,
            timeout=options.timeout,
            network=options.network_filesystem == "allow",
            counting=options.is_bounded and options.eviction == "lfu",
            clock=options.clock,
            permissions=options.permissions,
        )
    if url[1].lower() == "memory":
        from persistdict.stores.memory import MemoryStore

        counting = options.is_bounded and options.eviction == "lfu"
        return MemoryStore(url[2] or None, idle=idle, counting=counting, clock=options.clock)
    raise Unsupported(f"no engine for {url[1]}:// is known; give a folder, or memory://")
