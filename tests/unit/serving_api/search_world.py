"""Texts in many scripts, a plain model of what finds them, and a replica that is filled without Postgres."""

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from hypothesis import strategies as st

from serving_api.replica import tables
from serving_api.replica.replica import Replica
from serving_api.settings import ReplicaSettings
from serving_api.texts.matching import Match

# Latin with accents, German, Turkish, Greek with a final sigma, Cyrillic, Arabic with and without marks, Hebrew,
# Thai, Chinese, Japanese, Korean, Hindi, joined emoji, what regular expressions and SQL take for their own.
PIECES = [
    *("You", "are", "tox", "TOXIC", "toxicity", "naïve", "Ärger", "STRASSE", "straße", "İstanbul", "ILIK", "ılık"),
    *(
        "ΟΔΟΣ",
        "οδος",
        "οδός",
        "Ещё",
        "ещё",
        "سلام",
        "سَلام",
        "שלום",
        "สวัสดี",
        "ครับ",
        "有毒",
        "毒",
        "日本語",
        "テスト",
    ),
    *("한국어", "हिन्दी", "👩‍👩‍👧", "👩", "🤬", "don't", "a_b", "%", "\\", ".*", "[", "(?i)", "^", "$", '"', "-"),
    *("1", "x", "E", "ß", "\u0301", "\u200d", "\ud7ff", "\U0010fffd"),
]
SPACES = [" ", " ", " ", "", ", ", "\n", "\u3000", ". "]
FIRST = datetime(2026, 11, 1)  # noqa: DTZ001 - the replica holds UTC without a zone


@st.composite
def texts(draw: st.DrawFn, most: int = 6) -> str:
    """Draw a text in Unicode's NFC, as all stored texts and all searches are."""
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=most))
    spaces = [draw(st.sampled_from(SPACES)) for _ in pieces[1:]] + [""]
    joined = "".join(piece + space for piece, space in zip(pieces, spaces, strict=True))
    return unicodedata.normalize("NFC", joined)


@st.composite
def searches(draw: st.DrawFn, held: Sequence[str]) -> str:
    """Draw a part of a text that is held, its case changed, or something else."""
    if draw(st.integers(0, 4)) == 0:
        return draw(texts(3))
    text = draw(st.sampled_from(held))
    start = draw(st.integers(0, len(text) - 1))
    part = text[start : start + draw(st.integers(1, 12))]
    return unicodedata.normalize("NFC", draw(st.sampled_from([part, part.upper(), part.lower(), part.title()])))


def model_fold(text: str) -> str:
    """Return each character in lower case, separately."""
    lower = [character.lower()[0] for character in text]
    return "".join("σ" if character == "ς" else character for character in lower)


def model_matches(text: str, q: str, match: Match) -> bool:
    """Say whether the text is found."""
    text, q = model_fold(text), model_fold(q)
    if match is Match.SUBSTRING:
        return q in text
    if match is Match.PHRASE:
        return _occurs(" ".join(text.split()), " ".join(q.split()), ends=True)
    return all(_occurs(text, word, ends=match is Match.WORDS) for word in q.split())


def _occurs(text: str, word: str, *, ends: bool) -> bool:
    for start in range(len(text) - len(word) + 1):
        end = start + len(word)
        if text[start:end] == word and _is_edge(text, start) and (not ends or _is_edge(text, end)):
            return True
    return False


def _is_edge(text: str, at: int) -> bool:
    return at in {0, len(text)} or not (_is_joined(text[at - 1]) and _is_joined(text[at]))


def _is_joined(character: str) -> bool:
    spaceless = ("THAI", "CJK", "HIRAGANA", "KATAKANA")
    name = unicodedata.name(character, "")
    return character == "_" or (unicodedata.category(character)[0] in "LNM" and not name.startswith(spaceless))


@dataclass
class Held:
    """A text of the world."""

    id: UUID
    text: str
    label: str
    source: str | None
    labelled_at: datetime


_ADDED = """
    select ?::uuid as id, 'toxicity' as dataset, ? as text, ? as label, 'labelled' as status, 1.0 as agreement,
           '{}' as votes, 1 as annotations, null as confidence, 'majority' as rule, 1 as rule_version,
           true as complete,
           null as predicted_label, null as predicted_probability, null as model_version,
           'annotators' as decided_by, ? as source, null as external_id, null as claimed_label, null as score,
           '{}' as metadata, '{}' as enrichment, ? as received_at, ? as labelled_at, ?::bigint as version
"""
_ADD = f"insert into items by name {tables.derive(f'({_ADDED})', 'annotations')}"
_EDITED = """
    select * exclude (annotators, document) replace (? as label, ?::bigint as version) from items where id = ?
"""
_EDIT = f"create or replace temp table edited as {tables.derive(f'({_EDITED})', 'annotations')}"


class World:
    """A replica, and its expected content."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.version = 1
        self.held: dict[UUID, Held] = {}
        with replica.file.transaction() as cursor:
            cursor.execute("create index items_id on items (id)")
        self._write(("insert into state values ('db', 1, 1, now()::timestamp, 1)", []))

    def add(self, id_: UUID, text: str, label: str = "toxic", source: str | None = None, second: int = 0) -> None:
        """Label a text that has no label yet."""
        item = Held(id_, text, label, source, FIRST + timedelta(seconds=second))
        self.held[id_] = item
        self.version += 1
        self._write(
            (_ADD, [id_, text, label, source, FIRST, item.labelled_at, self.version]),
            ("delete from tombstones where id = ?", [id_]),
        )

    def edit(self, id_: UUID, label: str) -> None:
        """Give a labelled text another label."""
        self.held[id_].label = label
        self.version += 1
        self._write(
            (_EDIT, [label, self.version, id_]),
            ("delete from items where id = ?", [id_]),
            ("insert into items by name from edited", []),
        )

    def withdraw(self, id_: UUID, *, forgotten: bool = False) -> None:
        """Take a text's label away."""
        del self.held[id_]
        self.version += 1
        self._write(
            ("delete from items where id = ?", [id_]),
            ("insert into tombstones values (?, 'toxicity', ?, ?)", [id_, self.version, forgotten]),
        )

    def rebuild(self, identity: str = "db", version: int | None = None) -> None:
        """Begin the replica's file anew, from this database at this version or else at the next one."""
        self.version = version or self.version + 1
        self._write(("update state set identity = ?, built = ?", [identity, self.version]))

    def _write(self, *statements: tuple[str, list[object]]) -> None:
        with self.replica.file.transaction() as cursor:
            for statement, values in statements:
                cursor.execute(statement, values)
            cursor.execute("update state set version = ?", [self.version])
        self.replica._load()  # in place of a follower


@contextmanager
def made_world(path: Path) -> Iterator[World]:
    """Give an empty world in a folder."""
    replica = Replica(path / "replica.duckdb", ReplicaSettings(threads=1))
    replica.open()
    try:
        yield World(replica)
    finally:
        replica.close()
