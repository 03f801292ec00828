"""Readers of bulk bodies: whatever the chunks, the same rows; whatever the rubbish, a clear refusal."""

import csv
import gzip
import io
import itertools
import json
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from core.tables.decoding import PlainBody
from core.tables.opening import open_table
from core.tables.rows import Row, RowRefused, Table
from core.tables.text_lines import CHARSETS, require_charset
from core.web.problems import Malformed, TooLarge, Unavailable, UnsupportedType
from tests.xlsx import write_xlsx

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
OBJECTS = st.lists(st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=4))
CUTS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
MIB = 1024 * 1024


def read(format_: str, chunks: Iterable[bytes]) -> Iterator[Row]:
    """Read all columns; the rows of a table with columns as dicts."""
    return read_rows(open_table(chunks, format_))


def read_rows(table: Table) -> Iterator[Row]:
    if table.columns is None:
        yield from table.read(())
        return
    names = [column.name for column in table.columns]
    for number, cells in table.read(range(len(names))):
        yield number, cells if isinstance(cells, RowRefused) else dict(zip(names, cells, strict=True))


def read_ndjson(chunks: Iterable[bytes]) -> Iterator[Row]:
    return read("ndjson", chunks)


def read_json_array(chunks: Iterable[bytes]) -> Iterator[Row]:
    return read("json", chunks)


def read_csv(chunks: Iterable[bytes]) -> Iterator[Row]:
    return read("csv", chunks)


def read_parquet(chunks: Iterable[bytes]) -> Iterator[Row]:
    return read("parquet", chunks)


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


@pytest.mark.parametrize("format_", ["ndjson", "json", "csv", "tsv", "parquet", "xlsx"])
@given(body=st.binary(max_size=200), sizes=CUTS, charset=st.sampled_from([None, *CHARSETS]))
def test_rubbish_gives_rows_or_a_problem(format_: str, body: bytes, sizes: list[int], charset: str | None) -> None:
    try:
        rows = list(read_rows(open_table(cut(body, sizes), format_, charset=charset)))
    except (Malformed, TooLarge):
        return
    assert all(isinstance(number, int) for number, _ in rows)


@pytest.mark.parametrize("charset", ["utf-16", "utf-32"])
def test_a_charset_with_a_mark_needs_its_mark(charset: str) -> None:
    with pytest.raises(Malformed, match=f"The body is not {charset}"):
        list(read_rows(open_table([b"text\nx\n"], "csv", charset=charset)))


def test_blank_ndjson_lines_are_counted_but_not_yielded() -> None:
    assert list(read_ndjson([b'{"a": 1}\n\n \r\n{"a": 2}'])) == [(1, {"a": 1}), (4, {"a": 2})]


def test_blank_csv_lines_are_counted_but_not_yielded() -> None:
    body = b"\n\na,b\r\n\r\n1,2\n\n\n3,4\n\n"
    assert list(read_csv([body])) == [(2, {"a": "1", "b": "2"}), (5, {"a": "3", "b": "4"})]


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
@pytest.mark.parametrize("filler", ["x", "\u00e9", "\u6f22"])
@pytest.mark.parametrize("chunk_bytes", [65_536, 5 * MIB])
def test_a_csv_row_may_have_one_mib(row: bytes, filler: str, chunk_bytes: int) -> None:
    """Of UTF-8, whatever the number of characters."""
    unit = filler.encode()
    for length, is_refused in (((MIB - len(row)) // len(unit), False), (MIB // len(unit) + 1, True)):
        body = b"a,b\n1,2\n" + row.replace(b"%s", unit * length) + b"4,5\n"
        (_, first), (_, second), *_, last = read_csv(cut(body, [chunk_bytes]))
        assert (first, last[1]) == ({"a": "1", "b": "2"}, {"a": "4", "b": "5"})
        assert isinstance(second, RowRefused) == is_refused
        assert not is_refused or second.code == "row_too_large"


@pytest.mark.parametrize(
    "line",
    [b"nope", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b'{"a": 1', b"[" * 100_000],
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
    [
        b"",
        b"nope",
        b"NaN",
        b"1" * 5000,
        b"1" * 400 + b".0",
        b'{"a": 1]',
        b'"\\ud800"',
        b"[" * 100_000 + b"]" * 100_000,
        b'"\xff"',
    ],
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
        (read_csv, b"", b"x"),
        (read_csv, b'"', b"x\n"),
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


@pytest.mark.parametrize("body", [b"", b"\n", b'a,"b\n', b'a,"b"c\n1,2\n', b"a,b\rc,d\n", b"a\x08,b\n"])
def test_a_csv_without_a_header_that_can_be_read_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        list(read_csv([body]))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'"1,2\n', "line 4: a quote is opened and never closed"),
        (b'"1"x,2\n', "line 4: text behind a closing quote"),
        (b"1\r1,2\n", "line 4: a carriage return outside of quotes"),
    ],
)
def test_a_bad_csv_row_costs_only_itself_and_its_line_is_told(bad: bytes, words: str) -> None:
    body = b'a,b\n"x\ny",2\n' + bad + b"3,4\n5,6\n"
    (_, first), (number, refused), *others = read_csv([body])
    assert first == {"a": "x\ny", "b": "2"}
    assert isinstance(refused, RowRefused)
    assert (number, refused.code) == (2, "malformed_csv")
    assert words in refused.detail
    assert others == [(3, {"a": "3", "b": "4"}), (4, {"a": "5", "b": "6"})]


