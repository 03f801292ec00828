"""What the ingestion API's OpenAPI document says is true, on a real Postgres."""

from pathlib import Path

import psycopg
import pytest

from core.web.keys import hash_key, make_key
from tests.programs import Program, running
from tests.schemathesis_run import PHASES, run_schemathesis


@pytest.mark.parametrize("phases", PHASES)
def test_the_document_is_true(ingestion: Program, phases: str) -> None:
    run_schemathesis(ingestion.url, phases)


@pytest.mark.soak
@pytest.mark.parametrize("phases", PHASES)
def test_the_document_is_true_where_keys_are_required(database_url: str, tmp_path: Path, phases: str) -> None:
    key = make_key()
    with psycopg.connect(database_url, autocommit=True) as connection:
        values = [hash_key(key)]
        connection.execute("insert into api_keys (name, hash, scopes) values ('a', %s, '{ingest}')", values)
    env = {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "true"}
    with running("ingestion_api", env, tmp_path / "ingestion.log") as program:
        run_schemathesis(program.url, phases, key)
