"""The search index (tantivy): finds texts that may match, and checks its files."""

import json
import os
import shutil
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import tantivy

from serving_api.texts.matching import word_characters
from serving_api.texts.query import microseconds

_CRC_BYTES = 2**20


class Damaged(Exception):
    """The index is unusable."""


def check_files(path: Path) -> None:
    """Compare each file of the last commit with the checksum in its footer: tantivy does not when it opens them.

    Without it, a flipped bit gives wrong search results (`tests/unit/serving_api/test_search_pages.py`).

    Raises:
        Damaged: one differs.
    """
    for file in _committed(path):
        _check(file)


def _committed(path: Path) -> Iterator[Path]:
    """Yield the files of the last commit. A killed process may have left others half written."""
    try:
        segments = json.loads((path / "meta.json").read_text())["segments"]
        names = {segment["segment_id"].replace("-", ""): segment["deletes"] for segment in segments}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Damaged("it names no segments") from error
    for file in path.iterdir():
        segment, *rest = file.name.split(".")
        current = len(rest) == 1 or (names.get(segment) and rest[0] == str(names[segment]["opstamp"]))
        if segment in names and current:
            yield file


def _check(file: Path) -> None:
    try:
        with file.open("rb") as content:
            size = content.seek(-8, os.SEEK_END) + 8
            length = int.from_bytes(content.read(4), "little")
            content.seek(size - 8 - length)
            expected = json.loads(content.read(length))["crc"]
            content.seek(0)
            left, found = size - 8 - length, 0
            while left > 0 and (chunk := content.read(min(left, _CRC_BYTES))):
                left, found = left - len(chunk), zlib.crc32(chunk, found)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Damaged(f"{file.name} has no end") from error
    if found != expected:
        raise Damaged(f"{file.name} has another checksum")


# Raise it with each change of the indexed fields: an index of another layout is rebuilt.
_LAYOUT = 3
_HEAP_BYTES = 64_000_000
# About this many texts, in the order of their labels, form a block. A common word is found in the newest block.
BLOCK_TEXTS = 65_536

_META_ID = "meta"
_TOKEN_CHARACTERS = 4_000
TIE_BITS = 10
_EARLIEST = 2**52


class IndexEntry(NamedTuple):
    """The indexed fields of a text; filters use `tags`."""

    id: UUID
    labelled_at: datetime
    folded: str
    tags: tuple[str, ...]
    agreement: float
    annotations: int


@dataclass(frozen=True)
class Meta:
    """The replica that the index belongs to, and its blocks. Stored in the same commit as the texts."""

    identity: str
    version: int
    starts: tuple[int, ...]  # of the blocks, as `moment_number`
    newest: int  # texts in the last block
    latest: int  # the latest timestamp of all texts
    built: int = 0  # the version at which the build began: texts forgotten before it were never in the index
    layout: int = _LAYOUT

    def block_of(self, moment: int) -> int:
        """Return the block of a moment."""
        return max(0, bisect_right(self.starts, moment) - 1)

    def with_text(self, moment: int) -> "Meta":
        """Return the metadata with one more text. If the last block is full, the text begins another block."""
        if self.newest >= BLOCK_TEXTS and moment > self.latest:
            return replace(self, starts=(*self.starts, moment), newest=1, latest=moment)
        in_newest = self.block_of(moment) == len(self.starts) - 1
        return replace(self, newest=self.newest + in_newest, latest=max(self.latest, moment))


def place_of(labelled_at: datetime, id_: UUID) -> int:
    """Return the place of a text in the order of labels, in 64 bits.

    Texts of the same microsecond whose ids begin alike may share it.
    """
    return (moment_number(labelled_at) << TIE_BITS) + (1 << TIE_BITS) - 1 - (id_.int >> (128 - TIE_BITS))


def moment_number(moment: datetime) -> int:
    """Return a moment, UTC without a zone, as a whole number that is never negative in 64 bits."""
    return min(max(microseconds(moment) + _EARLIEST, 0), 2 * _EARLIEST - 1)


