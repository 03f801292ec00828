"""The ingestion API that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.programs import Program, running


@pytest.fixture(scope="module")
def ingestion_settings() -> dict[str, str]:
    """Settings of the shared ingestion API; a module that needs others defines this fixture."""
    return {}


@pytest.fixture(scope="module")
def shared_ingestion(
    shared_database_url: str, ingestion_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """An ingestion API on the database that the tests of a module share."""
    log = tmp_path_factory.mktemp("ingestion") / "ingestion.log"
    with running("ingestion_api", ingestion_settings | {"DATABASE_URL": shared_database_url}, log) as program:
        yield program
