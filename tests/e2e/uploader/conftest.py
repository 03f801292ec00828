"""A real Argilla for the uploader's tests, with annotators who answer through its API."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from core.text_identity import text_id
from local_stack.testing import RunningStack
from tests.programs import Program, running

DATASET = "toxicity"

StartUploader = Callable[..., AbstractContextManager[Program]]
AddTexts = Callable[..., list[UUID]]


@dataclass(frozen=True)
class Annotator:
    """A user of Argilla with a key of their own."""

    id: UUID
    name: str
    http: httpx.Client

    def answer(self, record_id: str, value: str) -> str:
        """Submit an answer; return the response's id."""
        values = {"label": {"value": value}}
        return self._respond("POST", f"records/{record_id}/responses", {"status": "submitted", "values": values})

    def save_draft(self, record_id: str, value: str) -> str:
        """Save an answer without submitting it."""
        values = {"label": {"value": value}}
        return self._respond("POST", f"records/{record_id}/responses", {"status": "draft", "values": values})

    def discard(self, record_id: str) -> str:
        """Pass."""
        return self._respond("POST", f"records/{record_id}/responses", {"status": "discarded", "values": {}})

    def edit(self, response_id: str, value: str) -> None:
        """Change an answer."""
        values = {"label": {"value": value}}
        self._respond("PUT", f"responses/{response_id}", {"status": "submitted", "values": values})

    def delete(self, response_id: str) -> None:
        """Take an answer back."""
        self.http.delete(f"responses/{response_id}").raise_for_status()

    def _respond(self, method: str, path: str, body: dict[str, Any]) -> str:
        return str(self.http.request(method, path, json=body).raise_for_status().json()["id"])


@dataclass(frozen=True)
class ArgillaSpace:
    """A workspace of the test's own, seen by Argilla's owner."""

    http: httpx.Client
    workspace: str
    url: str
    database_url: str

    def dataset(self) -> dict[str, Any]:
        """Return the dataset that the uploader made."""
        found: list[dict[str, Any]] = self.http.get("me/datasets", params={"name": DATASET}).json()["items"]
        return next(dataset for dataset in found if dataset["workspace_id"] == self._workspace_id())

    def _workspace_id(self) -> str:
        return next(
            str(w["id"]) for w in self.http.get("me/workspaces").json()["items"] if w["name"] == self.workspace
        )

    def visible_count(self) -> int:
        """Return how many records annotators can find."""
        return int(self.http.get(f"datasets/{self.dataset()['id']}/progress").json()["total"])

    def stored_count(self) -> int:
        """Return how many records Argilla's database holds."""
        records = self.http.get(f"datasets/{self.dataset()['id']}/records", params={"limit": 1})
        return int(records.json()["total"])

    def record(self, id_: UUID) -> dict[str, Any]:
        """Return the visible record of a text."""
        scope = {"entity": "record", "property": "external_id"}
        terms = {"type": "terms", "scope": scope, "values": [str(id_)]}
        body = {"filters": {"and": [terms]}}
        path = f"datasets/{self.dataset()['id']}/records/search"
        answer = self.http.post(path, json=body, params={"include": "responses,suggestions"})
        [item] = answer.raise_for_status().json()["items"]
        record: dict[str, Any] = item["record"]
        return record

    def add_annotator(self, name: str) -> Annotator:
        """Make a user who may answer in the workspace."""
        name = f"{name}_{uuid.uuid4().hex[:8]}"
        body = {"first_name": name, "username": name, "role": "annotator", "password": uuid.uuid4().hex}
        user = self.http.post("users", json=body).raise_for_status().json()
        path = f"workspaces/{self._workspace_id()}/users"
        self.http.post(path, json={"user_id": user["id"]}).raise_for_status()
        return Annotator(UUID(user["id"]), name, open_argilla(self.url, user["api_key"]))


def open_argilla(url: str, key: str) -> httpx.Client:
    """Return a client of Argilla for the user with this key."""
    # Argilla drops a connection after a 500.
    limits = httpx.Limits(max_keepalive_connections=0)
    headers = {"X-Argilla-Api-Key": key}
    return httpx.Client(base_url=f"{url}/api/v1/", headers=headers, timeout=60, limits=limits)


@pytest.fixture
def argilla(stack: RunningStack, database_url: str) -> Iterator[ArgillaSpace]:
    """Argilla with a workspace that only this test uses."""
    with open_argilla(stack.argilla_url, stack.argilla_api_key) as http:
        yield ArgillaSpace(http, f"test_{uuid.uuid4().hex[:12]}", stack.argilla_url, database_url)


@pytest.fixture
def start_uploader(
    stack: RunningStack, argilla: ArgillaSpace, database_url: str, tmp_path: Path
) -> Iterator[StartUploader]:
    """Run an uploader of the test's own; shows its log when the test fails."""
    log = tmp_path / "uploader.log"

    def start(probe: str = "/readyz", **changes: str) -> AbstractContextManager[Program]:
        env = {
            "DATABASE_URL": database_url,
            "ARGILLA_URL": stack.argilla_url,
            "ARGILLA_API_KEY": stack.argilla_api_key,
            "ARGILLA_WORKSPACE": argilla.workspace,
        }
        return running("uploader", env | changes, log, probe)

    yield start
    print(log.read_text() if log.exists() else "")  # noqa: T201 - pytest shows it when the test fails


@pytest.fixture
def add_texts(database_url: str) -> AddTexts:
    """Insert texts as the ingestion API does; return their ids."""

    def add(*texts: str, **columns: Any) -> list[UUID]:
        names = ["id", "dataset", "text", *columns]
        statement = f"insert into texts ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"  # noqa: S608
        ids = [text_id(DATASET, text) for text in texts]
        with psycopg.connect(database_url) as connection:
            rows = [(id_, DATASET, text, *columns.values()) for id_, text in zip(ids, texts, strict=True)]
            connection.cursor().executemany(statement, rows)
        return ids

    return add
