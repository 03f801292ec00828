"""The command line, run as users run it."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest
from backports import zstd
from prometheus_client.parser import text_string_to_metric_families
from pyarrow import parquet

from core.text_identity import text_id
from tests.programs import Program, free_port, run, running
from tests.waiting import wait_for


def annotate(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return run("cli", *arguments, env={"COLUMNS": "200"} | env)


@pytest.fixture
def ingestion(shared_ingestion: Program, shared_database_url: str) -> Program:
    """The shared ingestion API, with an empty database."""
    with psycopg.connect(shared_database_url) as connection:
        connection.execute("truncate texts, imports, labels cascade")
    return shared_ingestion


def test_files_of_every_kind_are_handed_in_and_again(ingestion: Program, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,is_toxic\n"two\nlines",Toxic\nsame,Not Toxic\n')
    (tmp_path / "b.ndjson").write_text('{"text": "same"}\n{"text": "ndjson"}\n')
    parquet.write_table(pa.table({"text": ["parquet", "same"]}), tmp_path / "c.parquet")
    files = [str(tmp_path / name) for name in ("a.csv", "b.ndjson", "c.parquet")]
    for pending in (4, 4):
        result = annotate("ingest", *files, INGESTION_URL=ingestion.url)
        assert result.returncode == 0, result.stderr
        assert httpx.get(f"{ingestion.url}/queue").json()["pending"] == pending


def test_rejected_rows_are_told_and_fail_the_run(ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("text,label\ngood,toxic\nbad,toxc\n")
    result = annotate("ingest", str(file), INGESTION_URL=ingestion.url)
    assert result.returncode == 1
    assert 'label "toxc" is not one of toxic, non_toxic; map it with label_map=toxc:toxic' in result.stderr
    assert httpx.get(f"{ingestion.url}/queue").json()["pending"] == 1


def test_a_file_that_cannot_be_read_is_told_why(ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("comment\nx\n")
    result = annotate("ingest", str(file), INGESTION_URL=ingestion.url)
    assert result.returncode == 1
    assert 'There is no column "text".' in result.stderr


def test_compressed_files_and_their_rejected_rows(ingestion: Program, tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\ngood,toxic\nbad,toxc\n"))
    (tmp_path / "b.ndjson.zst").write_bytes(zstd.compress(b'{"text": "fine"}\nnope\n'))
    files = [str(tmp_path / name) for name in ("a.csv.gz", "b.ndjson.zst")]
    rejects = tmp_path / "rejects.ndjson"
    result = annotate("ingest", *files, "--rejects", str(rejects), INGESTION_URL=ingestion.url)
    assert result.returncode == 1
    rows = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [(row["file"], row["row"], row["fields"]) for row in rows] == [
        ("a.csv.gz", 2, {"text": "bad", "label": "toxc"}),
        ("b.ndjson.zst", 2, None),
    ]
    assert httpx.get(f"{ingestion.url}/queue").json()["pending"] == 2


def test_rows_that_are_rejected_for_one_reason_are_told_once(ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("text,label\n" + "".join(f"{n},1\n" for n in range(20)))
    result = annotate("ingest", str(file), INGESTION_URL=ingestion.url)
    assert result.returncode == 1
    words = 'label "1" is not one of toxic, non_toxic; map it with label_map=1:toxic (unknown_label)'
    assert result.stderr.count("label_map") == 1
    assert f"bad.csv, 20 rows (1, 2, 3, 4, 5, …): {words}" in result.stderr


def test_imports_are_listed_shown_and_cancelled(ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("text,label\ngood,toxic\nbad,toxc\n")
    annotate("ingest", str(file), INGESTION_URL=ingestion.url)
    (job,) = _imports(ingestion)
    listed = annotate("imports", "list", INGESTION_URL=ingestion.url).stdout
    assert job["id"] in listed
    assert "done" in listed
    assert job["id"] not in annotate("imports", "list", "--state", "failed", INGESTION_URL=ingestion.url).stdout
    shown = annotate("imports", "show", job["id"], INGESTION_URL=ingestion.url)
    assert "text/csv" in shown.stdout
    assert 'row 2: label "toxc" is not one of' in shown.stderr
    cancelled = annotate("imports", "cancel", job["id"], INGESTION_URL=ingestion.url)
    assert cancelled.returncode == 0, cancelled.stderr
    assert _imports(ingestion) == []
    again = annotate("imports", "cancel", job["id"], INGESTION_URL=ingestion.url)
    assert (again.returncode, "There is no import" in again.stderr) == (1, True)


def test_after_an_interrupt_it_is_told_what_goes_on(
    ingestion: Program, shared_database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\none\n")
    command = [sys.executable, "-m", "cli", "ingest", str(file)]
    env = os.environ | {"INGESTION_URL": ingestion.url, "COLUMNS": "200"}
    looked = _looks(ingestion)
    with psycopg.connect(shared_database_url) as connection:
        connection.execute("lock table texts")  # the import waits for it
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: any(job["state"] == "running" for job in _imports(ingestion)))
            # The command asks a second time when it has read the first answer.
            wait_for(lambda: _looks(ingestion) >= looked + 2)
            process.send_signal(signal.SIGINT)
            _, messages = process.communicate(timeout=60)
    (job,) = _imports(ingestion)
    assert "The import goes on at the server." in messages
    assert f"annotate imports cancel {job['id']}" in messages
    wait_for(lambda: _imports(ingestion)[0]["state"] == "done")


@pytest.mark.soak
def test_an_interrupted_file_is_resumed(ingestion: Program, tmp_path: Path) -> None:
    file = tmp_path / "big.ndjson"
    # Longer than a piece, so that there is something left to send.
    file.write_bytes(b"".join(b'{"text": "%d %s"}\n' % (n % 100, b"x" * 1000) for n in range(60_000)))
    command = [sys.executable, "-m", "cli", "ingest", str(file)]
    env = os.environ | {"INGESTION_URL": ingestion.url}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(job["upload"]["offset"] for job in _imports(ingestion)))
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
    (job,) = _imports(ingestion)
    assert not job["upload"]["complete"]
    assert f"annotate ingest --resume {job['id']} " in messages
    result = annotate("ingest", "--resume", job["id"], str(file), INGESTION_URL=ingestion.url)
    assert result.returncode == 0, result.stderr
    (after,) = _imports(ingestion)
    assert (after["state"], after["received"], after["accepted"]) == ("done", 60_000, 100)


def _looks(ingestion: Program) -> float:
    """Return how often clients have asked for one import."""
    families = text_string_to_metric_families(httpx.get(f"{ingestion.url}/metrics").text)
    wanted = {"method": "GET", "route": "/imports/{id}"}
    return sum(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "http_request_seconds_count" and wanted.items() <= sample.labels.items()
    )


def _imports(ingestion: Program) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = httpx.get(f"{ingestion.url}/imports").json()["items"]
    return items


@pytest.mark.soak
def test_ingest_goes_on_after_the_api_was_killed(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "big.ndjson"
    file.write_bytes(b"".join(b'{"text": "%d %s"}\n' % (n % 100, b"x" * 1000) for n in range(60_000)))
    port = free_port()
    env = {"DATABASE_URL": database_url, "INGESTION_IMPORT_LEASE_SECONDS": "2"}
    results: list[subprocess.CompletedProcess[str]] = []
    command = threading.Thread(
        target=lambda: results.append(annotate("ingest", str(file), INGESTION_URL=f"http://127.0.0.1:{port}"))
    )
    with running("ingestion_api", env, tmp_path / "log", port=port) as program:
        command.start()
        wait_for(lambda: any(job["upload"]["offset"] for job in _imports(program)))
        program.kill()
    with running("ingestion_api", env, tmp_path / "log", port=port) as program:
        command.join()
        (job,) = _imports(program)
    assert results[0].returncode == 0, results[0].stderr
    assert (job["state"], job["received"], job["accepted"]) == ("done", 60_000, 100)


@pytest.mark.soak
def test_ingest_waits_for_an_api_that_comes_up_later(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("text\nlate\n")
    port = free_port()
    results: list[subprocess.CompletedProcess[str]] = []
    command = threading.Thread(
        target=lambda: results.append(annotate("ingest", str(file), INGESTION_URL=f"http://127.0.0.1:{port}"))
    )
    command.start()
    time.sleep(3)
    with running("ingestion_api", {"DATABASE_URL": database_url}, tmp_path / "log", port=port) as program:
        command.join()
        assert results[0].returncode == 0, results[0].stderr
        assert httpx.get(f"{program.url}/queue").json()["pending"] == 1


def test_status_shows_the_queue_and_what_is_missing(ingestion: Program) -> None:
    result = annotate("status", INGESTION_URL=ingestion.url, SERVING_URL=f"http://127.0.0.1:{free_port()}")
    assert "pending" in result.stdout
    assert "serving API at http://127.0.0.1:" in result.stderr
    assert result.returncode == 1


def test_status_tells_each_outage_once_and_programs_as_json(ingestion: Program) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    gone = f"postgresql://nobody:x@127.0.0.1:{free_port()}/none"
    result = annotate("status", "--json", INGESTION_URL=ingestion.url, SERVING_URL=nowhere, DATABASE_URL=gone)
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["queue"]["pending"] == 0
    [serving, database] = report["problems"]
    assert serving.startswith(f"serving API at {nowhere} does not answer")
    assert database.startswith("database: Postgres does not answer")


def test_status_estimates_the_time_left_at_the_pace_of_the_answers(
    ingestion: Program, shared_database_url: str
) -> None:
    """Each text needs two answers. 30 have one, given half an hour ago; 10 wait, and so does a gold text."""
    with psycopg.connect(shared_database_url) as connection:
        connection.execute(
            "insert into datasets (name, answers_wanted) values ('toxicity', 2)"
            " on conflict (name) do update set answers_wanted = 2"
        )
        connection.execute(
            "with added as ("
            "insert into texts (id, dataset, text, status)"
            " select gen_random_uuid(), 'toxicity', 'answered ' || n, 'uploaded' from generate_series(1, 30) as n"
            " returning id), labelled as ("
            "insert into labels (text_id, dataset, label, status, votes, annotations, labelled_at)"
            " select id, 'toxicity', 'toxic', 'labelled', '{}', 1, now() - interval '30 minutes' from added)"
            " insert into annotations (text_id, response_id, annotator_id, annotator, status, value, created_at,"
            " updated_at, seen_at) select id, gen_random_uuid(), gen_random_uuid(), 'ann', 'submitted', 'toxic',"
            " now() - interval '30 minutes', now(), now() from added"
        )
        connection.execute(
            "insert into texts (id, dataset, text, gold_label)"
            " values (gen_random_uuid(), 'toxicity', 'gold', 'toxic')"
        )
    for n in range(10):
        httpx.post(f"{ingestion.url}/texts", json={"text": f"text {n}"})
    nowhere = f"http://127.0.0.1:{free_port()}"
    env = {"INGESTION_URL": ingestion.url, "SERVING_URL": nowhere, "DATABASE_URL": shared_database_url}
    report = json.loads(annotate("status", "--json", **env).stdout)
    # 30 labels or answers in half an hour are 60 an hour; 30 answers are missing, and twice 10.
    assert report["labels_per_hour"] == pytest.approx(60, rel=0.05)
    assert report["seconds_left"] == pytest.approx(3000, rel=0.05)
    # A minute more for each 18 s that a busy machine takes until then.
    assert "0 h 5" in annotate("status", **env).stdout


class _TwoDatasets(BaseHTTPRequestHandler):
    """A serving API with two datasets, one of which the key may not read."""

    def do_GET(self) -> None:
        names = ("mood", "hate", "secret")
        answers: dict[str, Any] = {
            f"/stats?dataset={name}": {"by_label": {f"{name}s": 3}, "by_status": {}, "replica_age_seconds": 0.5}
            for name in names
        }
        answers |= {"/readyz": {"missing": {}}, "/": {"datasets": dict.fromkeys(names)}}
        self.send_response(403 if "secret" in self.path else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answers[self.path]).encode())


def test_status_shows_the_labels_of_each_dataset(ingestion: Program) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _TwoDatasets) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"INGESTION_URL": ingestion.url, "SERVING_URL": f"http://127.0.0.1:{server.server_address[1]}"}
        report = json.loads(annotate("status", "--json", **env).stdout)
        shown = annotate("status", **env)
        server.shutdown()
    assert {name: one["by_label"] for name, one in report["datasets"].items()} == {
        "mood": {"moods": 3},
        "hate": {"hates": 3},
    }
    assert report["labels"] == report["datasets"]["mood"]
    assert "mood: label moods" in shown.stdout
    assert "hate: label hates" in shown.stdout
    assert "secret" not in shown.stdout + shown.stderr


def test_keys_open_the_api_until_they_are_withdrawn(database_url: str, tmp_path: Path) -> None:
    key = annotate("keys", "create", "ci", "--scope", "ingest", DATABASE_URL=database_url).stdout.strip()
    reader = annotate("keys", "create", "reader", "--scope", "read", DATABASE_URL=database_url).stdout.strip()
    listing = annotate("keys", "list", DATABASE_URL=database_url).stdout
    assert "ci" in listing
    assert key not in listing
    with psycopg.connect(database_url) as connection:
        assert key not in str(connection.execute("select * from api_keys").fetchall())
        (id_,) = connection.execute("select id from api_keys where name = 'ci'").fetchone() or (None,)
    env = {"DATABASE_URL": database_url, "REQUIRE_API_KEY": "true"}
    with running("ingestion_api", env, tmp_path / "log") as program, httpx.Client(base_url=program.url) as client:
        wait_for(lambda: client.get("/queue", headers={"Authorization": f"Bearer {key}"}).status_code == 200)
        assert client.get("/queue").status_code == 401
        assert client.get("/queue", headers={"Authorization": f"Bearer {reader}"}).status_code == 403
        assert client.get("/healthz").status_code == 200
        assert annotate("keys", "withdraw", str(id_), DATABASE_URL=database_url).returncode == 0
        wait_for(lambda: client.get("/queue", headers={"Authorization": f"Bearer {key}"}).status_code == 401)


_SCHEMA = """
    select indexdef from pg_indexes where schemaname = 'public'
    union all select pg_get_constraintdef(oid) from pg_constraint order by 1
