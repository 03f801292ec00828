"""`annotate ingest --dry-run`: how files would be read."""

import io
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from pyarrow import parquet
from rich.table import Table

from cli import addresses
from cli.console import SHORT_CHARACTERS, err, fail, out, plain, printable
from cli.texts import import_client

_FIRST_BYTES = 1024 * 1024
_WHOLE_BYTES = 16 * _FIRST_BYTES  # of formats whose index is at the end
_FIRST_ROWS = 1000
_FIELDS = ("text", "label", "score", "source", "external_id", "metadata")


def show_previews(kinds: Mapping[Path, dict[str, str]], parameters: dict[str, str]) -> None:
    """Show how each file would be read. Exit code 1: one of them would be refused."""
    is_refused = False
    with httpx.Client(base_url=addresses.ingestion_url(), headers=addresses.headers(), timeout=60) as client:
        for file, kind in kinds.items():
            try:
                api = import_client.Api(client, lambda: None)
                start, is_whole = _read_start(file, kind)
                preview = import_client.preview(api, start, kind, parameters)
                preview["complete"] = preview["complete"] and is_whole
            except (import_client.Refused, httpx.HTTPError, httpx.InvalidURL, OSError, pa.ArrowException) as error:
                fail(f"{file}: {error}")
            _show(file, preview)
            is_refused |= preview["problem"] is not None
    if is_refused:
        raise SystemExit(1)


def _read_start(file: Path, kind: dict[str, str]) -> tuple[bytes, bool]:
    """Return what the API reads of a file, and whether that is the whole; else one byte more, to tell that."""
    is_parquet = kind == import_client.headers_of_file(Path("x.parquet"))
    if is_parquet and file.stat().st_size > _WHOLE_BYTES:
        return _first_rows(file), False
    with file.open("rb") as body:
        is_indexed = body.read(4) in {b"PAR1", b"PK\x03\x04"}
        body.seek(0)
        return body.read((_WHOLE_BYTES if is_indexed else _FIRST_BYTES) + 1), True


def _first_rows(file: Path) -> bytes:
    """Return the first rows of a Parquet file as a file of their own."""
    with parquet.ParquetFile(file) as rows:
        start = io.BytesIO()
        parquet.write_table(pa.Table.from_batches([next(rows.iter_batches(_FIRST_ROWS))]), start)
    return start.getvalue()


def _show(file: Path, preview: dict[str, Any]) -> None:
    facts = [preview["format"], preview["charset"], preview["delimiter"] and repr(preview["delimiter"])]
    out.print(f"{file.name}: {', '.join(fact for fact in facts if fact)}")
    columns = Table("column", "type", "becomes", "first values")
    for column in preview["columns"]:
        samples = plain(", ".join(column["samples"][:3]), SHORT_CHARACTERS)
        columns.add_row(plain(column["name"]), column["type"], ", ".join(column["roles"]) or "-", samples)
    out.print(columns)
    rows = Table("row", *_FIELDS)
    for row in preview["rows"]:
        fields = row["submission"]
        cells = (plain(str(fields.get(name, "")), SHORT_CHARACTERS) for name in _FIELDS)
        rows.add_row(str(row["row"]), *cells)
    out.print(rows)
    extent = "all rows" if preview["complete"] else "the first rows"
    out.print(f"Of {extent}, {preview['received']:,}, {preview['rejected']:,} would be rejected.")
    for line in import_client.describe_groups(preview["errors"]):
        err.print(printable(line), soft_wrap=True)
    if preview["problem"] is not None:
        err.print(f"{file.name}: {import_client.explain(preview['problem'])}", style="red", soft_wrap=True)
        return
    out.print("Nothing is stored. To store it:", _command(file, preview["parameters"]), sep="\n", soft_wrap=True)


def _command(file: Path, parameters: dict[str, str]) -> str:
    options = ((f"--{name.replace('_', '-')}", value) for name, value in parameters.items())
    return shlex.join(["annotate", "ingest", str(file), *(word for option in options for word in option)])
