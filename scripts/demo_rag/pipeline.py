"""Embeds passages through a cache, and finds the passages nearest to a question."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_rag.corpus import Passage
from persistdict.integrations.langchain import CachedEmbeddings

Vectors = NDArray[np.float64]

BATCH = 25
LINES_OF_PROGRESS = 10


@dataclass(frozen=True)
class Pass:
    """One way through all passages: their vectors and what they cost."""

    vectors: Vectors
    seconds: float
    hits: int
    misses: int

    @property
    def digest(self) -> str:
        """Equal for two passes if and only if all their vectors agree to the last bit."""
        return hashlib.sha256(self.vectors.tobytes()).hexdigest()

    def __str__(self) -> str:
        return f"{self.seconds:8.3f} s   {self.hits:5} hits   {self.misses:5} misses"


def embed(cached: CachedEmbeddings, passages: Sequence[Passage], *, progress: bool = False) -> Pass:
    """Embed all passages, a batch at a time; the cache computes only what it does not have.

    Args:
        cached: the model behind its cache.
        passages: what to embed.
        progress: print now and then how far it is.
    """
    texts = [passage.embedded for passage in passages]
    hits, misses = cached.hits, cached.misses
    started = time.perf_counter()
    vectors: list[list[float]] = []
    reported = 0
    for first in range(0, len(texts), BATCH):
        vectors += cached.embed_documents(texts[first : first + BATCH])
        share = len(vectors) * LINES_OF_PROGRESS // len(texts)
        if progress and share > reported:
            reported = share
            rate = len(vectors) / (time.perf_counter() - started)
            print(
                f"  {len(vectors):5} of {len(texts)} passages   {rate:6.1f} per second"
                f"   {cached.hits - hits:5} hits   {cached.misses - misses:5} misses",
                flush=True,
            )
    seconds = time.perf_counter() - started
    return Pass(np.array(vectors), seconds, cached.hits - hits, cached.misses - misses)


def nearest(
    cached: CachedEmbeddings,
    question: str,
    vectors: Vectors,
    passages: Sequence[Passage],
    count: int,
) -> list[tuple[float, Passage]]:
    """Return the `count` passages nearest to the question, best first, each with its cosine."""
    # All vectors have length 1, so the product is the cosine.
    scores = vectors @ np.array(cached.embed_query(question))
    best = np.argsort(-scores, kind="stable")[:count]
    return [(float(scores[number]), passages[number]) for number in best]
