"""Reads a page of Python's HTML documentation: its text by section, without the furniture."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
BLOCKS = HEADINGS | {"p", "li", "dt", "dd", "pre", "tr", "section", "div", "table", "ul", "dl"}
NO_END = {"br", "hr", "img", "input", "link", "meta", "col", "wbr", "source"}


@dataclass
class Section:
    """The paragraphs that stand under one heading, and where they come from."""

    title: str
    source: str
    paragraphs: list[str] = field(default_factory=list)


def sections_of(page: str, source: str) -> list[Section]:
    """Return the sections of an HTML page in order, each titled "page: section"."""
    reader = _Reader(source)
    reader.feed(page)
    reader.close()
    reader.end_paragraph()
    return reader.sections


class _Reader(HTMLParser):
    """Collects the text inside the element that Sphinx marks with role="main"."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.sections: list[Section] = []
        self._source = source
        self._page_title = ""
        self._depth = 0  # of open elements inside the main one; 0 is outside
        self._skipped = 0  # the depth at which something to skip began; 0 is nothing
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if not self._depth:
            self._depth = int(attributes.get("role") == "main")
            return
        if tag in BLOCKS:
            self.end_paragraph()
        if tag in NO_END:
            return
        self._depth += 1
        unwanted = tag in {"script", "style"} or attributes.get("class") == "headerlink"
        if unwanted and not self._skipped:
            self._skipped = self._depth

    def handle_endtag(self, tag: str) -> None:
        if not self._depth or tag in NO_END:
            return
        if tag in HEADINGS:
            self._begin_section()
        elif tag in BLOCKS:
            self.end_paragraph()
        if self._skipped == self._depth:
            self._skipped = 0
        self._depth -= 1

    def handle_data(self, data: str) -> None:
        if self._depth and not self._skipped:
            self._text.append(data)

    def end_paragraph(self) -> None:
        """Move the text gathered so far into the current section."""
        paragraph = self._take()
        if paragraph and self.sections:
            self.sections[-1].paragraphs.append(paragraph)

    def _begin_section(self) -> None:
        heading = self._take()
        self._page_title = self._page_title or heading
        title = heading if heading == self._page_title else f"{self._page_title}: {heading}"
        self.sections.append(Section(title, self._source))

    def _take(self) -> str:
        text = " ".join("".join(self._text).split())
        self._text.clear()
        return text
