"""Parquet: only wanted columns, and a bounded part at a time, whatever the file expands to."""

import io
import os
import struct
import tracemalloc
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from pyarrow import parquet

from core.tables.opening import open_table
from core.tables.rows import Row, RowRefused
from core.web.problems import Malformed, TooLarge
from tests.parquet import pack, repeated

MIB = 1024 * 1024


def read(body: bytes, *names: str) -> Iterator[Row]:
    """Read these columns, or all; rows as dicts."""
    table = open_table([body], "parquet")
    assert table.columns
    there = [column.name for column in table.columns]
    wanted = [there.index(name) for name in names] or range(len(there))
    for number, cells in table.read(wanted):
        names_read = [there[n] for n in wanted]
        yield number, cells if isinstance(cells, RowRefused) else dict(zip(names_read, cells, strict=True))


def code(body: bytes, *names: str) -> str:
    with pytest.raises(TooLarge) as refused:
        for _ in read(body, *names):
            pass
    return refused.value.code


def test_one_value_for_many_rows_is_a_bomb() -> None:
    body = pack({"text": repeated("x" * MIB, 1000)}, write_statistics=False, store_schema=False)
    assert len(body) < 1000
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    assert code(body, "text") == "body_is_a_bomb"
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20 * MIB
    assert pa.total_allocated_bytes() - before < 20 * MIB


def test_many_rows_of_nothing_are_a_bomb() -> None:
    assert code(pack({"text": pa.nulls(2_000_000, pa.string())}), "text") == "body_is_a_bomb"


def test_what_the_footer_announces_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    body = pack({"text": ["x" * 50 * MIB, "y"]}, use_dictionary=False)
    monkeypatch.delattr(parquet, "ParquetFile")  # what decodes
    assert code(body, "text") == "body_is_a_bomb"


def test_only_wanted_columns_are_read() -> None:
    columns = {"text": ["a", "b"], "label": ["x", None], "bomb": repeated("z" * 40 * MIB, 2), "score": [0.5, None]}
    expected = [{"text": "a", "label": "x", "score": 0.5}, {"text": "b", "label": None, "score": None}]
    assert [fields for _, fields in read(pack(columns), "text", "label", "score")] == expected
    assert code(pack(columns)) == "body_is_a_bomb"


def test_a_long_row_costs_only_itself_and_is_never_made() -> None:
    body = pack({"text": ["before", "x" * 2 * MIB, "behind"]})
    (_, first), (_, bad), (_, last) = read(body, "text")
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
    assert [fields for _, fields in read(file.getvalue())] == rows * 700


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_rows_longer_together_than_a_part_are_all_read(use_dictionary: bool) -> None:
    texts = [f"{n} {'x' * 300_000}" for n in range(200)]
    body = pack({"text": texts}, compression="none", use_dictionary=use_dictionary)
    assert [fields for _, fields in read(body, "text")] == [{"text": text} for text in texts]


def test_very_many_columns_are_refused() -> None:
    assert code(pack({str(n): ["a"] for n in range(1001)})) == "too_many_columns"


def test_a_footer_that_claims_a_great_length_is_refused_unread() -> None:
    body = b"PAR1" + os.urandom(100) + struct.pack("<I4s", 2**31, b"PAR1")
    assert code(body) == "parquet_footer_too_large"


def test_damaged_pages_are_malformed() -> None:
    body = bytearray(pack({"text": [f"text {n}" for n in range(1000)]}))
    body[20:200] = bytes(180)
    with pytest.raises((Malformed, TooLarge)):
        list(read(bytes(body)))


def write_arrays(**arrays: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table(arrays), file)
    return file.getvalue()


def test_a_column_that_is_not_wanted_may_hold_anything() -> None:
    """A date without a Python type, bytes that are not UTF-8 in a string column, an unknown time zone."""
    body = write_arrays(
        text=pa.array(["a", "b"]),
        day=pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()),
        broken=pa.array([b"\xff", b"x"]).view(pa.string()),
        at=pa.array([1, 2], pa.timestamp("us", "Nowhere/At_All")),
    )
    assert [fields for _, fields in read(body, "text")] == [{"text": "a"}, {"text": "b"}]


def test_a_cell_that_cannot_be_read_costs_only_its_row() -> None:
    body = write_arrays(
        text=pa.array([b"\xff", b"b", b"c"]).view(pa.string()),
        day=pa.array([0, 2**31 - 1, 1], pa.int32()).cast(pa.date32()),
    )
    (_, first), (_, second), (_, third) = read(body)
    assert isinstance(first, RowRefused)
    assert (first.code, first.detail) == ("malformed_utf8", "the cell text is not UTF-8 at byte 0")
    assert isinstance(second, RowRefused)
    assert "the cell day cannot be read" in second.detail
    assert third == {"text": "c", "day": "1970-01-02"}


def test_a_zone_that_nobody_knows_does_no_harm() -> None:
    body = write_arrays(at=pa.array([0, None], pa.timestamp("ms", "Nowhere/At_All")))
    assert [fields for _, fields in read(body)] == [{"at": "1970-01-01T00:00:00.000Z"}, {"at": None}]


@pytest.mark.parametrize(
    ("count", "unit", "written"),
    [
        (0, "s", "P0D"),
        (86_400, "s", "P1D"),
        (-90_061_500, "ms", "-P1DT3661.5S"),
        (1, "ns", "PT0.000000001S"),
        (2**62, "us", "P53375995DT50427.387904S"),
    ],
)
def test_durations_are_exact(count: int, unit: str, written: str) -> None:
    body = write_arrays(d=pa.array([count, None], pa.int64()).cast(pa.duration(unit)))
    assert [fields for _, fields in read(body)] == [{"d": written}, {"d": None}]


def test_columns_are_told_by_position_not_by_name() -> None:
    """A dot in a name does not make it a part of another column, and a name may be there twice."""
    table = pa.table([["a"], ["b"], ["c"], [{"x": 1, "y": [2]}], ["d"]], ["text.raw", "text", "n", "s", "n"])
    file = io.BytesIO()
    parquet.write_table(table, file)
    opened = open_table([file.getvalue()], "parquet")
    assert list(opened.read([4, 1, 3, 1])) == [(1, ("d", "b", {"x": 1, "y": [2]}, "b"))]


def test_types_are_told() -> None:
    body = write_arrays(
        s=pa.array(["a"]).dictionary_encode(),
        i=pa.array([1], pa.uint8()),
        f=[0.5],
        b=[True],
        d=pa.array([Decimal("1.50")]),
        l=[["x"]],
        m=pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())),
        u=pa.array([UUID(int=5).bytes], pa.uuid()),
        n=pa.nulls(1),
    )
    opened = open_table([body], "parquet")
    assert opened.columns
    types = [column.type for column in opened.columns]
    assert types == ["string", "integer", "number", "boolean", "decimal", "list", "map", "uuid", "null"]
    [(_, cells)] = opened.read(range(9))
    assert cells == ("a", 1, 0.5, True, Decimal("1.50"), ["x"], [("k", "v")], str(UUID(int=5)), None)
