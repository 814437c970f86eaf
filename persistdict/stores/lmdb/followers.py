"""Who goes along with an environment: the stores of this process that use it, and what they are in charge of."""

from __future__ import annotations

import weakref
from typing import Any

from persistdict.stores.lmdb.engine import Engine
from persistdict.stores.lmdb.gate import Gate

__all__ = ["Followers"]


class Followers:
    """The followers of an environment, which derives from it."""

    data: Engine
    gate: Gate

    def __init__(self) -> None:
        self._followers: weakref.WeakSet[Any] = weakref.WeakSet()

    def follow(self, follower: Any) -> None:
        """Have `follower.bind()` called after every (re)opening, as long as the follower lives."""
        with self.data.lock:
            self._followers.add(follower)

    def unfollow(self, follower: Any) -> None:
        """Call it no more; it does no work for others any more."""
        with self.data.lock:
            self._followers.discard(follower)
            self.gate.end_leases(id(follower))

    def lease(self, follower: Any, purpose: str) -> bool:
        """Whether this process is in charge of this purpose, as long as the follower is one; see `Store.lease`."""
        with self.data.lock:
            return follower in self._followers and bool(self.gate.lease(purpose, id(follower)))

    def rebind(self) -> None:
        """Tell the followers that the environments were opened, or let go of, or are read in another way."""
        for follower in list(self._followers):
            follower.bind()
