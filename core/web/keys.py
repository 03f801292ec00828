"""API keys: only hashes are stored; each request is checked against a copy in memory.

A key may be limited to datasets. `KeyRing.admit` stores the limit in a context variable of the request;
`require_dataset_allowed` and `is_dataset_allowed` check it. Threads that copy the context, as anyio's do, see it;
other threads and processes do not.
"""

import asyncio
import hashlib
import math
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from fastapi import Request
from sqlalchemy import Select, String, cast, select
from starlette import types

from core.models import ApiKey
from core.settings import Limit
from core.web.problems import DatasetNotAllowed, MissingKey, RateLimited, ScopeMissing, Unavailable
from core.web.rate_limits import Bucket
from core.web.server import abort_connection

log = structlog.get_logger()


class Scope(StrEnum):
    """What a key allows."""

    INGEST = "ingest"  # the ingestion API
    READ = "read"  # the serving API
    SNAPSHOT = "snapshot"  # writing snapshots
    ADMIN = "admin"  # everything


@dataclass(frozen=True, slots=True)
class ValidKey:
    """A valid key without the key itself: its hash, scopes and limits."""

    hash: bytes
    id: str
    name: str
    scopes: frozenset[str]
    requests_per_second: float | None = None
    burst: int | None = None
    datasets: frozenset[str] | None = None  # None: all

    @classmethod
    def from_row(cls, row: Any) -> "ValidKey":
        """Read a row of `select_valid_keys`."""
        hash_, id_, name, scopes, requests_per_second, burst, datasets = row
        limited_to = None if datasets is None else frozenset(datasets)
        return cls(hash_, id_, name, frozenset(scopes), requests_per_second, burst, limited_to)

    @property
    def limit(self) -> Limit | None:
        """The key's own limit."""
        return Limit.of(self.requests_per_second, self.burst)


_allowed_datasets: ContextVar[frozenset[str] | None] = ContextVar("allowed_datasets", default=None)


def allowed_datasets() -> frozenset[str] | None:
    """Return the datasets that the key of the current request may use; None: all, as without keys."""
    return _allowed_datasets.get()


def is_dataset_allowed(dataset: str) -> bool:
    """Whether the key of the current request may use a dataset."""
    allowed = _allowed_datasets.get()
    return allowed is None or dataset in allowed


def require_dataset_allowed(dataset: str) -> None:
    """Check that the key of the current request may use a dataset.

    Raises:
        DatasetNotAllowed: it may use other datasets only.
    """
    allowed = _allowed_datasets.get()
    if allowed is not None and dataset not in allowed:
        raise DatasetNotAllowed(dataset, allowed)


def make_key() -> str:
    """Return a new key: a prefix that secret scanners find, and 256 random bits."""
    return f"ap_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> bytes:
    """Return the hash that is stored of a key. Keys are random, so a fast hash is safe."""
    return hashlib.sha256(key.encode()).digest()


def select_valid_keys() -> Select[bytes, str, str, list[str], float | None, int | None, list[str] | None]:
    """Return the query of all keys that are not withdrawn; its columns are ValidKey's fields."""
    id_ = cast(ApiKey.id, String).label("id")
    limits = (ApiKey.requests_per_second, ApiKey.burst, ApiKey.datasets)
    query = select(ApiKey.hash, id_, ApiKey.name, ApiKey.scopes, *limits)
    return query.where(ApiKey.withdrawn_at.is_(None)).order_by(ApiKey.hash)


