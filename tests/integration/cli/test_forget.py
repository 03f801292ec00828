"""`annotate forget`: afterwards the whole database holds nothing of the text."""

import json
import threading
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from cli import addresses
from cli.console import err, out
from cli.main import app
from core.forgetting.repository import blank_rejects
from core.forgetting.service import STEPS, Traces, find_rejects, forget_texts
from core.migrate import check_revision
from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.integration.serving_api.labelling import Labeller
from tests.programs import free_port, running
from tests.waiting import wait_for_blocked

_WORDS = "Zoë Quandt lives in 12 Elm Street, call 0171 5550100"
_EXTERNAL = "crm-4711-quandt"
_SOURCE = "quandt-letters"
_TRACES = ("Quandt", "quandt", "Elm Street", "5550100")
_NOBODY = f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def labeller(engine: Engine) -> Labeller:
    return Labeller(engine)


class Result(NamedTuple):
    """What a command ended with."""

    returncode: int
    stdout: str
    stderr: str


def forget(*arguments: object, **environment: str) -> Result:
    """Run the command in this process: a process for each takes most of a second."""
    addresses.settings.cache_clear()
    out.width = err.width = 250
    ran = CliRunner().invoke(app, ["forget", *map(str, arguments)], env={"SERVING_URL": _NOBODY} | environment)
    assert ran.exception is None or isinstance(ran.exception, SystemExit), ran.exception
    return Result(ran.exit_code, ran.stdout, ran.stderr)


