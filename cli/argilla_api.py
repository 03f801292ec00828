"""Argilla's API, as far as the commands use it: accounts of annotators, and reads of records and answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

import httpx

from core.datasets import page_url
from core.settings import ArgillaSettings

_ACCOUNT_SECONDS = 30
_REFUSALS: dict[int, str] = {
    httpx.codes.UNAUTHORIZED: "does not know the key in ARGILLA_API_KEY",
    httpx.codes.FORBIDDEN: "does not let the key in ARGILLA_API_KEY do this: it must be an owner's",
}


def open_argilla(settings: ArgillaSettings, seconds: float) -> httpx.Client:
    """Return a client of Argilla's API with our key; `seconds` is the timeout of each call."""
    return httpx.Client(
        base_url=f"{settings.url.rstrip('/')}/api/v1/",
        headers={"X-Argilla-Api-Key": settings.api_key.get_secret_value()},
        timeout=seconds,
        # Argilla drops a connection after a 500.
        limits=httpx.Limits(max_keepalive_connections=0),
    )


class AccountsError(Exception):
    """Argilla does not answer, or refuses a request; the message is for users."""


@dataclass(frozen=True, slots=True)
class User:
    """A user of Argilla."""

    id: UUID
    name: str
    role: str  # annotator, admin or owner


class Accounts:
    """The accounts of one Argilla. Every method may raise AccountsError."""

    def __init__(self, settings: ArgillaSettings) -> None:
        self.url = settings.url.rstrip("/")
        self._http = open_argilla(settings, _ACCOUNT_SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def list_users(self) -> list[User]:
        """Return all users, in the order of their names."""
        return sorted(map(_to_user, self._call("GET", "users")["items"]), key=lambda user: user.name)

    def find_user(self, name: str) -> User | None:
        """Return the user of this name."""
        return next((user for user in self.list_users() if user.name == name), None)

    def create_annotator(self, name: str, first_name: str, password: str) -> User:
        """Create a user who may only annotate."""
        body = {"username": name, "first_name": first_name, "role": "annotator", "password": password}
        return _to_user(self._call("POST", "users", body))

    def set_password(self, user: User, password: str) -> None:
        """Give a user another password."""
        self._call("PATCH", f"users/{user.id}", {"password": password})

    def delete_user(self, user: User) -> None:
        """Delete an account; Argilla deletes the user's answers with it."""
        self._call("DELETE", f"users/{user.id}")

    def find_workspace(self, name: str) -> UUID | None:
        """Return the id of a workspace."""
        spaces = self._call("GET", "me/workspaces")["items"]
        return next((UUID(space["id"]) for space in spaces if space["name"] == name), None)

    def get_workspace(self, name: str) -> UUID:
        """Return the id of a workspace; create the workspace unless it exists."""
        found = self.find_workspace(name)
        if found is None:
            # The uploader may create it at the same time (409).
            self._call("POST", "workspaces", {"name": name}, accept=httpx.codes.CONFLICT)
            found = self.find_workspace(name)
        if found is None:
            raise AccountsError(f"Argilla at {self.url} does not show the workspace {name}.")
        return found

    def list_members(self, workspace_id: UUID) -> set[UUID]:
        """Return the ids of a workspace's users."""
        return {UUID(user["id"]) for user in self._call("GET", f"workspaces/{workspace_id}/users")["items"]}

    def join(self, workspace_id: UUID, user: User) -> None:
        """Add a user to a workspace, unless it has them."""
        body = {"user_id": str(user.id)}
        self._call("POST", f"workspaces/{workspace_id}/users", body, accept=httpx.codes.CONFLICT)

    def leave(self, workspace_id: UUID, user: User) -> bool:
        """Remove a user from a workspace; return whether it had them. Their answers stay."""
        path = f"workspaces/{workspace_id}/users/{user.id}"
        return self._call("DELETE", path, accept=httpx.codes.NOT_FOUND) is not None

    def list_pages(self, workspace_id: UUID) -> dict[str, str]:
        """Return the pages on which annotators answer, by names of datasets."""
        found = self._call("GET", f"me/datasets?workspace_id={workspace_id}")["items"]
        return {item["name"]: page_url(self.url, UUID(item["id"])) for item in found}

    def _call(self, method: str, path: str, body: Any = None, accept: int | None = None) -> Any:
        """Return Argilla's response; None for the additional status `accept`."""
        try:
            answer = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise AccountsError(f"Argilla at {self.url} does not answer: {error}") from error
        if answer.status_code == accept:
            return None
        if not answer.is_success:
            self._refuse(answer)
        try:
            return answer.json() if answer.content else {}
        except ValueError as error:
            raise AccountsError(f"Something else than Argilla answers at {self.url}.") from error

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        words = _REFUSALS.get(answer.status_code, f"answered {answer.status_code}: {answer.text[:500]}")
        raise AccountsError(f"Argilla at {self.url} {words}.")


def _to_user(raw: dict[str, Any]) -> User:
    return User(UUID(raw["id"]), raw["username"], raw["role"])


# The most records that one search of Argilla returns.
PAGE = 250

_READ_SECONDS = 60
_STORED = "found records with same external ids: "

# One answer: the annotator's name, the status, the label.
Answer = tuple[str, str, str | None]


class ArgillaReader:
    """Reads one Argilla. Every method may raise httpx.HTTPError."""

    def __init__(self, settings: ArgillaSettings) -> None:
        self.http = open_argilla(settings, _READ_SECONDS)
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
