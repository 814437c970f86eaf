"""LangChain's caches on a PersistDict: answers of language models, embeddings, and bytes under str keys.

Each adapter takes a PersistDict or the path of one, and keeps its entries under tuples that begin with a name of its
own, so that any number of adapters and other users may share one PersistDict:

    PersistDictCache    ("langchain-llm", prompt, llm_string)                  -> str: JSON by langchain_core.load
    PersistDictStore    ("langchain-store", namespace, key)                    -> bytes
    CachedEmbeddings    ("langchain-embedding", namespace, text)               -> numpy array, float32, one dimension
                        ("langchain-embedding", namespace, "query", text)         the same, for queries

The texts are in the keys whole, not as digests: a store compares whole keys, so nothing can collide, and `list(d)`
tells what is cached. Nothing is pickled, and what is read makes only objects of listed classes.

Threads: any number may use one adapter. Processes: any number may use adapters on the same folder. Async methods read
and write in an executor, but a single entry is read in place: that takes microseconds.
"""

from __future__ import annotations

import inspect
import json
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from persistdict.dictionary import PersistDict
from persistdict.errors import DecodeError, KeyTypeError, ValueTypeError
from persistdict.options import seconds

try:
    import numpy
    from langchain_core import messages, outputs
    from langchain_core.caches import BaseCache
    from langchain_core.embeddings import Embeddings
    from langchain_core.load import Serializable, dumps, load
    from langchain_core.outputs import Generation
    from langchain_core.runnables import run_in_executor
    from langchain_core.stores import ByteStore
    from numpy.typing import NDArray
    from pydantic import BaseModel
    from typing_extensions import Self
except ImportError as missing:
    raise ImportError(
        f"persistdict.integrations.langchain needs {missing.name}: pip install persistdict[langchain]",
        name=missing.name,
    ) from missing

__all__ = ["GENERATIONS_AND_MESSAGES", "CachedEmbeddings", "PersistDictCache", "PersistDictStore"]

Source = PersistDict[Any, Any] | str | os.PathLike[str]
Vector = NDArray[numpy.float32]  # of one dimension
Prefix = tuple[str, ...]

LLM, STORE, EMBEDDING, QUERY = "langchain-llm", "langchain-store", "langchain-embedding", "query"
BATCH = 512  # keys removed in one transaction, or fetched in one go

GENERATIONS_AND_MESSAGES: tuple[type[Serializable], ...] = (
    outputs.Generation, outputs.GenerationChunk, outputs.ChatGeneration, outputs.ChatGenerationChunk,
    messages.AIMessage, messages.AIMessageChunk, messages.HumanMessage, messages.HumanMessageChunk,
    messages.SystemMessage, messages.SystemMessageChunk, messages.ToolMessage, messages.ToolMessageChunk,
    messages.ChatMessage, messages.ChatMessageChunk, messages.FunctionMessage, messages.FunctionMessageChunk,
)  # fmt: skip
"""The classes that PersistDictCache makes of what is stored. Their constructors do nothing but take values."""

# `load` is marked beta: it warns once per process, at a call. Unwrapped it is the same function without the warning;
# a filter for warnings around the call would change the filters of other threads meanwhile.
_load = inspect.unwrap(load)


class _Adapter:
    """Holds the PersistDict of an adapter, and closes it if the adapter opened it.

    `sample` is a value of the kind that the adapter stores: a codec that cannot keep it is refused at once, not after
    a model was paid for an answer.
    """

    def __init__(self, cache: Source, sample: Any) -> None:
        self._opened_here = not isinstance(cache, PersistDict)
        self._dict: PersistDict[Any, Any] = cache if isinstance(cache, PersistDict) else PersistDict(cache)
        if self._opened_here:
            return
        if self._dict._options.key_serializer is not None:
            raise ValueError("the keys of a LangChain adapter are tuples: use a PersistDict without key_serializer")
        try:
            kept = self._dict.codec.decode(*self._dict.codec.encode(sample))
        except Exception as error:  # a codec may be anybody's code
            raise ValueTypeError(f"{type(self).__name__} stores values that this codec refuses") from error
        if type(kept) is not type(sample):
            raise ValueTypeError(f"{type(self).__name__} stores values that this codec returns as something else")

    def close(self) -> None:
        """Close the PersistDict if it was opened from a path by this adapter. May be called again."""
        if self._opened_here:
            self._dict.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        """True, also when nothing is stored: callers ask `if cache:` to find out whether there is one."""
        return True

    def _own_keys(self, *prefix: str) -> Iterator[Any]:
        """The keys of three str that begin with `prefix`. Reads all keys of the PersistDict."""
        for key in self._dict:
            if isinstance(key, tuple) and len(key) == 3 and key[: len(prefix)] == prefix and isinstance(key[2], str):
                yield key


def _strings(texts: Iterable[str]) -> list[str]:
    """A list of str. A lone str is refused: it would be taken for its letters."""
    if isinstance(texts, str):
        raise KeyTypeError("give a list of str, not one str")
    texts = list(texts)
    for text in texts:
        if not isinstance(text, str):
            raise KeyTypeError(f"keys and texts must be str, not {type(text).__qualname__}")
    return texts


