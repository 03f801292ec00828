"""`annotate backup` and `annotate restore` on a real Postgres, with a stand-in for Argilla's database."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from cli.backup.pg_programs import find_tools
from tests.conftest import fresh_database
from tests.programs import run
from tests.waiting import wait_for

WEBHOOKS = [uuid.UUID(int=1), uuid.UUID(int=2)]  # ours, and somebody else's

# As far as the commands know it.
ARGILLA = f"""
create type record_status as enum ('pending', 'completed');
create table alembic_version (version_num text primary key);
insert into alembic_version values ('a6b7');
create table users (id int primary key, username text);
insert into users values (1, 'owner'), (2, 'ann');
create table workspaces (id int primary key);
create table datasets (id int primary key);
create table records (id int primary key, status record_status);
insert into records values (1, 'pending');
create table responses (id int primary key, record_id int references records);
insert into responses values (1, 1);
create table webhooks (id uuid primary key, url text, enabled bool);
insert into webhooks values ('{WEBHOOKS[0]}', 'http://old', true), ('{WEBHOOKS[1]}', 'http://other', true);
"""  # noqa: S608

# As a platform looks that was at work: of another cluster, whose transaction ids are far ahead.
AT_WORK = f"""
update labels set changed_xid = '99999999999';
update texts set status = 'uploading', lease_owner = gen_random_uuid(), lease_until = now() + interval '1 hour'
where id = (select min(id::text)::uuid from texts);
insert into webhooks (id, secret) values ('{WEBHOOKS[0]}', 'whsec_1');
insert into datasets (name, leader_id, leader_until, swept_at, rule_seen_xid)
values ('toxicity', gen_random_uuid(), now() + interval '1 hour', now(), '99999999999');
insert into api_keys (name, hash, scopes) values ('ci', '\\x01', '{{read}}');
insert into models (dataset, version, created_at, is_active, decision, manifest)
values ('toxicity', '3f1c9a5be027', now(), true, 'The first one.', '{{}}');
"""  # noqa: S608


@dataclass(frozen=True)
class Place:
    """Two databases and a folder of snapshots."""

    platform: str
    argilla: str
    data_dir: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.platform,
            "ARGILLA_DATABASE_URL": self.argilla.replace("postgresql:", "postgresql+asyncpg:"),
            "DATA_DIR": str(self.data_dir),
            "COLUMNS": "300",
        }


def annotate(*arguments: str, place: Place, **env: str) -> subprocess.CompletedProcess[str]:
    return run("cli", *arguments, env=place.env | env)


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def tables(url: str) -> dict[str, list[tuple[Any, ...]]]:
    names = ask(url, "select tablename from pg_tables where schemaname = 'public' order by 1")
    return {name: ask(url, f"select cast(x as text) from {name} as x order by 1") for (name,) in names}  # noqa: S608


@pytest.fixture(scope="module")
def source(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with (
        fresh_database(admin_database_url, template_database) as platform,
        fresh_database(admin_database_url, "template0") as argilla,
    ):
        folder = tmp_path_factory.mktemp("source")
        place = Place(platform, argilla, folder)
        result = annotate("demo-data", "--texts", "300", place=place)
        assert result.returncode == 0, result.stderr
        with psycopg.connect(platform) as connection:
            connection.execute(AT_WORK)
        with psycopg.connect(argilla) as connection:
            connection.execute(ARGILLA)
        (folder / "snapshots" / "one" / "data").mkdir(parents=True)
        (folder / "snapshots" / "one" / "snapshot.json").write_text('{"name": "one"}')
        (folder / "snapshots" / "one" / "data" / "train.parquet").write_bytes(b"PAR1")
        model = folder / "snapshots" / "models" / "toxicity" / "3f1c9a5be027"
        model.mkdir(parents=True)
        (model / "model.json").write_text('{"version": "3f1c9a5be027"}')
        (model / "model.skops").write_bytes(b"skops")
        (model.parent / ".writing-model").mkdir()
        (model.parent / ".writing-model" / "model.json").write_text("{}")
        (folder / "snapshots" / ".writing-two").mkdir()
        (folder / "snapshots" / ".writing-two" / "snapshot.json").write_text("{}")
        yield place


@pytest.fixture(scope="module")
def archive(source: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = annotate("backup", str(tmp_path_factory.mktemp("archives")), place=source)
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


@pytest.fixture
def target(admin_database_url: str, tmp_path: Path) -> Iterator[Place]:
    """Two databases without a table, as a new installation has them."""
    with (
        fresh_database(admin_database_url, "template0") as platform,
        fresh_database(admin_database_url, "template0") as argilla,
    ):
        yield Place(platform, argilla, tmp_path)


def wrapped_tools(folder: Path, **scripts: str) -> Path:
    """Postgres' programs, some of them replaced by shell scripts in which $REAL is the real one."""
    real = find_tools(18)
    folder.mkdir()
    for name in ("pg_dump", "pg_restore", "psql"):
        body = scripts.get(name, 'exec "$REAL" "$@"')
        version = 'case "$1" in --version) exec "$REAL" "$@";; esac'
        (folder / name).write_text(f"#!/bin/sh\nREAL={real.folder / name}\n{version}\n{body}\n")
        (folder / name).chmod(0o700)
    return folder