@contextmanager
def guarded() -> Iterator[None]:
    """Raise `Damaged` in place of tantivy's errors about a broken folder.

    Raises:
        Damaged: in place of any error in the block, including a panic, which is not an `Exception`.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise Damaged(str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise Damaged(str(error)) from error


class SearchIndex:
    """An index on disk; one thread writes."""

    def __init__(self, path: Path) -> None:
        with guarded():
            self._index = tantivy.Index(_schema(), path=str(path))
            grams = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.ngram(1, 3)).build()
            words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(f"[{word_characters()}]+")).build()
            self._index.register_tokenizer("grams", grams)
            self._index.register_tokenizer("words", words)
            # One thread and little memory: the texts are served meanwhile.
            self._writer = self._index.writer(_HEAP_BYTES, 1)

    @classmethod
    def open(cls, path: Path) -> "SearchIndex":
        """Open the existing index.

        Raises:
            Damaged: it is missing, broken or of another layout.
        """
        if not path.is_dir():
            raise Damaged("missing")
        check_files(path)
        index = cls(path)
        if index.meta().layout != _LAYOUT:
            raise Damaged("of another layout")
        return index

    @classmethod
    def begin(cls, path: Path) -> "SearchIndex":
        """Replace the index by an empty one."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return cls(path)

    @property
    def schema(self) -> tantivy.Schema:
        """The fields of an entry."""
        return self._index.schema

    def meta(self) -> Meta:
        """Return the metadata of the last commit.

        Raises:
            Damaged: there is no commit.
        """
        with guarded():
            searcher = self.searcher()
            query = tantivy.Query.term_query(self._index.schema, "id", _META_ID, "basic")
            hits = searcher.search(query, 2, count=False).hits
            if len(hits) != 1:
                raise Damaged("it was never completed")
            stored = json.loads(str(searcher.doc(hits[0][1]).get_first("meta")))
            return Meta(**{**stored, "starts": tuple(stored["starts"])})

    def searcher(self) -> tantivy.Searcher:
        """Return the index as of the last commit. It does not change."""
        self._index.reload()
        return self._index.searcher()

    def put(self, entry: IndexEntry, block: int) -> None:
        """Add or replace a text."""
        document = tantivy.Document()
        document.add_text("id", entry.id.hex)
        document.add_text("grams", entry.folded)
        document.add_text("words", _cut(entry.folded))
        for tag in (*entry.tags, block_tag(block)):
            document.add_text("tags", tag)
        document.add_unsigned("place", place_of(entry.labelled_at, entry.id))
        document.add_unsigned("id_high", entry.id.int >> 64)
        document.add_unsigned("id_low", entry.id.int & (2**64 - 1))
        document.add_float("agreement", entry.agreement)
        document.add_unsigned("annotations", entry.annotations)
        self.remove(entry.id)
        with guarded():
            self._writer.add_document(document)

    def remove(self, id_: UUID) -> None:
        """Remove a text if the index has it."""
        with guarded():
            self._writer.delete_documents_by_term("id", id_.hex)

    def commit(self, meta: Meta) -> None:
        """Commit all additions and removals."""
        document = tantivy.Document()
        document.add_text("id", _META_ID)
        document.add_text("meta", json.dumps(asdict(meta)))
        with guarded():
            self._writer.delete_documents_by_term("id", _META_ID)
            self._writer.add_document(document)
            self._writer.commit()

    def undo(self) -> None:
        """Roll back the uncommitted changes."""
        with guarded():
            self._writer.rollback()


def block_tag(block: int) -> str:
    """Return the tag of the texts of a block."""
    return f"block {block}"


def ids_of(searcher: tantivy.Searcher, addresses: Sequence[tantivy.DocAddress]) -> list[UUID]:
    """Return the ids of hits."""
    found = list(addresses)
    high, low = (searcher.fast_field_values(name, found) for name in ("id_high", "id_low"))
    return [UUID(int=(int(a or 0) << 64) | int(b or 0)) for a, b in zip(high, low, strict=True)]


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("meta", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("grams", tokenizer_name="grams", index_option="basic")
    builder.add_text_field("words", tokenizer_name="words", index_option="position")
    builder.add_text_field("tags", tokenizer_name="raw", index_option="basic")
    for name in ("place", "id_high", "id_low", "annotations"):
        builder.add_unsigned_field(name, fast=True)
    builder.add_float_field("agreement", fast=True)
    return builder.build()


def _cut(folded: str) -> str:
    """Split words that tantivy would drop because they are too long. No search has a word as long as the parts."""
    if len(folded) <= _TOKEN_CHARACTERS:
        return folded
    parts, run = [], 0
    for character in folded:
        run = 0 if character.isspace() else run + 1
        parts.append(character)
        if run == _TOKEN_CHARACTERS:
            parts.append(" ")
            run = 0
    return "".join(parts)
