"""LIKE and ILIKE of `where` find what DuckDB's own find, at a cost that grows with the text and no faster."""

import time
from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving_api.viewer.like_patterns import (
    PATTERN_MAX,
    PERCENTS_MAX,
    PERCENTS_WITH_UNDERSCORES_MAX,
    UNDERSCORES_MAX,
    canonical,
    like,
)
from serving_api.viewer.split_rows import LIVE
from serving_api.viewer.where import LIKES_MAX, NotUnderstood, parse_where

# Letters that fold in several ways, signs of regular expressions, ends of lines, and more than one byte.
_LETTERS = "aAbẞßİiıΣσςéÉ😀\n\r\0 .*+?()[]{}|^$\\#-&~'\""
_TEXTS = st.text(st.sampled_from(_LETTERS), max_size=12)
_PATTERNS = st.text(st.sampled_from(_LETTERS + "%_" * 12), max_size=12)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@given(text=st.one_of(_TEXTS, st.none()), pattern=_PATTERNS, any_case=st.booleans(), turned=st.booleans())
@example(text="aba", pattern="ab%ba", any_case=False, turned=False)
@example(text="a\nb", pattern="a_b", any_case=False, turned=False)
@example(text="😀", pattern="_", any_case=False, turned=False)
@example(text="a\0", pattern="a\0", any_case=False, turned=False)
def test_a_pattern_finds_what_duckdb_s_own_like_finds(
    connection: duckdb.DuckDBPyConnection, text: str | None, pattern: str, any_case: bool, turned: bool
) -> None:
    try:
        short = canonical(pattern)
    except ValueError:
        return
    word = "ilike" if any_case else "like"
    # A pattern that comes from a row is no constant: DuckDB's general LIKE.
    own = f"select x {word} p from (values (?::varchar, ?)) t(x, p), range(1)"  # noqa: S608
    sql, values = like("x", short, any_case)
    ours = f"select {'not not ' * turned}({sql}) from (select ?::varchar as x)"  # noqa: S608
    assert (
        connection.execute(ours, [*values, text]).fetchall() == connection.execute(own, [text, pattern]).fetchall()
    )


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ""),
        ("a", "a"),
        ("%%", "%"),
        ("_%_", "__%"),
        ("%_%_%x%%", "__%x%"),
        ("a%_b_", "a_%b_"),
        ("100\\%", "100\\%"),
    ],
)
def test_runs_of_wildcards_become_one(pattern: str, expected: str) -> None:
    assert canonical(pattern) == expected


@pytest.mark.parametrize(
    "pattern",
    [
        "a" * (PATTERN_MAX + 1),
        "%a" * (PERCENTS_MAX + 1),
        "_" * (UNDERSCORES_MAX + 1),
        "a%b%_" + "c%" * (PERCENTS_WITH_UNDERSCORES_MAX - 1),
    ],
)
def test_too_many_wildcards_are_refused_with_the_pattern_s_place(pattern: str) -> None:
    with pytest.raises(NotUnderstood, match=r"^At character 11: a pattern .*may have \d+"):
        parse_where(f"text like '{pattern}'", LIVE)
    with pytest.raises(NotUnderstood, match=r"^At character 16: a pattern .*may have \d+"):
        parse_where(f"text not ilike '{pattern}'", LIVE)


def test_a_condition_has_few_patterns() -> None:
    parse_where(" or ".join(["text like 'a%'"] * LIKES_MAX), LIVE)
    with pytest.raises(NotUnderstood, match=f"a condition may have {LIKES_MAX} LIKE and ILIKE"):
        parse_where(" or ".join(["text like 'a%'"] * (LIKES_MAX + 1)), LIVE)


_HOSTILE = [
    "%" + "_%" * 7 + "~",
    "%a" * PERCENTS_MAX,
    "%" + "a%" * (PERCENTS_MAX - 2) + "~%",
    "%a________~",
    "%a_a_a_a_a_a_a_a_%~",
    "%" + "a" * 400 + "_" * 8 + "~",
    "%" + "a" * (PATTERN_MAX - 3) + "~%",
]


@pytest.mark.parametrize("any_case", [False, True])
@pytest.mark.parametrize("pattern", _HOSTILE)
def test_a_text_twice_as_long_takes_no_more_than_a_few_times_as_long(
    connection: duckdb.DuckDBPyConnection, pattern: str, any_case: bool
) -> None:
    sql, values = like("x", canonical(pattern), any_case)

    def seconds(length: int) -> float:
        connection.execute(
            "create or replace table texts as select repeat('aab', ?) as x from range(20)", [length]
        )
        took = []
        for _ in range(3):
            started = time.process_time()
            connection.execute(f"select count(*) from texts where {sql}", values).fetchall()  # noqa: S608
            took.append(time.process_time() - started)
        return min(took)

    # Twice the text four times over: the general LIKE would take 4^4 or 2^4^n times as long.
    assert seconds(16_000) < 16 * 4 * max(seconds(1_000), 0.002)