def test_everything_comes_back_and_nothing_stale(source: Place, archive: Path, target: Place) -> None:
    result = annotate("restore", str(archive), place=target)
    assert result.returncode == 0, result.stderr
    before, after = tables(source.platform), tables(target.platform)
    for name in before.keys() - {"labels", "texts", "datasets"}:
        assert after[name] == before[name], name
    assert after.keys() == before.keys()
    assert len(after["texts"]) == len(after["labels"]) == 300
    assert len(ask(source.platform, "select from texts where status = 'uploading'")) == 1
    states = "select status, count(*), count(lease_owner) from texts group by status order by status"
    assert ask(target.platform, states) == [("demo", 299, 0), ("pending", 1, 0)]
    stamped = "select count(*) from labels where changed_xid >= pg_snapshot_xmin(pg_current_snapshot())"
    assert ask(source.platform, stamped) == [(300,)]
    assert ask(target.platform, stamped) == [(0,)]
    assert ask(target.platform, "select leader_id, swept_at, rule_seen_xid from datasets") == [(None, None, None)]
    # Also what comes after the data.
    indexes = "select indexname from pg_indexes where schemaname = 'public' order by 1"
    assert ask(target.platform, indexes) == ask(source.platform, indexes)
    # Its condition comes back in other words; the uploader's are still found to mean the same.
    assert "ix_texts_open" in _plan(target.platform)
    # Argilla must not send events to the former platform; other webhooks stay unchanged.
    assert ask(target.argilla, "select username from users order by id") == [("owner",), ("ann",)]
    assert ask(target.argilla, "select id, enabled from webhooks order by id") == [
        (WEBHOOKS[0], False),
        (WEBHOOKS[1], True),
    ]
    found = sorted(str(p.relative_to(target.data_dir)) for p in target.data_dir.rglob("*") if p.is_file())
    assert found == [
        "snapshots/models/toxicity/3f1c9a5be027/model.json",
        "snapshots/models/toxicity/3f1c9a5be027/model.skops",
        "snapshots/one/data/train.parquet",
        "snapshots/one/snapshot.json",
    ]
    assert "search-engine reindex" in result.stderr
    asked = "select model_asked_at is not null from datasets"
    assert ask(target.platform, asked) == [(False,)]
    # The database is not empty any more. --replace restores the same, without the texts forgotten meanwhile.
    refused = annotate("restore", str(archive), place=target)
    assert refused.returncode == 1
    assert "is not empty: it holds 300 texts, 900 annotations, 300 labels, 1 api_keys" in refused.stderr
    gone = str(ask(target.platform, "select id from texts where status = 'demo' limit 1")[0][0])
    assert annotate("forget", gone, "--yes", place=target).returncode == 0
    # The snapshots and models were backed up in another way, and are not back yet.
    shutil.rmtree(target.data_dir / "snapshots")
    again = annotate("restore", str(archive), "--replace", "--without-snapshots", place=target)
    assert again.returncode == 0, again.stderr
    assert "The files of the model of toxicity are not in" in again.stdout
    assert ask(target.platform, asked) == [(True,)]
    assert "1 texts that were forgotten since the archive was made are forgotten again" in again.stdout
    assert ask(target.platform, f"select status, text from texts where id = '{gone}'") == [("forgotten", "")]  # noqa: S608
    assert len(ask(target.platform, "select from texts where status = 'forgotten'")) == 1


