"""API keys let in whom they should, and nobody else."""

import pytest

from core.keys import KeyRing, Scope, hash_key, make_key
from core.problems import MissingKey, ScopeMissing, Unavailable


@pytest.fixture
def reader_key() -> str:
    return make_key()


@pytest.fixture
def ring(reader_key: str) -> KeyRing:
    ring = KeyRing(required=True)
    ring.replace({hash_key(reader_key): frozenset({Scope.READ})})
    return ring


def test_keys_are_random_and_long() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 for key in keys)


def test_a_valid_key_passes(ring: KeyRing, reader_key: str) -> None:
    ring.check(f"Bearer {reader_key}", Scope.READ)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer wrong", "Bearer \xff"])
def test_anything_else_is_refused(ring: KeyRing, header: str | None) -> None:
    with pytest.raises(MissingKey):
        ring.check(header, Scope.READ)


def test_a_key_without_the_scope_is_refused(ring: KeyRing, reader_key: str) -> None:
    with pytest.raises(ScopeMissing):
        ring.check(f"Bearer {reader_key}", Scope.INGEST)


def test_an_admin_key_may_do_everything(ring: KeyRing) -> None:
    key = make_key()
    ring.replace({hash_key(key): frozenset({Scope.ADMIN})})
    ring.check(f"bearer {key}", Scope.INGEST)


def test_nobody_passes_before_the_keys_are_read(reader_key: str) -> None:
    with pytest.raises(Unavailable):
        KeyRing(required=True).check(f"Bearer {reader_key}", Scope.READ)


def test_without_keys_required_everybody_passes() -> None:
    KeyRing(required=False).check(None, Scope.ADMIN)
