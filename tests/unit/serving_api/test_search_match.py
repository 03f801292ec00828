import sys
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_api.texts.matching import FOLDED, MAX_HIGHLIGHTS, Match, Search, fold
from tests.unit.serving_api.search_world import model_fold, model_matches, searches, texts


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def finds(database: duckdb.DuckDBPyConnection, text: str, search: Search) -> bool:
    sql, values = search.condition()
    found = database.execute(f"select {sql} from (select ?::varchar as text)", [*values, text]).fetchall()  # noqa: S608
    return bool(found[0][0])


def test_every_character_is_folded_as_duckdb_does_and_to_one(database: duckdb.DuckDBPyConnection) -> None:
    points = [point for point in range(1, sys.maxunicode + 1) if not 0xD800 <= point <= 0xDFFF]
    text = "".join(map(chr, points))
    found = database.execute(f"select {FOLDED} from (select ?::varchar as text)", [text]).fetchall()[0][0]  # noqa: S608
    different = {chr(a): (b, c) for a, b, c in zip(points, fold(text), found, strict=True) if b != c}
    assert different == {}
    assert fold(text) == model_fold(text)


@given(st.data())
def test_it_finds_what_the_model_finds(database: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    text = data.draw(texts())
    q, match = data.draw(searches([text])), data.draw(st.sampled_from(Match))
    if match is not Match.SUBSTRING and not q.split():
        return
    search = Search(q, match)
    matches = model_matches(text, q, match)
    assert finds(database, text, search) == matches
    highlights = search.highlights(text)
    if matches:
        assert highlights
        assert highlights == sorted(highlights)
        assert all(0 <= start < end <= len(text) for start, end in highlights)


@pytest.mark.parametrize(
    ("q", "match", "text", "highlighted"),
    [
        ("IDIO", "substring", "an Idiot, idiot", ["Idio", "idio"]),
        ("n i", "substring", "an Idiot", ["n I"]),
        ("idiot you", "words", "You are an idiot.", ["You", "idiot"]),
        ("idio", "words", "an idiot", None),
        ("you are", "phrase", "as you \n ARE, you", ["you \n ARE"]),
        ("you are", "phrase", "you aren", None),
        ("you are", "phrase", "are you", None),
        ("tox a", "prefix", "Toxicity and detox", ["Toxicity"[:3], "a"]),
        ("tox", "prefix", "detox", None),
        ("毒", "words", "这是有毒的", ["毒"]),
        ("日本 語", "words", "日本語", ["日本", "語"]),
        ("ครับ", "words", "สวัสดีครับ", ["ครับ"]),
        ("سلام", "words", "قال سلام.", ["سلام"]),
        ("שלום", "prefix", "שלום", ["שלום"]),
        ("한국", "prefix", "한국어", ["한국"]),
        ("ΟΔΟΣ", "words", "οδος, ΟΔΌΣ", ["οδος"]),
        ("istanbul", "substring", "İSTANBUL", ["İSTANBUL"]),
        ("🤬", "words", "wow🤬!", ["🤬"]),
        ("c++", "words", "C++11 or c++", ["C++", "c++"]),
        (".*", "words", "a .* b", [".*"]),
        ("a", "phrase", "_a a", ["a"]),
    ],
)
def test_it_highlights_what_matches(
    database: duckdb.DuckDBPyConnection, q: str, match: str, text: str, highlighted: list[str] | None
) -> None:
    search = Search(q, Match(match))
    assert finds(database, text, search) == (highlighted is not None)
    if highlighted is not None:
        assert [text[start:end] for start, end in search.highlights(text)] == highlighted


def test_highlights_are_few_and_never_overlap() -> None:
    assert len(Search("a", Match.SUBSTRING).highlights("a" * 5000)) == MAX_HIGHLIGHTS
    assert Search("ab abc", Match.PREFIX).highlights("abcd") == [(0, 3)]


def test_relevance_prefers_whole_words_then_many_in_short_texts(database: duckdb.DuckDBPyConnection) -> None:
    sql, values = Search("tox", Match.SUBSTRING).relevance()
    order = ["tox", "tox and much else " + "x" * 200, "toxtox", "toxic", "toxic and much else " + "x" * 200]
    scores = [
        database.execute(f"select {sql} from (select ?::varchar as text)", [*values, text]).fetchall()[0][0]  # noqa: S608
        for text in order
    ]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(order)
    assert scores[1] > 1_000_000 > scores[2]
