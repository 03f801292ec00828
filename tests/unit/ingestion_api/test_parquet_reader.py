"""Parquet: only wanted columns, and a bounded part at a time, whatever the file expands to."""

import io
import os
import struct
import tracemalloc

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.web.problems import Malformed, TooLarge
from ingestion_api.bulk.columns import Columns, RowRefused, UnknownColumn
from ingestion_api.bulk.parquet_reader import read_parquet
from tests.parquet import pack, repeated

MIB = 1024 * 1024


def code(body: bytes, columns: Columns | None = None) -> str:
    with pytest.raises(TooLarge) as refused:
        for _ in read_parquet([body], columns):
            pass
    return refused.value.code


def test_one_value_for_many_rows_is_a_bomb() -> None:
    body = pack({"text": repeated("x" * MIB, 1000)}, write_statistics=False, store_schema=False)
    assert len(body) < 1000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    assert code(body, Columns()) == "body_is_a_bomb"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * MIB
    assert pa.total_allocated_bytes() - before < 20 * MIB


def test_many_rows_of_nothing_are_a_bomb() -> None:
    assert code(pack({"text": pa.nulls(2_000_000, pa.string())}), Columns()) == "body_is_a_bomb"


def test_what_the_footer_announces_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pack({"text": ["x" * 50 * MIB, "y"]}, use_dictionary=False)
    monkeypatch.delattr(parquet, "ParquetFile")  # what decodes
    assert code(body, Columns()) == "body_is_a_bomb"


def test_only_wanted_columns_are_read() -> None:
    columns = {"text": ["a", "b"], "label": ["x", None], "bomb": repeated("z" * 40 * MIB, 2), "score": [0.5, None]}
    expected = [{"text": "a", "label": "x", "score": 0.5}, {"text": "b", "label": None, "score": None}]
    assert [fields for _, fields in read_parquet([pack(columns)], Columns())] == expected
    assert code(pack(columns), Columns(all_metadata=True)) == "body_is_a_bomb"


def test_a_long_row_costs_only_itself_and_is_never_made() -> None:
    body = pack({"text": ["before", "x" * 2 * MIB, "behind"]})
    (_, first), (_, bad), (_, last) = read_parquet([body], Columns())
    assert (first, last) == ({"text": "before"}, {"text": "behind"})
    assert isinstance(bad, RowRefused)
    assert bad.code == "row_too_large"


def test_rows_of_every_kind_are_as_they_were() -> None:
    rows = [
        {"text": "a", "n": 1, "list": ["x", None], "struct": {"b": "y"}, "bytes": b"1", "none": None},
        {"text": None, "n": None, "list": None, "struct": None, "bytes": None, "none": None},
    ]
    types = {
        "text": pa.large_string(),
        "n": pa.int64(),
        "list": pa.list_(pa.string()),
        "struct": pa.struct({"b": pa.string()}),
        "bytes": pa.binary(),
        "none": pa.string(),
    }
    table = pa.Table.from_pylist(rows * 700, pa.schema(types))
    file = io.BytesIO()
    parquet.write_table(table, file, row_group_size=900)
    assert [fields for _, fields in read_parquet([file.getvalue()])] == rows * 700


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_rows_longer_together_than_a_part_are_all_read(use_dictionary: bool) -> None:
    texts = [f"{n} {'x' * 300_000}" for n in range(200)]
    body = pack({"text": texts}, compression="none", use_dictionary=use_dictionary)
    assert [fields for _, fields in read_parquet([body], Columns())] == [{"text": text} for text in texts]


def test_very_many_columns_are_refused() -> None:
    assert code(pack({str(n): ["a"] for n in range(1001)})) == "too_many_columns"


def test_a_footer_that_claims_a_great_length_is_refused_unread() -> None:
    body = b"PAR1" + os.urandom(100) + struct.pack("<I4s", 2**31, b"PAR1")
    assert code(body) == "parquet_footer_too_large"


@pytest.mark.parametrize("columns", [Columns("comment"), Columns("text", "verdict")])
def test_a_column_that_is_not_there_is_told_with_those_that_are(columns: Columns) -> None:
    with pytest.raises(UnknownColumn) as refused:
        list(read_parquet([pack({"text": ["a"], "more": ["b"]})], columns))
    assert "text, more" in refused.value.detail


def test_damaged_pages_are_malformed() -> None:
    body = bytearray(pack({"text": [f"text {n}" for n in range(1000)]}))
    body[20:200] = bytes(180)
    with pytest.raises((Malformed, TooLarge)):
        list(read_parquet([bytes(body)]))
