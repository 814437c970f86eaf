"""Answers of language models."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

from langchain_core import messages, outputs
from langchain_core.caches import BaseCache
from langchain_core.load import Serializable, dumps, load
from langchain_core.outputs import Generation
from pydantic import BaseModel

from persistdict.errors import DecodeError, ValueTypeError, withheld
from persistdict.integrations.langchain.adapter import BATCH, Adapter, Source
from persistdict.options import seconds

__all__ = ["GENERATIONS_AND_MESSAGES", "PersistDictCache"]

LLM = "langchain-llm"
Prefix = tuple[str, ...]

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


class PersistDictCache(Adapter, BaseCache):
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
            raise ValueTypeError(
                "these generations cannot be written as JSON by LangChain and read again"
            ) from withheld(error)
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
            raise DecodeError("a stored answer of a language model is not made of allowed classes") from withheld(error)
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
