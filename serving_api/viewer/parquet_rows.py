"""Reads a snapshot's Parquet files: never more at once than a part of a row group."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from core.web.problems import Unavailable
from serving_api.columns import Kind
from serving_api.viewer.columns import Column, columns_of
from serving_api.viewer.slices import NumberedRow, Span

PLACE = "place_in_split"
_BATCH_ROWS = 4096
_STREAMED_ROWS = 16_384


class SplitReader:
    """An open file of a split, read within a time limit."""

    def __init__(self, file: Any, until: float) -> None:
        """Read the footer of a file that can seek; `until` is by the monotonic clock.

        Raises:
            pyarrow.ArrowInvalid: it is not Parquet.
        """
        self._file = parquet.ParquetFile(file)
        self._until = until
        self.failure: Exception | None = None  # why a stream ended; DuckDB tells its own story
        self.columns = columns_of(self._file.schema_arrow)
        self._names = [column.name for column in self.columns]

    @property
    def rows(self) -> int:
        """Rows of the split."""
        total: int = self._file.metadata.num_rows
        return total

    @property
    def uncompressed_bytes(self) -> int:
        """Bytes of the columns before compression, as the footer has them."""
        metadata = self._file.metadata
        return sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))

    def read_span(self, span: Span) -> list[NumberedRow]:
        """Return the rows of a span."""
        return self.read_places(range(span.offset, min(span.offset + span.length, self.rows)))

    def read_places(self, places: Sequence[int]) -> list[NumberedRow]:
        """Return the rows at these places, in the order given; reads the row groups that hold them, and no other.

        Raises:
            Unavailable: it took too long.
        """
        found: dict[int, NumberedRow] = {}
        wanted = sorted(places)
        for group, (start, end) in enumerate(pairwise(self._starts())):
            here = wanted[bisect_left(wanted, start) : bisect_left(wanted, end)]
            if here:
                found |= self._read_group(group, start, here)
        return [found[place] for place in places]

    def batches(self, names: Sequence[str]) -> pa.RecordBatchReader:
        """Stream these columns of all rows, with the row's place beside; moments are UTC without a zone.

        Raises:
            Unavailable: on the way, when it took too long.
        """
        schema = pa.schema([_without_zone(field) for field in self._file.schema_arrow if field.name in names])
        schema = schema.append(pa.field(PLACE, pa.int64()))
        return pa.RecordBatchReader.from_batches(schema, self._stream(schema))

    def _stream(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._numbered(schema)
        except Exception as error:
            self.failure = error
            raise

    def _numbered(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        start = 0
        # One column at least: its rows have to be counted.
        names = schema.names[:-1] or self._names[:1]
        for batch in self._file.iter_batches(_STREAMED_ROWS, columns=names):
            self._check_time()
            arrays = [batch.column(name).cast(schema.field(name).type) for name in schema.names[:-1]]
            end = start + len(batch)
            places = pa.array(range(start, end), pa.int64())
            yield pa.RecordBatch.from_arrays([*arrays, places], schema=schema)
            start = end

    def _read_group(self, group: int, start: int, places: Sequence[int]) -> dict[int, NumberedRow]:
        found: dict[int, NumberedRow] = {}
        for batch in self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._names):
            self._check_time()
            end = start + len(batch)
            for place in (place for place in places if start <= place < end):
                found[place] = NumberedRow(place, self._values(batch, place - start))
            start = end
            if places[-1] < end:
                break
        return found

    def _values(self, batch: pa.RecordBatch, index: int) -> tuple[Any, ...]:
        return tuple(_value(column, batch.column(column.name)[index]) for column in self.columns)

    def _starts(self) -> list[int]:
        """Return the place at which each row group begins, and the end of the last one."""
        metadata, starts = self._file.metadata, [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return starts

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)


def _without_zone(field: pa.Field) -> pa.Field:
    return field.with_type(pa.timestamp("us")) if pa.types.is_timestamp(field.type) else field


def _value(column: Column, scalar: pa.Scalar) -> Any:
    value = scalar.as_py()
    return value.replace(tzinfo=None) if column.kind is Kind.MOMENT and value else value
