"""Near duplicates in snapshots, as the ingestion API links them in Postgres."""

import io
import itertools
from typing import Any
from uuid import UUID

from prometheus_client import REGISTRY
from pyarrow import parquet
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from serving_api.replica.replica import Replica
from tests.integration.serving_api.labelling import Labeller


def test_near_duplicates_go_where_the_first_one_is(
    client: TestClient, labeller: Labeller, engine: Engine, replica: Replica
) -> None:
    # Each of a chain is like the one before, and a little like the first one.
    chains = [[labeller.add_text(f"twin {chain} {place}") for place in range(6)] for chain in range(8)]
    with engine.begin() as connection:
        for chain in chains:
            for earlier, later in itertools.pairwise(chain):
                _link(connection, later, earlier, 0.9)
            _link(connection, chain[3], chain[0], 0.8)
    alone = labeller.add_label("alone")
    labeller.annotate({id_: {"ada": "toxic"} for chain in chains for id_ in chain[1:]})  # not the first ones
    labeller.wait_for(replica)
    manifest = client.post("/snapshots", json={"name": "one"}).json()
    splits: dict[str, str] = {}
    for name in manifest["splits"]:
        file = client.get(f"/snapshots/one/{name}.parquet").raise_for_status()
        splits |= dict.fromkeys(parquet.read_table(io.BytesIO(file.content))["id"].to_pylist(), name)
    for chain in chains:
        assert len({splits[str(id_)] for id_ in chain[1:]}) == 1
    with replica.reading() as cursor:
        roots = dict(cursor.execute("select id, near_duplicate_of from items").fetchall())
    assert all(roots[id_] == chain[0] for chain in chains for id_ in chain[1:])
    assert [id_ for id_, root in roots.items() if root is None] == [alone]


def _link(connection: Any, later: UUID, earlier: UUID, similarity: float) -> None:
    values = {"later": later, "earlier": earlier, "similarity": similarity}
    connection.execute(text("insert into near_duplicates values (:later, :earlier, :similarity)"), values)


def test_what_becomes_of_snapshots_is_counted(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("serving_snapshots_total", {"outcome": outcome}) or 0

    labeller.add_label("one")
    labeller.wait_for(replica)
    before = {outcome: count(outcome) for outcome in ("written", "found", "refused", "failed")}
    for body, status in (({"name": "a"}, 201), ({"name": "a"}, 200), ({"name": "a", "seed": 5}, 409)):
        assert client.post("/snapshots", json=body).status_code == status
    after = {outcome: count(outcome) - before[outcome] for outcome in before}
    assert after == {"written": 1, "found": 1, "refused": 1, "failed": 0}
    disk = client.get("/metrics").text
    assert float(disk.split("\nserving_data_free_bytes ")[1].split()[0]) > 0
