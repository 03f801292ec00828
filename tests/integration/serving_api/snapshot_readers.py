"""Reads a snapshot with common tools, in a separate program because of their side effects on import.

It takes the server, the name of a snapshot and a copy of its folder, and prints what each reader found, as JSON.
"""

import json
import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import httpx

from tests.integration.serving_api import export_readers

_SPLITS = ("train", "test")


def pandas(url: str, _: str) -> Any:
    """Read a whole file, and one column."""
    import pandas as pd

    frame = pd.read_parquet(f"{url}/train.parquet")
    labels = pd.read_parquet(f"{url}/train.parquet", columns=["label"])
    return {"ids": sorted(frame["id"]), "zone": str(frame["labelled_at"].dt.tz), "columns": [*labels]}


def polars(url: str, _: str) -> Any:
    """Read a whole file."""
    import polars as pl

    return sorted(pl.read_parquet(f"{url}/train.parquet")["id"])


def polars_scan(url: str, _: str) -> Any:
    """Count what one column holds."""
    import polars as pl

    scanned = pl.scan_parquet(f"{url}/train.parquet").select("label").collect()
    return scanned["label"].value_counts().sort("label").rows()


def duckdb_httpfs(url: str, _: str) -> Any:
    """Count what one column holds."""
    import duckdb

    extension = next(files("duckdb_extension_httpfs").joinpath("extensions").rglob("*.duckdb_extension"))  # type: ignore[attr-defined]
    with duckdb.connect() as connection:
        connection.execute(f"load '{extension}'")
        counted = "select label, count(*) from read_parquet(?) group by 1 order by 1"
        return connection.execute(counted, [f"{url}/train.parquet"]).fetchall()


def pyarrow(url: str, _: str) -> Any:
    """Read one column, of the row groups that may hold a label."""
    import fsspec
    from pyarrow import fs, parquet

    filesystem = fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem("http")))
    wanted = {"columns": ["id", "label"], "filters": [("label", "==", "toxic")], "filesystem": filesystem}
    return sorted(parquet.read_table(f"{url}/train.parquet", **wanted)["id"].to_pylist())


def datasets(url: str, _: str) -> Any:
    """Load two splits."""
    import datasets

    paths = {split: f"{url}/{split}.parquet" for split in _SPLITS}
    loaded = datasets.load_dataset("parquet", data_files=paths)
    return {split: sorted(rows["id"]) for split, rows in loaded.items()}


def datasets_streaming(url: str, _: str) -> Any:
    """Walk through a split without storing it."""
    import datasets

    paths = {"train": f"{url}/train.parquet"}
    streamed = datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True)
    return sorted(row["id"] for row in streamed)


def datasets_folder(_: str, folder: str) -> Any:
    """Load the unchanged folder."""
    import datasets

    loaded = datasets.load_dataset(folder)
    features = {name: feature.dtype for name, feature in loaded["train"].features.items()}
    return {"ids": {split: sorted(rows["id"]) for split, rows in loaded.items()}, "features": features}


def card(_: str, folder: str) -> Any:
    """Read the card as the Hub does."""
    from huggingface_hub import DatasetCard

    return DatasetCard.load(f"{folder}/README.md").data.to_dict()


def croissant(_: str, folder: str) -> Any:
    """Read the Croissant description, and the records that it leads to."""
    import mlcroissant

    dataset = mlcroissant.Dataset(f"{folder}/croissant.json")
    records = {split: [*dataset.records(f"split-{split}")] for split in _SPLITS}
    issues = dataset.metadata.ctx.issues
    return {
        "ids": {split: sorted(one[f"split-{split}/id"].decode() for one in records[split]) for split in _SPLITS},
        "told": {
            split: sorted({one[f"split-{split}/split"].decode() for one in records[split]}) for split in _SPLITS
        },
        "splits": [one["splits/name"] for one in dataset.records("splits")],
        "errors": [*issues.errors],
        "warnings": [*issues.warnings],
    }


def croissant_served(url: str, _: str) -> Any:
    """Read the viewer's Croissant descriptions, of the snapshot and of live labels, and the records of both."""
    import mlcroissant

    server, name = url.split("/snapshots/")
    found = {}
    for config, records in ((name, "split-train"), ("live", "live")):
        described = httpx.get(f"{server}/croissant", params={"config": config}, timeout=30).json()
        dataset = mlcroissant.Dataset(jsonld=described)
        issues = dataset.metadata.ctx.issues
        found[records] = {
            "conforms": described["conformsTo"],
            "ids": sorted(one[f"{records}/id"].decode() for one in dataset.records(records)),
            "issues": [*issues.errors, *issues.warnings],
        }
    return found


def exports(url: str, _: str) -> Any:
    """Count the rows of an export with each tool."""
    server = url.split("/snapshots/")[0]
    return {reader.__name__: reader(server) for reader in export_readers.READERS}


READERS: list[Callable[[str, str], Any]] = [
    pandas,
    polars,
    polars_scan,
    duckdb_httpfs,
    pyarrow,
    datasets,
    datasets_streaming,
    datasets_folder,
    card,
    croissant,
    croissant_served,
    exports,
]


def main() -> None:
    """Run the readers one by one; each is announced to the server, which counts its requests."""
    server, name, folder = sys.argv[1:]
    url = f"{server}/snapshots/{name}"
    found = {}
    for reader in READERS:
        httpx.get(f"{server}/reader/{reader.__name__}").raise_for_status()
        found[reader.__name__] = reader(url, folder)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