# Answers of language models


class PersistDictCache(_Adapter, BaseCache):
    """Answers repeated calls of LLMs and chat models from disk, across restarts and processes.

    Args:
        cache: a PersistDict, which may be shared with other users, or the path of one, which is opened here.
        ttl: seconds or timedelta after which an answer is absent; None for what the PersistDict says.
        allowed_objects: the classes that may be made of what is stored, instead of GENERATIONS_AND_MESSAGES. Their
            constructors are called with what is in the file; list none that do more than take values.

    Raises:
        ValueTypeError: if the PersistDict has a codec that cannot keep str.
        ValueError, TypeError: for impossible options; and what PersistDict raises if a path cannot be opened.

    Answers are stored as LangChain's own JSON, never pickled; secrets are not read from the environment. Threads and
    processes: any number.

    >>> from langchain_core.language_models import FakeListLLM
    >>> cache = PersistDictCache("memory://")
    >>> llm = FakeListLLM(responses=["first", "second"], cache=cache)
    >>> llm.invoke("question"), llm.invoke("question")
    ('first', 'first')
    >>> cache.clear()
    >>> llm.invoke("question")
    'second'
    """

    def __init__(
        self,
        cache: Source,
        *,
        ttl: float | timedelta | None = None,
        allowed_objects: Iterable[type[Serializable]] | None = None,
    ) -> None:
        self._ttl = seconds(ttl)
        self._allowed = GENERATIONS_AND_MESSAGES if allowed_objects is None else tuple(allowed_objects)
        for cls in self._allowed:
            if not (isinstance(cls, type) and issubclass(cls, Serializable)):
                raise TypeError("allowed_objects must be classes that derive from langchain_core.load.Serializable")
        self._namespaces = sorted({cls.lc_id()[0] for cls in self._allowed})  # of classes that are not LangChain's
        super().__init__(cache, "")

    def lookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """The answer of this model to this prompt, as new objects, or None. One read.

        Raises DecodeError for an entry that is no answer or that names classes beside the allowed ones. It stays where
        it is, and nothing that it names is imported.
        """
        text = self._dict.get((LLM, prompt, llm_string))
        return None if text is None else self._revived(text)

    async def alookup(self, prompt: str, llm_string: str) -> list[Generation] | None:
        """As `lookup`; answered in place, without a thread."""
        return self.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep an answer; replaces one that is there. Atomic, durable; one write. `aupdate` does it in an executor.

        Raises ValueTypeError, and stores nothing, if it would not come back equal: it holds objects that LangChain
        cannot write as JSON, or that JSON changes (a tuple, a key of a dict that is no str), or classes that are not
        allowed. As everywhere in LangChain, a pydantic object in additional_kwargs["parsed"] comes back as a dict.
        """
        text = self._written(return_val)
        if self._ttl is None:
            self._dict[LLM, prompt, llm_string] = text
        else:
            self._dict.set((LLM, prompt, llm_string), text, ttl=self._ttl)

    def clear(self, **kwargs: Any) -> None:
        """Remove all answers, and nothing else that is in the PersistDict. `aclear` does it in an executor.

        Takes no arguments. Reads all keys of the PersistDict; atomic and durable for each 512 answers.
        """
        if kwargs:
            raise TypeError(f"clear() removes all answers and takes no arguments, not {', '.join(kwargs)}")
        keys = self._own_keys(LLM)
        while batch := list(islice(keys, BATCH)):
            self._dict.delete_many(batch)

    def _written(self, generations: Sequence[Generation]) -> str:
        """The JSON of an answer, which was read back and compared: what JSON or LangChain lose, is noticed here."""
        try:
            # One by one: LangChain takes care of additional_kwargs["parsed"] only in a generation that is by itself.
            text = f"[{','.join(dumps(generation, ensure_ascii=False) for generation in generations)}]"
            revived = self._revived(text)
        except (DecodeError, TypeError, ValueError, RecursionError) as error:
            raise ValueTypeError("these generations cannot be written as JSON by LangChain and read again") from error
        if not _same(list(generations), revived):
            raise ValueTypeError("these generations hold something that JSON or LangChain would change")
        return text

    def _revived(self, text: Any) -> list[Generation]:
        if not isinstance(text, str):
            raise DecodeError(f"an answer of a language model is stored as str, not {type(text).__qualname__}")
        try:
            tree, namespaces = json.loads(text), self._namespaces
            found = _load(tree, allowed_objects=self._allowed, valid_namespaces=namespaces, secrets_from_env=False)
        except Exception as error:  # constructors are called with what is in the file, and may raise anything
            raise DecodeError("a stored answer of a language model is not made of allowed classes") from error
        if not isinstance(found, list) or not all(isinstance(generation, Generation) for generation in found):
            raise DecodeError("a stored answer of a language model is not a list of generations")
        return found


def _same(one: Any, other: Any) -> bool:
    """Equality by which a nan equals itself, models must be of one class, and a parsed model equals its dict."""
    if isinstance(one, BaseModel):
        if isinstance(other, dict):
            return _same(one.model_dump(), other)
        return type(one) is type(other) and _same(dict(one), dict(other))
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other or (one != one and other != other))


# Bytes under str keys


class PersistDictStore(_Adapter, ByteStore):
    """LangChain's ByteStore on disk: bytes under any str, for CacheBackedEmbeddings, parent documents and the like.

    Args:
        cache: a PersistDict, which may be shared with other users, or the path of one, which is opened here.
        namespace: stores with different namespaces in one PersistDict do not see each other's keys.

    Raises:
        ValueTypeError: if the PersistDict has a codec that cannot keep bytes.
        TypeError: if the namespace is no str; and what PersistDict raises if a path cannot be opened.

    Each call is one transaction. Threads and processes: any number.

    >>> store = PersistDictStore("memory://", namespace="pages")
    >>> store.mset([("a", b"1"), ("b", b"2")])
    >>> store.mget(["b", "x", "b"])
    [b'2', None, b'2']
    >>> store.mdelete(["a"])
    >>> list(store.yield_keys())
    ['b']
    """

    def __init__(self, cache: Source, *, namespace: str = "") -> None:
        if not isinstance(namespace, str):
            raise TypeError("namespace must be a str")
        self._prefix = (STORE, namespace)
        super().__init__(cache, b"")

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of the keys, None for those that are absent, in the order asked; all from one snapshot.

        Raises KeyTypeError for a key that is no str, DecodeError if what is stored is not bytes.
        """
        full = [(*self._prefix, key) for key in _strings(keys)]
        found = self._dict.get_many(full)
        for value in found.values():
            if not isinstance(value, bytes):
                raise DecodeError(f"a ByteStore holds bytes, but {type(value).__qualname__} was stored in its place")
        return [found.get(key) for key in full]

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Set all of these, or none: one transaction, durable. Of equal keys the last one counts.

        Raises KeyTypeError for a key that is no str, ValueTypeError for a value that is not bytes; both are
        TypeErrors, and nothing is stored.
        """
        pairs = dict(key_value_pairs)
        _strings(pairs)
        for value in pairs.values():
            if type(value) is not bytes:
                raise ValueTypeError(f"a ByteStore stores bytes, not {type(value).__qualname__}")
        if pairs:
            self._dict.set_many(((*self._prefix, key), value) for key, value in pairs.items())

    def mdelete(self, keys: Sequence[str]) -> None:
        """Remove those of the keys that are there: one transaction, durable. Raises KeyTypeError as `mget`."""
        full = [(*self._prefix, key) for key in _strings(keys)]
        if full:
            self._dict.delete_many(full)

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The keys that begin with `prefix`, or all, oldest first. Reads all keys of the PersistDict.

        Holds no lock and no snapshot; the store may be changed meanwhile.
        """
        for key in self._own_keys(*self._prefix):
            if key[2].startswith(prefix or ""):
                yield key[2]

    async def ayield_keys(self, *, prefix: str | None = None) -> AsyncIterator[str]:
        """As `yield_keys`; 512 at a time are fetched in an executor."""
        keys = self.yield_keys(prefix=prefix)
        while batch := await run_in_executor(None, lambda: list(islice(keys, BATCH))):
            for key in batch:
                yield key


