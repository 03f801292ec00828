"""Calls to Argilla's HTTP API, and the circuit breaker for them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from core.audit import Action, Actor, Entry, noting, write_line
from core.settings import ArgillaSettings
from core.web.health import NotReady
from uploader import metrics
from uploader.argilla.errors import (
    ArgillaError,
    Fault,
    Refused,
    Stopped,
    Unreachable,
    parse_stored,
    raise_for_status,
)
from uploader.runner import Backoff
from uploader.settings import MAX_SEARCH_TERMS

log = structlog.get_logger()


class CircuitState(StrEnum):
    """What becomes of a call."""

    CLOSED = "closed"  # it is made
    OPEN = "open"  # it fails immediately, until the pause is over
    HALF_OPEN = "half_open"  # one small call is made first, and decides


class Circuit:
    """Whether calls of Argilla are worth making, for all datasets: while it does not answer, calls fail unmade.

    Only silence opens it: a refused connection, a gateway's 503. An error is an answer; but after a 500 or a
    time-out, which may be Argilla's fault or the call's, the next call waits for the small one.
    """

    def __init__(self, cap_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = CircuitState.CLOSED
        self._backoff = Backoff(cap_seconds, clock)
        self._reason = ""
        self._probing = asyncio.Lock()

    async def enter(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Let a call pass; `probe` is the small one.

        Raises:
            Unreachable: Argilla does not answer.
        """
        if self._is_closed():
            return
        # One caller probes; the others wait for its result.
        async with self._probing:
            if self._is_closed():
                return
            if self._backoff.is_on():
                raise Unreachable(f"Argilla does not answer: {self._reason}")
            self._show(CircuitState.HALF_OPEN)
            try:
                await probe()
            except (Fault, Unreachable) as error:
                self.fail(str(error))
                raise Unreachable(f"Argilla does not answer: {self._reason}") from error
            except ArgillaError:
                pass  # a response: the waiting calls will get it, too
            self._close()

    def _is_closed(self) -> bool:
        return self.state == CircuitState.CLOSED

    def doubt(self) -> None:
        """Record a 500 or a time-out."""
        if self._is_closed():
            self._show(CircuitState.HALF_OPEN)

    def fail(self, reason: str) -> None:
        """Record that Argilla did not answer; begins a pause unless one is on."""
        if self.state != CircuitState.OPEN or not self._backoff.is_on():
            pause_seconds = self._backoff.fail()
            if not self._reason:
                log.warning("circuit.opened", reason=reason, pause_seconds=round(pause_seconds, 1))
        self._reason = reason
        self._show(CircuitState.OPEN)

    def _close(self) -> None:
        if self._reason:
            log.info("circuit.closed")
        self._reason = ""
        self._backoff.succeed()
        self._show(CircuitState.CLOSED)

    def _show(self, state: CircuitState) -> None:
        self.state = state
        metrics.CIRCUIT_STATE.state(state)


# No text has this external id: a search for it only shows whether Argilla can search at all.
_NO_RECORD = "none"

RawResponses = dict[str, list[dict[str, Any]]]  # by external id, as Argilla's API has them
Read = Callable[[Sequence[str]], Awaitable[RawResponses]]


async def read_isolating(read: Read, external_ids: Sequence[str]) -> tuple[RawResponses, list[str]]:
    """Read the responses to some records; return them, and the records over which Argilla breaks down.

    Raises:
        Unreachable: it is not about the records, Argilla cannot read any.
    """
    found: RawResponses = {}
    unreadable: list[str] = []
    parts = [list(external_ids)]
    while parts:
        part = parts.pop()
        try:
            found |= await read(part)
        except Fault:
            await _check_reading(read)
            if len(part) == 1:
                unreadable += part
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    return found, unreadable


async def _check_reading(read: Read) -> None:
    try:
        await read([_NO_RECORD])
    except Fault as fault:
        raise Unreachable("Argilla breaks down over every search") from fault