def test_a_quote_that_never_closes_costs_its_row_in_a_long_file_as_well() -> None:
    body = b'a,b\n"1,2\n' + b"3,%s\n" % (b"4" * 60) * (MIB // 32)
    (_, refused), *others = read_csv(cut(body, [65_536]))
    assert isinstance(refused, RowRefused)
    assert "line 2: a quote is opened and not closed" in refused.detail
    assert len(others) == MIB // 32


def test_quotes_that_would_be_looked_for_again_and_again_are_malformed() -> None:
    with pytest.raises(Malformed, match="quotes"):
        list(read_csv(cut(b"a,b\n" + b'",%s","\n' % (b"x" * 58) * 50_000, [65_536])))


def test_an_endless_csv_row_is_not_held() -> None:
    tracemalloc.start()
    rows = list(read_csv(itertools.chain([b"a\n"], itertools.repeat(b"x" * 65536, 500), [b"\nb\n"])))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [isinstance(fields, RowRefused) for _, fields in rows] == [True, False]
    assert most < 10 * MIB


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


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_in_the_header(delimiter: str) -> None:
    body = f'text{delimiter}"a{delimiter},b"{delimiter}n\nx, y{delimiter}1{delimiter}2\n'.encode()
    if delimiter != ",":
        table = open_table([body], "csv")
        assert table.delimiter == delimiter
        assert next(read_rows(table))[1] == {"text": "x, y", f"a{delimiter},b": "1", "n": "2"}
    else:
        assert open_table([body], "csv").delimiter == ","


def test_a_delimiter_that_is_said_is_the_one() -> None:
    assert list(read_rows(open_table([b"a;b,c\n1,2;3\n"], "csv", delimiter=","))) == [
        (1, {"a;b": "1", "c": "2;3"}),
    ]
    assert list(read("tsv", [b"a,b\tc\n1\t2\n"])) == [(1, {"a,b": "1", "c": "2"})]


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("format_", ["csv", "ndjson", "json"])
@given(sizes=CUTS)
def test_a_byte_order_mark_tells_the_encoding(format_: str, codec: str, sizes: list[int]) -> None:
    bodies = {"csv": "text\nSchöne 漢\n", "ndjson": '{"text": "Schöne 漢"}', "json": '[{"text": "Schöne 漢"}]'}
    assert list(read(format_, cut(bodies[format_].encode(codec), sizes))) == [(1, {"text": "Schöne 漢"})]


@pytest.mark.parametrize("charset", ["windows-1252", "latin1", "utf-16le", "shift_jis", "cp1251"])
def test_a_charset_that_is_said_is_the_one(charset: str) -> None:
    text = {"shift_jis": "日本", "cp1251": "Привет"}.get(charset, "Grüße")
    codec = require_charset(charset)
    table = open_table([f"text\n{text}\n".encode(codec)], "csv", charset=codec)
    assert list(read_rows(table)) == [(1, {"text": text})]


@pytest.mark.parametrize("name", ["klingon", "rot13", "base64", "idna", "utf-7", ""])
def test_a_charset_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedType):
        require_charset(name)


def test_a_cell_in_another_encoding_is_told_with_the_likely_one() -> None:
    text = "n,text\n1,Schöne Grüße an alle Bürger für heute\n2,x\n"
    (_, refused), (_, good) = read("csv", [text.encode("windows-1252")])
    assert isinstance(refused, RowRefused)
    assert refused.code == "malformed_utf8"
    assert "the cell text is not utf-8 at byte 3; the file is probably windows-1252" in refused.detail
    assert good == {"n": "2", "text": "x"}


def test_a_cell_that_is_not_wanted_may_be_in_any_encoding() -> None:
    table = open_table([b"text,other\nx,\xff\n"], "csv")
    assert [isinstance(cells, RowRefused) for _, cells in table.read([0])] == [False]


def test_utf16_without_a_mark_is_told_as_such() -> None:
    with pytest.raises(Malformed, match="charset=utf-16le"):
        list(read("csv", ["text,label\nx,toxic\n".encode("utf-16-le")]))


def test_a_header_in_another_encoding_is_told_in_characters() -> None:
    table = open_table(["Schlüssel,text\n1,x\n".encode("latin-1")], "csv")
    assert table.columns
    assert [column.name for column in table.columns] == ["Schl\ufffdssel", "text"]


def test_lines_of_an_old_mac_end_with_carriage_returns() -> None:
    assert list(read("csv", [b"a,b\r1,2\r3,4\r"])) == [(1, {"a": "1", "b": "2"}), (2, {"a": "3", "b": "4"})]


def test_objects_on_lines_are_read_as_such_where_they_are_called_json() -> None:
    assert list(read("json", [b'{"a": 1}\n{"a": 2}\n'])) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize("format_", ["csv", "ndjson"])
