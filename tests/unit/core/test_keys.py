"""API keys admit their holders, and no other client."""

import asyncio

import pytest
from fastapi import FastAPI, Request

from core.settings import Limit
from core.web.keys import KeyRing, Scope, ValidKey, hash_key, make_key, require_scope
from core.web.problems import MissingKey, RateLimited, ScopeMissing, Unavailable


def request(authorization: str | None) -> Request:
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    return Request({"type": "http", "path": "/", "server": ("x", 80), "headers": headers})


def valid(key: str, *scopes: Scope, requests_per_second: float | None = None) -> ValidKey:
    return ValidKey(hash_key(key), "1", "test", frozenset(scopes), requests_per_second)


@pytest.fixture
def reader_key() -> str:
    return make_key()


@pytest.fixture
def ring(reader_key: str) -> KeyRing:
    ring = KeyRing(required=True)
    ring.replace([valid(reader_key, Scope.READ)])
    return ring


def test_keys_are_random_and_long() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    # 256 bits in base64, behind a prefix that secret scanners can find.
    assert {len(key) for key in keys} == {3 + 43}
    assert all(key.startswith("ap_") for key in keys)


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_a_valid_key_passes_however_its_header_is_spaced(ring: KeyRing, reader_key: str, header: str) -> None:
    ring.admit(request(header.format(reader_key)), Scope.READ)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Digest"])
def test_a_request_without_a_key_is_told_how_to_send_one(ring: KeyRing, header: str | None) -> None:
    with pytest.raises(MissingKey, match="Send an API key: Authorization: Bearer KEY"):
        ring.admit(request(header), Scope.READ)


@pytest.mark.parametrize("key", ["wrong", "\xff", " " * 8, "a b", "a" * 60_000])
def test_a_wrong_key_is_refused(ring: KeyRing, key: str) -> None:
    with pytest.raises(MissingKey, match="not valid, or was withdrawn"):
        ring.admit(request(f"Bearer {key}"), Scope.READ)


def test_a_key_without_the_scope_is_refused(ring: KeyRing, reader_key: str) -> None:
    with pytest.raises(ScopeMissing):
        ring.admit(request(f"Bearer {reader_key}"), Scope.INGEST)


def test_an_admin_key_may_do_everything(ring: KeyRing) -> None:
    key = make_key()
    ring.replace([valid(key, Scope.ADMIN)])
    ring.admit(request(f"bearer {key}"), Scope.INGEST)


def test_nobody_passes_before_the_keys_are_read(reader_key: str) -> None:
    with pytest.raises(Unavailable):
        KeyRing(required=True).admit(request(f"Bearer {reader_key}"), Scope.READ)


def test_without_keys_required_everybody_passes() -> None:
    made = request(None)
    KeyRing(required=False).admit(made, Scope.ADMIN)
    assert "api_key" not in made.scope


def test_a_key_that_sends_too_much_is_told_when_to_come_again(reader_key: str) -> None:
    ring = KeyRing(required=True)
    keys = [valid(reader_key, Scope.READ, requests_per_second=0.01)]
    ring.replace(keys)
    first = request(f"Bearer {reader_key}")
    ring.admit(first, Scope.READ)
    policy, state = first.scope["rate_limit"]
    assert policy == (b"ratelimit-policy", b'"key";q=1;w=100')
    assert state == (b"ratelimit", b'"key";r=0;t=100')
    ring.replace(keys)  # read again, as every few seconds: nothing is given back
    second = request(f"Bearer {reader_key}")
    with pytest.raises(RateLimited) as refused:
        ring.admit(second, Scope.READ)
    assert 1 <= int(refused.value.headers["Retry-After"]) <= 100
    assert second.scope["rate_limit"][1][1].startswith(b'"key";r=0;t=')


def test_a_wait_of_less_than_a_second_is_told_as_one_second(reader_key: str) -> None:
    """`Retry-After: 0` would make clients repeat the request immediately."""
    ring = KeyRing(required=True)
    ring.replace([ValidKey(hash_key(reader_key), "1", "test", frozenset({Scope.READ}), 5, 1)])
    ring.admit(request(f"Bearer {reader_key}"), Scope.READ)
    with pytest.raises(RateLimited) as refused:
        ring.admit(request(f"Bearer {reader_key}"), Scope.READ)
    assert refused.value.headers["Retry-After"] == "1"


