"""The time from an answer in Argilla to its label at GET :9000, with webhooks and with sweeps alone."""

import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from load_testing.bench.harness import FigureColumn, FigureTable, Sample, running
from load_testing.targets import holds_within
from local_stack.components.argilla import WORKSPACE
from local_stack.testing import RunningStack

_ANSWERS = 200
_ANSWERS_PER_SECOND = 10
_POLL_SECONDS = 0.02
_LAST_SECONDS = 120


@dataclass
class _Reader:
    """Polls GET /texts, and records when each text appears."""

    url: str
    seen_at: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with httpx.Client(base_url=self.url) as client:
            while not self.stop.wait(_POLL_SECONDS):
                items = client.get("/texts", params={"limit": 1000}).raise_for_status().json()["items"]
                now = time.monotonic()
                for item in items:
                    self.seen_at.setdefault(item["id"], now)


def measure_lag(stack: RunningStack, _rows: int) -> FigureTable:
    """Answer texts each way, about ten a second; each way has one annotator, and each answer another text."""
    title = f"From answer to reader: {_ANSWERS} answers, {_ANSWERS_PER_SECOND}/s"
    table = FigureTable(
        title, ("way",), [FigureColumn(f"{name} s", name, ".2f") for name in ("p50", "p95", "p99", "longest")]
    )
    table.add(("webhooks",), [_sample(_measure_way(stack))])
    stack.stop_component("uploader")
    env = os.environ | stack.env | {"WEBHOOK_URL": "", "LOG_LEVEL": "WARNING"}
    with running([sys.executable, "-m", "uploader"], lambda: True, env=env):
        table.add(("sweeps alone",), [_sample(_measure_way(stack))])
    stack.start_component("uploader")
    return table


def _sample(seconds: list[float]) -> Sample:
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "longest": max(seconds)}


def _measure_way(stack: RunningStack) -> list[float]:
    reader = _Reader(stack.serving_url)
    ids = _upload(stack)
    with _argilla(stack.argilla_url, stack.argilla_api_key) as owner:
        records = _find_records(owner, ids)
        annotator = _add_annotator(owner, stack.argilla_url)
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        answered_at = _answer(annotator, records)
        holds_within(_LAST_SECONDS, lambda: answered_at.keys() <= reader.seen_at.keys())
    finally:
        reader.stop.set()
        thread.join()
    return [reader.seen_at[id_] - answered for id_, answered in answered_at.items()]


def _upload(stack: RunningStack) -> list[str]:
    run = uuid.uuid4().hex
    with httpx.Client(base_url=stack.ingestion_url, timeout=60) as client:
        lines = "\n".join(f'{{"text": "{run} {n}"}}' for n in range(_ANSWERS))
        headers = {"Content-Type": "application/x-ndjson"}
        client.post("/texts/bulk", content=lines, headers=headers).raise_for_status()
        ids = [client.post("/texts", json={"text": f"{run} {n}"}).json()["id"] for n in range(_ANSWERS)]
        until = time.monotonic() + _LAST_SECONDS
        while any(client.get(f"/texts/{id_}").json()["status"] != "uploaded" for id_ in ids):
            if time.monotonic() > until:
                raise RuntimeError("the texts were not uploaded")
            time.sleep(0.5)
    return ids


def _argilla(url: str, key: str) -> httpx.Client:
    return httpx.Client(base_url=f"{url}/api/v1/", headers={"X-Argilla-Api-Key": key}, timeout=60)


def _find_records(owner: httpx.Client, ids: Sequence[str]) -> dict[str, str]:
    """Return Argilla's ids of the records by ours."""
    workspaces = {item["name"]: item["id"] for item in owner.get("me/workspaces").json()["items"]}
    datasets = owner.get("me/datasets", params={"workspace_id": workspaces[WORKSPACE]}).json()["items"]
    terms = {"type": "terms", "scope": {"entity": "record", "property": "external_id"}, "values": list(ids)}
    path = f"datasets/{datasets[0]['id']}/records/search"
    found = owner.post(path, json={"filters": {"and": [terms]}}, params={"limit": 250}).raise_for_status()
    return {item["record"]["external_id"]: item["record"]["id"] for item in found.json()["items"]}


def _add_annotator(owner: httpx.Client, url: str) -> httpx.Client:
    name = f"bench_{uuid.uuid4().hex[:8]}"
    body = {"first_name": name, "username": name, "role": "annotator", "password": uuid.uuid4().hex}
    user = owner.post("users", json=body).raise_for_status().json()
    workspaces = {item["name"]: item["id"] for item in owner.get("me/workspaces").json()["items"]}
    path = f"workspaces/{workspaces[WORKSPACE]}/users"
    owner.post(path, json={"user_id": user["id"]}).raise_for_status()
    return _argilla(url, user["api_key"])


def _answer(annotator: httpx.Client, records: dict[str, str]) -> dict[str, float]:
    """Answer one record after the other; return the time of each acceptance."""
    answered_at = {}
    body = {"status": "submitted", "values": {"label": {"value": "toxic"}}}
    started = time.monotonic()
    with annotator:
        for number, (id_, record_id) in enumerate(records.items()):
            time.sleep(max(0.0, started + number / _ANSWERS_PER_SECOND - time.monotonic()))
            annotator.post(f"records/{record_id}/responses", json=body).raise_for_status()
            answered_at[id_] = time.monotonic()
    return answered_at
