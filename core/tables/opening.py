"""Opens a body as a table, by its declared format and its first bytes."""

from collections.abc import Iterable
from pathlib import PurePath

from core.tables.csv_table import open_csv
from core.tables.decoding import PlainBody, peek, recognise_encoding
from core.tables.json_table import Parse, open_json, open_ndjson, read_value
from core.tables.parquet_table import open_parquet
from core.tables.rows import Table
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
