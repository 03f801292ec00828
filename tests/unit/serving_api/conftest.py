"""The rows of the viewer's tests, live and as a split of a snapshot."""

from collections.abc import Iterator

import duckdb
import pytest

from serving_api.viewer.repository import StoredSplit
from tests.unit.serving_api.viewer_world import ROWS, make_replica, read_table, stored_split


@pytest.fixture(scope="module")
def replica() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database with the replica's tables and these rows."""
    with make_replica(ROWS) as connection:
        yield connection


@pytest.fixture(scope="module")
def stored(replica: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredSplit]:
    """The same rows in the file of a split."""
    with duckdb.connect() as beside:
        yield stored_split(beside, tmp_path_factory.mktemp("split") / "train.parquet", read_table(replica))
