"""What administrators do leaves a line, with no text and no secret in it; and the first key is made on nothing."""

import getpass
import json
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import create_engine

from core.settings import DatabaseSettings
from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.integration.serving_api.labelling import Labeller
from tests.programs import running
from tests.waiting import wait_for

WORDS = "a text that nobody is to read"


def entries(url: str) -> list[dict[str, Any]]:
    """Return the entries of `annotate audit`, the oldest first."""
    done = annotate("audit", "--json", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][::-1]


def test_the_first_key_is_made_on_an_empty_system(database_url: str) -> None:
    made = annotate("keys", "create", "first", "--scope", "admin", DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("ap_")
    (entry,) = entries(database_url)
    assert (entry["action"], entry["outcome"], entry["actor_kind"]) == ("key.created", "done", "account")
    assert entry["actor"] == getpass.getuser()
    limits = {"requests_per_second": None, "burst": None, "datasets": None}
    assert entry["details"] == {"name": "first", "scopes": ["admin"]} | limits
    assert made.stdout.strip() not in json.dumps(entry)


def test_without_tables_it_says_what_to_do(admin_database_url: str, database_url: str) -> None:
    name = "test_no_tables"
    with psycopg.connect(admin_database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = f"{database_url.rsplit('/', 1)[0]}/{name}"
        for arguments in (("keys", "create", "first", "--scope", "admin"), ("keys", "list"), ("audit",)):
            refused = annotate(*arguments, DATABASE_URL=url)
            assert refused.returncode == 1
            assert "run `python -m core.migrate`" in refused.stderr
            assert "Traceback" not in refused.stderr
            assert refused.stdout == ""
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_each_action_leaves_a_line_without_texts(database_url: str, tmp_path: Path) -> None:
    env = {"DATABASE_URL": database_url}
    made = annotate(
        "keys", "create", "ci", "--scope", "ingest", "--requests-per-second", "5", "--burst", "9", **env
    )
    key = made.stdout.strip()
    assert "5/s, 9 at once" in annotate("keys", "list", **env).stdout
    gold = tmp_path / "gold.ndjson"
    gold.write_text(json.dumps({"text": WORDS, "label": "toxic"}))
    id_ = str(text_id("toxicity", WORDS))
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, status) values (%s, 'toxicity', 'x', 'failed')",
            [text_id("toxicity", "x")],
        )
    for arguments in (
        ("gold", "add", str(gold)),
        ("gold", "remove", id_),
        ("uploads", "retry", "--all"),
        ("forget", id_, "--yes", "--by", "a person"),
    ):
        done = annotate(*arguments, **env)
        assert done.returncode == 0, done.stderr
    assert annotate("uploads", "retry", id_, **env).returncode == 1
    [key_id] = entries(database_url)[0]["object_ids"]
    assert annotate("keys", "withdraw", key_id, **env).returncode == 0
    assert annotate("keys", "withdraw", key_id, **env).returncode == 1  # nothing was done
    found = entries(database_url)
    assert [entry["action"] for entry in found] == [
        "key.created",
        "gold.added",
        "gold.removed",
        "uploads.retried",
        "texts.forgotten",
        "key.withdrawn",
    ]
    assert found[1]["object_ids"] == found[2]["object_ids"] == found[4]["object_ids"] == [id_]
    assert found[3]["objects"] == 1
    everything = json.dumps(found)
    assert WORDS not in everything
    assert key not in everything
    shown = annotate("audit", "--action", "key.withdrawn", **env).stdout
    assert key_id[:8] in shown
    assert "gold" not in shown


