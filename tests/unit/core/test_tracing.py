"""Which texts and requests are traced, and under which ids."""

import math
from collections.abc import Iterator
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from core.settings import TracingSettings
from core.text_identity import text_id
from core.tracing import Tracing, read_traceparent, root_of, tracing, write_traceparent
from core.web.app import install_web
from tests.otlp import Collector, collecting
from tests.waiting import wait_for

_IDS = [text_id("toxicity", str(number)) for number in range(2000)]
texts = st.text(min_size=1)


def make_tracing(endpoint: str | None, share: float = 1) -> Tracing:
    made = Tracing()
    made.configure(TracingSettings(exporter_otlp_endpoint=endpoint, traces_sampler_arg=share), "test")
    return made


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 1])
def test_a_share_of_the_texts_is_traced_and_every_process_agrees(share: float, collector: Collector) -> None:
    one, other = make_tracing(collector.url, share), make_tracing(collector.url, share)
    traced = [id_ for id_ in _IDS if one.traces(id_)]
    assert traced == [id_ for id_ in _IDS if other.traces(id_)]
    # Five standard deviations.
    assert abs(len(traced) - share * len(_IDS)) <= 5 * math.sqrt(len(_IDS) * share * (1 - share))
    one.stop()
    other.stop()


def test_why_the_librarys_own_sampler_does_not_do() -> None:
    sampled = {
        share: sum(
            TraceIdRatioBased(share).should_sample(None, id_.int, "x").decision == Decision.RECORD_AND_SAMPLE
            for id_ in _IDS
        )
        for share in (0.5, 0.75)
    }
    assert sampled == {0.5: 0, 0.75: len(_IDS)}


def test_off_is_off() -> None:
    for settings in (TracingSettings(), TracingSettings(exporter_otlp_endpoint="")):  # as compose files leave it
        made = Tracing()
        made.configure(settings, "test")
        assert not any(made.traces(id_) for id_ in _IDS)
        assert not made.add_batch("a batch", _IDS, 1_000, (), {}).is_valid
        made.add_life(_IDS[0], 1_000, {})
        scope = {"method": "GET", "headers": []}
        made.end_request(made.begin_request(scope, "request-1"), 1_000, scope, "/", 200)
        assert scope.keys() == {"method", "headers"}
        made.flush()
        made.stop()


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="exporter_otlp_endpoint"):
        TracingSettings(exporter_otlp_endpoint="collector:4317")


@pytest.mark.parametrize(
    ("share", "flag", "traced"), [(0, None, False), (1, None, True), (0, "01", True), (1, "00", False)]
)
def test_the_client_decides_on_a_request_or_else_chance(
    collector: Collector, share: float, flag: str | None, traced: bool
) -> None:
    made = make_tracing(collector.url, share)
    headers = [(b"traceparent", f"00-{1:032x}-{2:016x}-{flag}".encode())] if flag else []
    scope = {"method": "GET", "headers": headers}
    assert made.begin_request(scope, "request-1").is_recording() == traced
    assert ("traceparent" in scope) == (traced or flag is not None)
    made.stop()


@given(texts)
def test_the_first_span_follows_from_the_id_and_is_valid(words: str) -> None:
    id_ = text_id("toxicity", words)
    root = root_of(id_)
    assert root.is_valid
    assert UUID(int=root.trace_id) == id_
    assert read_traceparent(write_traceparent(root)) is not None


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_traceparent_breaks_anything(header: str) -> None:
    assert read_traceparent(header) is None or header.strip().startswith(("0", "1"))


def test_a_batch_has_its_parts_and_a_text_its_life(collector: Collector) -> None:
    made = make_tracing(collector.url)
    id_ = _IDS[0]
    made.add_life(id_, 1_000, {"dataset": "toxicity"})
    made.add_step("a step", id_, 2_000, 3_000, attributes={"outcome": "uploaded"})
    made.add_batch("a batch", [id_], 1_000, (), {"texts": 1}, error="given back")
    made.stop()
    made.stop()
    life, step = collector.of(id_)
    assert (life.name, life.parent_id, life.started_ns, life.program) == ("text", 0, 1_000, "test")
    assert (step.parent_id, step.started_ns, step.ended_ns) == (life.span_id, 2_000, 3_000)
    [batch] = collector.named("a batch")
    assert batch.is_error
    assert batch.links == [(id_, life.span_id)]


@pytest.fixture
def client(collector: Collector) -> Iterator[TestClient]:
    app = FastAPI()
    install_web(app, {})

    @app.get("/number/{n}")
    async def number(n: int) -> float:
        return 1 / n

    tracing.configure(TracingSettings(exporter_otlp_endpoint=collector.url), "test")
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    tracing.stop()


def test_a_request_that_crashes_is_an_error_and_no_path_is_told(client: TestClient, collector: Collector) -> None:
    for n in (1, 0):
        client.get(f"/number/{n}?q=secret", headers={"traceparent": "rubbish", "X-Request-ID": f"request-{n}"})
    wait_for(lambda: len(collector.named("GET /number/{n}")) == 2)
    right, wrong = sorted(collector.named("GET /number/{n}"), key=lambda span: span.started_ns)
    assert (right.is_error, wrong.is_error) == (False, True)
    assert right.attributes == {
        "http.request.method": "GET",
        "http.route": "/number/{n}",
        "http.response.status_code": 200,
        "request.id": "request-1",
    }
    assert right.parent_id == wrong.parent_id == 0
    assert not any(b"secret" in body for body in collector.bodies)