_CONNECT_SECONDS = 5
_PROBE_SECONDS = 5


def make_http_client(settings: ArgillaSettings, timeout_seconds: float) -> httpx.AsyncClient:
    """Make the HTTP client of all calls; the caller closes it."""
    return httpx.AsyncClient(
        base_url=f"{settings.url.rstrip('/')}/api/v1/",
        headers={"X-Argilla-Api-Key": settings.api_key.get_secret_value()},
        timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
        # After a 500 Argilla drops the connection, a little later: a call that reused it would fail. A new
        # connection for each call costs nothing compared with its batch.
        limits=httpx.Limits(max_keepalive_connections=0),
    )


class Argilla:
    """Argilla's API, as far as the uploader needs it. Every call may raise any ArgillaError."""

    def __init__(
        self, http: httpx.AsyncClient, circuit: Circuit | None = None, audit_engine: AsyncEngine | None = None
    ) -> None:
        self._http = http
        self._audit_engine = audit_engine  # without one, changes are in the log only
        self._circuit = circuit  # without one, every call is made

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Make a call, if the circuit lets it pass, and return the response's JSON.

        Raises:
            ArgillaError: see uploader.argilla.errors.
        """
        await self.wait_for_circuit()
        try:
            return await self._call(method, path, json=body, params=query or None)
        except Fault:
            if self._circuit:
                self._circuit.doubt()
            raise
        except Unreachable as error:
            if self._circuit:
                self._circuit.fail(str(error))
            raise

    async def change(self, method: str, path: str, body: Any = None, **details: Any) -> Any:
        """Make a call that changes something other than texts and answers, and add it to the audit log.

        `details` say what changes: names of ours and numbers.

        Raises:
            ArgillaError: see uploader.argilla.errors.
            sqlalchemy.exc.SQLAlchemyError: Postgres is away; the change is made, and only in the program's log.
        """
        answer = await self.call(method, path, body)
        actor = Actor("program", "uploader")
        entry = Entry("uploader", actor, Action.ARGILLA_CHANGED, [path], details={"method": method, **details})
        write_line(entry)
        if self._audit_engine:
            async with self._audit_engine.begin() as connection:
                await connection.execute(noting(entry))
        return answer

    async def wait_for_circuit(self) -> None:
        """See that calls are worth making; makes a small one when that is in doubt.

        Raises:
            Unreachable: Argilla does not answer.
        """
        if self._circuit:
            await self._circuit.enter(lambda: self._call("GET", "me", timeout=_PROBE_SECONDS))

    async def _call(self, method: str, path: str, **request: Any) -> Any:
        try:
            response = await self._http.request(method, path, **request)
        except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unreachable(f"{method} {path}: no connection in time") from error
        except httpx.TimeoutException as error:
            raise Fault(f"{method} {path}: no answer in time") from error
        except httpx.TransportError as error:
            raise Unreachable(f"{method} {path}: {type(error).__name__}") from error
        raise_for_status(response)
        try:
            return response.json() if response.content else None
        except ValueError as error:
            raise Unreachable(f"{method}: something else than Argilla answers at its address") from error

    async def put_records(self, dataset_id: UUID, items: Sequence[dict[str, Any]]) -> list[UUID]:
        """Insert or update records by their `external_id`, all or none; return their own ids.

        Success does not make them visible.
        """
        answer = await self.call("PUT", f"datasets/{dataset_id}/records/bulk", {"items": list(items)})
        return [UUID(record["id"]) for record in answer["items"]]

    async def delete_records(self, dataset_id: UUID, record_ids: Sequence[UUID]) -> None:
        """Delete up to 100 records with all responses; those that are not there count as deleted."""
        await self.call("DELETE", f"datasets/{dataset_id}/records", ids=",".join(map(str, record_ids)))

    async def find_records(self, dataset_id: UUID, external_ids: Sequence[str]) -> set[str]:
        """Return which of up to 250 records annotators can see."""
        found = await self._search(dataset_id, external_ids)
        return {record["external_id"] for record in _records(found)}

    async def count_records(self, dataset_id: UUID, external_ids: Sequence[str]) -> int:
        """Return how many entries the search index has for up to 250 records; costs a third of finding them.

        An entry whose record was deleted counts, too, if Argilla failed to take it out of the index.
        """
        return int((await self._search(dataset_id, external_ids, limit=1))["total"])

    async def read_responses(
        self, dataset_id: UUID, external_ids: Sequence[str]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return all responses to each of up to 250 records that annotators can see."""
        found = await self._search(dataset_id, external_ids, include="responses")
        return {record["external_id"]: record["responses"] or [] for record in _records(found)}

    async def _search(self, dataset_id: UUID, external_ids: Sequence[str], **query: Any) -> dict[str, Any]:
        scope = {"entity": "record", "property": "external_id"}
        terms = {"type": "terms", "scope": scope, "values": list(external_ids)}
        path = f"datasets/{dataset_id}/records/search"
        query = {"limit": MAX_SEARCH_TERMS} | query
        found: dict[str, Any] = await self.call("POST", path, {"filters": {"and": [terms]}}, **query)
        return found

    async def find_stored(self, dataset_id: UUID, external_ids: Sequence[str]) -> set[str]:
        """Return which of up to 500 records are in Argilla's database, whether annotators can see them or not.

        No call lists that. But a POST names those that are there before it looks at anything else; the items are
        such that it never stores them.

        Raises:
            ArgillaError: also when the answer is another one than expected.
        """
        items = [{"external_id": id_, "fields": {}} for id_ in external_ids]
        try:
            await self.call("POST", f"datasets/{dataset_id}/records/bulk", {"items": items})
        except Refused as refusal:
            return parse_stored(refusal)
        raise Stopped("Argilla took records without a text")

    async def get_record(self, record_id: UUID) -> dict[str, Any]:
        """Return a record with its responses, from Argilla's database."""
        record: dict[str, Any] = await self.call("GET", f"records/{record_id}")
        return record

    async def get_dataset(self, dataset_id: UUID) -> dict[str, Any]:
        """Return a dataset; its `last_activity_at` moves when a response is made, changed or deleted."""
        dataset: dict[str, Any] = await self.call("GET", f"datasets/{dataset_id}")
        return dataset

    async def list_records(self, dataset_id: UUID, offset: int, limit: int, **query: str) -> list[dict[str, Any]]:
        """Return some records from Argilla's database; none when there are no more."""
        path = f"datasets/{dataset_id}/records"
        found: dict[str, Any] = await self.call("GET", path, offset=offset, limit=limit, **query)
        records: list[dict[str, Any]] = found["items"]
        return records

    async def list_datasets(self) -> list[dict[str, Any]]:
        """Return all datasets that our key shows."""
        found: list[dict[str, Any]] = (await self.call("GET", "me/datasets"))["items"]
        return found

    async def check_index(self, dataset_id: UUID) -> None:
        """See that the dataset has its search index.

        Raises:
            IndexLost: it has not.
        """
        await self.call("GET", f"datasets/{dataset_id}/progress")

    async def rename_dataset(self, dataset_id: UUID, name: str) -> None:
        """Give a dataset another name."""
        await self.call("PATCH", f"datasets/{dataset_id}", {"name": name})

    async def list_usernames(self) -> dict[UUID, str]:
        """Return the names of all users by id."""
        users = await self.call("GET", "users")
        return {UUID(user["id"]): user["username"] for user in users["items"]}

    async def check(self) -> None:
        """See that Argilla answers, and takes our key.

        Raises:
            NotReady: it does not; the message says why.
        """
        try:
            await self.call("GET", "me")
        except ArgillaError as error:
            raise NotReady(str(error)) from error


def _records(found: dict[str, Any]) -> list[dict[str, Any]]:
    # A record that is in the search index only has lost its row: it counts as absent.
    return [item["record"] for item in found["items"] if item is not None]
