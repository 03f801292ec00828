"""A model of Argilla's records, responses, users and webhooks, with what the real one does not do on demand."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx

DATASET_ID = UUID(int=10)
WORKSPACE_ID = UUID(int=12)

Json = dict[str, Any]


@dataclass
class Record:
    """A record with its responses by user."""

    id: UUID
    responses: dict[UUID, Json] = field(default_factory=dict)
    is_visible: bool = True
    fields: Json = field(default_factory=dict)
    metadata: Json | None = None


@dataclass(frozen=True)
class Event:
    """The content of an event: the record and the time."""

    external_id: str
    record_id: UUID
    at: datetime


@dataclass
class ModelArgilla:
    """The truth. What annotators do returns the event that Argilla would send."""

    records: dict[str, Record] = field(default_factory=dict)
    users: dict[UUID, str] = field(default_factory=dict)
    webhooks: list[Json] = field(default_factory=list)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    last_activity_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    calls: Counter[str] = field(default_factory=Counter)
    is_away: bool = False
    stale: set[str] = field(default_factory=set)  # deleted, but the index has them still
    late: list[list[Json]] | None = None  # if a list: PUTs get no answer, and are worked on later
    before_put: Callable[[list[Json]], Awaitable[None]] | None = None
    loses_entries: bool = False  # deletes records, and leaves their entries in the index
    others: list[Json] = field(default_factory=list)  # further datasets in the workspace
    refused: set[str] = field(default_factory=set)  # a PUT with one of them gets 422
    broken: set[str] = field(default_factory=set)  # a PUT with one of them gets 500
    has_index: bool = True
    statuses: dict[str, int] = field(default_factory=dict)  # by call: it is answered so, and does nothing
    name: str = "toxicity"  # of the dataset
    before: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)  # by call, as in `calls`
    after: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)

    def add_records(self, *text_ids: UUID) -> None:
        """Take records, as if they had been uploaded."""
        for id_ in text_ids:
            self.records[str(id_)] = Record(uuid4())

    def respond(self, text_id: UUID, user: UUID, status: str, value: str | None) -> Event:
        """Make or change a user's response, as single and bulk calls do."""
        record = self.records[str(text_id)]
        at = self._tick()
        made = {"id": str(uuid4()), "user_id": str(user), "inserted_at": _written(at)}
        values = {} if value is None else {"label": {"value": value}}
        record.responses[user] = record.responses.get(user, made) | {
            "status": status,
            "values": values,
            "updated_at": _written(at),
        }
        self.last_activity_at = at
        return Event(str(text_id), record.id, at)

    def delete_response(self, text_id: UUID, user: UUID) -> Event:
        """Delete a user's response."""
        record = self.records[str(text_id)]
        del record.responses[user]
        self.last_activity_at = self._tick()
        return Event(str(text_id), record.id, self.last_activity_at)

    def delete_user(self, user: UUID) -> None:
        """Delete a user with all their responses: no activity, no event."""
        self.users.pop(user, None)
        for record in self.records.values():
            record.responses.pop(user, None)

    def delete_record(self, text_id: UUID) -> Event:
        """Delete a record: an event, but no activity."""
        return Event(str(text_id), self.records.pop(str(text_id)).id, self._tick())

    def _tick(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as Argilla would."""
        if self.is_away:
            raise httpx.ConnectError("refused")
        path = request.url.path.removeprefix("/api/v1/").replace(f"datasets/{DATASET_ID}", "dataset")
        kind = path.split("/")[0] if path.startswith(("records/", "responses/", "webhooks/")) else path
        call = f"{request.method} {kind}"
        self.calls[call] += 1
        if call in self.before:
            await self.before[call]()
        if call in self.statuses:
            return _json({}, self.statuses[call])
        answer = await self._answer(request, path)
        if call in self.after:
            await self.after[call]()
        return answer

    async def _answer(self, request: httpx.Request, path: str) -> httpx.Response:
        body = json.loads(request.content) if request.content else {}
        if path == "dataset/records/bulk" or (request.method == "DELETE" and path == "dataset/records"):
            return await self._change(request, body)
        found = self._about_the_dataset(request, path, body) or self._about_records(request, path, body)
        return found or self._webhook(request.method, path, body)

    def _about_the_dataset(self, request: httpx.Request, path: str, body: Json) -> httpx.Response | None:
        match request.method, *path.split("/"):
            case "GET", "dataset":
                at = _written(self.last_activity_at)
                return _json({"status": "ready", "last_activity_at": at, "workspace_id": str(WORKSPACE_ID)})
            case "PATCH", "dataset":
                self.name = body["name"]
                return _json({})
            case "GET", "dataset", "users", "progress":
                return _json({"users": [self._progress(user) for user in self.users]})
            case "GET", "dataset", "progress" if not self.has_index:
                return httpx.Response(500, text="index_not_found_exception")
            case "GET", "dataset", "records" if "include" in request.url.params:
                return self._list(int(request.url.params["offset"]), int(request.url.params["limit"]))
            case "GET", "dataset", "records" | "progress" as what:
                return _json({"total": self._count(what == "progress")})
        return None

    def _about_records(self, request: httpx.Request, path: str, body: Json) -> httpx.Response | None:
        match request.method, *path.split("/"):
            case "POST", "dataset", "records", "search":
                return self._search(body["filters"]["and"][0]["values"])
            case "GET", "records", id_:
                return self._record(id_)
            case "PUT", "responses", id_:
                return self._change_response(id_, body)
            case "GET", "me", "datasets":
                return _json({"items": self.others})
            case "GET", "me", "workspaces":
                return _json({}, 503)  # making a dataset is for the real one
            case "GET", "users":
                return _json({"items": [{"id": str(u), "username": name} for u, name in self.users.items()]})
        return None

    def _count(self, only_visible: bool) -> int:
        return sum(record.is_visible or not only_visible for record in self.records.values())

    def _list(self, offset: int, limit: int) -> httpx.Response:
        shown = [_shown(id_, record) for id_, record in self.records.items()]
        return _json({"items": shown[offset : offset + limit], "total": len(shown)})

    def _progress(self, user: UUID) -> Json:
        statuses = [r.responses[user]["status"] for r in self.records.values() if user in r.responses]
        return {"username": self.users[user], "pending": dict(Counter(statuses))}

    async def _change(self, request: httpx.Request, body: Json) -> httpx.Response:
        match request.method:
            case "POST":
                return self._refuse([item["external_id"] for item in body["items"]])
            case "PUT":
                return await self._receive(body["items"])
            case _:
                return self._delete({UUID(id_) for id_ in request.url.params["ids"].split(",")})

    async def _receive(self, items: list[Json]) -> httpx.Response:
        if self.before_put:
            await self.before_put(items)
        ids = {item["external_id"] for item in items}
        if ids & self.refused:
            return _json({"detail": "not this one"}, 422)
        if ids & self.broken:
            return _json({}, 500)
        if self.late is not None:
            self.late.append(items)
            raise httpx.ReadTimeout("no answer")
        return self.put(items)

    def put(self, items: list[Json]) -> httpx.Response:
        """Upsert records, as the call does, or one that arrives late."""
        for item in items:
            record = self.records.setdefault(item["external_id"], Record(uuid4()))
            record.fields, record.metadata = item["fields"], item.get("metadata", record.metadata)
            for given in item.get("responses", []):
                at = _written(self._tick())
                made = {"id": str(uuid4()), "inserted_at": at, "updated_at": at} | given
                record.responses[UUID(given["user_id"])] = made
        return _json({"items": [_shown(item["external_id"], self.records[item["external_id"]]) for item in items]})

    def _delete(self, record_ids: set[UUID]) -> httpx.Response:
        gone = {id_ for id_, record in self.records.items() if record.id in record_ids}
        for id_ in gone:
            del self.records[id_]
        if self.loses_entries:
            self.stale |= gone
        return httpx.Response(204)

    def _search(self, ids: list[str]) -> httpx.Response:
        if self.stale & set(ids):
            return _json({}, 500)
        found = [(id_, self.records[id_]) for id_ in ids if id_ in self.records and self.records[id_].is_visible]
        return _json({"items": [{"record": _shown(id_, record)} for id_, record in found], "total": len(found)})

    def _refuse(self, ids: list[str]) -> httpx.Response:
        """What the real one says: tests/e2e/uploader/test_deletions.py."""
        if there := [id_ for id_ in ids if id_ in self.records]:
            return _json({"detail": f"found records with same external ids: {', '.join(there)}"}, 422)
        return _json({"detail": "Record at position 0 is not valid because missing required value"}, 422)

    def _record(self, record_id: str) -> httpx.Response:
        found = [(id_, record) for id_, record in self.records.items() if str(record.id) == record_id]
        return _json(_shown(*found[0])) if found else _json({}, 404)

    def _change_response(self, response_id: str, body: Json) -> httpx.Response:
        given = (r for record in self.records.values() for r in record.responses.values())
        next(r for r in given if r["id"] == response_id).update(body)
        return _json({})

    def _webhook(self, method: str, path: str, body: Json) -> httpx.Response:
        assert path.startswith("webhooks"), path
        id_ = path.partition("/")[2]
        if method == "POST":
            webhook = {"id": str(uuid4()), "enabled": True, "secret": f"whsec_{uuid4().hex}", **body}
            self.webhooks.append(webhook | {"inserted_at": _written(self._tick())})
            return _json(self.webhooks[-1], 201)
        if not id_:
            return _json({"items": self.webhooks})
        found = [webhook for webhook in self.webhooks if webhook["id"] == id_]
        if not found:
            return _json({}, 404)
        if method == "DELETE":
            self.webhooks.remove(found[0])
        found[0].update(body)
        return _json(found[0])


def _shown(external_id: str, record: Record) -> Json:
    responses = list(record.responses.values())
    return {
        "id": str(record.id),
        "external_id": external_id,
        "dataset_id": str(DATASET_ID),
        "responses": responses,
    }


def _json(content: Json, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=content)


def _written(moment: datetime) -> str:
    # As Argilla writes: UTC, without saying so.
    return moment.replace(tzinfo=None).isoformat()
