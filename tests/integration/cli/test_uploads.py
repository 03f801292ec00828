"""`annotate uploads` and the alerts of `annotate status`, run as users run them."""

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.programs import free_port, running

_HOSTILE = "\x1b[2J\x1b]0;gone\x07 [red]not markup[/red] [/]\nsecond line \u202e \x9b31m"


def _add(connection: psycopg.Connection, text: str, dataset: str = "toxicity", **columns: Any) -> UUID:
    id_ = text_id(dataset, text)
    values = {"id": id_, "dataset": dataset, "text": text} | columns
    statement = f"insert into texts ({', '.join(values)}) values ({', '.join(['%s'] * len(values))})"  # noqa: S608
    connection.execute(statement, list(values.values()))
    return id_


def _statuses(connection: psycopg.Connection) -> dict[str, tuple[str, int]]:
    rows = connection.execute("select text, status, attempts from texts").fetchall()
    return {text: (status, attempts) for text, status, attempts in rows}


def test_list_shows_what_is_not_uploaded(connection: psycopg.Connection, database_url: str) -> None:
    shown = [_add(connection, s, status=s) for s in ("pending", "uploading", "failed")]
    hidden = _add(connection, "uploaded", status="uploaded")
    result = annotate("uploads", "list", DATABASE_URL=database_url)
    assert result.returncode == 0, result.stderr
    assert all(str(id_) in result.stdout for id_ in shown)
    assert str(hidden) not in result.stdout


def test_list_chooses(connection: psycopg.Connection, database_url: str) -> None:
    first, second = (_add(connection, text, status="failed", last_error="refused") for text in "ab")
    spam = _add(connection, "c", "spam", status="failed")
    pending = _add(connection, "d")
    arguments = ("--status", "failed", "--dataset", "toxicity", "--limit", "1")
    listed = annotate("uploads", "list", *arguments, DATABASE_URL=database_url).stdout
    assert str(first) in listed
    assert "refused" in listed
    assert not any(str(id_) in listed for id_ in (second, spam, pending))


def test_show_tells_everything_about_a_text(connection: psycopg.Connection, database_url: str) -> None:
    id_ = _add(connection, "a text", status="failed", attempts=3, last_error="Argilla's words", source="forum")
    for status, withdrawn_at in (("submitted", None), ("submitted", "2026-01-01"), ("draft", None)):
        connection.execute(
            "insert into annotations"
            " (text_id, response_id, annotator_id, annotator, status, created_at, updated_at, seen_at,"
            " withdrawn_at) values (%s, %s, %s, 'ann', %s, now(), now(), now(), %s)",
            [id_, uuid4(), uuid4(), status, withdrawn_at],
        )
    shown = annotate("uploads", "show", str(id_), DATABASE_URL=database_url).stdout
    for expected in (
        "a text",
        "failed",
        "3",
        "Argilla's words",
        "forum",
        "1 draft; 1 submitted; 1 submitted, withd",
    ):
        assert expected in shown


@pytest.mark.parametrize("command", [("list",), ("show", str(text_id("toxicity", _HOSTILE)))])
def test_hostile_texts_do_nothing_to_the_terminal(
    command: tuple[str, ...], connection: psycopg.Connection, database_url: str
) -> None:
    columns = {"last_error": _HOSTILE, "source": _HOSTILE, "status": "failed"}
    _add(connection, _HOSTILE, **columns)
    result = annotate("uploads", *command, DATABASE_URL=database_url)
    assert result.returncode == 0, result.stderr
    assert all(c.isprintable() or c == "\n" for c in result.stdout)
    assert "[red]not markup[/red]" in result.stdout


def test_show_of_an_unknown_text_fails(database_url: str) -> None:
    result = annotate("uploads", "show", str(uuid4()), DATABASE_URL=database_url)
    assert result.returncode == 1
    assert "There is no text" in result.stderr


@pytest.mark.parametrize("all_", [(), ("--all",)])
def test_retry_puts_failed_texts_back_and_keeps_their_attempts(
    all_: tuple[str, ...], connection: psycopg.Connection, database_url: str
) -> None:
    for text, status in (("a", "failed"), ("b", "failed"), ("c", "uploaded"), ("d", "uploading")):
        _add(connection, text, status=status, attempts=2)
    _add(connection, "e", "spam", status="failed", attempts=1)
    result = annotate("uploads", "retry", *all_, "--dataset", "toxicity", DATABASE_URL=database_url)
    assert result.returncode == 0, result.stderr
    assert "2 texts are pending again" in result.stdout
    assert _statuses(connection) == {
        "a": ("pending", 2),
        "b": ("pending", 2),
        "c": ("uploaded", 2),
        "d": ("uploading", 2),
        "e": ("failed", 1),
    }


def test_retry_of_named_texts_tells_which_had_not_failed(
    connection: psycopg.Connection, database_url: str
) -> None:
    failed, uploaded = _add(connection, "a", status="failed"), _add(connection, "b", status="uploaded")
    _add(connection, "c", status="failed")
    result = annotate("uploads", "retry", str(failed), str(uploaded), DATABASE_URL=database_url)
    assert result.returncode == 1
    assert "1 texts are pending again" in result.stdout
    assert f"There is no failed text {uploaded}" in result.stderr
    assert _statuses(connection) == {"a": ("pending", 0), "b": ("uploaded", 0), "c": ("failed", 0)}


def test_retry_takes_names_or_all(database_url: str) -> None:
    assert annotate("uploads", "retry", str(uuid4()), "--all", DATABASE_URL=database_url).returncode == 2


def test_status_shows_alerts(connection: psycopg.Connection, database_url: str, tmp_path: Path) -> None:
    connection.execute(
        "insert into alerts (dataset, job, code, reason) values ('toxicity', 'push', 'argilla_key_unknown', %s)",
        ["set ARGILLA_API_KEY\x1b[2J"],
    )
    with running("ingestion_api", {"DATABASE_URL": database_url}, tmp_path / "log") as program:
        serving = f"http://127.0.0.1:{free_port()}"
        result = annotate("status", INGESTION_URL=program.url, SERVING_URL=serving)
    assert result.returncode == 1
    assert "dataset toxicity, since" in result.stderr
    assert r"set ARGILLA_API_KEY\x1b[2J (argilla_key_unknown)" in " ".join(result.stderr.split())
