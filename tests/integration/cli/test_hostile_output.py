"""Names, texts and errors with control characters, through each command that prints stored values."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.programs import Program, free_port, running

HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b1m\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069[red]raw[/red]\x7f"
TEXT = f"text {HOSTILE}"
ID = text_id("toxicity", TEXT)
BIG = {"COLUMNS": "400"}


def fill(url: str) -> None:
    """Put hostile values wherever a row holds what others wrote."""
    with psycopg.connect(url, autocommit=True) as connection:
        columns = "id, dataset, text, status, source, external_id, last_error, gold_label, metadata"
        connection.execute(
            f"insert into texts ({columns}) values (%s, 'toxicity', %s, 'failed', %s, %s, %s, %s, %s)",  # noqa: S608
            [ID, TEXT, HOSTILE, HOSTILE, HOSTILE, HOSTILE, json.dumps({HOSTILE: HOSTILE})],
        )
        connection.execute(
            "insert into api_keys (name, hash, scopes, datasets) values (%s, '\\x00', %s, %s)",
            [HOSTILE, [HOSTILE], [HOSTILE]],
        )
        connection.execute(
            "insert into alerts (dataset, job, code, reason) values ('toxicity', 'push', %s, %s)",
            [HOSTILE, HOSTILE],
        )
        connection.execute(
            "insert into audit_log (program, actor_kind, actor, action, object_ids, objects, outcome, details)"
            " values ('cli', 'key', %s, %s, %s, 1, %s, %s)",
            [HOSTILE, HOSTILE, [HOSTILE], HOSTILE, json.dumps({HOSTILE: HOSTILE})],
        )


@pytest.fixture
def hostile_url(database_url: str) -> str:
    fill(database_url)
    return database_url


def assert_harmless(said: str, where: object) -> None:
    for line in said.split("\n"):
        assert line.isprintable(), (where, line)


def test_what_postgres_holds_is_escaped(hostile_url: str, tmp_path: Path) -> None:
    gold = tmp_path / "gold.ndjson"
    gold.write_text(json.dumps({"text": TEXT, "label": HOSTILE, HOSTILE: HOSTILE}) + "\n")
    commands = [
        ("keys", "list"),
        ("keys", "create", HOSTILE, "--scope", "read", "--dataset", HOSTILE),
        ("audit",),
        ("audit", "--json"),
        ("uploads", "list"),
        ("uploads", "show", str(ID)),
        ("gold", "list"),
        ("gold", "list", "--texts"),
        ("gold", "add", str(gold)),
        ("gold", "add", str(gold), "--dataset", HOSTILE),
        ("forget", str(ID), "--dataset", HOSTILE),
        ("forget", str(ID)),  # it asks; there is no answer
        ("forget", str(ID), "--yes", "--by", HOSTILE),
        ("forget", "--list"),
        ("uploads", "show", str(ID)),
    ]
    shown = ""
    for command in commands:
        done = annotate(*command, DATABASE_URL=hostile_url, **BIG)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        assert_harmless(done.stdout + done.stderr, command)
        shown += done.stdout
    assert r"\x1b[2J" in shown
    assert "[red]raw[/red]" in shown


@pytest.fixture
def ingestion(hostile_url: str, tmp_path: Path) -> Iterator[Program]:
    with running("ingestion_api", {"DATABASE_URL": hostile_url}, tmp_path / "ingestion.log") as program:
        yield program


def test_what_the_apis_say_is_escaped(hostile_url: str, ingestion: Program, tmp_path: Path) -> None:
    rows, columns = tmp_path / f"{HOSTILE.replace('/', '')}.ndjson", tmp_path / "columns.csv"
    rows.write_text(json.dumps({"text": "x", HOSTILE: HOSTILE, f"{HOSTILE}\nrow": "2"}) + "\n")
    columns.write_text(f"{HOSTILE},other\n1,2\n")
    env = {"INGESTION_URL": ingestion.url, "SERVING_URL": f"http://127.0.0.1:{free_port()}"} | BIG
    for command in (
        ("ingest", str(rows)),
        ("ingest", str(columns)),
        ("ingest", str(rows), "--dataset", HOSTILE),
        ("ingest", str(rows), "--resume", HOSTILE),
        ("status",),
        ("snapshot", "list"),
        ("snapshot", "create", "--name", HOSTILE),
        ("export", str(tmp_path / "x.csv")),
    ):
        done = annotate(*command, DATABASE_URL=hostile_url, **env)
        assert done.returncode, command
        assert "Traceback" not in done.stderr, (command, done.stderr)
        assert_harmless(done.stdout + done.stderr, command)
