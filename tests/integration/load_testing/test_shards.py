"""What docs/scaling.md says of texts distributed over several Postgres servers."""

import pytest

from load_testing.bench.shards import find_out, find_postgres_with_fdw

BINARIES = find_postgres_with_fdw()


@pytest.mark.soak
@pytest.mark.skipif(BINARIES is None, reason="no Postgres with postgres_fdw here")
def test_what_works_behind_one_coordinator_and_what_by_shard() -> None:
    assert BINARIES is not None
    found = {(one.way, one.what.partition(":")[0]): one for one in find_out(BINARIES)}
    works = {key for key, one in found.items() if one.works}
    assert works == {
        ("coordinator", "insert … on conflict do nothing"),
        ("coordinator", "a text by its id"),
        ("by shard", "insert … on conflict (id) do nothing"),
        ("by shard", "claims side by side"),
        ("by shard", "the change feed, a cursor for each shard"),
    }
    refused = {key[1]: one.seen for key, one in found.items() if not one.works}
    assert "no unique or exclusion constraint" in refused["insert … on conflict (id) do nothing"]
    assert "lock timeout" in refused["claims side by side"]
