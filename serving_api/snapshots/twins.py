"""The near duplicates of a stratified snapshot, in a file of their own.

An earlier snapshot tells where a group of near duplicates is, also when those of its texts that it holds have lost
their labels since, so that the replica knows them no more.
"""

from collections.abc import Set
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from serving_api.query import TextsQuery, conditions
from serving_api.snapshots.manifest import Manifest
from serving_api.snapshots.storage import Storage

TWINS = "near_duplicates.parquet"
_SCHEMA = pa.schema({"id": pa.string(), "root": pa.string()})
_ROWS_AT_ONCE = 65_536


def write_twins(cursor: duckdb.DuckDBPyConnection, query: TextsQuery, folder: Path) -> None:
    """Write the texts that have a near duplicate from before, each with the one that its group began with."""
    where, values = conditions(query)
    statement = f"""
        select id::varchar as id, near_duplicate_of::varchar as root from items
        where near_duplicate_of is not null and {where} order by items.id
    """  # noqa: S608 - known columns
    _write(cursor.execute(statement, values).to_arrow_reader(_ROWS_AT_ONCE), folder)


def rewrite_twins(storage: Storage, manifest: Manifest, without: Set[str], folder: Path) -> None:
    """Write them again without what must be forgotten, texts and roots."""
    if manifest.stratified:
        unwanted = pa.array(sorted(without), pa.string())
        with storage.open(manifest.name, TWINS) as file:
            table = parquet.read_table(file)
        for name in ("id", "root"):
            table = table.filter(pc.invert(pc.is_in(table[name], unwanted)))
        _write(table.to_reader(), folder)


def _write(batches: pa.RecordBatchReader, folder: Path) -> None:
    with parquet.ParquetWriter(folder / TWINS, _SCHEMA, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
