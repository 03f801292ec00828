"""One text's trace on the real parts: three programs, Postgres and Argilla."""

from pathlib import Path

import httpx
import pytest

from core.text_identity import text_id
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import DATASET, ArgillaSpace, StartUploader
from tests.otlp import collecting
from tests.programs import running
from tests.waiting import wait_for

pytestmark = pytest.mark.soak

_STEPS = {"receive", "text", "upload", "confirm", "pull", "apply", "serve"}


def test_one_trace_from_the_post_to_the_get(
    stack: RunningStack, argilla: ArgillaSpace, start_uploader: StartUploader, database_url: str, tmp_path: Path
) -> None:
    words = "followed all the way"
    id_ = text_id(DATASET, words)
    with collecting() as collector:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "DATABASE_URL": database_url}
        with (
            running("ingestion_api", traced, tmp_path / "ingestion.log") as ingestion,
            running("serving_api", traced | {"DATA_DIR": str(tmp_path)}, tmp_path / "log", "/readyz") as serving,
            start_uploader(**traced, SWEEP_INTERVAL_SECONDS="0.2"),
        ):
            httpx.post(f"{ingestion.url}/texts", json={"text": words}).raise_for_status()
            wait_for(lambda: httpx.get(f"{ingestion.url}/texts/{id_}").json()["status"] == "uploaded")
            argilla.add_annotator("ann").answer(argilla.record(id_)["id"], "toxic")
            wait_for(lambda: httpx.get(f"{serving.url}/texts/{id_}").status_code == 200)
        spans = collector.of(id_)
    assert {span.name for span in spans} == _STEPS
    assert {span.program for span in spans} == {"ingestion_api", "uploader", "serving_api"}
    assert len({span.pid for span in spans}) == 3
