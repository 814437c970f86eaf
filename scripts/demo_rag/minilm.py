"""all-MiniLM-L6-v2 as LangChain embeddings, computed with numpy alone."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

from langchain_core.embeddings import Embeddings

from demo_rag.bert import Bert
from demo_rag.tokenizer import WordPiece
from demo_rag.weights import model_folder, read_safetensors


class MiniLM(Embeddings):
    """Turns texts into vectors of 384 numbers and length 1, near each other for like meanings.

    The same model as `sentence-transformers/all-MiniLM-L6-v2`: the same token ids, and the same
    vectors but for rounding. It is loaded when the first text arrives, not before. Threads may
    share an instance once it has embedded a text.

    Args:
        folder: the model's files; by default those of the installed package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    @property
    def loaded(self) -> bool:
        """True once a text had to be embedded."""
        return "_model" in self.__dict__

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order. Uses a thread for each processor core."""
        tokenizer, bert = self._model

        def embed(text: str) -> list[float]:
            vector: list[float] = bert.encode(tokenizer.encode(text)).tolist()
            return vector

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return list(threads.map(embed, texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]

    @cached_property
    def _model(self) -> tuple[WordPiece, Bert]:
        folder = self._folder or model_folder()
        tensors = read_safetensors(folder / "model.safetensors")
        return WordPiece(folder / "vocab.txt"), Bert(tensors)
