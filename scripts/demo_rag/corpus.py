"""Passages of real text about Python: its documentation, else its docstrings.

A passage is 100 to 150 words under one heading, shorter where a section is shorter.
"""

import ast
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from demo_rag.pages import Section, sections_of

LEAST_WORDS = 25
ENOUGH_WORDS = 100
MOST_WORDS = 150
# The parts of the documentation that explain; the reference parts would crowd them out.
PARTS = ("tutorial", "faq", "howto")
NOT_FOR_READERS = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"}


class NoTextError(Exception):
    """There is no text to make passages of; the message says where it was looked for."""


@dataclass(frozen=True)
class Passage:
    """A piece of text with the heading it stands under and the file it comes from."""

    title: str
    source: str
    text: str

    @property
    def embedded(self) -> str:
        """What is given to the model: the title tells it what the text is about."""
        return f"{self.title}\n{self.text}"


def load(documentation: Path | None, count: int) -> list[Passage]:
    """Return `count` passages spread evenly over the text, the same ones on every call.

    Args:
        documentation: the folder of Python's HTML documentation; None for the docstrings of the
            standard library.
        count: how many; fewer are returned where the text has fewer.

    Raises:
        NoTextError: nothing was found there.
    """
    if documentation:
        sections = _documentation(documentation)
        place = documentation
    else:
        place = Path(sysconfig.get_path("stdlib"))
        sections = _docstrings(place)
    passages = list(_passages(sections))
    if not passages:
        raise NoTextError(f"There is no text about Python in {place}.")
    count = min(count, len(passages))
    return [passages[number * len(passages) // count] for number in range(count)]


def _documentation(folder: Path) -> Iterator[Section]:
    for part in PARTS:
        for path in sorted((folder / part).glob("*.html")):
            page = path.read_text(encoding="utf-8", errors="replace")
            yield from sections_of(page, f"{part}/{path.name}")


def _docstrings(folder: Path) -> Iterator[Section]:
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if NOT_FOR_READERS.isdisjoint(parts):
            module = ".".join(parts).removesuffix(".py").removesuffix(".__init__")
            try:
                tree = ast.parse(path.read_bytes())
            except (SyntaxError, ValueError):
                continue  # Some installations carry templates that are not Python.
            yield from _docstrings_within(tree, module, "/".join(parts))


def _docstrings_within(node: ast.AST, name: str, source: str) -> Iterator[Section]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield Section(name, source, text.split("\n\n"))
        for child in node.body:
            inner = f"{name}.{getattr(child, 'name', '')}"
            yield from _docstrings_within(child, inner, source)


def _passages(sections: Iterable[Section]) -> Iterator[Passage]:
    """Yield the passages of each section, leaving out what is too short to say anything."""
    for section in sections:
        for words in _cut(section.paragraphs):
            if len(words) >= LEAST_WORDS:
                yield Passage(section.title, section.source, " ".join(words))


def _cut(paragraphs: Iterable[str]) -> Iterator[list[str]]:
    """Yield lists of words, ending each between two paragraphs where the length allows it."""
    words: list[str] = []
    for paragraph in paragraphs:
        words += paragraph.split()
        while len(words) > MOST_WORDS:
            yield words[:MOST_WORDS]
            words = words[MOST_WORDS:]
        if len(words) >= ENOUGH_WORDS:
            yield words
            words = []
    if words:
        yield words
