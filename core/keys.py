"""API keys: made once, kept as hashes, checked on every request against a copy in memory."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

from fastapi import Request
from sqlalchemy import Select, select

from core.models import ApiKey
from core.problems import MissingKey, ScopeMissing, Unavailable


class Scope(StrEnum):
    """What a key allows."""

    INGEST = "ingest"  # the ingestion API
    READ = "read"  # the serving API
    ADMIN = "admin"  # everything


def make_key() -> str:
    """Return a new key: 256 random bits behind a prefix that secret scanners can find."""
    return f"ap_{secrets.token_urlsafe(32)}"


def hash_key(key: str) -> bytes:
    """Return what is stored of a key. Keys are random, so a fast hash is safe."""
    return hashlib.sha256(key.encode()).digest()


def select_valid_keys() -> Select[bytes, list[str]]:
    """Return the query of all keys that are not withdrawn: (hash, scopes)."""
    return select(ApiKey.hash, ApiKey.scopes).where(ApiKey.withdrawn_at.is_(None))


class KeyRing:
    """The valid keys as this process knows them. `replace` is called whenever they may have changed."""

    def __init__(self, required: bool) -> None:
        self.required = required
        self._scopes: Mapping[bytes, frozenset[str]] | None = None

    def replace(self, scopes_by_hash: Mapping[bytes, frozenset[str]]) -> None:
        """Take over the keys that are valid now."""
        self._scopes = scopes_by_hash

    def check(self, authorization: str | None, scope: Scope) -> None:
        """Let a request pass, or say why not.

        Raises:
            MissingKey: no key, or one that is not valid.
            ScopeMissing: the key is valid for other things.
            Unavailable: no keys could be read since this process started.
        """
        if not self.required:
            return
        if self._scopes is None:
            raise Unavailable("The API keys have not been read yet.", code="keys_unavailable")
        kind, _, key = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not key:
            raise MissingKey("Send an API key: Authorization: Bearer KEY.")
        scopes = self._scopes.get(hash_key(key.strip()))
        if scopes is None:
            raise MissingKey("This API key is not valid, or was withdrawn.")
        if not scopes & {scope, Scope.ADMIN}:
            raise ScopeMissing(f"This API key lacks the scope {scope}.")


def require_scope(scope: Scope) -> Callable[[Request], Awaitable[None]]:
    """Return a FastAPI dependency that checks the request's key against `app.state.key_ring`."""

    async def check(request: Request) -> None:
        request.app.state.key_ring.check(request.headers.get("authorization"), scope)

    return check
