"""Writes the splits of a snapshot from one read transaction, in one pass, in constant memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import compute as pc

from serving_api import export_columns
from serving_api.export_query import schema_of, spans
from serving_api.parameters import Order
from serving_api.query import TextsQuery, conditions
from serving_api.snapshots.manifest import SplitFile
from serving_api.snapshots.parquet_files import SplitWriter
from serving_api.snapshots.splits import hashed, place_of

# As many as DuckDB makes at a time.
_BATCH_ROWS = 2048


def write_splits(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, shares: Mapping[str, float], seed: int, folder: Path
) -> dict[str, SplitFile]:
    """Write each split's file below `folder`, and return what they hold, in the order of `shares`."""
    names = sorted(shares)
    schema = schema_of(cursor, export_columns.typed())
    writers = [SplitWriter(folder, f"data/{name}.parquet", schema) for name in names]
    try:
        for batch in _read(cursor, query, shares, seed):
            places, rows = batch.column("split"), batch.drop_columns(["split"])
            for place, writer in enumerate(writers):
                writer.add(rows.filter(pc.equal(places, place)))
        written = dict(zip(names, [writer.finish() for writer in writers], strict=True))
    finally:
        for writer in writers:
            writer.abandon()
    return {name: written[name] for name in shares}


def _read(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, shares: Mapping[str, float], seed: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows, ordered by the times of their labels and by id, with the place of each one's split.

    That order is total, so that every replica of this version gives the same; and it is that of the file nearly.
    """
    where, values = conditions(query)
    for span, bounds in spans(cursor, Order.OLDEST):
        statement = f"""
            select {export_columns.typed()}, {place_of(shares)} as split
            from (select *, {hashed(seed)} as hash from items where {where} and {span}) as items
            order by labelled_at, items.id
        """  # noqa: S608 - known columns
        yield from cursor.execute(statement, [*values, *bounds]).to_arrow_reader(_BATCH_ROWS)