def traces(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Return which tables hold which part of what must be forgotten: in any column, bytes and samples, too."""
    tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    assert ("import_rejects",) in tables
    found = []
    for (table,) in [*tables, ("pg_stats",)]:
        rows = connection.execute(f'select "{table}"::text from "{table}"').fetchall()  # noqa: S608
        for trace in _TRACES:
            forms = (trace, trace.encode().hex(), json.dumps(trace)[1:-1])
            if any(form in row for (row,) in rows for form in forms):
                found.append((table, trace))
    return found


def _spread(connection: psycopg.Connection, labeller: Labeller) -> UUID:
    """Bring the text, or something of it, wherever it may be."""
    columns: dict[str, Any] = {"source": _SOURCE, "external_id": _EXTERNAL, "metadata_": {"name": "Quandt"}}
    id_ = labeller.add_label(_WORDS, **columns, claimed_label="yes", last_error="Argilla: Quandt", status="failed")
    connection.execute("update texts set status = 'uploaded', attempts = 1 where id = %s", [id_])
    labeller.annotate({id_: {"ada": "yes", "bob": "no"}})  # disputed: a copy is put before adjudicators
    assert labeller.list_disputed([_WORDS])
    labeller.decide({_WORDS: {"judge": "yes"}})
    connection.execute("update annotations set answers = %s", [json.dumps({"why": {"value": "It names Quandt"}})])
    labeller.add_label("another")
    twin = labeller.add_text("nearly the same", status="near_duplicate")
    connection.execute("insert into near_duplicates values (%s, %s, 0.9)", [twin, id_])
    connection.execute("insert into near_duplicate_bands (band, text_id) values (1, %s), (2, %s)", [id_, twin])
    connection.execute(
        "insert into rereads values (%s, 'toxicity', gen_random_uuid(), now(), now(), gen_random_uuid())", [id_]
    )
    rejected = [
        {"comment": f" {unicodedata.normalize('NFD', _WORDS)} ", "score": "12"},
        {"text": "mended since", "external_id": _EXTERNAL, "label": "unknown"},
        [["deep", {"in": _WORDS}]],
    ]
    for row, fields in enumerate(rejected):
        connection.execute(
            "insert into import_rejects values (%s, %s, 'unknown_label', 'not one: Quandt', %s)",
            [UUID(int=1), row, json.dumps(fields)],
        )
    connection.execute(
        "insert into import_rejects values (%s, 9, 'blank', 'empty', %s)", [UUID(int=1), '{"text": ""}']
    )
    return id_


@pytest.mark.parametrize("named", ["id", "external id", "id of the copy", "file", "table"])
def test_the_whole_database_holds_nothing_of_it(
    named: str, connection: psycopg.Connection, labeller: Labeller, database_url: str, tmp_path: Path
) -> None:
    id_ = _spread(connection, labeller)
    copy = text_id("toxicity-adjudication", _WORDS)
    (tmp_path / "ids").write_text(f"\n{id_}\n")
    (tmp_path / "ids.csv").write_text(f"n;id\n1;{id_}\n")
    arguments = {
        "id": (id_,),
        "external id": ("--external-id", _EXTERNAL),
        "id of the copy": (copy,),
        "file": ("--file", tmp_path / "ids"),
        "table": ("--file", tmp_path / "ids.csv"),
    }
    connection.execute("analyze")
    assert ("pg_stats", "Quandt") in traces(connection)
    result = forget(*arguments[named], "--yes", "--by", "officer", DATABASE_URL=database_url)
    assert result.returncode == 0, result.stderr
    assert "2 texts are forgotten" in result.stdout
    assert traces(connection) == []
    assert _rows(connection, "select status, annotations from labels order by 1") == [
        ("labelled", 1),
        ("withdrawn", 0),
        ("withdrawn", 0),
    ]
    assert _rows(connection, "select count(*) from annotations") == [(1,)]
    assert _rows(connection, "select band from near_duplicate_bands") == [(2,)]
    assert _rows(connection, "select fields::text from import_rejects where fields is not null") == [
        ('{"text": ""}',)
    ]
    # Its suppressed duplicate is uploaded now; its group still follows from the link.
    assert _rows(connection, "select status from texts where text = 'nearly the same'") == [("pending",)]
    requests = _rows(connection, "select text_id, copy_of, requested_by, imports_at is null from forget_requests")
    assert sorted(requests, key=str) == sorted(
        [(id_, None, "officer", False), (copy, id_, "officer", False)], key=str
    )


def _rows(connection: psycopg.Connection, query: str) -> list[Any]:
    return connection.execute(query).fetchall()


def test_it_asks_first_and_names_what_stays(
    connection: psycopg.Connection, labeller: Labeller, database_url: str
) -> None:
    id_ = _spread(connection, labeller)
    refused = forget(id_, DATABASE_URL=database_url)
    assert refused.returncode == 1
    assert "1 texts that are nearly the same stay" in refused.stderr
    assert _rows(connection, "select count(*) from texts where status = 'forgotten'") == [(0,)]
    nothing = forget(uuid4(), "--external-id", "none", "--yes", DATABASE_URL=database_url)
    assert nothing.returncode == 1
    assert "There is no text" in nothing.stderr
    assert "external id 'none'" in nothing.stderr
    assert forget(DATABASE_URL=database_url).returncode == 2


def test_the_same_text_goes_from_all_datasets_unless_one_is_named(
    connection: psycopg.Connection, labeller: Labeller, database_url: str
) -> None:
    connection.execute("insert into datasets (name) values ('mood')")
    ids = [labeller.add_text(_WORDS), labeller.add_text(_WORDS, "mood"), labeller.add_text("other", "mood")]
    assert forget(ids[0], "--dataset", "mood", "--yes", DATABASE_URL=database_url).returncode == 1
    assert forget(ids[0], "--yes", DATABASE_URL=database_url).returncode == 0
    assert _rows(connection, "select dataset, text from texts order by 2, 1") == [
        ("mood", ""),
        ("toxicity", ""),
        ("mood", "other"),
    ]


def test_the_log_shows_how_far_it_has_come_and_status_what_is_stuck(
    connection: psycopg.Connection, labeller: Labeller, database_url: str
) -> None:
    id_ = _spread(connection, labeller)
    connection.execute(
        "insert into imports (id, media_type, encoding, parameters) values (%s, 'text/csv', 'identity', '{}')",
        [UUID(int=2)],
    )
    forget(id_, "--yes", DATABASE_URL=database_url)
    listed = forget("--list", DATABASE_URL=database_url)
    assert listed.returncode == 0
    assert str(id_) in listed.stdout
    assert "not yet" in listed.stdout
    assert not any(trace in listed.stdout for trace in _TRACES)
    connection.execute("update forget_requests set argilla_note = 'Delete that dataset' where copy_of is null")
    status = annotate("status", DATABASE_URL=database_url, INGESTION_URL=_NOBODY, SERVING_URL=_NOBODY)
    assert status.returncode == 1
    assert f"forgetting of {id_} in toxicity is not complete: Delete" in " ".join(status.stderr.split())
    assert forget("--lift", id_, DATABASE_URL=database_url).returncode == 1
    connection.execute("update forget_requests set argilla_at = now(), argilla_note = null")
    assert forget("--lift", id_, DATABASE_URL=database_url).returncode == 0
    assert _rows(connection, "select text from texts order by 1") == [
        ("another",),
        ("nearly the same",),
    ]


@pytest.mark.soak
def test_demo_data_leaves_forgotten_texts_alone(connection: psycopg.Connection, database_url: str) -> None:
    assert annotate("demo-data", "--texts", "5", DATABASE_URL=database_url).returncode == 0
    assert forget("--external-id", "demo-3", "--yes", DATABASE_URL=database_url).returncode == 0
    again = annotate("demo-data", "--texts", "6", DATABASE_URL=database_url)
    assert again.returncode == 0, again.stderr
    assert _rows(connection, "select count(*) from labels where status = 'withdrawn'") == [(1,)]
    assert _rows(connection, "select count(distinct text_id) from annotations") == [(5,)]
    assert _rows(connection, "select count(*) from texts where text = ''") == [(1,)]


def test_gold_does_not_bring_it_back(
    connection: psycopg.Connection, labeller: Labeller, database_url: str, tmp_path: Path
) -> None:
    id_ = labeller.add_text(_WORDS)
    forget(id_, "--yes", DATABASE_URL=database_url)
    file = tmp_path / "gold.ndjson"
    file.write_text(json.dumps({"text": _WORDS, "label": "toxic"}) + "\n")
    result = annotate("gold", "add", str(file), DATABASE_URL=database_url)
    assert result.returncode == 1
    assert "was forgotten" in result.stderr
    assert traces(connection) == []


def test_a_dispute_that_is_queued_meanwhile_leaves_no_copy(
    connection: psycopg.Connection, labeller: Labeller, engine: Engine, database_url: str
) -> None:
    """The job that copies disputes waits for the row, and finds it empty."""
    id_ = labeller.add_text(_WORDS)
    with engine.begin() as forgetting:
        forget_texts(forgetting, [id_], Traces(), "tester")
        thread = threading.Thread(target=labeller.annotate, args=({id_: {"ada": "yes", "bob": "no"}},))
        thread.start()
        wait_for_blocked(database_url)
    thread.join()
    assert _rows(connection, "select text, status from texts") == [("", "forgotten")]
    assert _rows(connection, "select count(*) from annotations") == [(0,)]


def _begin_import(connection: psycopg.Connection) -> None:
    """Add an import whose body is stored and not read yet."""
    connection.execute(
        "insert into imports (id, media_type, encoding, parameters, state)"
        " values (gen_random_uuid(), 'text/csv', 'identity', '{}', 'waiting')"
    )


def test_an_import_under_way_does_not_stop_it(
    connection: psycopg.Connection, labeller: Labeller, database_url: str
) -> None:
    id_ = _spread(connection, labeller)
    _begin_import(connection)
    result = forget(id_, "--yes", DATABASE_URL=database_url)
    assert result.returncode == 0, result.stderr
    assert traces(connection) == []
    assert _rows(connection, "select distinct imports_until, imports_at is null from forget_requests") == [
        (1, True)
    ]


def test_the_connection_that_looked_for_rejects_still_takes_other_statements(
    connection: psycopg.Connection, engine: Engine
) -> None:
    """Options that turn statements into cursors must not stay on the connection."""
    id_ = text_id("toxicity", _WORDS)
    connection.execute(
        "insert into import_rejects values (%s, 1, 'c', 'd', %s)", [UUID(int=1), json.dumps({"text": _WORDS})]
    )
    with engine.begin() as held:
        blank_rejects(held, find_rejects(held, {id_: "toxicity"}))
        held.execute(text("update import_rejects set code = :code"), {"code": "seen"})
    assert _rows(connection, "select code, fields from import_rejects") == [("seen", None)]


@pytest.mark.parametrize(
    ("fields", "code", "detail"),
    [
        pytest.param(json.dumps(f"QuickSubmission(text={_WORDS!r})"), "unknown_label", "d", id="repr"),
        pytest.param(json.dumps({_WORDS: "as a name"}), "extra_forbidden", "d", id="name"),
        pytest.param(None, "type", "/metadata/Quandt: must be true", id="metadata's name in the detail"),
        pytest.param(None, "extra_forbidden", "/Quandt: not permitted", id="field's name in the detail"),
        pytest.param(None, "unknown_label", 'label "Quandt" is not one of toxic', id="label in the detail"),
    ],
)
def test_rejects_that_may_quote_it_in_another_way_are_blanked(
    connection: psycopg.Connection,
    labeller: Labeller,
    database_url: str,
    fields: str | None,
    code: str,
    detail: str,
) -> None:
    id_ = labeller.add_text(_WORDS)
    insert = "insert into import_rejects values (%s, %s, %s, %s, %s)"
    connection.execute(insert, [UUID(int=1), 1, code, detail, fields])
    connection.execute(insert, [UUID(int=1), 2, "c", "stays", json.dumps({"text": "\ud800"})])
    forget(id_, "--yes", DATABASE_URL=database_url)
    assert traces(connection) == []
    assert _rows(connection, "select detail from import_rejects where fields is not null") == [("stays",)]


@pytest.mark.parametrize("code", ["unknown_column", "wrong_column_type", "duplicate_column", "malformed_xlsx"])
def test_problems_of_failed_imports_quote_nothing(
    connection: psycopg.Connection, labeller: Labeller, database_url: str, code: str
) -> None:
    """The first text of a CSV without a header counts as the header, and the problem lists the columns."""
    id_ = labeller.add_text(_WORDS)
    insert = (
        "insert into imports (id, media_type, encoding, parameters, state, has_body, problem)"
        " values (gen_random_uuid(), 'text/csv', 'identity', '{}', 'failed', false, %s)"
    )
    for each, detail in ((code, f"There is no column 'text'; there are: {_WORDS}."), ("x", "y")):
        connection.execute(insert, [json.dumps({"status": 422, "code": each, "detail": detail})])
    forget(id_, "--yes", DATABASE_URL=database_url)
    assert traces(connection) == []
    found = _rows(connection, "select problem ->> 'code', problem ->> 'detail' from imports order by sequence")
    assert found[0][0] == code
    assert "forgotten" in found[0][1]
    assert found[1] == ("x", "y")


def test_requests_that_take_too_long_are_shown_by_the_step_that_is_open(
    connection: psycopg.Connection, labeller: Labeller, database_url: str, tmp_path: Path
) -> None:
    id_ = _spread(connection, labeller)
    _begin_import(connection)
    forget(id_, "--yes", DATABASE_URL=database_url)
    shown: dict[str, list[str]] = {}
    with running("ingestion_api", {"DATABASE_URL": database_url}, tmp_path / "log") as program:
        env = {"DATABASE_URL": database_url, "INGESTION_URL": program.url, "SERVING_URL": _NOBODY}

        def look(step: str) -> None:
            alerts = httpx.get(f"{program.url}/queue").json()["alerts"]
            shown[step] = [alert["reason"] for alert in alerts if alert["code"] == "forgetting_overdue"]
            status = " ".join(annotate("status", **env).stderr.split())
            assert ("(forgetting_overdue)" in status) == bool(shown[step])
            assert (f"forgetting of {id_} in toxicity is not complete" in status) == bool(shown[step])

        look("young")
        connection.execute("update forget_requests set requested_at = now() - interval '61 minutes'")
        connection.execute("delete from forget_requests where copy_of is not null")
        for step in ("imports", "argilla", "replica", "snapshots"):
            look(step)
            connection.execute(f"update forget_requests set {step}_at = now()")  # noqa: S608 - the test's own
        look("finished")
    assert shown["young"] == shown["finished"] == []
    assert [shown[step] for step in ("imports", "argilla", "replica", "snapshots")] == [
        [f"A forget request is not finished: {'; '.join(list(STEPS.values())[done:])}."] for done in range(4)
    ]


def test_rejects_are_found_by_the_id_alone(connection: psycopg.Connection, engine: Engine) -> None:
    fields = {"n": 12, "none": None, "text": f"  {_WORDS}"}
    connection.execute(
        "insert into import_rejects values (%s, 1, 'c', 'd', %s)", [UUID(int=1), json.dumps(fields)]
    )
    with engine.connect() as held:
        check_revision(held)
        assert find_rejects(held, {text_id("toxicity", _WORDS): "toxicity"}) == [(UUID(int=1), 1)]
        assert find_rejects(held, {text_id("mood", _WORDS): "toxicity"}) == []