class KeyRing:
    """This process's copy of the valid keys. Call `replace` whenever they may have changed.

    A key is looked up by its hash, so the lookup time reveals nothing about how much of a wrong key is right.
    """

    def __init__(self, required: bool, default_limit: Limit | None = None) -> None:
        self.required = required
        self._default_limit = default_limit  # of keys that have none
        self._keys: dict[bytes, tuple[ValidKey, Bucket | None]] | None = None

    def replace(self, keys: Iterable[ValidKey]) -> None:
        """Replace the copy. The used part of a key's limit is kept, unless the limit has changed."""
        known = self._keys or {}
        self._keys = {key.hash: (key, self._bucket(key, known.get(key.hash))) for key in keys}

    def _bucket(self, key: ValidKey, known: tuple[ValidKey, Bucket | None] | None) -> Bucket | None:
        limit = key.limit or self._default_limit
        bucket = known[1] if known else None
        if limit is None or (bucket and bucket.limit == limit):
            return bucket if limit else None
        return Bucket(limit)

    def admit(self, request: Request, scope: Scope) -> None:
        """Check a request's key; store it (`api_key`) and the rest of its limit (`rate_limit`) in the ASGI scope.

        Raises:
            MissingKey: the request has no valid key.
            ScopeMissing: the key has other scopes.
            RateLimited: the key is over its limit.
            Unavailable: this process has not read the keys yet.
        """
        if not self.required:
            return
        key, bucket = self._find(request.headers.get("authorization"))
        request.scope["api_key"] = key
        _allowed_datasets.set(key.datasets)
        if not key.scopes & {scope, Scope.ADMIN}:
            if scope is Scope.ADMIN:
                who = f"{key.id} {key.name}"
                log.warning("audit", action=request.url.path, actor_kind="key", actor=who, outcome="refused")
            raise ScopeMissing(f"This API key lacks the scope {scope}.")
        if bucket is not None:
            _take(bucket, request)

    def scopes_of(self, authorization: str | None) -> list[Scope]:
        """Return what a request with this `Authorization` header may do: no scope without a valid key."""
        if not self.required:
            return list(Scope)
        try:
            key, _ = self._find(authorization)
        except (MissingKey, Unavailable):
            return []
        return [scope for scope in Scope if key.scopes & {scope, Scope.ADMIN}]

    def still_admits(self, asgi_scope: Any, scope: Scope) -> bool:
        """Return whether the key of an admitted request is still valid for this scope."""
        if not self.required:
            return True
        key, _ = (self._keys or {}).get(asgi_scope["api_key"].hash, (None, None))
        return key is not None and bool(key.scopes & {scope, Scope.ADMIN})

    def _find(self, authorization: str | None) -> tuple[ValidKey, Bucket | None]:
        if self._keys is None:
            raise Unavailable("The API keys have not been read yet.", code="keys_unavailable")
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise MissingKey("Send an API key: Authorization: Bearer KEY.")
        found = self._keys.get(hash_key(key.strip()))
        if found is None:
            raise MissingKey("This API key is not valid, or was withdrawn.")
        return found


def _take(bucket: Bucket, request: Request) -> None:
    wait = bucket.take()
    request.scope["rate_limit"] = bucket.headers()
    if wait:
        raise RateLimited(bucket.limit.requests_per_second, bucket.limit.burst, math.ceil(wait))


def require_scope(scope: Scope) -> Callable[[Request], Awaitable[None]]:
    """Return a FastAPI dependency that checks the request's key against `app.state.key_ring`."""

    async def check(request: Request) -> None:
        request.app.state.key_ring.admit(request, scope)

    return check


class KeyWatch:
    """ASGI middleware: cuts long responses (events, long polls, exports, downloads) whose key was withdrawn.

    While a response is sent, it checks the key again at intervals.
    """

    def __init__(self, app: types.ASGIApp, key_ring: KeyRing, seconds: float) -> None:
        """`seconds`: the interval."""
        self.app = app
        self._key_ring = key_ring
        self._seconds = seconds

    async def __call__(self, scope: types.Scope, receive: types.Receive, send: types.Send) -> None:
        """Let the request pass, and cut its connection when its key is no longer valid."""
        if scope["type"] != "http" or not self._key_ring.required:
            await self.app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            # A request without a key was refused, or needs none.
            if "api_key" in scope and not self._key_ring.still_admits(scope, Scope.READ):
                log.info("request.key_withdrawn", path=scope["path"])
                abort_connection(receive)
            else:
                timer = loop.call_later(self._seconds, look)

        timer = loop.call_later(self._seconds, look)
        try:
            await self.app(scope, receive, send)
        finally:
            timer.cancel()
