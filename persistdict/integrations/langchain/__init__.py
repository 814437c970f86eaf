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

try:
    from persistdict.integrations.langchain.answers import GENERATIONS_AND_MESSAGES, PersistDictCache
    from persistdict.integrations.langchain.bytestore import PersistDictStore
    from persistdict.integrations.langchain.embeddings import CachedEmbeddings
except ImportError as missing:
    if (missing.name or "").startswith("persistdict"):
        raise
    raise ImportError(
        f"persistdict.integrations.langchain needs {missing.name}: pip install persistdict[langchain]",
        name=missing.name,
    ) from missing

__all__ = ["GENERATIONS_AND_MESSAGES", "CachedEmbeddings", "PersistDictCache", "PersistDictStore"]
