"""What the viewer says of rows and columns: features, cut cells, statistics."""

import math
import statistics
from collections import Counter
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import datasets
import duckdb
import orjson
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from serving_api.texts.matching import Match
from serving_api.texts.parameters import FilterParameters, Order
from serving_api.texts.query import TextsQuery
from serving_api.viewer import split_rows
from serving_api.viewer.repository import StoredSplit
from serving_api.viewer.split_rows import LIVE, NumberedRow, Slice, Span, feature_types
from serving_api.viewer.statistics import make_statistics
from serving_api.viewer.where import read_filter
from tests.unit.serving_api.viewer_world import ROWS, live_split, make_replica, read_table, stored_split

_SPLIT = {"dataset": "toxicity", "config": "live", "split": "train"}
_NAMES = [column.name for column in LIVE]


def test_live_columns_are_those_of_a_file(stored: StoredSplit) -> None:
    assert stored.columns == LIVE


def test_the_datasets_library_reads_the_features(stored: StoredSplit) -> None:
    schema = parquet.read_schema(stored.address)
    assert datasets.Features.from_dict(feature_types(LIVE)) == datasets.Features.from_arrow_schema(schema)


@given(places=st.lists(st.integers(0, 49), max_size=12))
def test_rows_of_a_file_are_found_by_their_places(stored: StoredSplit, places: list[int]) -> None:
    found = stored.read_offsets(places)
    assert [row.values[0] for row in found] == [str(ROWS[place]["id"]) for place in places]
    assert [row.values[_NAMES.index("labelled_at")] for row in found] == [ROWS[p]["labelled_at"] for p in places]


@given(offset=st.integers(0, 60), length=st.integers(0, 30))
def test_a_span_of_a_file_is_that_of_a_list(stored: StoredSplit, offset: int, length: int) -> None:
    found = stored.rows(Span(offset, length))
    assert found.total == len(ROWS)
    assert [row.values[0] for row in found.rows] == [str(row["id"]) for row in ROWS[offset : offset + length]]


