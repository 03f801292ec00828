"""`where` and `orderby` mean in DuckDB what they say, and nothing else is understood."""

from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.web.problems import InvalidFields
from serving_api.viewer.repository import StoredSplit
from serving_api.viewer.split_rows import LIVE, Slice, Span
from serving_api.viewer.where import DEPTH_MAX, LENGTH_MAX, NotUnderstood, parse_orderby, parse_where, read_filter
from tests.unit.serving_api.viewer_world import (
    ROWS,
    Where,
    live_split,
    make_replica,
    stored_split,
    wheres,
)

EVERY = Span(0, 100)


def _places(found: Slice) -> list[int]:
    assert found.total == len(found.rows)
    for row in found.rows:
        assert row.values[0] == str(ROWS[row.offset]["id"])
    return [row.offset for row in found.rows]


@given(where=wheres)
def test_a_condition_means_the_same_in_the_replica_in_a_file_and_in_plain_python(
    replica: duckdb.DuckDBPyConnection, stored: StoredSplit, where: Where
) -> None:
    sql, model = where
    expected = [place for place, row in enumerate(ROWS) if model(row)]
    of_live, of_file = (read_filter(sql, None, columns) for columns in (LIVE, stored.columns))
    assert _places(live_split(replica).filter(of_live, EVERY)) == expected
    assert _places(stored.filter(of_file, EVERY)) == expected


@pytest.mark.parametrize("where", ["score = 1 or score is null", "score is null or not label = 'x' and score = 1"])
def test_a_condition_finds_no_rows_of_another_dataset(where: str) -> None:
    elsewhere = [row | {"id": uuid4(), "dataset": "mood"} for row in ROWS]
    with make_replica([*ROWS, *elsewhere]) as both:
        found = live_split(both).filter(read_filter(where, None, LIVE), EVERY)
    assert found.total > 0
    assert {row.values[1] for row in found.rows} == {"toxicity"}
    _places(found)


_KEYS = st.lists(
    st.tuples(
        st.sampled_from(["score", "text", "annotations", "labelled_at", "source"]),
        st.booleans(),
        st.sampled_from([None, True, False]),
    ),
    min_size=1,
    max_size=3,
)


@given(keys=_KEYS, offset=st.integers(0, 60), length=st.integers(0, 20))
def test_an_order_is_that_of_a_plain_sort(
    replica: duckdb.DuckDBPyConnection,
    stored: StoredSplit,
    keys: list[tuple[str, bool, bool | None]],
    offset: int,
    length: int,
) -> None:
    order = list(range(len(ROWS)))
    for column, descending, nulls_first in reversed(keys):
        held = [place for place in order if ROWS[place][column] is not None]
        nulls = [place for place in order if ROWS[place][column] is None]
        # Equal ones keep their order also in a reversed sort.
        held.sort(key=partial(_key, column), reverse=descending)
        order = nulls + held if nulls_first else held + nulls
    nulls_words = {None: "", True: " nulls first", False: " NULLS LAST"}
    written = ", ".join(f'"{column}"{" DESC" if down else ""}{nulls_words[nulls]}' for column, down, nulls in keys)
    span = Span(offset, length)
    of_live, of_file = (read_filter(None, written, columns) for columns in (LIVE, stored.columns))
    for found in (
        live_split(replica).filter(of_live, span),
        stored.filter(of_file, span),
    ):
        assert [row.offset for row in found.rows] == order[offset : offset + length]
        assert found.total == len(ROWS)


def _key(column: str, place: int) -> Any:
    value = ROWS[place][column]
    return value.encode() if isinstance(value, str) else value


def test_values_are_bound() -> None:
    sql, values = parse_where("text = 'a''b' or score in (1, -2.5)", LIVE).where
    assert sql == '("text" = ?) or ("score" in (?, ?))'
    assert values == ["a'b", 1, -2.5]


