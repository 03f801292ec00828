"""Readers of bulk bodies: whatever the chunks, the same rows; whatever the rubbish, a clear refusal."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from core.web.problems import Malformed, TooLarge, Unavailable
from ingestion_api.bulk.columns import Row, RowRefused
from ingestion_api.bulk.parquet_reader import read_parquet
from ingestion_api.bulk.readers import read_csv, read_json_array, read_ndjson

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OBJECTS = st.lists(st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=4))
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
MIB = 1024 * 1024


def cut(body: bytes, sizes: list[int]) -> Iterator[bytes]:
    """Cut a body into chunks of the given sizes, over and over."""
    stream = io.BytesIO(body)
    for size in itertools.cycle(sizes):
        if not (chunk := stream.read(size)):
            return
        yield chunk


def as_csv(rows: Iterable[list[str]]) -> bytes:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue().encode()


@given(OBJECTS, CUTS)
def test_ndjson_is_read_in_any_chunks(objects: list[dict[str, Any]], sizes: list[int]) -> None:
    body = b"".join(json.dumps(o).encode() + b"\n" for o in objects)
    assert list(read_ndjson(cut(body, sizes))) == list(enumerate(objects, 1))


@given(OBJECTS, CUTS)
def test_a_json_array_is_read_in_any_chunks(objects: list[dict[str, Any]], sizes: list[int]) -> None:
    assert list(read_json_array(cut(json.dumps(objects).encode(), sizes))) == list(enumerate(objects, 1))


@given(st.lists(st.tuples(TEXT, TEXT.filter(bool))), CUTS)
def test_csv_is_read_in_any_chunks(rows: list[tuple[str, str]], sizes: list[int]) -> None:
    body = as_csv([["a", "b"], *map(list, rows)])
    expected = [{"a": a, "b": b} for a, b in rows]
    assert [fields for _, fields in read_csv(cut(body, sizes))] == expected


@given(st.lists(st.tuples(TEXT, st.floats(0, 1))), CUTS)
def test_parquet_is_read_in_any_chunks(rows: list[tuple[str, float]], sizes: list[int]) -> None:
    expected = [{"text": text, "score": score} for text, score in rows]
    file = io.BytesIO()
    parquet.write_table(
        pa.Table.from_pylist(expected, pa.schema([("text", pa.string()), ("score", pa.float64())])), file
    )
    assert list(read_parquet(cut(file.getvalue(), sizes))) == list(enumerate(expected, 1))


@pytest.mark.parametrize("reader", [read_ndjson, read_json_array, read_csv, read_parquet])
@given(body=st.binary(max_size=200), sizes=CUTS)
def test_rubbish_gives_rows_or_a_problem(
    reader: Callable[[Iterable[bytes]], Iterator[Row]], body: bytes, sizes: list[int]
) -> None:
    try:
        rows = list(reader(cut(body, sizes)))
    except (Malformed, TooLarge):
        return
    assert all(isinstance(number, int) for number, _ in rows)


def test_blank_ndjson_lines_are_counted_but_not_yielded() -> None:
    assert list(read_ndjson([b'{"a": 1}\n\n \r\n{"a": 2}'])) == [(1, {"a": 1}), (4, {"a": 2})]


def test_blank_csv_lines_are_no_rows() -> None:
    body = b"a,b\r\n\r\n1,2\n\n\n3,4\n\n"
    assert list(read_csv([body])) == [(1, {"a": "1", "b": "2"}), (2, {"a": "3", "b": "4"})]


@pytest.mark.parametrize("chunk_bytes", [65_536, 5 * MIB])
@pytest.mark.parametrize(
    ("reader", "head", "row", "end"),
    [
        (read_csv, b"text,n\n", b'"a line\nand another ' + b"x" * 1000 + b'",1\n', b""),
        (read_csv, b"text,n\n", b"x" * 1000 + b",1\n", b""),
        (read_ndjson, b"", b'{"text": "' + b"x" * 1000 + b'"}\n', b""),
        (read_json_array, b"[0", b',{"text": "' + b"x" * 1000 + b'"}', b"]"),
    ],
)
def test_only_rows_are_limited_not_bodies(
    reader: Callable[[Iterable[bytes]], Iterator[Row]], head: bytes, row: bytes, end: bytes, chunk_bytes: int
) -> None:
    rows = 4 * MIB // len(row)
    read = list(reader(cut(head + row * rows + end, [chunk_bytes])))
    assert not any(isinstance(fields, RowRefused) for _, fields in read)
    assert read[-1][0] == len(read) == rows + (reader is read_json_array)


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("chunk_bytes", [65_536, 5 * MIB])
def test_a_row_may_have_one_mib(over: int, chunk_bytes: int) -> None:
    line = b'"' + b"x" * (MIB + over - 2) + b'"'
    first, second, third = read_ndjson(cut(b"1\n" + line + b"\n2\n", [chunk_bytes]))
    assert (first, third) == ((1, 1), (3, 2))
    assert isinstance(second[1], RowRefused) == bool(over)


@pytest.mark.parametrize("row", [b"3,%s\n", b'3,"%s"\n', b'3,"x\n%s"\n'])
@pytest.mark.parametrize("chunk_bytes", [65_536, 5 * MIB])
def test_a_csv_row_may_have_one_mib(row: bytes, chunk_bytes: int) -> None:
    for length, is_refused in ((MIB - len(row), False), (MIB + 1, True)):
        body = b"a,b\n1,2\n" + row.replace(b"%s", b"x" * length) + b"4,5\n"
        rows = read_csv(cut(body, [chunk_bytes]))
        assert next(rows) == (1, {"a": "1", "b": "2"})
        if is_refused:
            with pytest.raises(TooLarge):
                next(rows)
        else:
            assert [number for number, _ in rows] == [2, 3]


@pytest.mark.parametrize(
    "line", [b"nope", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b'{"a": 1', b"[" * 100_000]
)
def test_a_bad_ndjson_line_costs_only_itself(line: bytes) -> None:
    (_, first), (_, bad), (_, last) = read_ndjson([b"1\n", line, b"\n2\n"])
    assert (first, last) == (1, 2)
    assert isinstance(bad, RowRefused)
    assert bad.code == "malformed_json"


def test_an_overlong_ndjson_line_costs_only_itself() -> None:
    chunks = itertools.chain([b"1\n"], itertools.repeat(b"x" * 65536, 20), [b"\n2\n"])
    (_, first), (_, bad), (_, last) = read_ndjson(chunks)
    assert (first, last) == (1, 2)
    assert isinstance(bad, RowRefused)
    assert bad.code == "row_too_large"


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"\xef\xbb", b'{"item": [1]}', b"[1, 2", b'["a', b"[1] x", b"[1]]", b"[1}", b"[" * 100_000],
)
def test_what_is_no_json_array_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(read_json_array([body]))


@pytest.mark.parametrize(
    "element",
    [b"", b"nope", b"NaN", b"1" * 5000, b'{"a": 1]', b'"\\ud800"', b"[" * 100_000 + b"]" * 100_000, b'"\xff"'],
)
def test_a_bad_element_costs_only_itself(element: bytes) -> None:
    (_, first), (_, bad), (_, last) = read_json_array([b" [1,", element, b", 2 ] "])
    assert (first, last) == (1, 2)
    assert isinstance(bad, RowRefused)
    assert bad.code == "malformed_json"


def test_brackets_commas_and_quotes_in_strings_do_not_cut() -> None:
    values = [{"a": '],[}"\\'}, [1, [2, "],"]], "\\"]
    assert [fields for _, fields in read_json_array([json.dumps(values).encode()])] == values


def test_elements_before_a_fault_are_yielded() -> None:
    rows = read_json_array([b'[{"a": 1}, {"a": 2}, nope'])
    assert [next(rows), next(rows)] == [(1, {"a": 1}), (2, {"a": 2})]
    with pytest.raises(Malformed):
        next(rows)


@pytest.mark.parametrize(
    ("reader", "start", "filler"),
    [
        (read_json_array, b'["', b"x"),
        (read_json_array, b"[", b"["),
        (read_csv, b'a,b\n"', b"x"),
        (read_csv, b"a,b\n", b"x"),
        (read_csv, b'a,b\n"', b"x\n"),
    ],
)
def test_an_endless_row_is_refused_before_it_is_held(
    reader: Callable[[Iterable[bytes]], Iterator[Row]], start: bytes, filler: bytes
) -> None:
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield start
        while True:
            taken += 65536
            assert taken < 4 * MIB, "more was read than a row may be long"
            yield filler * (65536 // len(filler))

    with pytest.raises((TooLarge, Malformed)):
        list(reader(endless()))


def test_quoted_line_breaks_bom_and_crlf_in_csv() -> None:
    body = b'\xef\xbb\xbftext,n\r\n"two\r\nlines, ""quoted""",1\r\n'
    assert list(read_csv([body])) == [(1, {"text": 'two\r\nlines, "quoted"', "n": "1"})]


