"""Search semantics: case folding, words, matching, highlighting and ranking."""

import re
import sys
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

MAX_WORDS = 32
MAX_HIGHLIGHTS = 100

# Lower case by SQL's lower(), one code point for one, so that offsets stay; both small sigmas are the same.
FOLDED = "replace(lower(text), 'ς', 'σ')"

# Scripts that put no spaces between words, and the marks and digits of their blocks: Thai and Lao, Tibetan,
# Myanmar, Khmer, Chinese, Japanese, Korean compatibility, Yi, half-width kana, the planes of rare ideographs.
_SPACELESS = (
    (0x0E00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x2E80, 0x312F),
    (0x3190, 0x4DBF),
    (0x4E00, 0xA4CF),
    (0xF900, 0xFAFF),
    (0xFF66, 0xFF9F),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_SPACE = "".join(re.escape(chr(point)) for point in range(0x3001) if chr(point).isspace())


class Match(StrEnum):
    """How `q` is matched."""

    SUBSTRING = "substring"
    WORDS = "words"
    PHRASE = "phrase"
    PREFIX = "prefix"


def fold(text: str) -> str:
    """Return the text in the form for comparisons; the same as `FOLDED` in DuckDB."""
    return text.replace("İ", "i").lower().replace("ς", "σ")


@cache
def word_characters() -> str:
    """Return the inside of a regular expression's class: letters, digits and marks of scripts with spaces."""
    ranges: list[list[int]] = []
    for point in range(sys.maxunicode + 1):
        if not is_word_character(chr(point)):
            continue
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


def is_word_character(character: str) -> bool:
    """Return whether a character belongs to words that are separated by spaces or punctuation."""
    if character != "_" and unicodedata.category(character)[0] not in "LNM":
        return False
    return not any(first <= ord(character) <= last for first, last in _SPACELESS)


@dataclass(frozen=True)
class Search:
    """A search for `q`."""

    q: str
    match: Match

    @cached_property
    def folded(self) -> str:
        """`q`, folded."""
        return fold(self.q)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The folded words of `q`: its parts between white space."""
        return tuple(self.folded.split())

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Strings that each matching text contains."""
        return (self.folded,) if self.match is Match.SUBSTRING else tuple(dict.fromkeys(self.words))

    def condition(self) -> tuple[str, list[Any]]:
        """Return the WHERE clause over `items` of matching texts, and its values."""
        holds = [(f"contains({FOLDED}, ?)", literal) for literal in self.literals]
        matches = [(f"regexp_matches({FOLDED}, ?)", _for_duckdb(*needle)) for needle in self._needles()]
        found = holds + matches
        return " and ".join(sql for sql, _ in found), [value for _, value in found]

    def relevance(self) -> tuple[str, list[Any]]:
        """Return the relevance of a matching text in millionths, as an expression over `items` and its values.

        A text gets one point if it has the words of the search in a row, whole, and up to one point for the number
        of matches, fewer in a long text: BM25's formula for one term with k1 = 1.2, b = 0.75 and an average length
        of 100 characters. It depends on the text alone, so it never changes.
        """
        times = " + ".join(f"(length({FOLDED}) - length(replace({FOLDED}, ?, ''))) / ?" for _ in self.literals)
        found: list[Any] = [value for literal in self.literals for value in (literal, len(literal))]
        whole = f"regexp_matches({FOLDED}, ?)::int" if self.words else "0"
        # t / (t + k) = 1 - k / (t + k)
        sql = f"(1000000 * ({whole} + 1 - (0.3 + 0.009 * length(text)) / ({times} + 0.3 + 0.009 * length(text))))"
        return f"{sql}::bigint", [*([self._phrase()] if self.words else []), *found]

    def highlights(self, text: str) -> list[tuple[int, int]]:
        """Return where the text matches, [start, end) in code points, in order, at most `MAX_HIGHLIGHTS`."""
        needles = self._needles() or [(re.escape(self.folded), False, False)]
        folded = fold(text)
        found = sorted(match.span() for needle in needles for match in _for_python(*needle).finditer(folded))
        return _merge(found)[:MAX_HIGHLIGHTS]

    def _needles(self) -> list[tuple[str, bool, bool]]:
        """Return the patterns that must occur, each with whether it must begin, and end, at the edge of a word."""
        if self.match is Match.SUBSTRING:
            return []
        if self.match is Match.PHRASE:
            return [_needle(self.words, Match.PHRASE)]
        return [_needle((word,), self.match) for word in self.literals]

    def _phrase(self) -> str:
        return _for_duckdb(*_needle(self.words, Match.PHRASE))


def _needle(words: tuple[str, ...], match: Match) -> tuple[str, bool, bool]:
    pattern = f"[{_SPACE}]+".join(re.escape(word) for word in words)
    ends = match is not Match.PREFIX and is_word_character(words[-1][-1])
    return pattern, is_word_character(words[0][0]), ends


def _for_duckdb(pattern: str, left: bool, right: bool) -> str:
    other = f"[^{word_characters()}]"
    return (f"(?:^|{other})" if left else "") + pattern + (f"(?:{other}|$)" if right else "")


def _for_python(pattern: str, left: bool, right: bool) -> re.Pattern[str]:
    own = f"[{word_characters()}]"
    return re.compile((f"(?<!{own})" if left else "") + pattern + (f"(?!{own})" if right else ""))


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
