"""The table of targets, and what counts as a failure.

A target takes any bytes, and returns, or raises an error of ours. Everything else that it raises is a failure, and so
is an assertion: what was decoded must be encoded again to what decodes to an equal value, where that is meant.

To add one: a function under `@target(seeds)`, where `seeds` gives some bytes that its own encoder has made. Bytes of
which a checksum is a part are given one that fits, half of the time, by `mend`. Then its module is named in targets.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from fuzz.mutate import without_change
from persistdict import PersistDictError

__all__ = ["TARGETS", "Target", "outcome", "target"]


class Target(NamedTuple):
    """What is fuzzed.

    Attributes:
        run: the function.
        seeds: gives inputs to begin with.
        mend: makes a checksum fit.
        make: makes an input from nothing, where changing bytes seldom leads far.
        share: how many of a million inputs it gets; a slow one gets fewer.
    """

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    mend: Callable[[bytes], bytes] = without_change
    make: Callable[[random.Random], bytes] | None = None
    share: float = 1.0


TARGETS: dict[str, Target] = {}


def target(seeds: Callable[[], list[bytes]], **options: Any) -> Callable[[Callable[[bytes], object]], Any]:
    """Make a function a target, under its own name."""

    def add(run: Callable[[bytes], object]) -> Callable[[bytes], object]:
        TARGETS[run.__name__] = Target(run, seeds, **options)
        return run

    return add


def outcome(one: Target, data: bytes) -> str:
    """What became of an input: "decoded", or the name of an error of ours. Raises what is a failure."""
    try:
        one.run(data)
    except PersistDictError as error:
        cause: BaseException | None = error
        while cause is not None:  # that it became one of ours does not make it harmless
            assert not isinstance(cause, MemoryError), "so few bytes have asked for more memory than there is"
            cause = cause.__cause__ or cause.__context__
        return type(error).__name__
    return "decoded"