def test_only_row_groups_that_hold_the_rows_are_read(replica: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    table = read_table(replica)
    random = Random(1)  # noqa: S311 - texts that do not compress
    texts = pa.array([random.randbytes(5000).hex() for _ in range(len(table))])
    table = table.set_column(_NAMES.index("text"), "text", texts)
    local = stored_split(replica, tmp_path / "train.parquet", table)
    content = Path(local.address).read_bytes()
    MemoryFileSystem().pipe_file("/train.parquet", content)
    read = 0

    class File(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal read
            part = super().read(size)
            read += len(part)
            return part

    class Counting(MemoryFileSystem):  # type: ignore[misc]
        def open(self, *_: Any, **__: Any) -> File:
            return File(content)  # MemoryFileSystem's own open() gives everybody the same file and position

    with duckdb.connect() as beside:
        beside.register_filesystem(Counting())
        found = replace(local, cursor=beside, address="memory://train.parquet").rows(Span(21, 7))
    assert [row.values[_NAMES.index("text")] for row in found.rows] == texts.to_pylist()[21:28]
    assert 0 < read < len(content) / 3  # with the footer


def test_a_search_in_a_file_finds_words_the_best_first(stored: StoredSplit) -> None:
    query = TextsQuery("toxicity", (), FilterParameters(q="a", match=Match.WORDS), Order.RELEVANCE)
    found = stored.search(query, Span(0, 100))
    texts = [row.values[_NAMES.index("text")] for row in found.rows]
    assert found.total == len(texts)
    # A word of two letters counts in full if it is a separate word.
    assert Counter(texts) == Counter(
        row["text"] for row in ROWS if row["text"] in {"a", "A", "a'b", 'a"b', "a%", "a\\b"}
    )
    assert texts[0] in {"a", "A"}


def _rows(texts: list[str]) -> list[NumberedRow]:
    blank = [None] * len(_NAMES)
    place = _NAMES.index("text")
    return [NumberedRow(n, (*blank[:place], text, *blank[place + 1 :])) for n, text in enumerate(texts)]


def _first(texts: list[str], total: int) -> dict[str, Any]:
    body = split_rows.first_rows(_SPLIT, LIVE, Slice(_rows(texts), total))
    assert len(body) < 1_010_000
    found: dict[str, Any] = orjson.loads(body)
    return found


def test_short_first_rows_are_whole() -> None:
    found = _first(["a" * 200] * 100, 100)
    assert (len(found["rows"]), found["truncated"]) == (100, False)
    assert all(row["truncated_cells"] == [] for row in found["rows"])


def test_more_rows_than_are_shown_are_told() -> None:
    assert _first(["a"] * 100, 101)["truncated"]


def test_long_rows_are_left_out() -> None:
    found = _first(["a" * 60_000] * 100, 100)
    assert 10 < len(found["rows"]) < 17
    assert found["truncated"]
    assert all(row["truncated_cells"] == [] for row in found["rows"])


def test_the_last_of_ten_very_long_rows_are_cut() -> None:
    found = _first(["ä" * 100_000] * 12, 12)
    assert found["truncated"]
    cut = [row for row in found["rows"] if row["truncated_cells"]]
    assert len(found["rows"]) == 10
    assert cut == found["rows"][-len(cut) :]
    assert [(row["truncated_cells"], row["row"]["text"]) for row in cut] == [(["text"], "ä" * 50)] * len(cut)
    assert found["rows"][0]["row"]["text"] == "ä" * 100_000


def _statistics(replica: duckdb.DuckDBPyConnection, stored: StoredSplit) -> dict[str, dict[str, Any]]:
    """Return the statistics of each column, which are the same of the replica and of a file."""
    found = make_statistics(LIVE, live_split(replica).aggregate)
    assert make_statistics(stored.columns, stored.aggregate) == found
    assert found["num_examples"] == len(ROWS)
    return {
        one["column_name"]: {"type": one["column_type"], **one["column_statistics"]} for one in found["statistics"]
    }


def test_statistics_are_those_of_plain_python(replica: duckdb.DuckDBPyConnection, stored: StoredSplit) -> None:
    found = _statistics(replica, stored)
    assert list(found) == _NAMES
    for name, one in found.items():
        held = [row[name] for row in ROWS if row[name] is not None]
        assert one["nan_count"] == len(ROWS) - len(held)
        assert one["nan_proportion"] == round(1 - len(held) / len(ROWS), 5)
        if one["type"] == "bool":
            assert one["frequencies"] == Counter(map(str, held))
        elif one["type"] == "string_label":
            assert one["frequencies"] == Counter(held)
            assert one["n_unique"] == len(set(held))
        elif not held:
            assert [one[key] for key in ("min", "max", "mean", "median", "std", "histogram")] == [None] * 6
        else:
            _check_distribution(one, held)
    kinds = {
        name: found[name]["type"] for name in ("text", "label", "annotations", "complete", "score", "labelled_at")
    }
    assert kinds == {
        "text": "string_text",
        "label": "string_label",
        "annotations": "int",
        "complete": "bool",
        "score": "float",
        "labelled_at": "datetime",
    }


def _check_distribution(one: dict[str, Any], held: list[Any]) -> None:
    if one["type"] == "datetime":
        assert one["min"] == f"{min(held):%Y-%m-%dT%H:%M:%S.%f}Z"
        edges = [datetime.fromisoformat(edge).replace(tzinfo=None) for edge in one["histogram"]["bin_edges"]]
    else:
        held = [len(str(value)) if one["type"] == "string_text" else value for value in held]
        assert (one["min"], one["max"]) == (min(held), max(held))
        assert math.isclose(one["mean"], statistics.mean(held), abs_tol=1e-5)
        assert math.isclose(one["std"], statistics.stdev(held), abs_tol=1e-5)
        assert min(held) <= one["median"] <= max(held)
        if one["type"] == "string_text":
            assert one["median"] == statistics.median(held)
        edges = one["histogram"]["bin_edges"]
    bins = list(pairwise(edges))
    assert sum(one["histogram"]["hist"]) == len(held)
    for number, ((low, high), count) in enumerate(zip(bins, one["histogram"]["hist"], strict=True)):
        is_last = number == len(bins) - 1
        assert count == sum(low <= value < high or (is_last and value == high) for value in held)


@pytest.mark.parametrize(
    "where", ["complete = true", "TRUE = complete", "complete <> false", "complete in (true)"]
)
def test_flags_are_compared_with_true_and_false(
    replica: duckdb.DuckDBPyConnection, stored: StoredSplit, where: str
) -> None:
    expected = sum(row["complete"] for row in ROWS)
    assert 0 < expected < len(ROWS)
    of_live, of_file = (read_filter(where, None, columns) for columns in (LIVE, stored.columns))
    assert live_split(replica).filter(of_live, Span(0, 100)).total == expected
    assert stored.filter(of_file, Span(0, 100)).total == expected


def test_a_split_without_rows_has_statistics() -> None:
    with make_replica([]) as empty:
        found = make_statistics(LIVE, live_split(empty).aggregate)
    assert found["num_examples"] == 0
    assert all(one["column_statistics"]["nan_proportion"] == 0 for one in found["statistics"])
