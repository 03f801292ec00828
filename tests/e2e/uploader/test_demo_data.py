"""`annotate demo-data` while an uploader runs with a real Argilla."""

import json
from typing import Any

import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import ArgillaSpace, StartUploader
from tests.integration.cli.test_commands import annotate
from tests.programs import Program
from tests.waiting import wait_for

_QUICK = {"COUNT_INTERVAL_SECONDS": "0.2", "FULL_SWEEP_SECONDS": "1"}


def _env(argilla: ArgillaSpace, stack: RunningStack, database_url: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "ARGILLA_URL": stack.argilla_url,
        "ARGILLA_API_KEY": stack.argilla_api_key,
        "ARGILLA_WORKSPACE": argilla.workspace,
    }


def _verify(env: dict[str, str]) -> Any:
    return json.loads(annotate("uploads", "verify", "--json", **env).stdout)["datasets"][0]


def _metric(uploader: Program, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(httpx.get(f"{uploader.url}/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def test_demo_texts_stay_out_of_argilla_unless_they_are_asked_for(
    argilla: ArgillaSpace, stack: RunningStack, start_uploader: StartUploader, database_url: str
) -> None:
    env = _env(argilla, stack, database_url)
    filled = annotate("demo-data", "--texts", "300", "--annotators", "2", **env)
    assert "Argilla stays empty" in filled.stdout, filled.stderr
    with start_uploader(**_QUICK) as uploader, psycopg.connect(database_url, autocommit=True) as connection:
        # Two full sweeps and several comparisons of counts go by.
        wait_for(lambda: _metric(uploader, "uploader_sweep_seconds_count", dataset="toxicity") >= 2)
        wait_for(lambda: _metric(uploader, "uploader_count_seconds_count", dataset="toxicity") >= 2)
        assert _metric(uploader, "uploader_sweeps_total", dataset="toxicity", reason="counts") == 0
        assert _metric(uploader, "uploader_count_difference", dataset="toxicity") == 0
        assert connection.execute("select distinct status, last_error from texts").fetchall() == [("demo", None)]
        assert argilla.stored_count() == 0
        report = _verify(env)
        assert (report["in_step"], report["uploaded"], report["missing"]) == (True, 0, [])

        asked = annotate("demo-data", "--texts", "300", "--annotators", "2", "--argilla", **env)
        assert asked.returncode == 0, asked.stderr
        wait_for(lambda: argilla.visible_count() == 300, seconds=60)
        wait_for(lambda: _verify(env)["in_step"], seconds=60)
        progress = argilla.http.get(f"datasets/{argilla.dataset()['id']}/users/progress").json()["users"]
        assert {user["username"] for user in progress} == {"annotator_1", "annotator_2"}
        assert connection.execute("select count(*), min(annotations) from labels").fetchone() == (300, 2)