def test_a_format_is_told_by_its_first_bytes(format_: str) -> None:
    file = io.BytesIO()
    parquet.write_table(pa.table({"text": ["x"]}), file)
    assert list(read(format_, [file.getvalue()])) == [(1, {"text": "x"})]
    assert list(read(format_, [write_xlsx([["text"], ["x"]])])) == [(1, {"text": "x"})]
    body = b"text\nx\n" if format_ == "csv" else b'{"text": "x"}'
    assert list(read(format_, [gzip.compress(body)])) == [(1, {"text": "x"})]
    assert list(read(format_, [zstd.compress(body)])) == [(1, {"text": "x"})]


def test_the_first_sheet_of_an_xlsx_is_read() -> None:
    rows: list[list[Any]] = [["text", "n", "f"], ["a", 1, 0.5], ["b", 1234567890123, 2]]
    assert list(read("xlsx", [write_xlsx(rows)])) == [
        (1, {"text": "a", "n": 1, "f": 0.5}),
        (2, {"text": "b", "n": 1234567890123, "f": 2}),
    ]


def test_an_xlsx_that_spans_too_many_cells_is_refused_before_they_are_held() -> None:
    body = write_xlsx([["text"], ["x"]], last_cell="XFD1048576")
    with pytest.raises(TooLarge) as refused:
        list(read("xlsx", [body]))
    assert refused.value.code == "xlsx_too_large"


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as parts:
        parts.writestr(name, "text\nx\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", ""),
        (b"PK\x03\x04 no archive", ""),
        (archive("train.csv"), "an archive of other files"),
        (b"\xd0\xcf\x11\xe0 an old .xls", "an old .xls"),
        (write_xlsx([]), "the first sheet is empty"),
    ],
)
def test_what_is_no_xlsx_is_malformed(body: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=f"{reason}.* Save the sheet as CSV"):
        list(read("xlsx", [body]))


def test_white_space_around_a_name_is_left_out() -> None:
    file = io.BytesIO()
    parquet.write_table(pa.table({" text ": ["x"]}), file)
    for format_, body in (("csv", b" text \nx\n"), ("xlsx", write_xlsx([["text "], ["x"]])), ("parquet", file)):
        content = body if isinstance(body, bytes) else body.getvalue()
        assert list(read(format_, [content])) == [(1, {"text": "x"})]


def test_a_window_of_zstd_that_is_too_long_is_told() -> None:
    options = {int(zstd.CompressionParameter.window_log): 26}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(b'{"text": "a"}\n') + compressor.flush()
    with pytest.raises(Malformed, match="--long=25"):
        list(read("ndjson", [body]))


@pytest.mark.parametrize(("compress", "loss"), [(gzip.compress, 20), (zstd.compress, 8)])
def test_rows_before_a_cut_are_read(compress: Callable[[bytes], bytes], loss: int) -> None:
    rows = [{"text": sha256(str(n).encode()).hexdigest()} for n in range(20_000)]
    body = compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    before: list[Any] = []
    with pytest.raises(Malformed):
        before.extend(row for _, row in read("ndjson", [body[:-loss]]))
    assert len(before) > 1000
    assert before == rows[: len(before)]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_rows_before_junk_are_read_the_last_one_too(compress: Callable[[bytes], bytes]) -> None:
    rows = read("ndjson", [compress(b'{"text": "a"}\n{"text": "b"}') + b"junk"])
    assert [next(rows), next(rows)] == [(1, {"text": "a"}), (2, {"text": "b"})]
    with pytest.raises(Malformed):
        next(rows)


@pytest.mark.parametrize(
    "body", [gzip.compress(b'{"text": "a"}\n')[:-8] + bytes(8), gzip.compress(b'{"text": "a"}\n') * 2 + b"\x1f"]
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_rows_before_a_damage_are_read_in_any_chunks(body: bytes, size: int) -> None:
    rows = read("ndjson", PlainBody(cut(body, [size]), "gzip"))
    assert next(rows) == (1, {"text": "a"})
    with pytest.raises(Malformed):
        list(rows)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_an_empty_body_is_not_compressed(encoding: str) -> None:
    with pytest.raises(Malformed):
        list(PlainBody([], encoding))


def test_what_came_before_the_client_left_is_decoded() -> None:
    def leave() -> Iterator[bytes]:
        yield gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(1000)))[:1500]
        raise TimeoutError

    before: list[Any] = []
    with pytest.raises(TimeoutError):
        before.extend(read("ndjson", PlainBody(leave(), "gzip")))
    assert len(before) > 100


def test_zeros_behind_gzip_are_padding() -> None:
    assert list(read("ndjson", [gzip.compress(b'{"a": 1}') + bytes(1000)])) == [(1, {"a": 1})]


def test_a_first_line_that_tells_excel_the_delimiter_is_no_header() -> None:
    assert list(read("csv", [b"sep=;\r\na,b;c\r\n1;2\r\n"])) == [(1, {"a,b": "1", "c": "2"})]
