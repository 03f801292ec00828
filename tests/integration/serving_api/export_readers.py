"""Reads exports with common tools, and returns the number of rows. `snapshot_readers` runs them."""

from collections.abc import Callable
from importlib.resources import files


def polars_scan(url: str) -> int:
    """Read one column."""
    import polars as pl

    return pl.scan_parquet(f"{url}/export.parquet").select("label").collect().height


def polars_read(url: str) -> int:
    """Read a whole file."""
    import polars as pl

    return pl.read_parquet(f"{url}/export.parquet").height


def polars_ipc(url: str) -> int:
    """Read an Arrow file."""
    import polars as pl

    return pl.read_ipc(f"{url}/export.arrow").height


def pandas_feather(url: str) -> int:
    """Read an Arrow file."""
    import pandas as pd

    return len(pd.read_feather(f"{url}/export.arrow"))


def pandas_parquet(url: str) -> int:
    """Read a whole file."""
    import pandas as pd

    return len(pd.read_parquet(f"{url}/export.parquet"))


def fsspec_blocks(url: str) -> int:
    """Read one column through small blocks."""
    import fsspec
    from pyarrow import parquet

    with fsspec.open(f"{url}/export.parquet", block_size=1000) as file:
        return int(parquet.ParquetFile(file).read(["id"]).num_rows)


def duckdb_httpfs(url: str) -> int:
    """Read one column."""
    import duckdb

    extension = next(files("duckdb_extension_httpfs").joinpath("extensions").rglob("*.duckdb_extension"))  # type: ignore[attr-defined]
    with duckdb.connect() as connection:
        connection.execute(f"load '{extension}'")
        found = connection.execute("select count(id) from read_parquet(?)", [f"{url}/export.parquet"])
        return int(found.fetchall()[0][0])


def datasets_streaming(url: str) -> int:
    """Walk through the rows without storing them."""
    import datasets

    paths = {"train": f"{url}/export.parquet"}
    return sum(1 for _ in datasets.load_dataset("parquet", data_files=paths, split="train", streaming=True))


READERS: list[Callable[[str], int]] = [
    polars_scan,
    polars_read,
    polars_ipc,
    pandas_feather,
    pandas_parquet,
    fsspec_blocks,
    duckdb_httpfs,
    datasets_streaming,
]