def test_quotes_in_the_names_of_a_file_and_its_columns_are_doubled(
    replica: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    table = pa.table({'a"b': ["x", "y"], "id": ["1", "2"]})
    stored = stored_split(replica, tmp_path / "it's.parquet", table)
    asked = read_filter('"a""b" = \'y\'', '"a""b"', stored.columns)
    assert [row.values for row in stored.filter(asked, EVERY).rows] == [("y", "2")]


WRONG = {
    "": "At character 1: expected a column or a value, found the end.",
    "label = 'toxic": 'At character 9: "\'toxic" means nothing here.',
    "lable = 'toxic'": "At character 1: there is no column 'lable'; there are: id, dataset, text, label",
    "label = 1": "At character 9: expected a string in single quotes, as label holds, found '1'.",
    'label = "toxic"': "At character 9: there is no column 'toxic'",
    "score = 'x'": "At character 9: expected a number, as score holds, found \"'x'\".",
    "score like 'x'": "At character 7: score holds no text",
    "labelled_at > 'soon'": "At character 15: not a time as RFC 3339 has it",
    "labelled_at > '12'": "At character 15: not a time as RFC 3339 has it",
    "labelled_at > 5": "At character 15: expected a string in single quotes, found '5'.",
    "label = score": "At character 9: score and label are of different kinds.",
    "score = 1; drop table items": "At character 10: '; drop table items' means nothing here.",
    "score = 1 -- x": "At character 11: expected nothing more, AND, or OR, found '-'.",
    "score = 1 /* x */": "At character 11: '/* x */' means nothing here.",
    "score = 1 limit 5": "At character 11: expected nothing more, AND, or OR, found 'limit'.",
    "1 = 1": "At character 5: expected a column, found '1'.",
    "true": "At character 5: expected a comparison, found the end.",
    "complete = 1": "At character 12: expected true or false, as complete holds, found '1'.",
    "read_text('/etc/passwd') = 'x'": "At character 1: there is no column 'read_text'",
    "length(text) > 5": "At character 1: there is no column 'length'",
    "text = lower('A')": "At character 8: there is no column 'lower'",
    "text in (select text from items)": "At character 10: expected a string in single quotes, as text holds",
    "text in ()": "At character 10: expected a string",
    "gold_label = 'toxic'": "At character 1: there is no column 'gold_label'",
    "score between 1": "At character 16: expected AND, found the end.",
    "(score = 1": "At character 11: expected ), found the end.",
    "score = 1)": "At character 10: expected nothing more",
    "score = --1": "At character 10: expected a number",
    "not": "At character 4: expected a column or a value, found the end.",
    "score is 5": "At character 10: expected NULL, found '5'.",
    "score": "At character 6: expected a comparison, IN, BETWEEN, LIKE, ILIKE or IS, found the end.",
    "text = 'a' || 'b'": "At character 12: \"|| 'b'\" means nothing here.",
    "score = 1::int": "At character 10: '::int' means nothing here.",
    "text = $1": "At character 8: '$1' means nothing here.",
    "text = ?": "At character 8: '?' means nothing here.",
    '"': "At character 1: '\"' means nothing here.",
    "a" * 30: "At character 1: there is no column 'aaaaaaaaaaaaaaaaaaaa…'",
    "score = 1 or " * 400: f"At character {LENGTH_MAX + 1}: longer than {LENGTH_MAX} characters.",
    "(" * 2000 + "score = 1" + ")" * 1900: f"At character {DEPTH_MAX + 2}: nested more than {DEPTH_MAX} deep.",
}


@pytest.mark.parametrize(("where", "told"), WRONG.items())
def test_what_is_wrong_is_told_with_its_place(where: str, told: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        parse_where(where, LIVE)
    assert str(refusal.value).startswith(told)


@pytest.mark.parametrize(
    "orderby",
    ["", "score,", "score up", "score desc nulls", "1", "score; x", "length(text)", ",".join(["id"] * 9)],
)
def test_a_wrong_order_is_refused(orderby: str) -> None:
    with pytest.raises(NotUnderstood):
        parse_orderby(orderby, LIVE)


def test_both_wrong_parameters_are_named() -> None:
    with pytest.raises(InvalidFields) as refusal:
        read_filter("x = 1", "y", LIVE)
    assert [error.parameter for error in refusal.value.errors] == ["where", "orderby"]


def test_the_longest_and_deepest_conditions_are_answered(replica: duckdb.DuckDBPyConnection) -> None:
    deep = "not (" * DEPTH_MAX + "id = 'x'" + ")" * DEPTH_MAX
    long = "id='' or " * (LENGTH_MAX // 9 - 1) + "id=''"
    many = "id in (" + ",".join(["''"] * 1300) + ")"
    signs = "not " * 900 + "score = -0"
    for where in (deep, long, many, signs):
        live_split(replica).filter(read_filter(where, None, LIVE), EVERY)


_WORDS = [
    *"()'\",=<>+-.;%_*/\\?$ \t\n\0",
    "label",
    "score",
    "labelled_at",
    '"text"',
    "'a'",
    "1",
    "1e999",
    "9" * 40,
    "and",
]
_WORDS += [
    "or",
    "not",
    "in",
    "between",
    "like",
    "is",
    "null",
    "select",
    "--",
    "/*",
    "timestamp",
    "\ud7ff",
    "𝟙",
    "ſ",
]


@given(rubbish=st.lists(st.sampled_from(_WORDS) | st.text(max_size=3), max_size=15).map(" ".join))
def test_rubbish_is_refused_or_answered(replica: duckdb.DuckDBPyConnection, rubbish: str) -> None:
    try:
        asked = read_filter(rubbish, None, LIVE)
    except InvalidFields:
        return
    live_split(replica).filter(asked, EVERY)
