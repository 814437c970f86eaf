"""The data: what caches of language models and of retrieval hold, and the scalars."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy

__all__ = ["BYTES", "CODEC_VALUES", "DESCRIPTIONS", "STORED", "Make", "equal", "values_of"]

Make = Callable[[random.Random], Any]
WORDS = ("the", "store", "reads", "every", "entry", "from", "one", "snapshot", "and", "writes", "it", "back", "durably")


def text(size: int, words: tuple[str, ...] = WORDS) -> Make:
    """A maker of text with `size` characters."""

    def make(rng: random.Random) -> str:
        return " ".join(rng.choices(words, k=size // 2))[:size]

    return make


def chat(rng: random.Random) -> dict[str, Any]:
    """The answer of a language model, as its API gives it."""
    return {
        "id": f"chatcmpl-{rng.getrandbits(64):x}",
        "model": "large-model-1",
        "created": 1_700_000_000 + rng.randrange(10**6),
        "messages": [
            {"role": "system", "content": text(300)(rng)},
            {"role": "user", "content": text(500)(rng)},
            {"role": "assistant", "content": text(1200)(rng), "tool_calls": [], "refusal": None},
        ],
        "usage": {"prompt_tokens": rng.randrange(1000), "completion_tokens": rng.randrange(1000), "cached": [0, 1, 2]},
        "logprobs": [[rng.randrange(50_000), -rng.random()] for _ in range(8)],
        "done": True,
    }


def document(rng: random.Random) -> dict[str, Any]:
    """A record of a JSON API: many small parts."""

    def person(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "name": text(16)(rng),
            "tags": ["a", "b", "c"],
            "score": rng.random(),
            "active": number % 2 == 0,
            "address": {"street": text(12)(rng), "zip": rng.randrange(100_000), "geo": [rng.random(), rng.random()]},
        }

    return {"page": 1, "next": None, "people": [person(number) for number in range(10)]}


def messages(rng: random.Random) -> dict[str, Any]:
    """The request to a language model: text and ints, no floats."""
    return {
        "model": "large-model-1",
        "max_tokens": rng.randrange(4096),
        "seed": rng.getrandbits(31),
        "messages": [
            {"role": rng.choice(["user", "assistant"]), "content": text(200)(rng), "parts": [1, 2]} for _ in range(10)
        ],
    }


def vector(rng: random.Random) -> Any:
    """An embedding."""
    return numpy.random.default_rng(rng.getrandbits(32)).standard_normal(1536, dtype=numpy.float32)


def floats(rng: random.Random) -> list[float]:
    return [rng.random() for _ in range(1000)]


def tuples(rng: random.Random) -> list[tuple[str, int]]:
    return [(rng.choice(WORDS), rng.randrange(10**6)) for _ in range(100)]


CODEC_VALUES: dict[str, Make] = {
    "str, 100 B": text(100),
    "str, 12 KB": text(12_000),
    "str, 12,000 characters, not ASCII": text(12_000, ("größer", "naïve", "données", "日本語", "текст")),
    "bytes, 1 KB": lambda rng: rng.randbytes(1024),
    "chat dict, 2 KB": chat,
    "chat request, 2 KB, no floats": messages,
    "JSON-like dict of dicts": document,
    "array of 1536 float32": vector,
    "list of 1000 floats": floats,
    "list of 100 tuples": tuples,
    "int": lambda rng: rng.getrandbits(48),
    "float": lambda rng: rng.random(),
    "datetime, UTC": lambda rng: datetime(2024, 5, 17, 12, 30, 15, rng.randrange(10**6), tzinfo=timezone.utc),
}

# What stores hold. The labels stand in the documentation.
STORED: dict[str, Make] = {
    "100 B": text(100),
    "420 B": text(420),
    "1 KB": text(1024),
    "12 KB": text(12_000),
    "chat dict": chat,
    "array": vector,
    "1 MB": lambda rng: rng.randbytes(1 << 20),
}
BYTES = {"100 B": 100, "420 B": 420, "1 KB": 1024, "12 KB": 12_000, "chat dict": 2300, "array": 6144, "1 MB": 1 << 20}
DESCRIPTIONS = {
    "100 B": "str",
    "420 B": "str",
    "1 KB": "str",
    "12 KB": "str, a page of text",
    "chat dict": "the answer of a language model as nested dicts and lists, 2.3 KB",
    "array": "numpy, 1536 float32",
    "1 MB": "bytes",
}


def values_of(label: str) -> list[Any]:
    """Some different values of a kind, the same in every process and run."""
    rng = random.Random(3)
    return [STORED[label](rng) for _ in range(max(8, min(100, (8 << 20) // BYTES[label])))]


def equal(one: Any, other: Any) -> bool:
    """Whether two values have the same type and content."""
    return type(one) is type(other) and bool(numpy.all(one == other))
