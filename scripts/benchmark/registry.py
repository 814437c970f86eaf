"""All libraries, in the order of the tables."""

from __future__ import annotations

import importlib.util

from benchmark import ours, peers
from benchmark.libraries import Library

__all__ = ["BASE", "LEAN", "REQUIRED", "is_installed", "libraries", "library"]

BASE, LEAN = "persistdict", "lmdb, lean"
REQUIRED = (BASE, "persistdict, no cache", LEAN, "lmdb, usual", "dict")  # with what the tests install
MODULES = {"lmdb-dict-full": "lmdb_dict"}


def libraries() -> list[Library]:
    """All of them, not opened."""
    return [
        ours.Ours(),
        ours.Ours(caching=False),
        ours.Ours(commit=True),
        ours.LmdbLean(),
        ours.LmdbLean(sync=True),
        ours.LmdbUsual(),
        peers.Rocks(),
        peers.DiskCache(),
        peers.DiskIndex(),
        peers.Sqlite(),
        peers.LmdbDict(),
        peers.Shelve(),
        peers.FileDict(),
        peers.Nfs(),
        peers.XattrDict(),
        ours.Plain(),
    ]


def library(name: str) -> Library:
    """A new one of this name, not opened."""
    return next(one for one in libraries() if one.name == name)


def is_installed(one: Library) -> bool:
    """Whether the library can be found."""
    return one.package == "Python" or importlib.util.find_spec(MODULES.get(one.package, one.package)) is not None
