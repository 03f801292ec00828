"""Argilla's records API in memory, for what a real one does not do on demand: vanish, hang, forget."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

DATASET_ID = UUID(int=10)
QUESTION_ID = UUID(int=11)


async def _nothing() -> None:
    return


@dataclass
class FakeArgilla:
    """Answers httpx requests; set `status` to have every call answered with it."""

    status: int = 200
    is_away: bool = False
    refused: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()  # a PUT of one of them is a 500
    is_published: bool = True
    stale: frozenset[str] = frozenset()  # the index has entries of deleted records, too
    search_limits: list[int] = field(default_factory=list)
    puts: list[list[str]] = field(default_factory=list)
    responses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    users: dict[UUID, str] = field(default_factory=dict)
    records: set[str] = field(default_factory=set)
    last_activity_at: str = "2026-01-01T00:00:00"
    before_put: Callable[[], Awaitable[None]] = _nothing

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as Argilla would."""
        if self.is_away:
            raise httpx.ConnectError("refused")
        if self.status != httpx.codes.OK:
            return httpx.Response(self.status)
        path = request.url.path.removeprefix("/api/v1/")
        body = json.loads(request.content) if request.content else {}
        if path.endswith("/records/bulk"):
            await self.before_put()
            return self._put([item["external_id"] for item in body["items"]])
        if path.endswith("/records/search"):
            return self._search(body["filters"]["and"][0]["values"], int(request.url.params["limit"]))
        if path == "users":
            items = [{"id": str(id_), "username": name} for id_, name in self.users.items()]
            return httpx.Response(200, json={"items": items})
        assert path == f"datasets/{DATASET_ID}", path
        status = "ready" if self.is_published else "draft"
        return httpx.Response(200, json={"status": status, "last_activity_at": self.last_activity_at})

    def _put(self, ids: list[str]) -> httpx.Response:
        self.puts.append(ids)
        if self.broken & set(ids):
            return httpx.Response(500)
        for position, id_ in enumerate(ids):
            if id_ in self.refused:
                detail = f"Record at position {position} is not valid because of a reason"
                return httpx.Response(422, json={"detail": detail})
        self.records.update(ids)
        return httpx.Response(200, json={"items": []})

    def _search(self, ids: list[str], limit: int) -> httpx.Response:
        self.search_limits.append(limit)
        if self.stale & set(ids):
            return httpx.Response(500)
        shown = [id_ for id_ in ids if id_ in self.records - self.hidden]
        found = [{"external_id": id_, "responses": self.responses.get(id_, [])} for id_ in shown]
        items = [{"record": record} for record in found[:limit]]
        return httpx.Response(200, json={"items": items, "total": len(found)})