"""
# Everything except the times.
_WRITTEN = """
    select t.id, text, score, external_id, t.metadata, label, l.votes, l.changed_xid::text, a.annotator, a.value
    from texts t join labels l on l.text_id = t.id join annotations a using (text_id) order by t.id, a.annotator
"""


def test_demo_data_is_labelled_and_repeatable(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        schema, written = connection.execute(_SCHEMA).fetchall(), []
    for _ in range(2):
        # The first run fills empty tables without their indexes, the second one finds everything there.
        result = annotate("demo-data", "--texts", "2000", "--annotators", "4", DATABASE_URL=database_url)
        assert result.returncode == 0, result.stderr
        assert "Argilla stays empty" in result.stdout
        with psycopg.connect(database_url) as connection:
            assert connection.execute(_SCHEMA).fetchall() == schema
            written.append(connection.execute(_WRITTEN).fetchall())
    assert written[0] == written[1]
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select distinct status from texts").fetchall() == [("demo",)]
        texts = connection.execute("select id, text from texts").fetchall()
        votes = connection.execute(
            "select l.label, l.status, l.votes, l.annotations, array_agg(a.value)"
            " from labels l join annotations a using (text_id) group by l.text_id"
        ).fetchall()
    assert len(texts) == len(votes) == 2000
    assert all(text_id("toxicity", text) == id_ for id_, text in texts)
    for label, status, counts, annotations, values in votes:
        assert counts == {value: values.count(value) for value in set(values)}
        assert annotations == 4
        assert (status == "disputed") == (label is None) == (values.count("toxic") == 2)
        if label:
            assert counts[label] > 2


def test_demo_data_refuses_a_database_that_holds_other_texts(ingestion: Program, shared_database_url: str) -> None:
    httpx.post(f"{ingestion.url}/texts", json={"text": "real"})
    result = annotate("demo-data", "--texts", "10", DATABASE_URL=shared_database_url)
    assert result.returncode == 1
    assert "holds other texts" in result.stderr


def test_a_key_may_be_limited_to_datasets(database_url: str) -> None:
    arguments = ("--scope", "ingest", "--dataset", "toxicity", "--dataset", "mood", "--dataset", "mood")
    assert annotate("keys", "create", "narrow", *arguments, DATABASE_URL=database_url).returncode == 0
    assert annotate("keys", "create", "wide", "--scope", "read", DATABASE_URL=database_url).returncode == 0
    with psycopg.connect(database_url) as connection:
        held = connection.execute("select name, datasets from api_keys order by name").fetchall()
    assert held == [("narrow", ["mood", "toxicity"]), ("wide", None)]
    lines = annotate("keys", "list", DATABASE_URL=database_url).stdout.splitlines()
    assert any("narrow" in line and "mood toxicity" in line for line in lines)
    assert any("wide" in line and " all " in line for line in lines)
