"""Reads what `annotate uploads verify` compares from Argilla; changes nothing there."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import httpx

from cli.addresses import open_argilla
from core.settings import ArgillaSettings

# The most records that one search of Argilla returns.
PAGE = 250

_SECONDS = 60
_STORED = "found records with same external ids: "

# One answer: the annotator's name, the status, the label.
Answer = tuple[str, str, str | None]


class ArgillaReader:
    """Reads one Argilla. Every method may raise httpx.HTTPError."""

    def __init__(self, settings: ArgillaSettings) -> None:
        self.http = open_argilla(settings, _SECONDS)
        self._usernames: dict[str, str] = {}

    def read_usernames(self) -> None:
        """Learn the names of all users."""
        self._usernames = {user["id"]: user["username"] for user in self._get("users")["items"]}

    def has_dataset(self, dataset_id: UUID) -> bool:
        """Whether the dataset is there."""
        answer = self.http.get(f"datasets/{dataset_id}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        answer.raise_for_status()
        return True

    def count_stored(self, dataset_id: UUID) -> int:
        """Count the records in Argilla's database."""
        return int(self._get(f"datasets/{dataset_id}/records", limit=1)["total"])

    def count_searchable(self, dataset_id: UUID) -> int | None:
        """Count the records in Argilla's search index; None when it breaks down over that."""
        answer = self.http.get(f"datasets/{dataset_id}/progress")
        return int(answer.raise_for_status().json()["total"]) if answer.status_code < 500 else None

    def find_answers(self, dataset_id: UUID, ids: Sequence[UUID]) -> dict[UUID, list[Answer]]:
        """Return the answers to those of up to 250 records that the search shows; none when it breaks down."""
        scope = {"entity": "record", "property": "external_id"}
        terms = {"type": "terms", "scope": scope, "values": [str(id_) for id_ in ids]}
        answer = self.http.post(
            f"datasets/{dataset_id}/records/search",
            json={"filters": {"and": [terms]}},
            params={"limit": PAGE, "include": "responses"},
        )
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            return {}
        records = [item["record"] for item in answer.raise_for_status().json()["items"] if item]
        return {UUID(r["external_id"]): [self._answer(raw) for raw in r["responses"] or []] for r in records}

    def find_stored(self, dataset_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
        """Return which of up to 250 records the database has.

        A POST names them before it looks at anything else; the items are such that it never stores them.
        """
        items = [{"external_id": str(id_), "fields": {}} for id_ in ids]
        answer = self.http.post(f"datasets/{dataset_id}/records/bulk", json={"items": items})
        if answer.status_code != httpx.codes.UNPROCESSABLE_ENTITY:
            answer.raise_for_status()
        words = answer.json()["detail"]
        if not isinstance(words, str) or not words.startswith(_STORED):
            return set()
        return {UUID(id_) for id_ in words.removeprefix(_STORED).split(", ")}

    def list_external_ids(self, dataset_id: UUID, offset: int) -> list[str]:
        """Return the external ids of up to 250 records in the database, in the order in which they were made."""
        records = self._get(f"datasets/{dataset_id}/records", offset=offset, limit=PAGE)["items"]
        return [str(record["external_id"]) for record in records]

    def _answer(self, raw: dict[str, Any]) -> Answer:
        label = (raw["values"] or {}).get("label", {}).get("value")
        return self._usernames.get(raw["user_id"], raw["user_id"]), raw["status"], label

    def _get(self, path: str, **query: int) -> Any:
        return self.http.get(path, params=query).raise_for_status().json()
