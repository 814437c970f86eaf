"""The demo, in one of its two processes; `scripts/demo` runs them one after the other."""

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo_rag import corpus
from demo_rag.minilm import MiniLM
from demo_rag.pipeline import Pass, Vectors, embed, nearest
from demo_rag.weights import ModelNotFoundError
from persistdict import PersistDict
from persistdict.errors import PersistDictError
from persistdict.integrations.langchain import CachedEmbeddings

MODEL = "all-MiniLM-L6-v2"
DIGEST = ("demo", "digest of all vectors")
QUESTIONS = (
    "How do I read a file line by line?",
    "How do I parse command line arguments?",
    "How do I copy a nested list?",
    "How do I generate random numbers?",
    "How do I send log messages to a file as well as to the console?",
)


class CacheFailedError(Exception):
    """The cache did not do what the demo is there to show; the message says what."""


def main() -> int:
    """Run one process of the demo and return its exit code."""
    options = _options()
    try:
        passages = corpus.load(options.docs, options.passages)
        _print_corpus(passages, options.docs)
        cache: PersistDict[Any, Any]
        with PersistDict(options.cache) as cache:
            print(f"  Cache    {options.cache}, {len(cache):,} entries found in it\n")
            if options.second:
                _second_process(cache, passages)
            else:
                _first_process(cache, passages)
    except (ModelNotFoundError, corpus.NoTextError, CacheFailedError, PersistDictError) as error:
        print(f"\nThe demo failed. {error}", file=sys.stderr)
        return 1
    return 0


def _first_process(cache: PersistDict[Any, Any], passages: Sequence[corpus.Passage]) -> None:
    """Embed everything twice, with the model and from the cache, and answer the questions."""
    cached = CachedEmbeddings(MiniLM(), cache, namespace=MODEL)
    print("Cold: the model computes every passage that the cache does not have")
    cold = embed(cached, passages, progress=True)
    print("\nWarm: the same passages again, now from the cache")
    warm = embed(cached, passages)
    print(f"  first time  {cold}\n  second time {warm}")
    _require_full(warm)
    if warm.digest != cold.digest:
        raise CacheFailedError("A vector from the cache differs from the one the model computed.")
    print(f"  All {len(passages):,} vectors are the same to the last bit.")
    if cold.misses:
        print(f"  The cache was {cold.seconds / warm.seconds:,.0f} times faster than the model.")
    cache[DIGEST] = warm.digest
    _answer(cached, warm.vectors, passages, 2)


def _second_process(cache: PersistDict[Any, Any], passages: Sequence[corpus.Passage]) -> None:
    """Do the same with what the first process left on disk; the model must not be needed."""
    model = MiniLM()
    cached = CachedEmbeddings(model, cache, namespace=MODEL)
    print("Warm from the start: the first process has ended, its cache is still here")
    warm = embed(cached, passages)
    print(f"  this time   {warm}")
    _require_full(warm)
    if cache.get(DIGEST) != warm.digest:
        raise CacheFailedError("The vectors differ from those that the first process computed.")
    print(f"  All {len(passages):,} vectors are those of the first process to the last bit.")
    _answer(cached, warm.vectors, passages, 1)
    if model.loaded:
        raise CacheFailedError("The model was needed, though the cache should have had everything.")
    print(f"The model was not even loaded: {cached.hits:,} hits, {cached.misses} misses.")


def _require_full(warm: Pass) -> None:
    if warm.misses:
        raise CacheFailedError(f"Passages missing in a cache that had them all: {warm.misses}.")


def _answer(
    cached: CachedEmbeddings,
    vectors: Vectors,
    passages: Sequence[corpus.Passage],
    count: int,
) -> None:
    """Print the `count` nearest passages to each question, with the beginning of their text."""
    started = time.perf_counter()
    answers = [nearest(cached, question, vectors, passages, count) for question in QUESTIONS]
    seconds = time.perf_counter() - started
    print(f"\n{len(QUESTIONS)} questions, answered in {seconds:.3f} s by the nearest passages")
    for question, found in zip(QUESTIONS, answers, strict=True):
        print(f"\n  {question}")
        for score, passage in found:
            print(f"    {score:.2f}  {passage.title}  ({passage.source})")
            print(_indented(textwrap.shorten(passage.text, 200, placeholder=" ...")))
    print()


def _indented(text: str) -> str:
    return textwrap.fill(text, 92, initial_indent=" " * 10, subsequent_indent=" " * 10)


def _print_corpus(passages: Sequence[corpus.Passage], documentation: Path | None) -> None:
    kind = "the Python documentation" if documentation else "the standard library's docstrings"
    words = sum(len(passage.text.split()) for passage in passages)
    files = len({passage.source for passage in passages})
    print(f"  Process  {os.getpid()}")
    print(f"  Text     {len(passages):,} passages, {words:,} words, {files} files of {kind}")
    print(f"  Model    {MODEL} in numpy, {os.cpu_count()} processor cores")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo_rag", description=__doc__)
    add = parser.add_argument
    add("--cache", type=Path, default=Path(".demo-cache"), help="the folder of the cache")
    add("--docs", type=Path, help="Python's HTML documentation (default: docstrings)")
    add("--passages", type=_positive, default=1000, help="how many (default: %(default)s)")
    add("--second", action="store_true", help="expect a cache that another process has filled")
    return parser.parse_args()


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number above 0 is needed, not {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