def test_a_burst_passes_whole_and_no_request_more(reader_key: str) -> None:
    ring = KeyRing(required=True)
    ring.replace([ValidKey(hash_key(reader_key), "1", "test", frozenset({Scope.READ}), 0.001, 3)])
    for left in (2, 1, 0):
        passed = request(f"Bearer {reader_key}")
        ring.admit(passed, Scope.READ)
        assert passed.scope["rate_limit"][1][1].startswith(b'"key";r=%d;' % left)
    with pytest.raises(RateLimited):
        ring.admit(request(f"Bearer {reader_key}"), Scope.READ)


def test_a_key_whose_limit_was_taken_away_has_none(reader_key: str) -> None:
    ring = KeyRing(required=True)
    ring.replace([valid(reader_key, Scope.READ, requests_per_second=0.001)])
    ring.admit(request(f"Bearer {reader_key}"), Scope.READ)
    ring.replace([valid(reader_key, Scope.READ)])
    passed = request(f"Bearer {reader_key}")
    ring.admit(passed, Scope.READ)
    assert "rate_limit" not in passed.scope


def test_a_key_that_was_withdrawn_is_refused(ring: KeyRing, reader_key: str) -> None:
    ring.replace([])
    with pytest.raises(MissingKey):
        ring.admit(request(f"Bearer {reader_key}"), Scope.READ)


def test_an_endpoint_asks_the_applications_keys_for_its_scope(ring: KeyRing, reader_key: str) -> None:
    app = FastAPI()
    app.state.key_ring = ring
    made = request(f"Bearer {reader_key}")
    made.scope["app"] = app

    async def ask(scope: Scope) -> None:
        await require_scope(scope)(made)

    asyncio.run(ask(Scope.READ))
    assert made.scope["api_key"].name == "test"
    with pytest.raises(ScopeMissing):
        asyncio.run(ask(Scope.INGEST))


def test_a_key_is_read_with_its_limits() -> None:
    key = ValidKey.from_row((b"hash", "id", "robot", ["read", "ingest"], 0.5, 7, ["toxicity"]))
    assert (key.hash, key.id, key.name, key.scopes) == (b"hash", "id", "robot", frozenset({"read", "ingest"}))
    assert key.limit == Limit(0.5, 7)
    assert key.datasets == frozenset({"toxicity"})
    unlimited = ValidKey.from_row((b"hash", "id", "robot", ["read"], None, None, None))
    assert (unlimited.limit, unlimited.datasets) == (None, None)


def test_a_limit_of_its_own_goes_before_the_settings(reader_key: str) -> None:
    ring = KeyRing(required=True, default_limit=Limit(0.01, 1))
    other = make_key()
    ring.replace([valid(reader_key, Scope.READ, requests_per_second=1000), valid(other, Scope.READ)])
    for _ in range(100):
        ring.admit(request(f"Bearer {reader_key}"), Scope.READ)
    ring.admit(request(f"Bearer {other}"), Scope.READ)
    with pytest.raises(RateLimited):
        ring.admit(request(f"Bearer {other}"), Scope.READ)
    ring.replace([valid(reader_key, Scope.READ, requests_per_second=0.01), valid(other, Scope.READ)])
    ring.admit(request(f"Bearer {reader_key}"), Scope.READ)  # another limit is a new bucket
    with pytest.raises(RateLimited):
        ring.admit(request(f"Bearer {reader_key}"), Scope.READ)


def test_what_is_refused_uses_up_nothing(reader_key: str) -> None:
    ring = KeyRing(required=True)
    ring.replace([valid(reader_key, Scope.READ, requests_per_second=0.01)])
    with pytest.raises(ScopeMissing):
        ring.admit(request(f"Bearer {reader_key}"), Scope.ADMIN)
    ring.admit(request(f"Bearer {reader_key}"), Scope.READ)


def test_a_key_that_was_let_in_is_so_until_it_or_its_scope_is_withdrawn(ring: KeyRing, reader_key: str) -> None:
    asked = request(f"Bearer {reader_key}")
    ring.admit(asked, Scope.READ)
    assert ring.still_admits(asked.scope, Scope.READ)
    ring.replace([valid(make_key(), Scope.ADMIN), valid(reader_key, Scope.ADMIN)])
    assert ring.still_admits(asked.scope, Scope.READ)
    ring.replace([valid(reader_key, Scope.INGEST)])
    assert not ring.still_admits(asked.scope, Scope.READ)
    ring.replace([])
    assert not ring.still_admits(asked.scope, Scope.READ)


def test_without_keys_everything_goes_on() -> None:
    assert KeyRing(required=False).still_admits({}, Scope.READ)
