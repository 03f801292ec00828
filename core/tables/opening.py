"""Opens a body or a file as a table, by its declared format and its first bytes."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from core.tables.csv_table import open_csv
from core.tables.decoding import PlainBody, peek, recognise_encoding
from core.tables.json_table import Parse, open_json, open_ndjson, read_value
from core.tables.parquet_table import open_parquet
from core.tables.rows import ColumnsRefused, RowRefused, Table
from core.tables.xlsx_table import open_xlsx

MEDIA_TYPES = {
    "application/x-ndjson": "ndjson",
    "application/jsonl": "ndjson",
    "application/json": "json",
    "text/csv": "csv",
    "text/tab-separated-values": "tsv",
    "application/vnd.apache.parquet": "parquet",
    "application/parquet": "parquet",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}
SUFFIXES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
ENCODINGS = {".gz": "gzip", ".zst": "zstd"}
CHARACTER_FORMATS = ("csv", "tsv")  # which may be in any charset
JSON_FORMATS = ("json", "ndjson")

_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"


def kind_of_file(file: PurePath) -> tuple[str, str] | None:
    """Return the media type and the Content-Encoding of a file by its suffixes; None for an unknown kind."""
    encoding = ENCODINGS.get(file.suffix.lower(), "identity")
    media_type = SUFFIXES.get((file if encoding == "identity" else file.with_suffix("")).suffix.lower())
    return None if media_type is None else (media_type, encoding)


def open_table(
    body: PlainBody | Iterable[bytes],
    format_: str,
    *,
    charset: str | None = None,
    delimiter: str | None = None,
    parse: Parse = read_value,
) -> Table:
    """Read the header or schema of a body. `format_` is a value of `MEDIA_TYPES`.

    The first bytes of compressed bodies, Parquet and .xlsx override the declared format. `charset` comes from
    `require_charset`; `parse` reads a row of JSON.

    Raises:
        Malformed, TooLarge: it cannot be read.
        Unavailable: the disk that holds temporary files is full.
    """
    plain = recognise_encoding(body if isinstance(body, PlainBody) else PlainBody(body))
    start, chunks = peek(plain, len(_ZIP))
    if start.startswith(_PARQUET) or format_ == "parquet":
        return open_parquet(chunks, plain)
    if start.startswith(_ZIP) or format_ == "xlsx":
        return open_xlsx(chunks)
    match format_:
        case "ndjson":
            return open_ndjson(chunks, parse)
        case "json":
            return open_json(chunks, parse)
    return open_csv(chunks, charset, delimiter or ("\t" if format_ == "tsv" else None))


_CHUNK_BYTES = 256 * 1024


@contextmanager
def open_file(path: Path) -> Iterator[Table]:
    """Open a file as a table by its suffix, NDJSON where that says nothing.

    Raises:
        OSError, Problem: it cannot be read.
    """
    media_type, encoding = kind_of_file(path) or ("application/x-ndjson", "identity")
    with path.open("rb") as file:
        chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
        yield open_table(PlainBody(chunks, encoding), MEDIA_TYPES[media_type])


def read_columns(
    table: Table, known: Collection[str] | None = None, required: Collection[str] = ()
) -> Iterator[tuple[int, Any | RowRefused]]:
    """Yield the rows as dicts by column. Columns without a name are left out; JSON rows are as they are.

    Raises:
        ColumnsRefused: there are others than the `known` ones, one is there twice, or a required one is not.
    """
    if table.columns is None:
        yield from table.read(())
        return
    names = [column.name for column in table.columns]
    expected = required if known is None else known
    wanted = [n for n, name in enumerate(names) if name.strip() and (known is not None or name in expected)]
    for position in wanted:
        name = names[position]
        if name not in expected or names.count(name) > 1:
            problem = "is there twice" if name in expected else f"is not known; known are {', '.join(expected)}"
            raise ColumnsRefused(name, f'The column "{name}" {problem}.', table.columns)
    for name in required:
        if name not in names:
            raise ColumnsRefused(name, f'There is no column "{name}".', table.columns)
    read = range(len(names)) if table.whole_rows else wanted
    for number, cells in table.read(wanted):
        if isinstance(cells, RowRefused):
            yield number, cells
        else:
            by_name = dict(zip((names[position] for position in read), cells, strict=True))
            yield number, {name: cell for name, cell in by_name.items() if name.strip()}
