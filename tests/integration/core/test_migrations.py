"""The migrations make the tables that the models describe."""

import json
import threading

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from pydantic import SecretStr

from core.migrate import alembic_config, applied_revision, check_revision, migrate
from core.models import Base
from core.settings import DatabaseSettings
from core.web.health import NotReady


# SQLAlchemy does not know xid8 when it reads it back.
@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8':sqlalchemy.exc.SAWarning")
def test_models_and_migrations_agree(database_url: str) -> None:
    engine = sa.create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
        check_revision(connection)
    engine.dispose()
    assert differences == []


def test_several_machines_may_migrate_at_once(admin_database_url: str, database_url: str) -> None:
    name = "test_many_migrate"
    with psycopg.connect(admin_database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        settings = DatabaseSettings(url=SecretStr(database_url.rsplit("/", 1)[0] + f"/{name}"))
        errors: list[BaseException] = []

        def run() -> None:
            try:
                migrate(settings)
            except BaseException as error:  # noqa: BLE001 - told to the test's own thread
                errors.append(error)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    assert errors == []


def test_an_empty_database_is_not_ready(admin_database_url: str) -> None:
    engine = sa.create_engine(DatabaseSettings(url=SecretStr(admin_database_url)).sqlalchemy_url)
    with engine.connect() as connection, pytest.raises(NotReady, match="run python -m"):
        check_revision(connection)
    engine.dispose()


def test_a_release_works_on_the_tables_of_a_later_one_and_leaves_them(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    settings = DatabaseSettings(url=SecretStr(database_url))
    migrate(settings)
    engine = sa.create_engine(settings.sqlalchemy_url)
    with engine.connect() as connection:
        check_revision(connection)
        assert applied_revision(connection) == "9999"
    engine.dispose()


def test_a_release_is_not_ready_on_the_tables_of_an_earlier_one(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update alembic_version set version_num = '0001'")
    engine = sa.create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    with engine.connect() as connection, pytest.raises(NotReady, match="the schema is at 0001"):
        check_revision(connection)
    engine.dispose()


def _downgrade(url: str, revision: str) -> None:
    engine = sa.create_engine(DatabaseSettings(url=SecretStr(url)).sqlalchemy_url)
    with engine.connect() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
        connection.commit()
    engine.dispose()


def test_rejected_rows_that_older_releases_stored_as_reprs_are_blanked(database_url: str) -> None:
    stored = [
        "QuickSubmission(text='a', label='?')",
        {"text": str(b"a\xc3\xab")},
        {"text": str(b"it's"), "n": 1},
        {"text": "a", "label": "?"},
        ["b"],
    ]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for row, fields in enumerate(stored):
            connection.execute(
                "insert into import_rejects values (gen_random_uuid(), %s, 'c', 'why', %s)",
                [row, json.dumps(fields)],
            )
        _downgrade(database_url, "0009")
        migrate(DatabaseSettings(url=SecretStr(database_url)))
        rows = connection.execute(
            "select row, fields is not null, detail from import_rejects order by row"
        ).fetchall()
    assert [row for row, is_kept, _ in rows if is_kept] == [3, 4]
    assert all(
        detail == "why" if is_kept else detail.startswith("why (An older release") for _, is_kept, detail in rows
    )


def test_keys_that_could_write_snapshots_still_can(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        _downgrade(database_url, "0014")
        connection.execute(
            "insert into api_keys (name, hash, scopes) "
            "values ('reader', 'r', '{read}'), ('sender', 's', '{ingest}')"
        )
        migrate(DatabaseSettings(url=SecretStr(database_url)))
        rows = connection.execute("select name, scopes from api_keys").fetchall()
    assert dict(rows) == {"reader": ["read", "snapshot"], "sender": ["ingest"]}
