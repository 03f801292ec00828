"""One text's trace through all programs, on a real Postgres and a model of Argilla, as a collector gets it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from pydantic import SecretStr

from core.connections import make_async_engine
from core.settings import DatabaseSettings, TracingSettings
from core.text_identity import text_id
from core.tracing import tracing
from tests.conftest import fresh_database
from tests.integration.uploader.leading import DATASET, upload_pending
from tests.integration.uploader.model_argilla import ModelArgilla
from tests.integration.uploader.pulling import pulling
from tests.otlp import Collector, SentSpan, collecting
from tests.programs import free_port, running
from tests.waiting import wait_for

SECRET_WORDS = "a text that must not be in any span"
_ANN = UUID(int=21)
_CLIENT_TRACE = UUID(int=0xC11E27)
_CLIENT_SPAN = 0xC11E
_TRACEPARENT = {"traceparent": f"00-{_CLIENT_TRACE.int:032x}-{_CLIENT_SPAN:016x}-01"}
_NOT_SAMPLED = {"traceparent": f"00-{uuid4().int:032x}-{_CLIENT_SPAN:016x}-00"}


@contextmanager
def tracing_as_uploader(collector: Collector) -> Iterator[None]:
    tracing.configure(TracingSettings(exporter_otlp_endpoint=collector.url), "uploader")
    try:
        yield
    finally:
        tracing.stop()


async def upload_and_label(database: DatabaseSettings, model: ModelArgilla, ids: list[UUID]) -> None:
    """Do what the uploader does until the texts have a label."""
    engine = make_async_engine(database, "test")
    async with pulling(engine, model) as side:
        await upload_pending(side.state)
        for id_ in ids:
            await side.deliver(model.respond(id_, _ANN, "submitted", "toxic"))
        await side.pull()
    await engine.dispose()


@pytest.fixture(scope="module")
def lived(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Collector]:
    """All that was sent while one text came alone, one with a bulk upload, and both were labelled and served."""
    folder = tmp_path_factory.mktemp("traces")
    with fresh_database(admin_database_url, template_database) as url, collecting() as collector:
        env = {"DATABASE_URL": url, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "LOG_FORMAT": "json"}
        ids = [text_id(DATASET, words) for words in (SECRET_WORDS, "in bulk")]
        with running("ingestion_api", env, folder / "ingestion.log") as ingestion:
            hand_in(ingestion.url)
        with tracing_as_uploader(collector):
            database = DatabaseSettings(url=SecretStr(url))
            asyncio.run(upload_and_label(database, ModelArgilla(users={_ANN: "ann"}), ids))
        env |= {"DATA_DIR": str(folder), "REPLICA_POLL_SECONDS": "0.05"}
        with running("serving_api", env, folder / "serving.log", "/readyz") as serving:
            serve_and_relabel(serving.url, url, ids)
        yield collector


def hand_in(url: str) -> None:
    with httpx.Client(base_url=url, headers=_TRACEPARENT, timeout=60) as client:
        for body in ({"text": SECRET_WORDS}, {"text": SECRET_WORDS}, {"text": ""}):
            client.post("/texts", json=body)
        client.post("/texts/bulk", json=[{"text": "in bulk"}]).raise_for_status()
        client.get("/healthz", headers=_NOT_SAMPLED).raise_for_status()


def serve_and_relabel(serving_url: str, database_url: str, ids: list[UUID]) -> None:
    """Read the first text twice, and let it be labelled again, so that it is applied to an existing replica."""
    for _ in range(2):
        httpx.get(f"{serving_url}/texts/{ids[0]}", headers=_TRACEPARENT).raise_for_status()
    with psycopg.connect(database_url) as connection:
        connection.execute("update labels set changed_xid = pg_current_xact_id() where text_id = %s", [ids[0]])
    version = httpx.get(f"{serving_url}/texts").headers["X-Replica-Version"]
    wait_for(lambda: httpx.get(f"{serving_url}/texts").headers["X-Replica-Version"] != version)


def steps(spans: list[SentSpan], name: str) -> list[SentSpan]:
    return [span for span in spans if span.name == name]


def test_a_text_is_followed_by_its_id_through_all_programs(lived: Collector) -> None:
    id_ = text_id(DATASET, SECRET_WORDS)
    spans = lived.of(id_)
    assert {(span.program, span.name) for span in spans} == {
        ("ingestion_api", "receive"),
        ("uploader", "text"),
        ("uploader", "upload"),
        ("uploader", "confirm"),
        ("uploader", "pull"),
        ("serving_api", "apply"),
        ("serving_api", "serve"),
    }
    [root] = steps(spans, "text")
    assert (root.span_id, root.parent_id) == (id_.int % 2**64, 0)
    assert {span.parent_id for span in spans if span != root} == {root.span_id}
    assert [span.attributes["duplicate"] for span in steps(spans, "receive")] == [False, True]
    assert len(steps(spans, "serve")) == 2
    order = [steps(spans, name)[0] for name in ("receive", "upload", "confirm", "pull", "serve", "apply")]
    assert order == sorted(order, key=lambda span: span.started_ns)
    assert all(span.started_ns <= span.ended_ns for span in spans)


def test_a_step_leads_to_its_request_and_back(lived: Collector) -> None:
    id_ = text_id(DATASET, SECRET_WORDS)
    requests = {span.span_id: span for span in lived.of(_CLIENT_TRACE)}
    for name in ("receive", "serve"):
        for step in steps(lived.of(id_), name):
            [(trace, span_id)] = step.links
            assert trace == _CLIENT_TRACE
            request = requests[span_id]
            assert request.parent_id == _CLIENT_SPAN
            assert request.links == [(id_, id_.int % 2**64)]
    names = {span.name for span in requests.values()}
    assert {"POST /texts", "GET /texts/{id}", "POST /texts/bulk", "store rows"} == names


def test_a_refused_request_is_no_step(lived: Collector) -> None:
    statuses = [s.attributes["http.response.status_code"] for s in lived.named("POST /texts")]
    assert sorted(statuses) == [200, 201, 422]


def test_what_a_client_does_not_trace_is_not_traced(lived: Collector) -> None:
    assert not any(span.trace_id == UUID(_NOT_SAMPLED["traceparent"].split("-")[1]) for span in lived.spans)


def test_texts_of_a_bulk_upload_are_followed_from_the_process_that_stores_them(lived: Collector) -> None:
    id_ = text_id(DATASET, "in bulk")
    [received] = steps(lived.of(id_), "receive")
    [stored] = lived.named("store rows")
    assert received.links == [(stored.trace_id, stored.span_id)]
    assert received.pid != lived.named("POST /texts")[0].pid
    [request] = lived.named("POST /texts/bulk")
    assert (stored.trace_id, stored.parent_id) == (_CLIENT_TRACE, request.span_id)


def test_a_batch_leads_to_its_texts(lived: Collector) -> None:
    [batch] = lived.named("upload batch")
    ids = {text_id(DATASET, words) for words in (SECRET_WORDS, "in bulk")}
    assert {trace for trace, _ in batch.links} == ids
    parts = [span for span in lived.spans if span.parent_id == batch.span_id]
    assert {span.name for span in parts} == {"put", "confirm"}
    for id_ in ids:
        assert steps(lived.of(id_), "upload")[0].links == [(batch.trace_id, batch.span_id)]


def test_no_span_holds_a_text(lived: Collector) -> None:
    assert lived.bodies
    assert not any(SECRET_WORDS.encode() in body for body in lived.bodies)


def test_a_collector_that_is_away_harms_nothing(database_url: str, tmp_path: Path) -> None:
    log = tmp_path / "ingestion.log"
    env = {"DATABASE_URL": database_url, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with running("ingestion_api", env, log) as program:
        assert httpx.post(f"{program.url}/texts", json={"text": "x"}).status_code == 201
    # `running` fails when the program doesn't end in time.
    assert program.process.wait() == 0
    assert "Traceback" not in log.read_text()
