"""Takes texts out of a snapshot that is there already."""

from collections.abc import Set
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

from serving_api.snapshots.manifest import Manifest, SplitFile
from serving_api.snapshots.parquet_files import SplitWriter
from serving_api.snapshots.storage import Storage
from serving_api.snapshots.writing import content_hash

_ROWS_AT_ONCE = 2048


def rewrite(storage: Storage, old: Manifest, without: Set[str], folder: Path) -> Manifest:
    """Write into `folder` the files of those splits that hold any of the ids, without them.

    Returns the manifest of what the snapshot is then; the old one, if it holds none of them.
    """
    splits = {name: _rewrite_split(storage, old, name, without, folder) for name in old.splits}
    if splits == old.splits:
        return old
    changes = {
        "splits": splits,
        "content_hash": content_hash(splits),
        "rewritten_at": datetime.now(UTC),
        "forgotten": 0,
    }
    return old.model_copy(update=changes)


def _rewrite_split(storage: Storage, old: Manifest, name: str, without: Set[str], folder: Path) -> SplitFile:
    split = old.splits[name]
    with storage.open(old.name, split.path) as file:
        written = _write(file, without, folder, f"data/{name}.parquet")
    if written.rows == split.rows:
        (folder / written.path).unlink()
        return split
    # Another name: who reads the old one goes on with it, or fails, and never gets parts of both.
    renamed = written.model_copy(update={"path": f"data/{name}-{written.sha256[:12]}.parquet"})
    (folder / written.path).rename(folder / renamed.path)
    return renamed


def _write(file: BinaryIO, without: Set[str], folder: Path, path: str) -> SplitFile:
    source = parquet.ParquetFile(file)
    unwanted = pa.array(sorted(without), pa.string())
    writer = SplitWriter(folder, path, source.schema_arrow.remove_metadata())
    try:
        for batch in source.iter_batches(_ROWS_AT_ONCE):
            writer.add(batch.filter(pc.invert(pc.is_in(batch.column("id"), unwanted))))
        return writer.finish()
    finally:
        writer.abandon()
