"""Audit lines say who did what to what, and hold nothing else."""

import asyncio
from typing import Any

import httpx
import pytest
import structlog
from fastapi import Request
from sqlalchemy.dialects import postgresql

from core.audit import Action, Actor, Entry, account, caller, noting, write_line
from core.web.keys import KeyRing, Scope, ValidKey, hash_key
from core.web.problems import ScopeMissing
from uploader.argilla.client import Argilla


def request(path: str = "/x") -> Request:
    headers = [(b"authorization", b"Bearer secret")]
    return Request({"type": "http", "path": path, "server": ("h", 80), "query_string": b"", "headers": headers})


def test_a_caller_is_named_by_the_key_and_never_with_it() -> None:
    ring, made = KeyRing(required=True), request()
    assert caller(made.scope) == Actor("nobody", "")
    ring.replace([ValidKey(hash_key("secret"), "id-1", "robot", frozenset({"admin"}))])
    ring.admit(made, Scope.ADMIN)
    assert caller(made.scope) == Actor("key", "id-1 robot")


def test_who_tries_what_needs_an_admin_is_noted() -> None:
    ring = KeyRing(required=True)
    ring.replace([ValidKey(hash_key("secret"), "id-1", "robot", frozenset({"read"}))])
    with structlog.testing.capture_logs() as lines, pytest.raises(ScopeMissing):
        ring.admit(request("/snapshots/one/rewrite"), Scope.ADMIN)
    [line] = lines
    assert (line["event"], line["outcome"], line["actor"]) == ("audit", "refused", "id-1 robot")
    assert "secret" not in str(line)
    with structlog.testing.capture_logs() as lines, pytest.raises(ScopeMissing):
        ring.admit(request(), Scope.INGEST)
    assert lines == []  # no administrator's matter


def test_many_objects_are_counted_and_the_first_named() -> None:
    entry = Entry(
        "cli", account(), Action.TEXTS_FORGOTTEN, [f"{n:04}" for n in range(250)], details={"datasets": ["a"]}
    )
    with structlog.testing.capture_logs() as lines:
        write_line(entry)
    assert (lines[0]["objects"], len(lines[0]["object_ids"]), lines[0]["action"]) == (250, 100, "texts.forgotten")
    values = noting(entry).compile(dialect=postgresql.dialect()).params  # type: ignore[no-untyped-call]
    assert (values["objects"], values["object_ids"][-1], values["outcome"]) == (250, "0099", "done")


def test_what_the_settings_change_in_argilla_is_noted_without_its_content() -> None:
    async def change() -> Any:
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=request.content))
        async with httpx.AsyncClient(base_url="http://argilla/api/v1/", transport=transport) as http:
            return await Argilla(http).change("PATCH", "datasets/1", {"guidelines": "hidden"})

    with structlog.testing.capture_logs() as lines:
        answer = asyncio.run(change())
    assert answer == {"guidelines": "hidden"}
    [line] = lines
    assert (line["event"], line["action"], line["object_ids"]) == ("audit", "argilla.changed", ["datasets/1"])
    assert "hidden" not in str(line)
