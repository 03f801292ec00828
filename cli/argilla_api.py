"""Argilla's API, as far as the commands use it: accounts of annotators, and reads of records and answers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import UUID

import httpx

from cli.console import fail, printable
from core.datasets import page_url
from core.settings import ArgillaSettings

# The most records that one search of Argilla returns.
PAGE = 250
_TIMEOUT_SECONDS = 60
_STORED = "found records with same external ids: "
_REFUSALS: dict[int, str] = {
    httpx.codes.UNAUTHORIZED: "does not know the key in ARGILLA_API_KEY",
    httpx.codes.FORBIDDEN: "does not let the key in ARGILLA_API_KEY do this: it must be an owner's",
}

# One answer: the annotator's name, the status, the label.
Answer = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class User:
    """A user of Argilla."""

    id: UUID
    name: str
    role: str  # annotator, admin or owner


@contextmanager
def open_argilla(settings: ArgillaSettings) -> Iterator["ArgillaApi"]:
    """Give a client of Argilla. If Argilla does not answer, or refuses a request, the command ends."""
    with httpx.Client(
        base_url=f"{settings.url.rstrip('/')}/api/v1/",
        headers={"X-Argilla-Api-Key": settings.api_key.get_secret_value()},
        timeout=_TIMEOUT_SECONDS,
        # Argilla drops a connection after a 500.
        limits=httpx.Limits(max_keepalive_connections=0),
    ) as http:
        yield ArgillaApi(settings.url.rstrip("/"), http)


class ArgillaApi:
    """One Argilla. If it does not answer, or refuses a request, the command ends with the reason."""

    def __init__(self, url: str, http: httpx.Client) -> None:
        self.url = url
        self._http = http

    def list_users(self) -> list[User]:
        """Return all users, in the order of their names."""
        return sorted(map(_to_user, self._items("users")), key=lambda user: user.name)

    def find_user(self, name: str) -> User | None:
        """Return the user of this name."""
        return next((user for user in self.list_users() if user.name == name), None)

    def create_annotator(self, name: str, first_name: str, password: str) -> User:
        """Create a user who may only annotate."""
        body = {"username": name, "first_name": first_name, "role": "annotator", "password": password}
        return _to_user(self._json("POST", "users", json=body))

    def set_password(self, user: User, password: str) -> None:
        """Give a user another password."""
        self._call("PATCH", f"users/{user.id}", json={"password": password})

    def delete_user(self, user: User) -> None:
        """Delete an account; Argilla deletes the user's answers with it."""
        self._call("DELETE", f"users/{user.id}")

    def find_workspace(self, name: str) -> UUID | None:
        """Return the id of a workspace."""
        return next((UUID(space["id"]) for space in self._items("me/workspaces") if space["name"] == name), None)

    def get_workspace(self, name: str) -> UUID:
        """Return the id of a workspace; create the workspace unless it exists."""
        found = self.find_workspace(name)
        if found is None:
            # The uploader may create it at the same time (409).
            self._call("POST", "workspaces", accept=(httpx.codes.CONFLICT,), json={"name": name})
            found = self.find_workspace(name)
        if found is None:
            fail(f"Argilla at {self.url} does not show the workspace {name}.")
        return found

    def list_members(self, workspace_id: UUID) -> set[UUID]:
        """Return the ids of a workspace's users."""
        return {UUID(user["id"]) for user in self._items(f"workspaces/{workspace_id}/users")}

    def join(self, workspace_id: UUID, user: User) -> None:
        """Add a user to a workspace, unless it has them."""
        path = f"workspaces/{workspace_id}/users"
        self._call("POST", path, accept=(httpx.codes.CONFLICT,), json={"user_id": str(user.id)})

    def leave(self, workspace_id: UUID, user: User) -> bool:
        """Remove a user from a workspace; return whether it had them. Their answers stay."""
        path = f"workspaces/{workspace_id}/users/{user.id}"
        return self._call("DELETE", path, accept=(httpx.codes.NOT_FOUND,)).is_success

    def list_pages(self, workspace_id: UUID) -> dict[str, str]:
        """Return the pages on which annotators answer, by names of datasets."""
        found = self._items(f"me/datasets?workspace_id={workspace_id}")
        return {item["name"]: page_url(self.url, UUID(item["id"])) for item in found}

    def has_dataset(self, dataset_id: UUID) -> bool:
        """Whether the dataset is there."""
        return self._call("GET", f"datasets/{dataset_id}", accept=(httpx.codes.NOT_FOUND,)).is_success

    def count_stored(self, dataset_id: UUID) -> int:
        """Count the records in Argilla's database."""
        return int(self._json("GET", f"datasets/{dataset_id}/records", params={"limit": 1})["total"])

    def count_searchable(self, dataset_id: UUID) -> int | None:
        """Count the records in Argilla's search index; None if Argilla fails to."""
        answer = self._call("GET", f"datasets/{dataset_id}/progress", accept=range(500, 600))
        return int(answer.json()["total"]) if answer.is_success else None

    def find_answers(self, dataset_id: UUID, ids: Sequence[UUID]) -> dict[UUID, list[Answer]]:
        """Return the answers to those of up to 250 records that the search shows; none if the search fails."""
        scope = {"entity": "record", "property": "external_id"}
        terms = {"type": "terms", "scope": scope, "values": [str(id_) for id_ in ids]}
        answer = self._call(
            "POST",
            f"datasets/{dataset_id}/records/search",
            accept=range(500, 600),
            json={"filters": {"and": [terms]}},
            params={"limit": PAGE, "include": "responses"},
        )
        if not answer.is_success:
            return {}
        records = [item["record"] for item in answer.json()["items"] if item]
        return {UUID(r["external_id"]): [self._answer(raw) for raw in r["responses"] or []] for r in records}

    def find_stored(self, dataset_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
        """Return which of up to 250 records the database has.

        A POST names them before it looks at anything else; the items are such that it never stores them.
        """
        items = [{"external_id": str(id_), "fields": {}} for id_ in ids]
        path = f"datasets/{dataset_id}/records/bulk"
        answer = self._call("POST", path, accept=(httpx.codes.UNPROCESSABLE_ENTITY,), json={"items": items})
        words = answer.json()["detail"]
        if not isinstance(words, str) or not words.startswith(_STORED):
            return set()
        return {UUID(id_) for id_ in words.removeprefix(_STORED).split(", ")}

    def list_external_ids(self, dataset_id: UUID, offset: int) -> list[str]:
        """Return the external ids of up to 250 records in the database, in the order in which they were made."""
        params = {"offset": offset, "limit": PAGE}
        records = self._json("GET", f"datasets/{dataset_id}/records", params=params)["items"]
        return [str(record["external_id"]) for record in records]

    @cached_property
    def _usernames(self) -> dict[str, str]:
        return {user["id"]: user["username"] for user in self._items("users")}

    def _answer(self, raw: dict[str, Any]) -> Answer:
        label = (raw["values"] or {}).get("label", {}).get("value")
        return self._usernames.get(raw["user_id"], raw["user_id"]), raw["status"], label

    def _items(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self._json("GET", path)["items"]
        return items

    def _json(self, method: str, path: str, **options: Any) -> Any:
        try:
            return self._call(method, path, **options).json()
        except ValueError:
            fail(f"Something else than Argilla answers at {self.url}.")

    def _call(self, method: str, path: str, accept: Sequence[int] = (), **options: Any) -> httpx.Response:
        """Return Argilla's response if it is a success or its status is in `accept`."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            fail(f"Argilla at {self.url} does not answer: {printable(str(error))}")
        if not answer.is_success and answer.status_code not in accept:
            words = _REFUSALS.get(answer.status_code, f"answered {answer.status_code}: {answer.text[:500]}")
            fail(f"Argilla at {self.url} {printable(words)}.")
        return answer


def _to_user(raw: dict[str, Any]) -> User:
    return User(UUID(raw["id"]), raw["username"], raw["role"])
