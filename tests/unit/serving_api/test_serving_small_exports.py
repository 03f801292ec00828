import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from core.datasets import load_datasets
from core.web.problems import Unavailable
from core.web.rate_limits import Places
from serving_api.exports import service
from serving_api.exports.export_files import ARROW, CSV, NDJSON, PARQUET, ExportFolder, Format
from serving_api.exports.repository import export_query
from serving_api.exports.service import ExportRequest, Exports
from serving_api.texts.parameters import ExportParameters
from serving_api.watchdog import Watchdog
from tests.unit.serving_api.search_world import World, made_world
from tests.unit.serving_api.test_serving_watchdog import ENDLESS

TEXTS = ["one", "two", "three"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        for number, text in enumerate(TEXTS):
            world.add(UUID(int=number), text, second=number)
        yield world


def export(
    world: World, folder: Path, format_: Format, times: int = 1, source: str | None = None, seconds: float = 9
) -> list[bytes]:
    """Return the content of an export, each time that it is requested."""
    query = export_query(ExportParameters(source=source), load_datasets(None))

    async def get() -> list[bytes]:
        places, watchdog = Places("exports", 1, 1), Watchdog(30)
        crew = watchdog.crew("exports", 1)
        files = ExportFolder(folder, 2**30)
        exports = Exports(world.replica, places, crew, files, idle_seconds=9, write_seconds=seconds)
        exports.open()
        watchdog.start()
        try:
            found = [await exports.get(ExportRequest(query, format_, [], continues=False)) for _ in range(times)]
        finally:
            watchdog.stop()
            await exports.close()
        return [opened.source.read() for opened in found]

    return asyncio.run(get())


@pytest.mark.parametrize("format_", [PARQUET, ARROW, NDJSON, CSV])
def test_the_first_response_from_memory_equals_the_next_from_the_file(
    world: World, tmp_path: Path, format_: Format
) -> None:
    first, second = export(world, tmp_path / "exports", format_, times=2)
    assert first == second
    assert all(text.encode() in first for text in TEXTS)


def test_an_export_without_rows_has_the_columns_of_one_with_rows(world: World, tmp_path: Path) -> None:
    def read(source: str | None = None) -> tuple[pa.Table, pa.Table]:
        [as_parquet] = export(world, tmp_path / "exports", PARQUET, source=source)
        [as_arrow] = export(world, tmp_path / "exports", ARROW, source=source)
        return parquet.read_table(io.BytesIO(as_parquet)), pa.ipc.open_file(as_arrow).read_all()

    some, none = read(), read(source="nowhere")
    assert [len(table) for table in (*some, *none)] == [3, 3, 0, 0]
    assert [table.schema for table in none] == [table.schema for table in some]


def test_an_export_that_lacks_memory_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> Iterator[pa.RecordBatch]:
        raise duckdb.OutOfMemoryException("no memory")

    monkeypatch.setattr(service, "read_batches", failing)
    with pytest.raises(Unavailable, match="Memory is short"):
        export(world, tmp_path / "exports", CSV)
    assert [file.name for file in (tmp_path / "exports").iterdir()] == []


def test_an_export_whose_next_rows_take_too_long_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(cursor: duckdb.DuckDBPyConnection, *_: object) -> Iterator[pa.RecordBatch]:
        yield from cursor.execute(ENDLESS).to_arrow_reader(1)

    monkeypatch.setattr(service, "read_batches", endless)
    with pytest.raises(Unavailable, match=r"next rows were not found within 0\.1 s") as refusal:
        export(world, tmp_path / "exports", CSV, seconds=0.1)
    assert refusal.value.code == "query_timeout"
    assert [file.name for file in (tmp_path / "exports").iterdir()] == []
