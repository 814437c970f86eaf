"""The LangChain adapters: LangChain's own test suites, then every promise of theirs that is ours."""

import asyncio
import doctest
import json
import math
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from datetime import timedelta

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import (
    FakeListChatModel,
    FakeListLLM,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, GenerationChunk
from langchain_core.prompts import PromptTemplate
from langchain_tests.integration_tests import (
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
)
from pydantic import BaseModel

from persistdict import DecodeError, PersistDict, ValueTypeError
from persistdict.integrations import langchain
from persistdict.integrations.langchain import (
    GENERATIONS_AND_MESSAGES,
    CachedEmbeddings,
    PersistDictCache,
    PersistDictStore,
)
from persistdict.testing import Clock

PROMPT, MODEL = "prompt", "model"
KEY = ("langchain-llm", PROMPT, MODEL)
ODD_TEXTS = ["", " ", "ß 猫 🐈", "\ud800 alone", "nul\0nul", "x" * 100_000]


@pytest.fixture
def d(tmp_path):
    """A dictionary on disk."""
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        yield d


@pytest.fixture
def global_cache():
    """Sets LangChain's global cache, and takes it away at the end."""
    yield set_llm_cache
    set_llm_cache(None)


# LangChain's own suites


class TestSyncCache(SyncCacheTestSuite):
    """The contract of a cache of answers."""

    @pytest.fixture
    def cache(self, tmp_path):
        with PersistDictCache(tmp_path / "c") as cache:
            yield cache


class TestAsyncCache(AsyncCacheTestSuite):
    """The same, asynchronously."""

    @pytest.fixture
    async def cache(self, tmp_path):
        with PersistDictCache(tmp_path / "c") as cache:
            yield cache


class TestSyncStore(BaseStoreSyncTests[bytes]):
    """The contract of a store of bytes."""

    @pytest.fixture
    def kv_store(self, tmp_path):
        with PersistDictStore(tmp_path / "s") as store:
            yield store

    @pytest.fixture
    def three_values(self):
        return b"foo", b"", b"\0\xff"


class TestAsyncStore(BaseStoreAsyncTests[bytes]):
    """The same, asynchronously."""

    @pytest.fixture
    async def kv_store(self, tmp_path):
        with PersistDictStore(tmp_path / "s") as store:
            yield store

    @pytest.fixture
    def three_values(self):
        return b"foo", b"", b"\0\xff"


# The module


def run(code, *flags):
    """Run code in a fresh interpreter, without beartype."""
    return subprocess.run([sys.executable, *flags, "-c", textwrap.dedent(code)], capture_output=True, text=True)


def test_exported_names():
    assert sorted(langchain.__all__) == [
        "CachedEmbeddings",
        "GENERATIONS_AND_MESSAGES",
        "PersistDictCache",
        "PersistDictStore",
    ]
    assert all(getattr(langchain, name).__doc__ for name in langchain.__all__)


def test_docstrings_run():
    outcomes = [doctest.testmod(module) for module in (langchain.answers, langchain.bytestore, langchain.embeddings)]
    assert sum(outcome.attempted for outcome in outcomes) > 10
    assert not any(outcome.failed for outcome in outcomes)


@pytest.mark.parametrize("package", ["langchain_core", "numpy"])
def test_missing_package_is_named_with_the_remedy(package):
    done = run(f"import sys; sys.modules[{package!r}] = None; import persistdict.integrations.langchain")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ") and package in last and "pip install persistdict[langchain]" in last


def test_import_and_use_warn_of_nothing():
    """Not even once per process, which is what LangChain's beta marks do."""
    done = run(
        """
        from langchain_core.outputs import Generation
        from persistdict.integrations.langchain import PersistDictCache
        cache = PersistDictCache("memory://")
        cache.update("p", "m", [Generation(text="a")])
        print(cache.lookup("p", "m")[0].text)
        """,
        "-Werror",
    )
    assert (done.stdout, done.stderr) == ("a\n", "")


def test_wrong_types_are_told_in_a_sentence():
    """What beartype would catch first in here, the adapters refuse by themselves."""
    done = run(
        """
        import asyncio
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from persistdict import KeyTypeError, ValueTypeError
        from persistdict.integrations.langchain import *

        def refused(kind, call, *args, **kwargs):
            try:
                call(*args, **kwargs)
            except kind as error:
                assert type(error) is kind and str(error), repr(error)
            else:
                raise AssertionError(call, args, kwargs)

        store = PersistDictStore("memory://")
        refused(KeyTypeError, store.mget, "key")
        refused(KeyTypeError, store.mget, ["a", b"a"])
        refused(KeyTypeError, store.mget, [1])
        refused(KeyTypeError, store.mdelete, "key")
        refused(KeyTypeError, store.mdelete, [None])
        refused(KeyTypeError, store.mset, [("a", b""), (1, b"")])
        for value in "text", bytearray(b"a"), memoryview(b"a"), None, 1, type("B", (bytes,), {})(b"a"):
            refused(ValueTypeError, store.mset, [("a", b""), ("b", value)])
        assert list(store.yield_keys()) == []
        refused(TypeError, PersistDictStore, "memory://", namespace=1)

        fake = DeterministicFakeEmbedding(size=2)
        model = CachedEmbeddings(fake, "memory://", namespace="m")
        refused(KeyTypeError, model.embed_documents, "text")
        refused(KeyTypeError, model.embed_documents, ["a", 1])
        refused(KeyTypeError, model.embed_query, 1)
        refused(KeyTypeError, lambda: asyncio.run(model.aembed_documents("text")))
        refused(KeyTypeError, lambda: asyncio.run(model.aembed_query(b"text")))
        assert model.embed_documents(iter(["a", "b"])) == model.embed_documents(("a", "b"))
        refused(TypeError, CachedEmbeddings, fake, "memory://", namespace=None)
        refused(TypeError, CachedEmbeddings, fake, "memory://", namespace="m", query_namespace=1)
        refused(ValueError, CachedEmbeddings, fake, "memory://", namespace="m", batch_size=2.0)

        refused(TypeError, PersistDictCache, 5)
        refused(TypeError, PersistDictCache, "memory://", ttl="1")
        refused(TypeError, PersistDictCache, "memory://", allowed_objects=[int])
        refused(TypeError, PersistDictCache, "memory://", allowed_objects="core")
        refused(ValueTypeError, PersistDictCache("memory://").update, "p", "m", ["no generation"])
        """
    )
    assert done.returncode == 0, done.stderr


# All adapters


def adapters(cache):
    """One of each."""
    model = DeterministicFakeEmbedding(size=2)
    return [PersistDictCache(cache), PersistDictStore(cache), CachedEmbeddings(model, cache, namespace="m")]


def test_an_empty_adapter_is_true(d):
    assert not d
    assert all(adapters(d))


def test_an_adapter_closes_what_it_opened_and_nothing_else(d, tmp_path):
    for adapter in adapters(d):
        with adapter as entered:
            assert entered is adapter
        adapter.close()
    assert not d.closed
    for adapter in adapters(tmp_path / "other"):
        with adapter:
            assert not adapter._dict.closed
        assert adapter._dict.closed
        adapter.close()


def test_adapters_leave_each_other_and_other_users_alone(d):
    """All of them in one dictionary, with keys that look alike."""
    cache, store, model = adapters(d)
    other_store = PersistDictStore(d, namespace="other")
    mine = {"a": 1, ("langchain-llm",): 2, ("langchain-llm", "a"): 3, ("langchain-store", "", 5): 4, 7: 5}
    mine[("langchain-llm", "a", "b", "c")] = 6
    d.update(mine)
    cache.update("a", "b", [Generation(text="answer")])
    store.mset([("a", b"store")])
    other_store.mset([("a", b"other"), ("b", b"")])
    vector = model.embed_query("a")
    assert store.mget(["a", "b"]) == [b"store", None]
    assert list(store.yield_keys()) == ["a"]
    assert list(other_store.yield_keys()) == ["a", "b"]
    cache.clear()
    assert cache.lookup("a", "b") is None
    assert store.mget(["a"]) == [b"store"]
    assert other_store.mget(["a"]) == [b"other"]
    assert model.embed_query("a") == vector and model.misses == 1
    assert {key: d[key] for key in mine} == mine


def test_adapters_may_share_one_path(tmp_path):
    cache, store, model = adapters(tmp_path / "one")
    with cache, store, model:
        cache.update("a", "b", [Generation(text="answer")])
        store.mset([("a", b"store")])
        model.embed_documents(["a"])
        assert cache.lookup("a", "b") == [Generation(text="answer")]


def test_a_dictionary_that_cannot_serve_is_refused_before_use():
    refusing_all = [PersistDict("memory://", key_serializer=json.dumps, key_unserializer=json.loads)]
    refusing_all.append(PersistDict("memory://", value_serializer=lambda value: str(value), value_unserializer=len))
    for refusing in refusing_all:
        for make in (PersistDictCache, PersistDictStore):
            with pytest.raises((ValueError, ValueTypeError)):
                make(refusing)
    with pytest.raises(ValueTypeError):
        PersistDictCache(PersistDict("memory://", codec="raw"))
    as_json = PersistDict("memory://", codec="json")
    with pytest.raises(ValueTypeError):
        PersistDictStore(as_json)
    with pytest.raises(ValueTypeError):
        CachedEmbeddings(DeterministicFakeEmbedding(size=2), as_json, namespace="m")


def test_other_codecs_serve_where_they_can():
    cache = PersistDictCache(PersistDict("memory://", codec="json"))
    cache.update(PROMPT, MODEL, [Generation(text="a")])
    assert cache.lookup(PROMPT, MODEL) == [Generation(text="a")]
    store = PersistDictStore(PersistDict("memory://", codec="raw"))
    store.mset([("a", b"b")])
    assert store.mget(["a"]) == [b"b"]


class WatchedDict(PersistDict):
    """Notes the threads that write."""

    def __setitem__(self, *args, **kwargs):
        self.note()
        super().__setitem__(*args, **kwargs)

    def set_many(self, *args, **kwargs):
        self.note()
        super().set_many(*args, **kwargs)

    def delete_many(self, *args, **kwargs):
        self.note()
        return super().delete_many(*args, **kwargs)

    def note(self):
        self.__dict__.setdefault("writers", []).append(threading.get_ident())


async def test_async_methods_write_in_other_threads():
    """A write waits for the disk; the event loop must not."""
    with WatchedDict("memory://") as d:
        cache, store, model = adapters(d)
        await cache.aupdate(PROMPT, MODEL, [Generation(text="a")])
        assert await cache.alookup(PROMPT, MODEL) == [Generation(text="a")]
        await cache.aclear()
        await store.amset([("a", b"")])
        await store.amdelete(["a"])
        await model.aembed_query("a")
        await model.aembed_documents(["a"])
        assert len(d.writers) == 6
        assert threading.get_ident() not in d.writers


# Answers of language models


def make_answers():
    """Every kind of generation, as full as it gets."""
    call = {"name": "f", "args": {"a": [1, None, 1.5]}, "id": "1", "type": "tool_call"}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_token_details": {"cache_read": 1}}
    looks_like_code = {"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {"command": "true"}}
    looks_escaped = {"__lc_escaped__": {"lc": 1}}
    message = AIMessage(
        content=[{"type": "text", "text": "ß 🐈"}, "plain", {"type": "reasoning", "reasoning": "so"}],
        tool_calls=[call],
        invalid_tool_calls=[{"name": "g", "args": "{", "id": "2", "error": "bad", "type": "invalid_tool_call"}],
        usage_metadata=usage,
        additional_kwargs={"user": looks_like_code, "other": [looks_escaped], "none": None, "empty": {}},
        response_metadata={"model": "m", "logprobs": [{"token": "a", "logprob": -1e-9}, -math.inf]},
        id="run-1",
        name="bob",
    )
    chunk = AIMessageChunk(
        content="part",
        tool_call_chunks=[{"name": "f", "args": '{"a": ', "id": "1", "index": 0, "type": "tool_call_chunk"}],
        usage_metadata=usage,
        chunk_position="last",
    )
    return {
        "nothing": [],
        "plain": [Generation(text="a", generation_info={"finish_reason": "stop", "n": 1, "nested": [{"deep": True}]})],
        "several": [Generation(text=""), Generation(text="b", generation_info={}), GenerationChunk(text="c")],
        "surrogates": [Generation(text="a", generation_info={"\ud83d\ude00": "\ud800", "pair": "\ud83d\ude00"})],
        "markers": [Generation(text="a", generation_info={"x": looks_like_code, "y": [looks_escaped]})],
        "full": [ChatGeneration(message=message, generation_info={"finish_reason": "tool_calls"})],
        "blocks": [ChatGeneration(message=AIMessage(content_blocks=[{"type": "text", "text": "a"}]))],
        "chunk": [ChatGenerationChunk(message=chunk)],
        "tool": [ChatGeneration(message=ToolMessage("r", tool_call_id="1", artifact={"a": [1]}, status="error"))],
        "others": [
            ChatGeneration(message=message)
            for message in (
                HumanMessage("h"),
                SystemMessage("s"),
                ChatMessage(role="critic", content="c"),
                FunctionMessage(name="f", content="c"),
            )
        ],
    }


@pytest.mark.parametrize("name", make_answers())
def test_an_answer_comes_back_exactly(d, name):
    cache = PersistDictCache(d)
    answer = make_answers()[name]
    cache.update(PROMPT, MODEL, answer)
    assert answer == make_answers()[name], "writing must not change what it is given"
    assert type(d[KEY]) is str
    found = cache.lookup(PROMPT, MODEL)
    assert found == answer
    assert type(found) is list
    for one, other in zip(found, answer, strict=True):
        assert type(one) is type(other)
        assert dict(one) == dict(other)
        if isinstance(other, ChatGeneration):
            assert type(one.message) is type(other.message)
            assert dict(one.message) == dict(other.message)
    assert cache.lookup(PROMPT, MODEL)[:1] is not found[:1]


def test_every_lookup_makes_new_objects(d):
    """LangChain changes the messages that it gets from a cache."""
    cache = PersistDictCache(d)
    cache.update(PROMPT, MODEL, [Generation(text="a", generation_info={"list": []})])
    cache.lookup(PROMPT, MODEL)[0].generation_info["list"].append(1)
    assert cache.lookup(PROMPT, MODEL)[0].generation_info == {"list": []}


def test_nan_is_no_obstacle(d):
    cache = PersistDictCache(d)
    cache.update(PROMPT, MODEL, [Generation(text="a", generation_info={"logprob": math.nan})])
    assert math.isnan(cache.lookup(PROMPT, MODEL)[0].generation_info["logprob"])


class Own(BaseModel):
    """A class that LangChain cannot store."""

    number: int = 1


class OwnMessage(AIMessage):
    """A message that is not in the list."""

    extra_field: int = 0

    @classmethod
    def get_lc_namespace(cls):
        return cls.__module__.split(".")


@pytest.mark.parametrize(
    "value",
    [object(), Own(), {1, 2}, b"bytes", timedelta(1), (1, 2), [(1,)], {1: "int"}, {"lc": (1,)}, {"lc": object()}],
    ids=[str(number) for number in range(10)],
)
def test_what_langchain_cannot_keep_is_refused(d, value):
    """Neither a marker nor a repr nor a list in place of a tuple is ever stored."""
    cache = PersistDictCache(d)
    cache.update(PROMPT, MODEL, [Generation(text="old")])
    info = {"good": 1, "bad": value}
    for answer in (
        Generation(text="new", generation_info=info),
        ChatGeneration(message=AIMessage("new", response_metadata=info)),
    ):
        with pytest.raises(ValueTypeError):
            cache.update(PROMPT, MODEL, [Generation(text="good"), answer])
    assert cache.lookup(PROMPT, MODEL) == [Generation(text="old")]


def test_what_contains_itself_or_other_classes_is_refused(d):
    cache = PersistDictCache(d)
    endless = {}
    endless["self"] = endless
    undeclared = AIMessage("a", undeclared=1)  # pydantic keeps it, LangChain's JSON does not
    for answer in (
        Generation(text="a", generation_info=endless),
        ChatGeneration(message=OwnMessage("a")),
        ChatGeneration(message=undeclared),
        Generation(text="a", generation_info={"prompt": PromptTemplate.from_template("{a}")}),
    ):
        with pytest.raises(ValueTypeError):
            cache.update(PROMPT, MODEL, [answer])
    assert len(d) == 0


def test_subclasses_of_builtins_are_kept_as_what_they_equal(d):
    cache = PersistDictCache(d)
    cache.update(PROMPT, MODEL, [Generation(text="a", generation_info=defaultdict(int, a=numpy.float64(0.5)))])
    assert cache.lookup(PROMPT, MODEL) == [Generation(text="a", generation_info={"a": 0.5})]


def test_parsed_answers_come_back_as_dicts(d):
    """As from every LangChain cache; its parsers of structured output expect it."""
    cache = PersistDictCache(d)
    message = AIMessage("{}", additional_kwargs={"parsed": Own(number=2)})
    cache.update(PROMPT, MODEL, [ChatGeneration(message=message), ChatGeneration(message=message)])
    for found in cache.lookup(PROMPT, MODEL):
        assert found.message.additional_kwargs == {"parsed": {"number": 2}}
    assert message.additional_kwargs == {"parsed": Own(number=2)}


TEXT = st.text('ab\0"\\ß🐈\ud83d\ude00', max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["lc", "type", "id", "__lc_escaped__", "kwargs"]) | TEXT, inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.integers(), inner, max_size=2)
    ),
    max_leaves=10,
)


