"""Embeddings."""

from __future__ import annotations

import threading
from typing import Any

import numpy
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import run_in_executor
from numpy.typing import NDArray

from persistdict.errors import DecodeError, withheld
from persistdict.integrations.langchain.adapter import Adapter, Source, strings

__all__ = ["CachedEmbeddings"]

EMBEDDING, QUERY = "langchain-embedding", "query"
Prefix = tuple[str, ...]
Vector = NDArray[numpy.float32]  # of one dimension


class CachedEmbeddings(Adapter, Embeddings):
    """Computes the embedding of each text once, and takes it from disk ever after.

    Args:
        underlying: the model that embeds what is not cached.
        cache: a PersistDict, which may be shared with other users, or the path of one, which is opened here.
        namespace: names the model, and whatever else changes its vectors (dimensions, prompts, a version). Different
            namespaces never mix.
        query_namespace: where queries are kept. By default apart from documents, because many models embed them
            differently. The same as `namespace` if the model embeds both alike: then each finds the other's vectors.
        batch_size: the model is given so many texts at once, and their vectors are stored before the next, so that
            an interruption keeps what was computed. None for all at once.

    Raises:
        ValueTypeError: if the PersistDict has a codec that cannot keep numpy arrays.
        ValueError, TypeError: for impossible options; and what PersistDict raises if a path cannot be opened.

    Vectors are stored as float32. What is answered is always what float32 keeps of the model's numbers, so a text has
    the same vector whether it was cached or not. Threads and processes: any number; two that miss the same text at
    the same time may both compute it.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> model = CachedEmbeddings(DeterministicFakeEmbedding(size=3), "memory://", namespace="fake-3")
    >>> model.embed_documents(["a", "b", "a"]) == model.embed_documents(["a", "b", "a"])
    True
    >>> model.hits, model.misses
    (4, 2)
    """

    def __init__(
        self,
        underlying: Embeddings,
        cache: Source,
        *,
        namespace: str,
        query_namespace: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        for name in (namespace, namespace if query_namespace is None else query_namespace):
            if not isinstance(name, str):
                raise TypeError("namespace and query_namespace must be str")
            if not name:
                raise ValueError("namespace and query_namespace must not be empty: name the model")
        if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
            raise ValueError("batch_size must be an int of at least 1, or None")
        self._underlying = underlying
        self._documents: Prefix = (EMBEDDING, namespace)
        # One part more than any key of documents has: no query can be taken for a document.
        self._queries: Prefix = (*self._documents, QUERY) if query_namespace is None else (EMBEDDING, query_namespace)
        self._batch_size = batch_size
        # By thread, so that each changes only its own and no lock is needed, which a fork could leave locked.
        self._counts: dict[int, tuple[int, int]] = {}
        super().__init__(cache, numpy.zeros(1, numpy.float32))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of the texts, in their order. One read, one call of the model, one write; see `batch_size`.

        Each distinct text is computed once. Raises KeyTypeError for texts that are no str, and ValueError, with
        nothing of that batch stored, if the model returns too few or too many vectors, or something else.
        """
        texts = strings(texts)
        vectors, missing = self._read(self._documents, texts)
        for batch in missing:
            vectors.update(self._keep(self._documents, batch, self._underlying.embed_documents(batch)))
        return _as_lists(vectors, texts)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, with the async method of the model; the store is read and written in an executor."""
        texts = strings(texts)
        vectors, missing = await run_in_executor(None, self._read, self._documents, texts)
        for batch in missing:
            computed = await self._underlying.aembed_documents(batch)
            vectors.update(await run_in_executor(None, self._keep, self._documents, batch, computed))
        return await run_in_executor(None, _as_lists, vectors, texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query. One read; if it is not cached, one call of the model and one write.

        Raises KeyTypeError and ValueError as `embed_documents`.
        """
        vectors, missing = self._read(self._queries, strings([text]))
        if missing:
            vectors = self._keep(self._queries, [text], [self._underlying.embed_query(text)])
        return _as_lists(vectors, [text])[0]

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, with the async method of the model; a cached query is answered in place."""
        vectors, missing = self._read(self._queries, strings([text]))
        if missing:
            computed = [await self._underlying.aembed_query(text)]
            vectors = await run_in_executor(None, self._keep, self._queries, [text], computed)
        return _as_lists(vectors, [text])[0]

    def _read(self, prefix: Prefix, texts: list[str]) -> tuple[dict[str, Vector], list[list[str]]]:
        """The vectors that are cached, and the distinct texts of the others, in batches."""
        found = self._dict.get_many([(*prefix, text) for text in texts])
        vectors = {key[-1]: _checked(vector) for key, vector in found.items()}
        missing = [text for text in dict.fromkeys(texts) if text not in vectors]
        self._count(len(texts) - len(missing), 0)
        size = self._batch_size or len(missing) or 1
        return vectors, [missing[start : start + size] for start in range(0, len(missing), size)]

    def _keep(self, prefix: Prefix, texts: list[str], computed: Any) -> dict[str, Vector]:
        """Store what the model computed, in one transaction; gives it back as it was stored."""
        if len(computed) != len(texts):
            raise ValueError(f"the model returned {len(computed)} vectors for {len(texts)} texts; none was stored")
        vectors = {text: _rounded(vector) for text, vector in zip(texts, computed, strict=True)}
        self._dict.set_many(((*prefix, text), vector) for text, vector in vectors.items())
        self._count(0, len(texts))
        return vectors

    def _count(self, hits: int, misses: int) -> None:
        thread = threading.get_ident()
        hits_before, misses_before = self._counts.get(thread, (0, 0))
        self._counts[thread] = (hits_before + hits, misses_before + misses)

    @property
    def hits(self) -> int:
        """Texts that were found in the cache, or repeated another of the same call; since this object was made."""
        return sum(hits for hits, _ in list(self._counts.values()))

    @property
    def misses(self) -> int:
        """Texts that the model embedded; since this object was made."""
        return sum(misses for _, misses in list(self._counts.values()))


def _as_lists(vectors: dict[str, Vector], texts: list[str]) -> list[list[float]]:
    """One list for each text, also for a repeated one: the caller may change them."""
    return [vectors[text].tolist() for text in texts]


def _rounded(vector: Any) -> Vector:
    """A vector of the model as it is stored. Raises ValueError for what is none, or does not fit into float32."""
    try:
        with numpy.errstate(over="raise"):
            rounded: Vector = numpy.array(vector, numpy.float32)
    except (TypeError, ValueError, FloatingPointError) as error:
        raise ValueError(
            "the model returned a vector that is not a list of numbers that fit into float32"
        ) from withheld(error)
    if rounded.ndim != 1:
        raise ValueError(f"the model returned a vector of {rounded.ndim} dimensions; it must have one")
    return rounded


def _checked(vector: Any) -> Vector:
    """A vector from the store. Raises DecodeError for what this adapter did not write."""
    if not isinstance(vector, numpy.ndarray) or vector.dtype != numpy.float32 or vector.ndim != 1:
        raise DecodeError("an embedding is stored as a float32 array of one dimension, but something else is there")
    return vector
