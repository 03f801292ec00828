"""Writes the splits of a snapshot from one read transaction, in one pass, in constant memory."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from serving_api.snapshots.strata import Former, assign
from serving_api.snapshots.twins import write_twins

# As many as DuckDB makes at a time.
_BATCH_ROWS = 2048


@dataclass(frozen=True)
class Division:
    """How texts are divided into splits."""

    shares: Mapping[str, float]
    seed: int
    former: Former | None  # stratified: what earlier snapshots have placed

    @property
    def names(self) -> list[str]:
        """The splits by their places."""
        return sorted(self.shares)


def write_splits(
    cursor: duckdb.DuckDBPyConnection, query: TextsQuery, division: Division, folder: Path
) -> dict[str, SplitFile]:
    """Write each split's file below `folder`, and return what they hold, in the order of the shares."""
    if division.former is not None:
        assign(cursor, query, division.shares, division.seed, division.former)
        write_twins(cursor, query, folder)
    schema = schema_of(cursor, export_columns.typed())
    writers = [SplitWriter(folder, f"data/{name}.parquet", schema) for name in division.names]
    try:
        for batch in _read(cursor, query, division):
            places, rows = batch.column("split"), batch.drop_columns(["split"])
            for place, writer in enumerate(writers):
                writer.add(rows.filter(pc.equal(places, place)))
        written = dict(zip(division.names, [writer.finish() for writer in writers], strict=True))
    finally:
        for writer in writers:
            writer.abandon()
    return {name: written[name] for name in division.shares}


def content_hash(splits: dict[str, SplitFile]) -> str:
    """Return the hash of the splits' names and files."""
    parts = "".join(f"{name} {split.sha256}\n" for name, split in sorted(splits.items()))
    return hashlib.sha256(parts.encode()).hexdigest()


def _read(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, division: Division) -> Iterator[pa.RecordBatch]:
    """Yield the rows, ordered by the times of their labels and by id, with the place of each one's split.

    That order is total, so that every replica of this version gives the same; and it is that of the file nearly.
    """
    where, values = conditions(query)
    for span, bounds in spans(cursor, Order.OLDEST):
        if division.former is None:
            place = place_of(division.shares)
            source = f"select *, {hashed(division.seed)} as hash from items where {where} and {span}"  # noqa: S608
            given = [*values, *bounds]
        else:
            place = "place"
            source = f"""
                select items.*, place from (from items where {span}) as items
                join (select id, place from assigned where {span}) as assigned using (id)
            """  # noqa: S608
            given = [*bounds, *bounds]
        statement = f"""
            select {export_columns.typed()}, {place} as split from ({source}) as items
            order by labelled_at, items.id
        """  # noqa: S608 - known columns
        yield from cursor.execute(statement, given).to_arrow_reader(_BATCH_ROWS)