def changed_by_json(value):
    """Whether it holds a tuple or a key that is no str."""
    if isinstance(value, dict):
        return any(type(key) is not str or changed_by_json(inner) for key, inner in value.items())
    return isinstance(value, tuple) or (isinstance(value, list) and any(map(changed_by_json, value)))


@given(st.dictionaries(st.sampled_from(["a", "lc", "__lc_escaped__"]), JSON))
@settings(deadline=None)
def test_what_is_accepted_comes_back_equal(info):
    """Data that looks like LangChain's own marks included; and nothing is refused that JSON keeps."""
    generation = Generation(text="a", generation_info=info)
    with PersistDictCache("memory://") as cache:
        try:
            cache.update(PROMPT, MODEL, [generation])
        except ValueTypeError:
            assert changed_by_json(info)
        else:
            assert cache.lookup(PROMPT, MODEL) == [generation]


def test_own_classes_are_stored_when_listed(d):
    cache = PersistDictCache(d, allowed_objects=[*GENERATIONS_AND_MESSAGES, OwnMessage])
    answer = [ChatGeneration(message=OwnMessage("a", extra_field=5))]
    cache.update(PROMPT, MODEL, answer)
    assert cache.lookup(PROMPT, MODEL) == answer
    assert type(cache.lookup(PROMPT, MODEL)[0].message) is OwnMessage
    with pytest.raises(DecodeError):
        PersistDictCache(d).lookup(PROMPT, MODEL)
    assert cache.lookup(PROMPT, MODEL) == answer, "a refusal deletes nothing"