def _plan(url: str) -> str:
    query = """
        select from texts
        where dataset = 'toxicity' and status in ('uploading', 'uploaded') and completed_at is null
    """
    with psycopg.connect(url) as connection:
        connection.execute("set enable_seqscan = off")
        return str(connection.execute(f"explain {query}").fetchall())


def test_a_restore_that_fails_or_dies_changes_nothing(
    admin_database_url: str, template_database: str, archive: Path, target: Place
) -> None:
    with psycopg.connect(target.argilla) as connection:
        connection.execute("create table mine as select 7 as number")
    before = tables(target.argilla)
    failing = wrapped_tools(target.data_dir / "failing", pg_restore='"$REAL" "$@" | head -c 2000; exit 1')
    result = annotate("restore", str(archive), place=target, PG_BIN_DIR=str(failing))
    assert result.returncode == 1
    assert "Nothing was restored" in result.stderr
    assert tables(target.argilla) == before
    # Killed when psql has got all but the last words.
    marker = target.data_dir / "marker"
    slow = f'"$REAL" "$@"; case "$*" in *post-data*) touch {marker}; sleep 600;; esac'
    hanging = wrapped_tools(target.data_dir / "hanging", pg_restore=slow)
    command = [sys.executable, "-m", "cli", "restore", str(archive)]
    env = os.environ | target.env | {"PG_BIN_DIR": str(hanging)}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(marker.exists)
        process.kill()
        process.wait()
        wait_for(lambda: _others(target.argilla) == 0)
        os.killpg(process.pid, signal.SIGKILL)
    assert tables(target.argilla) == before
    assert tables(target.platform) == {}


def _others(url: str) -> int:
    query = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    return int(ask(url, query)[0][0])


def test_a_killed_backup_leaves_nothing_that_looks_whole(source: Place, archive: Path, tmp_path: Path) -> None:
    words = tmp_path / "words"
    script = f'echo "$@" >> {words}; "$REAL" "$@" && sleep 600'
    tools = wrapped_tools(tmp_path / "tools", pg_dump=script)
    folder = tmp_path / "archives"
    command = [sys.executable, "-m", "cli", "backup", str(folder)]
    env = os.environ | source.env | {"PG_BIN_DIR": str(tools)}
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(lambda: words.exists() and any(folder.glob(".unfinished-*/platform.dump")))
        os.killpg(process.pid, signal.SIGKILL)
    [left] = [path for path in folder.iterdir() if path.is_dir()]
    password = psycopg.conninfo.conninfo_to_dict(source.platform)["password"]
    assert str(password) not in words.read_text()
    for command_ in (["restore"], ["backup", "verify"]):
        result = annotate(*command_, str(left), place=source)
        assert result.returncode == 1
        assert "is not finished" in result.stderr
    # A half copied one: no manifest yet.
    half = tmp_path / "half"
    shutil.copytree(archive, half, ignore=shutil.ignore_patterns("manifest.json"))
    assert "half of one" in annotate("restore", str(half), "--replace", place=source).stderr


def test_verify_finds_what_is_damaged_and_restore_refuses_it(archive: Path, tmp_path: Path, target: Place) -> None:
    whole = annotate("backup", "verify", str(archive), place=target)
    assert whole.returncode == 0, whole.stderr
    assert "texts: 300" in whole.stdout
    copy = tmp_path / "copy"
    shutil.copytree(archive, copy)
    with (copy / "argilla.dump").open("r+b") as file:
        file.seek(-5, 2)
        file.write(b"\xff")
    for command in (["backup", "verify"], ["restore"]):
        result = annotate(*command, str(copy), place=target)
        assert result.returncode == 1
        assert "argilla.dump: is damaged" in result.stderr
        assert "platform.dump" not in result.stderr
    assert tables(target.argilla) == {}


def test_a_restore_waits_for_nobody(archive: Path, target: Place) -> None:
    with psycopg.connect(target.platform, application_name="uploader"):
        result = annotate("restore", str(archive), place=target)
    assert result.returncode == 1
    assert "Programs are connected" in result.stderr
    assert "uploader (1)" in result.stderr