def test_what_is_undone_is_not_noted(database_url: str) -> None:
    """The entry is written in the transaction of its action."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
            " create trigger refuse before insert on audit_log for each row execute function refuse()"
        )
        assert annotate("keys", "create", "x", "--scope", "read", DATABASE_URL=database_url).returncode != 0
        assert connection.execute("select count(*) from api_keys").fetchone() == (0,)


def test_an_import_that_is_deleted_names_the_key(database_url: str, tmp_path: Path) -> None:
    key = annotate("keys", "create", "robot", "--scope", "ingest", DATABASE_URL=database_url).stdout.strip()
    env = {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "true", "LOG_FORMAT": "json"}
    log, headers = tmp_path / "log", {"Authorization": f"Bearer {key}"}
    with (
        running("ingestion_api", env, log) as program,
        httpx.Client(base_url=program.url, headers=headers) as client,
    ):
        wait_for(lambda: client.get("/queue").status_code == 200)
        made = client.post("/imports", content="text\na\n", headers={"Content-Type": "text/csv"})
        path = made.headers["location"]
        assert client.delete(path).status_code == 204
        assert client.delete(path).status_code == 404
    entry = entries(database_url)[-1]
    assert (entry["action"], entry["actor_kind"]) == ("import.deleted", "key")
    assert entry["object_ids"] == [path.rpartition("/")[2]]
    assert entry["actor"].endswith(" robot")
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"audit"' in line]
    assert [(line["action"], line["outcome"]) for line in lines] == [("import.deleted", "done")]
    assert lines[0]["request_id"]


@pytest.mark.parametrize("arguments", [("--burst", "5"), ("--requests-per-second", "0")])
def test_a_limit_that_is_none_is_refused(database_url: str, arguments: tuple[str, ...]) -> None:
    refused = annotate("keys", "create", "x", "--scope", "read", *arguments, DATABASE_URL=database_url)
    assert refused.returncode in {1, 2}
    assert refused.stdout == ""


def test_a_snapshot_is_deleted_by_an_administrator_and_both_sides_note_it(
    database_url: str, tmp_path: Path
) -> None:
    engine = create_engine(DatabaseSettings(url=SecretStr(database_url)).sqlalchemy_url)
    Labeller(engine).add_label(WORDS)
    engine.dispose()
    env = {
        "DATABASE_URL": database_url,
        "REQUIRE_API_KEY": "true",
        "DATA_DIR": str(tmp_path),
        "LOG_FORMAT": "json",
    }
    keys = {
        scope: annotate("keys", "create", scope, "--scope", scope, **env).stdout.strip()
        for scope in ("snapshot", "admin")
    }
    with running("serving_api", env, tmp_path / "log", "/readyz") as program:
        as_ = {
            scope: {"SERVING_URL": program.url, "ANNOTATE_API_KEY": key, "DATABASE_URL": database_url}
            for scope, key in keys.items()
        }
        wait_for(lambda: annotate("snapshot", "create", "one", **as_["snapshot"]).returncode == 0)
        refused = annotate("snapshot", "delete", "one", "--yes", **as_["snapshot"])
        assert refused.returncode == 1
        assert "lacks the scope admin" in refused.stderr
        asked = annotate("snapshot", "delete", "one", **as_["admin"])  # nobody answers the question
        assert asked.returncode == 1
        assert json.loads(annotate("snapshot", "list", "--json", **as_["admin"]).stdout)[0]["name"] == "one"
        done = annotate("snapshot", "delete", "one", "--yes", **as_["admin"])
        assert (done.returncode, done.stdout) == (0, "The snapshot one is deleted.\n"), done.stderr
        assert json.loads(annotate("snapshot", "list", "--json", **as_["admin"]).stdout) == []
    noted = [entry for entry in entries(database_url) if entry["action"] == "snapshot.deleted"]
    assert [(entry["object_ids"], entry["outcome"]) for entry in noted] == [(["one"], "failed"), (["one"], "done")]
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines() if '"audit"' in line]
    assert [(line["action"], line["outcome"], line["actor_kind"]) for line in lines] == [
        ("/snapshots/one", "refused", "key"),
        ("snapshot.deleted", "done", "key"),
    ]