def test_the_list_of_classes_may_be_narrowed(d):
    cache = PersistDictCache(d, allowed_objects=[Generation])
    cache.update(PROMPT, MODEL, [Generation(text="a")])
    with pytest.raises(ValueTypeError):
        cache.update(PROMPT, MODEL, [ChatGeneration(message=AIMessage("a"))])
    with pytest.raises(TypeError):
        PersistDictCache(d, allowed_objects=[dict])


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that notes its import, and a class in it that could be named."""
    (tmp_path / "trap_module.py").write_text("class Trap: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "trap_module"
    assert "trap_module" not in sys.modules


def constructor(*path, **kwargs):
    return {"lc": 1, "type": "constructor", "id": list(path), "kwargs": kwargs}


GENERATION = ("langchain", "schema", "output", "Generation")
HOSTILE = {
    "a prompt": json.loads(dumps(PromptTemplate.from_template("{a}"))),
    "a module": constructor("trap_module", "Trap"),
    "os": constructor("os", "system", command="touch trapped"),
    "builtins": constructor("builtins", "eval", source="1"),
    "a path in langchain_core": constructor("langchain_core", "load", "load", "Reviver"),
    "a legacy path": constructor("langchain", "prompts", "prompt", "PromptTemplate", template="{a}"),
    "a chat model": constructor("langchain", "chat_models", "openai", "ChatOpenAI", base_url="http://localhost"),
    "no class": constructor("Generation", text="a"),
    "no path": constructor(),
    "a path of numbers": constructor(1, 2),
    "a marker": {"lc": 1, "type": "not_implemented", "id": ["os", "system"], "repr": "x"},
    "wrong arguments": constructor(*GENERATION, text=5),
    "missing arguments": constructor(*GENERATION),
    "arguments of another type": {"lc": 1, "type": "constructor", "id": list(GENERATION), "kwargs": [1]},
    "a secret as text": constructor(*GENERATION, text={"lc": 1, "type": "secret", "id": ["HOME"]}),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("nested", [False, True])
def test_planted_objects_are_refused_and_stay(d, trap, name, nested, tmp_path, monkeypatch):
    """Nothing is imported or called, nothing is deleted, and other answers are served."""
    monkeypatch.chdir(tmp_path)
    payload = HOSTILE[name]
    if nested:
        payload = constructor(*GENERATION, text="a", generation_info={"deep": [payload]})
    d[KEY] = json.dumps([payload])
    cache = PersistDictCache(d)
    cache.update("other", MODEL, [Generation(text="a")])
    with pytest.raises(DecodeError):
        cache.lookup(PROMPT, MODEL)
    assert d[KEY] == json.dumps([payload])
    assert cache.lookup("other", MODEL) == [Generation(text="a")]
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "value",
    [
        "", "no json", "null", "5", '"text"', "{}", '["text"]', "[" * 100_000,
        json.dumps([json.loads(dumps(AIMessage("a message, no generation")))]),
        json.dumps(json.loads(dumps(Generation(text="a generation, no list")))),
        b"bytes", 5, ["list"], {"a": 1},
    ],
    ids=range(14),
)  # fmt: skip
def test_an_entry_that_is_no_answer_is_refused_and_stays(d, value):
    d[KEY] = value
    cache = PersistDictCache(d)
    with pytest.raises(DecodeError):
        cache.lookup(PROMPT, MODEL)
    assert d[KEY] == value
    cache.update(PROMPT, MODEL, [Generation(text="a")])
    assert cache.lookup(PROMPT, MODEL) == [Generation(text="a")]


def test_secrets_are_not_read_from_the_environment(d, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "s3cret")
    secret = {"lc": 1, "type": "secret", "id": ["SOME_API_KEY"]}
    d[KEY] = json.dumps([constructor(*GENERATION, text="a", generation_info={"key": secret})])
    assert PersistDictCache(d).lookup(PROMPT, MODEL)[0].generation_info == {"key": None}


def test_keys_do_not_run_into_each_other(d):
    """Whatever the prompt and the model are: long, alike, or cut at another place."""
    cache = PersistDictCache(d)
    texts = [*ODD_TEXTS, "a", "ab", "b", "x" * 99_999 + "y"]
    pairs = [(prompt, model) for prompt in texts for model in texts]
    for n, (prompt, model) in enumerate(pairs):
        cache.update(prompt, model, [Generation(text=str(n))])
    for n, (prompt, model) in enumerate(pairs):
        assert cache.lookup(prompt, model) == [Generation(text=str(n))]
    cache.clear()
    assert len(d) == 0


def test_an_update_is_one_transaction_and_replaces(d):
    cache = PersistDictCache(d)
    before = d._store.begin().id()
    cache.update(PROMPT, MODEL, [Generation(text="a")])
    assert d._store.begin().id() == before + 1
    cache.update(PROMPT, MODEL, [Generation(text="b")])
    assert cache.lookup(PROMPT, MODEL) == [Generation(text="b")]
    assert len(d) == 1


def test_clear_works_in_batches(d):
    d.set_many((("langchain-llm", str(n), MODEL), "[]") for n in range(1200))
    d["mine"] = 1
    before = d._store.begin().id()
    PersistDictCache(d).clear()
    assert list(d) == ["mine"]
    assert d._store.begin().id() <= before + 8
    with pytest.raises(TypeError, match="llm_string"):
        PersistDictCache(d).clear(llm_string=MODEL)


@pytest.mark.parametrize("ttl", [10, timedelta(seconds=10)])
def test_answers_end_with_their_ttl(ttl, tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, background_thread="disabled") as d:
        cache = PersistDictCache(d, ttl=ttl)
        cache.update(PROMPT, MODEL, [Generation(text="a")])
        PersistDictCache(d).update("for ever", MODEL, [Generation(text="b")])
        assert cache.lookup(PROMPT, MODEL)
        clock.now += 11
        assert cache.lookup(PROMPT, MODEL) is None
        assert cache.lookup("for ever", MODEL) == [Generation(text="b")]
    with pytest.raises(ValueError):
        PersistDictCache(tmp_path / "d", ttl=0)


def test_without_a_ttl_that_of_the_dictionary_holds(tmp_path):
    clock = Clock()
    with PersistDict(tmp_path / "d", clock=clock, ttl=10, background_thread="disabled") as d:
        cache = PersistDictCache(d)
        cache.update(PROMPT, MODEL, [Generation(text="a")])
        clock.now += 11
        assert cache.lookup(PROMPT, MODEL) is None


# In LangChain


def test_the_global_cache_answers_a_llm(tmp_path, global_cache):
    """An empty cache is a cache, and the answers survive the handle."""
    with PersistDictCache(tmp_path / "c") as cache:
        global_cache(cache)
        llm = FakeListLLM(responses=["first", "second", "third"])
        assert [llm.invoke("q"), llm.invoke("q"), llm.invoke("other"), llm.invoke("q")] == [
            "first", "first", "second", "first",
        ]  # fmt: skip
        assert llm.generate(["q", "new", "q"]).flatten()[1].generations[0][0].text == "third"
    with PersistDictCache(tmp_path / "c") as cache:
        global_cache(cache)
        assert FakeListLLM(responses=["first", "second", "third"], i=2).invoke("q") == "first"
        cache.clear()
        assert FakeListLLM(responses=["first", "second", "third"], i=2).invoke("q") == "third"


async def test_the_global_cache_answers_a_llm_asynchronously(tmp_path, global_cache):
    with PersistDictCache(tmp_path / "c") as cache:
        global_cache(cache)
        llm = FakeListLLM(responses=["first", "second"])
        assert [await llm.ainvoke("q"), await llm.ainvoke("q"), llm.invoke("q")] == ["first"] * 3


@pytest.mark.parametrize("is_global", [True, False])
async def test_chat_models_are_answered_across_reopening(tmp_path, global_cache, is_global):
    def chat(answer):
        model = GenericFakeChatModel(messages=iter([answer]), cache=None if is_global else cache)
        if is_global:
            global_cache(cache)
        return model

    with PersistDictCache(tmp_path / "c") as cache:
        first = chat(AIMessage("first", response_metadata={"model_name": "m"})).invoke("q")
        again = chat("second").invoke("q")
        assert first.content == again.content == "first"
        assert again.response_metadata["model_name"] == "m"
    with PersistDictCache(tmp_path / "c") as cache:
        assert chat("third").invoke("q").content == "first"
        assert (await chat("third").ainvoke("q")).content == "first"
        assert chat("third").invoke("another question").content == "third"


def test_tool_calls_survive_the_cache(tmp_path):
    call = {"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}
    answers = [AIMessage("", tool_calls=[call]), AIMessage("not asked")]
    with PersistDictCache(tmp_path / "c") as cache:
        model = FakeMessagesListChatModel(responses=answers, cache=cache)
        for _ in range(3):
            assert model.invoke([HumanMessage("q")]).tool_calls == [call]


def test_models_do_not_share_answers(d, global_cache):
    global_cache(PersistDictCache(d))
    assert FakeListChatModel(responses=["a"]).invoke("q").content == "a"
    assert FakeListChatModel(responses=["b"]).invoke("q").content == "b"
    assert FakeListChatModel(responses=["a"]).invoke("q", stop=["x"]).content == "a"
    assert len(d) == 3


# Bytes under str keys


def test_store_keys_may_be_any_str(d):
    store = PersistDictStore(d)
    store.mset([(text, text.encode("utf-8", "surrogatepass")) for text in ODD_TEXTS])
    assert store.mget(ODD_TEXTS) == [text.encode("utf-8", "surrogatepass") for text in ODD_TEXTS]
    assert list(store.yield_keys()) == ODD_TEXTS
    assert list(store.yield_keys(prefix="\ud800")) == ["\ud800 alone"]
    assert list(store.yield_keys(prefix="")) == ODD_TEXTS
    store.mdelete([*ODD_TEXTS, "absent", ""])
    assert store.mget(["", "absent"]) == [None, None]
    assert len(d) == 0


def test_a_store_call_is_one_transaction_or_none(d):
    store = PersistDictStore(d)
    start = d._store.begin().id()
    store.mset([("a", b"1"), ("b", b"2"), ("a", b"3")])
    assert d._store.begin().id() == start + 1
    assert store.mget(["b", "a"]) == [b"2", b"3"]
    store.mdelete(["a", "b", "a"])
    assert d._store.begin().id() == start + 2
    store.mset([])
    store.mdelete([])
    assert store.mget([]) == []
    assert d._store.begin().id() == start + 2


def test_a_wrong_value_stores_nothing(d):
    store = PersistDictStore(d)
    for wrong in ("text", bytearray(b"a"), None, 1):
        with pytest.raises(TypeError):
            store.mset([("a", b"good"), ("b", wrong)])
    assert len(d) == 0


def test_a_foreign_value_in_a_store_is_told(d):
    d["langchain-store", "", "a"] = "str"
    with pytest.raises(DecodeError):
        PersistDictStore(d).mget(["a"])
    assert d["langchain-store", "", "a"] == "str"


async def test_keys_may_change_while_they_are_iterated(d):
    store = PersistDictStore(d)
    names = [f"{n:04}" for n in range(1100)]
    store.mset([(name, b"") for name in names])
    seen = []
    for key in store.yield_keys():
        seen.append(key)
        store.mdelete([key])
        if len(seen) == 600:
            break
    assert seen == names[:600]
    store.mset([(name, b"") for name in names[:600]])
    asynchronous = [key async for key in store.ayield_keys()]
    assert asynchronous == list(store.yield_keys())
    assert sorted(asynchronous) == names
    assert [key async for key in store.ayield_keys(prefix="109")] == names[1090:]
    assert [key async for key in store.ayield_keys(prefix="x")] == []


@given(st.dictionaries(TEXT, st.binary()), TEXT)
@settings(deadline=None)
def test_a_store_is_like_a_dict(entries, prefix):
    with PersistDictStore("memory://") as store:
        store.mset(list(entries.items()))
        assert store.mget(list(entries)) == list(entries.values())
        assert list(store.yield_keys(prefix=prefix)) == [key for key in entries if key.startswith(prefix)]


# Embeddings


class Model(Embeddings):
    """Counts its calls; its numbers are no float32."""

    def __init__(self, salt=0.0):
        self.salt = salt
        self.batches = []
        self.queries = []
        self.threads = []
        self.asynchronous = 0

    def vector(self, text, salt):
        return [len(text) / 3 + salt, 0.1, -1e-40, 1e-300, float(len(set(text)))]

    def embed_documents(self, texts):
        self.batches.append(list(texts))
        return [self.vector(text, self.salt) for text in texts]

    def embed_query(self, text):
        self.queries.append(text)
        return self.vector(text, self.salt + 0.5)

    async def aembed_documents(self, texts):
        self.asynchronous += 1
        return self.embed_documents(texts)

    async def aembed_query(self, text):
        self.asynchronous += 1
        return self.embed_query(text)


def float32(vector):
    """What float32 keeps of numbers."""
    return [float(numpy.float32(number)) for number in vector]


def test_each_distinct_text_is_computed_once(d):
    model = Model()
    cached = CachedEmbeddings(model, d, namespace="m")
    first = cached.embed_documents(["a", "bb", "a", "ccc", "a"])
    assert model.batches == [["a", "bb", "ccc"]]
    assert (cached.hits, cached.misses) == (2, 3)
    assert first == [float32(model.vector(text, 0)) for text in ("a", "bb", "a", "ccc", "a")]
    assert cached.embed_documents(["ccc", "dddd", "a", "dddd"]) == [
        first[3],
        float32(model.vector("dddd", 0)),
        first[0],
        float32(model.vector("dddd", 0)),
    ]
    assert model.batches == [["a", "bb", "ccc"], ["dddd"]]
    assert (cached.hits, cached.misses) == (5, 4)


def test_a_vector_is_the_same_cold_and_warm_and_reopened(tmp_path):
    """Lists of Python floats, rounded to float32 in all cases."""
    texts = ["a", "bb", *ODD_TEXTS]
    with CachedEmbeddings(Model(), tmp_path / "e", namespace="m") as cached:
        cold, cold_query = cached.embed_documents(texts), cached.embed_query("a")
        assert cached.embed_documents(texts) == cold
        assert cached.embed_query("a") == cold_query
    assert type(cold) is list and type(cold[0]) is list and type(cold[0][0]) is float
    assert type(cold_query) is list and type(cold_query[0]) is float
    fresh = Model()
    with CachedEmbeddings(fresh, tmp_path / "e", namespace="m") as cached:
        assert cached.embed_documents(texts[::-1]) == cold[::-1]
        assert cached.embed_query("a") == cold_query
    assert fresh.batches == fresh.queries == []


def test_vectors_are_kept_as_float32_arrays(d):
    CachedEmbeddings(Model(), d, namespace="m").embed_documents(["a"])
    stored = d["langchain-embedding", "m", "a"]
    assert stored.dtype == numpy.float32
    assert d.entry(("langchain-embedding", "m", "a")).size < 4 * len(stored) + 20


def test_repeated_texts_get_lists_of_their_own(d):
    """Callers normalise vectors in place."""
    one, two = CachedEmbeddings(Model(), d, namespace="m").embed_documents(["a", "a"])
    one[0] = 99.0
    assert two[0] != 99.0


def test_nothing_asked_is_nothing_done(d):
    model = Model()
    before = d._store.begin().id()
    assert CachedEmbeddings(model, d, namespace="m").embed_documents([]) == []
    assert model.batches == []
    assert d._store.begin().id() == before


def test_one_write_for_a_call_or_for_a_batch(d):
    texts = [str(n) for n in range(10)]
    start = d._store.begin().id()
    CachedEmbeddings(Model(), d, namespace="whole").embed_documents(texts)
    assert d._store.begin().id() == start + 1
    model = Model()
    CachedEmbeddings(model, d, namespace="parts", batch_size=4).embed_documents(["5", *texts])
    assert d._store.begin().id() == start + 4
    assert model.batches == [["5", "0", "1", "2"], ["3", "4", "6", "7"], ["8", "9"]]
    CachedEmbeddings(model, d, namespace="parts", batch_size=4).embed_documents(texts)
    assert d._store.begin().id() == start + 4


def test_an_interruption_keeps_the_batches_before_it(d):
    class Failing(Model):
        def embed_documents(self, texts):
            if "4" in texts:
                raise KeyboardInterrupt
            return super().embed_documents(texts)

    texts = [str(n) for n in range(6)]
    cached = CachedEmbeddings(Failing(), d, namespace="m", batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        cached.embed_documents(texts)
    assert (cached.hits, cached.misses) == (0, 4)
    model = Model()
    CachedEmbeddings(model, d, namespace="m").embed_documents(texts)
    assert model.batches == [["4", "5"]]


def test_namespaces_never_mix(d):
    """Two models, and the queries of both, whatever their namespaces look like."""
    seen = set()
    for salt, options in enumerate(
        (
            {"namespace": "m"},
            {"namespace": "m2"},
            {"namespace": "query"},
            {"namespace": "a", "query_namespace": "a query"},
            {"namespace": "m\0query"},
        )
    ):
        model = Model(salt)
        cached = CachedEmbeddings(model, d, **options)
        for text in ("q", "query"):
            assert cached.embed_documents([text]) == [float32(model.vector(text, salt))]
            assert cached.embed_query(text) == float32(model.vector(text, salt + 0.5))
            seen |= {tuple(cached.embed_query(text)), *map(tuple, cached.embed_documents([text]))}
        assert cached.misses == 4
    assert len(seen) == len(d) == 20


def test_queries_and_documents_share_vectors_if_told(d):
    model = Model()
    cached = CachedEmbeddings(model, d, namespace="m", query_namespace="m")
    (document,) = cached.embed_documents(["a"])
    assert cached.embed_query("a") == document
    query = cached.embed_query("b")
    assert cached.embed_documents(["b"]) == [query]
    assert model.batches == [["a"]] and model.queries == ["b"]
    assert (cached.hits, cached.misses) == (2, 2)


@pytest.mark.parametrize("change", [lambda v: v[:-1], lambda v: [*v, v[0]], lambda v: []])
async def test_a_wrong_number_of_vectors_stores_nothing(d, change):
    class Wrong(Model):
        def embed_documents(self, texts):
            return change(super().embed_documents(texts))

    cached = CachedEmbeddings(Wrong(), d, namespace="m")
    with pytest.raises(ValueError, match="vectors for 2 texts"):
        cached.embed_documents(["a", "b"])
    with pytest.raises(ValueError, match="vectors for 2 texts"):
        await cached.aembed_documents(["a", "b"])
    assert len(d) == 0 and cached.misses == 0


@pytest.mark.parametrize("wrong", [5.0, None, [[1.0]], ["text"], [1.0, [2.0]], [1e300], [object()]])
def test_what_is_no_vector_is_told_and_not_stored(d, wrong):
    class Wrong(Model):
        def embed_documents(self, texts):
            return [[1.0, 2.0], wrong]

        def embed_query(self, text):
            return wrong

    cached = CachedEmbeddings(Wrong(), d, namespace="m")
    with pytest.raises(ValueError, match="the model returned"):
        cached.embed_documents(["a", "b"])
    with pytest.raises(ValueError, match="the model returned"):
        cached.embed_query("a")
    assert len(d) == 0


def test_models_may_return_arrays_and_odd_numbers(d):
    class Arrays(Model):
        def embed_documents(self, texts):
            return numpy.array([[0.1, math.nan, math.inf]] * len(texts))

        def embed_query(self, text):
            return numpy.array([0.1, 2], numpy.float32)

    cached = CachedEmbeddings(Arrays(), d, namespace="m")
    for _ in range(2):
        assert str(cached.embed_documents(["a", "b"])) == str([[float(numpy.float32(0.1)), math.nan, math.inf]] * 2)
        assert cached.embed_query("a") == float32([0.1, 2])


@pytest.mark.parametrize(
    "planted", ["text", b"\0" * 8, [0.5], numpy.zeros(2), numpy.zeros((1, 2), numpy.float32), None], ids=repr
)
def test_a_foreign_value_in_the_cache_is_told(d, planted):
    cached = CachedEmbeddings(Model(), d, namespace="m", query_namespace="m")
    d["langchain-embedding", "m", "a"] = planted
    for ask in (lambda: cached.embed_documents(["a"]), lambda: cached.embed_query("a")):
        with pytest.raises(DecodeError):
            ask()
    assert len(d) == 1


async def test_async_gives_the_same_and_uses_the_async_model(d):
    model = Model()
    cached = CachedEmbeddings(model, d, namespace="m", batch_size=2)
    texts = ["a", "bb", "a", "", "ccc"]
    cold = await cached.aembed_documents(texts)
    query = await cached.aembed_query("a")
    assert model.asynchronous == 3
    assert model.batches == [["a", "bb"], ["", "ccc"]]
    assert cold == cached.embed_documents(texts) == await cached.aembed_documents(texts)
    assert query == cached.embed_query("a") == await cached.aembed_query("a")
    assert await cached.aembed_documents([]) == []
    assert model.asynchronous == 3
    assert (cached.hits, cached.misses) == (1 + 5 + 5 + 2, 4 + 1)


async def test_the_event_loop_runs_while_the_model_computes(d):
    class Slow(Model):
        async def aembed_documents(self, texts):
            await released.wait()
            return await super().aembed_documents(texts)

    released = asyncio.Event()
    task = asyncio.create_task(CachedEmbeddings(Slow(), d, namespace="m").aembed_documents(["a"]))
    await asyncio.sleep(0)
    released.set()
    assert len(await task) == 1


def test_options_are_checked_before_anything_is_opened(tmp_path):
    for options in (
        {"namespace": ""},
        {"namespace": "m", "query_namespace": ""},
        {"namespace": "m", "batch_size": 0},
        {"namespace": "m", "batch_size": -1},
        {"namespace": "m", "batch_size": True},
    ):
        with pytest.raises(ValueError):
            CachedEmbeddings(Model(), tmp_path / "e", **options)
    assert not (tmp_path / "e").exists()


def test_many_threads_may_use_one_of_each(d):
    cache, store, _ = adapters(d)
    cached = CachedEmbeddings(Model(), d, namespace="m")
    texts = [str(n) for n in range(20)]
    right = CachedEmbeddings(Model(), "memory://", namespace="m").embed_documents(texts)
    errors = []

    def work(number):
        try:
            for n in range(10):
                assert cached.embed_documents(texts[number:]) == right[number:]
                cache.update(PROMPT, str(n), [Generation(text=str(n))])
                assert cache.lookup(PROMPT, str(n)) == [Generation(text=str(n))]
                store.mset([(str(number), str(n).encode())])
                assert store.mget([str(number)]) == [str(n).encode()]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert cached.hits + cached.misses == 10 * (20 + 19 + 18 + 17)


def test_a_hit_is_quick(d):
    """Far below a millisecond; the bound is loose enough for a busy machine under beartype."""
    cache = PersistDictCache(d)
    cache.update("p" * 5000, MODEL, [Generation(text="x" * 2000)])
    best = math.inf
    for _ in range(20):
        start = time.perf_counter()
        cache.lookup("p" * 5000, MODEL)
        best = min(best, time.perf_counter() - start)
    assert best < 0.01
