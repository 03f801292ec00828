"""The files of exports: their formats, and the folder of finished files."""

import errno
import io
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from core.web.problems import Unavailable
from serving_api import columns as export_columns
from serving_api.columns import COLUMNS, Kind
from serving_api.file_response import LOCAL_PIECE_BYTES

Batches = Iterable[pa.RecordBatch]
Write = Callable[[BinaryIO, pa.Schema, Batches], None]

# A Parquet row group, or an Arrow batch, ends with whichever comes first.
GROUP_ROWS = 65_536
_GROUP_BYTES = 16 * 2**20

# Trying a dictionary for the other columns costs a third of the time and gains nothing.
DICTIONARY = [name for name, column in COLUMNS.items() if column.origin.repeats]
# Columns that readers filter by. Statistics of the texts themselves would cost time as well.
COMPARED = [
    name for name, c in COLUMNS.items() if c.origin.repeats or c.kind in {Kind.NUMBER, Kind.FLAG, Kind.MOMENT}
]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format."""

    name: str  # extension of the path, and of the file
    media_type: str
    columns: str  # select list
    write: Write


def _write_lines(head: bytes, file: BinaryIO, _: pa.Schema, batches: Batches) -> None:
    """Write the one text column, whose values are whole lines: Arrow keeps those of a batch side by side."""
    file.write(head)
    for batch in batches:
        column = batch.column(0)
        _, offsets, data = column.buffers()
        bounds = memoryview(offsets).cast("b").cast("i")
        file.write(memoryview(data).cast("B")[bounds[column.offset] : bounds[column.offset + len(column)]])


def _write_arrow(
    new_writer: Callable[[BinaryIO, pa.Schema], pa.ipc.RecordBatchStreamWriter],
    file: BinaryIO,
    schema: pa.Schema,
    batches: Batches,
) -> None:
    schema = with_zone(schema)
    with new_writer(file, schema) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema).combine_chunks())


def _write_parquet(file: BinaryIO, schema: pa.Schema, batches: Batches) -> None:
    schema = with_zone(schema)
    options = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": DICTIONARY,
        "write_statistics": COMPARED,
    }
    with parquet.ParquetWriter(file, schema, **options) as writer:
        for table in _groups(batches):
            writer.write_table(table.cast(schema), row_group_size=len(table))


def with_zone(schema: pa.Schema) -> pa.Schema:
    """Return the schema with UTC as the zone of its timestamps: DuckDB holds them without a zone."""
    for name, column in COLUMNS.items():
        if column.kind is Kind.MOMENT:
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.timestamp("us", "UTC")))
    return schema


def _groups(batches: Batches) -> Iterable[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + len(batch), size + batch.nbytes
        if rows >= GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


_HEADER = export_columns.csv_header().encode()
_BYTE_ORDER_MARK = "\ufeff".encode()  # without it spreadsheets assume another encoding
_TYPED = export_columns.typed()

PARQUET = Format("parquet", "application/vnd.apache.parquet", _TYPED, _write_parquet)
ARROW = Format("arrow", "application/vnd.apache.arrow.file", _TYPED, partial(_write_arrow, pa.ipc.new_file))
ARROW_STREAM = Format(
    "arrows", "application/vnd.apache.arrow.stream", _TYPED, partial(_write_arrow, pa.ipc.new_stream)
)
NDJSON = Format("ndjson", "application/x-ndjson", export_columns.json_line(), partial(_write_lines, b""))
CSV = Format("csv", "text/csv", export_columns.csv_line(for_spreadsheet=False), partial(_write_lines, _HEADER))
CSV_FOR_SPREADSHEETS = Format(
    "csv",
    "text/csv",
    export_columns.csv_line(for_spreadsheet=True),
    partial(_write_lines, _BYTE_ORDER_MARK + _HEADER),
)


_MOST_FILES = 256
# The limits are checked after this number of new files.
_CHECK_FILES = 32
_MIN_FREE_BYTES = 2**30  # left on the disk, which the replica needs as well
# The process of an unfinished file that has not grown for this time has died.
_ABANDONED_SECONDS = 3600
# How long after its last request a client's ranges come from the version that it saw first.
_FOLLOWED_SECONDS = 60

_UNFINISHED = "unfinished-"
_FOLLOWED = "followed-"


class ExportFile(NamedTuple):
    """A finished file."""

    path: Path
    rows: str  # the same for the same rows, format and order
    feed: str
    version: int
    token: str

    @property
    def etag(self) -> str:
        """The strong validator, in quotes."""
        return f'"{self.rows}-{self.token}"'


class ExportFolder:
    """The folder of finished files: each is written once and served many times; the oldest is removed first.

    The file names contain all metadata, so the processes of one machine share the folder without a database:
    `KEY.ROWS.FEED.VERSION.TOKEN`. KEY is the hash of format and query, and ROWS also of the version. TOKEN is
    random: two files of the same rows may have them in different orders, so a strong ETag needs the token.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._owner = ""
        self._begun_files = 0  # since the folder was looked through last

    def open(self, owner: str) -> None:
        """Create the folder, and remove unfinished files of an earlier process of the same `owner`."""
        self._owner = owner
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_UNFINISHED}{owner}-*"):
            left.unlink(missing_ok=True)

    def find_tagged(self, key: str, etags: list[str]) -> ExportFile | None:
        """Return the file of this query, in any version, that has one of these ETags."""
        return next((file for file in self._files(f"{key}.") if file.etag in etags), None)

    def follow(self, key: str, client: str, file: ExportFile) -> None:
        """Record that this client reads this file: `followed` returns it for a while."""
        link = self._link(key, client)
        made = link.with_name(f"{_FOLLOWED}{secrets.token_hex(8)}")
        made.symlink_to(file.path.name)
        made.replace(link)

    def followed(self, key: str, client: str) -> ExportFile | None:
        """Return the file that the client has begun to read: it must not mix ranges of two versions."""
        link = self._link(key, client)
        with suppress(OSError):
            if time.time() - link.lstat().st_mtime < _FOLLOWED_SECONDS:
                return _parse(link.readlink().name, self._folder)
        return None

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """Yield a new unfinished file. It is removed at the end unless it was kept.

        Raises:
            Unavailable: the disk is full.
        """
        path = self._folder / f"{_UNFINISHED}{self._owner}-{secrets.token_hex(8)}"
        try:
            self._begun_files += 1
            if self._begun_files >= _CHECK_FILES:
                self.make_room()
            with open(path, "xb+", opener=partial(os.open, mode=0o600)) as file:
                yield file
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _no_space() from error
            raise

    def keep(self, file: BinaryIO, key: str, rows: str, feed: str, version: int) -> ExportFile:
        """Put a finished file in place."""
        token = secrets.token_hex(8)
        path = self._folder / f"{key}.{rows}.{feed}.{version}.{token}"
        Path(file.name).rename(path)
        return ExportFile(path, rows, feed, version, token)

    def make_room(self) -> None:
        """Remove the files used least recently until the folder is within its limits.

        Raises:
            Unavailable: unfinished files alone are over the limit, or the disk is nearly full.
        """
        self._begun_files = 0
        sizes = self._sizes()
        total = sum(size for _, size in sizes.values())
        for path in sorted((path for path in sizes if "." in path.name), key=lambda path: sizes[path][0]):
            if total <= self._max_bytes and len(sizes) <= _MOST_FILES and self._has_space():
                return
            path.unlink(missing_ok=True)
            total -= sizes.pop(path)[1]
        if total > self._max_bytes:
            detail = f"The export takes more than SERVING_EXPORT_BYTES ({self._max_bytes:,}) on disk: add filters."
            raise Unavailable(detail, code="export_too_large", retry_after_seconds=60)
        if not self._has_space():
            raise _no_space()

    def purge(self, feed: str, forgotten: int) -> None:
        """Remove the files that may contain a forgotten text; `forgotten` is the version of the last one.

        Files of another database are removed as well: its versions cannot be compared.
        """
        for file in self._files(""):
            if file.feed != feed or file.version < forgotten:
                file.path.unlink(missing_ok=True)
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        for link in self._folder.glob(f"{_FOLLOWED}*"):
            if not link.exists():  # its file is gone
                link.unlink(missing_ok=True)

    def _files(self, prefix: str) -> list[ExportFile]:
        # Not iterdir, which makes a Path for each file: a third of the time of a small export.
        names = [name for name in os.listdir(self._folder) if name.startswith(prefix)]  # noqa: PTH208
        return [file for file in (_parse(name, self._folder) for name in names) if file is not None]

    def _sizes(self) -> dict[Path, tuple[float, int]]:
        """Return when each file was used last, and its size."""
        found = {}
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                if not entry.is_symlink():
                    found[Path(entry.path)] = (info.st_mtime, info.st_size)
        return found

    def _has_space(self) -> bool:
        return shutil.disk_usage(self._folder).free >= _MIN_FREE_BYTES

    def _link(self, key: str, client: str) -> Path:
        return self._folder / f"{_FOLLOWED}{key}-{client.encode().hex()[:100]}"


def read_small(file: BinaryIO) -> bytes | None:
    """Write the buffered bytes of a new file to it, and return all of them if the file is small."""
    file.flush()
    if file.tell() > LOCAL_PIECE_BYTES:
        return None
    file.seek(0)
    return file.read()


def open_file(file: ExportFile) -> tuple[BinaryIO, int]:
    """Open a file for reading, record its use, and return it with its size; a small file is in memory.

    Raises:
        FileNotFoundError: it was removed.
    """
    source = file.path.open("rb")
    size = os.fstat(source.fileno()).st_size
    with suppress(OSError):
        os.utime(file.path)
    if size > LOCAL_PIECE_BYTES:
        return source, size
    with source:
        return io.BytesIO(source.read()), size


def _parse(name: str, folder: Path) -> ExportFile | None:
    parts = name.split(".")
    if len(parts) != 5 or not parts[3].isdigit():
        return None
    _, rows, feed, version, token = parts
    return ExportFile(folder / name, rows, feed, int(version), token)


def _no_space() -> Unavailable:
    detail = "There is no disk space for the export."
    return Unavailable(detail, code="storage_full", retry_after_seconds=60)