def test_a_csv_row_with_missing_or_extra_cells_costs_only_itself() -> None:
    rows = list(read_csv([b"a,b\n1\n1,2,3\n1,2\n"]))
    assert [isinstance(fields, RowRefused) for _, fields in rows] == [True, True, False]


def test_a_csv_row_that_is_not_utf8_costs_only_itself() -> None:
    (_, bad), (_, good) = read_csv([b"a,b\n\xff,2\n1,2\n"])
    assert isinstance(bad, RowRefused)
    assert bad.code == "malformed_utf8"
    assert good == {"a": "1", "b": "2"}


@pytest.mark.parametrize("body", [b"", b"\n", b"a,a\n1,2\n", b'a,b\n"1,2\n', b'a,b\n"1"x,2\n'])
def test_csv_that_programs_would_read_in_different_ways_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(read_csv([body]))


def test_a_full_disk_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("r+b", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda buffering: full)
        with pytest.raises(Unavailable) as refused:
            list(read_parquet([b"PAR1"]))
    assert refused.value.code == "disk_full"


def test_a_header_of_very_many_columns_is_refused() -> None:
    with pytest.raises(TooLarge) as refused:
        list(read_csv([b"text" + b"," * 1_000_000 + b"\n"]))
    assert refused.value.code == "too_many_columns"


def test_a_header_of_very_long_names_is_refused() -> None:
    with pytest.raises(TooLarge) as refused:
        list(read_csv([b"text," + b"x" * 200_000 + b"\na,b\n"]))
    assert refused.value.code == "header_too_large"