# Embeddings


class CachedEmbeddings(_Adapter, Embeddings):
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
        texts = _strings(texts)
        vectors, missing = self._read(self._documents, texts)
        for batch in missing:
            vectors.update(self._keep(self._documents, batch, self._underlying.embed_documents(batch)))
        return _as_lists(vectors, texts)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, with the async method of the model; the store is read and written in an executor."""
        texts = _strings(texts)
        vectors, missing = await run_in_executor(None, self._read, self._documents, texts)
        for batch in missing:
            computed = await self._underlying.aembed_documents(batch)
            vectors.update(await run_in_executor(None, self._keep, self._documents, batch, computed))
        return await run_in_executor(None, _as_lists, vectors, texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query. One read; if it is not cached, one call of the model and one write.

        Raises KeyTypeError and ValueError as `embed_documents`.
        """
        vectors, missing = self._read(self._queries, _strings([text]))
        if missing:
            vectors = self._keep(self._queries, [text], [self._underlying.embed_query(text)])
        return _as_lists(vectors, [text])[0]

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, with the async method of the model; a cached query is answered in place."""
        vectors, missing = self._read(self._queries, _strings([text]))
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
        raise ValueError("the model returned a vector that is not a list of numbers that fit into float32") from error
    if rounded.ndim != 1:
        raise ValueError(f"the model returned a vector of {rounded.ndim} dimensions; it must have one")
    return rounded


def _checked(vector: Any) -> Vector:
    """A vector from the store. Raises DecodeError for what this adapter did not write."""
    if not isinstance(vector, numpy.ndarray) or vector.dtype != numpy.float32 or vector.ndim != 1:
        raise DecodeError("an embedding is stored as a float32 array of one dimension, but something else is there")
    return vector
