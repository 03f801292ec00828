"""Snapshots of a replica whose rows a test decides, without Postgres."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa
from pyarrow import parquet

from core.datasets import load_datasets
from load_testing.bench.replica_rows import make_replica
from serving_api.replica.replica import Replica
from serving_api.replica.tables import derive
from serving_api.settings import DataSettings, ReplicaSettings
from serving_api.snapshots.manifest import SnapshotManifest
from serving_api.snapshots.parameters import parse_request
from serving_api.snapshots.service import Created, Snapshots

_START = datetime(2026, 11, 1)  # noqa: DTZ001 - the replica holds UTC without a zone
_INCOMING = """
    select id::uuid as id, 'toxicity' as dataset, text, label,
           if(label is null, 'disputed', 'labelled') as status, 1.0 as agreement, '{}' as votes, 1 as annotations,
           1.0 as confidence, null as source, null as external_id, null as claimed_label, null as score,
           'majority' as rule, 1 as rule_version, true as complete, 'annotators' as decided_by, '{}' as metadata,
           '{}' as enrichment, labelled_at as received_at, labelled_at, 1 as version,
           root::uuid as near_duplicate_of,
           null as predicted_label, null as predicted_probability, null as model_version
    from incoming
"""
_INSERT = f"insert into items by name {derive(f'({_INCOMING})', 'annotations')}"
_COLUMNS = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "label": pa.string(),
        "labelled_at": pa.timestamp("us"),
        "root": pa.string(),
    }
)


@dataclass(frozen=True)
class Row:
    """A labelled text; its id follows from its number."""

    number: int
    label: str | None = "toxic"
    root: int | None = None  # number of the text that its near duplicates began with
    text: str = "text"

    @property
    def id(self) -> UUID:
        return id_of(self.number)


def id_of(number: int) -> UUID:
    return uuid5(UUID(int=0), str(number))


class World:
    """A replica, and the snapshots that are made of it."""

    def __init__(self, folder: Path, snapshots_url: str | None = None, **limits: int) -> None:
        self.data = DataSettings.model_validate({"data_dir": folder, "snapshots_url": snapshots_url, **limits})
        make_replica(self.data.replica_path, 1)
        self.replica = Replica(self.data.replica_path, ReplicaSettings(threads=1))
        self.replica.open()
        self.snapshots = Snapshots(self.replica, self.data, load_datasets(None))
        self._version = 1

    def close(self) -> None:
        self.replica.close()
        self.snapshots.close()

    def hold(self, rows: Sequence[Row]) -> None:
        """Make these the replica's rows, in this order, and its version the next one."""
        self._version += 1
        hold(self.replica, rows, self._version)

    def create(self, **body: Any) -> Created:
        """Make a snapshot as `POST /snapshots` does."""
        request, query = parse_request(json.dumps(body).encode(), load_datasets(None))
        return self.snapshots.create(request, query)

    def splits(self, manifest: SnapshotManifest) -> dict[UUID, str]:
        """Return the split of each id, and check that no id is in two."""
        found: dict[UUID, str] = {}
        for name in manifest.splits:
            for row in self.rows(manifest, name):
                assert UUID(row["id"]) not in found
                found[UUID(row["id"])] = name
        return found

    def rows(self, manifest: SnapshotManifest, split: str) -> list[dict[str, Any]]:
        with self.snapshots.storage.open(manifest.name, manifest.splits[split].path) as file:
            rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows

    def files(self, name: str) -> Mapping[str, bytes]:
        """Return the data of a snapshot kept in a folder."""
        folder = Path(self.snapshots.storage.root) / name
        return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.parquet")}


def hold(replica: Replica, rows: Sequence[Row], version: int) -> None:
    """Make these a replica's rows, in this order."""
    with replica.file.transaction() as cursor:
        cursor.execute("delete from items")
        cursor.register("incoming", pa.Table.from_pylist([_columns(row) for row in rows], _COLUMNS))
        cursor.execute(_INSERT)
        cursor.execute("update state set version = ?", [version])


@contextmanager
def world(folder: Path, snapshots_url: str | None = None, **limits: int) -> Iterator[World]:
    one = World(folder, snapshots_url, **limits)
    try:
        yield one
    finally:
        one.close()


def _columns(row: Row) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "text": row.text,
        "label": row.label,
        "labelled_at": _START + timedelta(seconds=row.number % 97),
        "root": None if row.root is None else str(id_of(row.root)),
    }
