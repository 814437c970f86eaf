"""The tokenizer of BERT uncased: text to the ids of its word pieces.

Follows the reference implementation step by step: clean the text and set CJK characters apart,
decompose (NFD), drop accents, lower-case, set punctuation apart, split at white space, and cut
each word greedily into the longest pieces that the vocabulary has. The ids are the same except for
some 500 rare characters that Unicode has added or reclassified since the reference took its tables.
"""

import re
import unicodedata
from pathlib import Path

SPECIAL = re.compile(r"(\[(?:PAD|UNK|CLS|SEP|MASK)\])")
LONGEST_WORD = 100
# Not Cn: a character that Unicode has not assigned yet is kept, and becomes an unknown word.
CONTROL = ("Cc", "Cf", "Co", "Cs")
CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class _Clean(dict[int, str]):
    """Table for `str.translate`: drops control characters, sets CJK characters apart."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        if char in "\t\n\r":
            result = " "
        elif code == 0xFFFD or unicodedata.category(char) in CONTROL:
            result = ""
        elif char.isspace():
            result = " "
        elif any(first <= code <= last for first, last in CJK):
            result = f" {char} "
        else:
            result = char
        self[code] = result
        return result


class _Fold(dict[int, str]):
    """Table for `str.translate`: drops accents, lower-cases, sets punctuation apart."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        if category == "Mn":
            result = ""
        elif category.startswith("P") or char in "$+<=>^`|~":
            result = f" {char} "
        else:
            # One character at a time, as the reference does: lowering a whole word would give
            # a Greek sigma at its end another form.
            result = char.lower()
        self[code] = result
        return result


class WordPiece:
    """Turns a text into token ids; instances remember the words they have seen.

    Threads may share an instance: what it remembers for each word is always the same.

    Args:
        vocabulary: the vocab.txt of the model, one piece a line, the line number being its id.
        max_tokens: longer texts are cut to this many tokens, [CLS] and [SEP] included.
    """

    def __init__(self, vocabulary: Path, max_tokens: int = 256) -> None:
        # Not splitlines(): some pieces are characters at which it would split.
        pieces = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._unknown = self._ids["[UNK]"]
        self._max_pieces = max_tokens - 2
        self._clean = _Clean()
        self._fold = _Fold()
        self._seen: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, beginning with [CLS] and ending with [SEP]."""
        ids: list[int] = []
        for part in SPECIAL.split(text):
            if SPECIAL.fullmatch(part):
                ids.append(self._ids[part])
                continue
            for word in self._words(part):
                ids += self._pieces(word)
        return [self._ids["[CLS]"], *ids[: self._max_pieces], self._ids["[SEP]"]]

    def _words(self, text: str) -> list[str]:
        decomposed = unicodedata.normalize("NFD", text.translate(self._clean))
        return decomposed.translate(self._fold).split()

    def _pieces(self, word: str) -> list[int]:
        ids = self._seen.get(word)
        if ids is None:
            ids = self._seen[word] = self._cut(word)
        return ids

    def _cut(self, word: str) -> list[int]:
        """Cut a word into the longest known pieces; a word with an unknown rest is [UNK]."""
        if len(word) > LONGEST_WORD:
            return [self._unknown]
        ids = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                number = self._ids.get(prefix + word[start:end])
                if number is not None:
                    ids.append(number)
                    start = end
                    break
            else:
                return [self._unknown]
        return ids
