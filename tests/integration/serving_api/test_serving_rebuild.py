"""The replica is rebuilt while the old one serves; after any end of a build, one of the two exists."""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from serving_api.replica.follower import Follower
from serving_api.replica.replica import Replica
from serving_api.replica.repository import State
from tests.integration.serving_api.labelling import Labeller, assert_same, wait_until
from tests.programs import Program, running


@contextmanager
def builds_wait(database_url: str) -> Iterator[psycopg.Connection]:
    """Delay reads of annotations, like a slow Postgres: builds get stuck half-way."""
    with psycopg.connect(database_url) as connection:
        connection.execute("lock table annotations in access exclusive mode")
        yield connection
        connection.rollback()


def follower_of(client: TestClient) -> Follower:
    follower: Follower = client.app.state.follower  # type: ignore[attr-defined]
    return follower


def another_database(replica: Replica) -> None:
    replica.state = replace(replica.loaded(), identity="another")


def damage(replica: Replica) -> None:
    replica.file.damaged = True


@pytest.mark.parametrize(("reason", "kept"), [(another_database, False), (damage, True)])
def test_readers_finish_on_the_old_one(
    client: TestClient,
    labeller: Labeller,
    replica: Replica,
    engine: Engine,
    database_url: str,
    reason: object,
    kept: bool,
) -> None:
    assert callable(reason)
    labeller.add_label("first")
    labeller.wait_for(replica)
    old = replica.file.path
    with builds_wait(database_url):
        reason(replica)
        wait_until(lambda: follower_of(client).rebuilding)
        answer = client.get("/texts")
        assert [item["text"] for item in answer.json()["items"]] == ["first"]
        ready = client.get("/readyz")
        assert ready.status_code == 200
        assert "the old one serves on" in ready.json()["notes"]["replica"]
    with replica.reading() as reader:
        assert reader.execute("select text from items").fetchall() == [("first",)]
        wait_until(lambda: replica.file.path != old)
        labeller.add_label("second")
        labeller.wait_for(replica)
        assert client.get("/stats").json()["total"] == 2
        assert reader.execute("select text from items").fetchall() == [("first",)]
        assert old.exists()
    assert not old.exists()
    assert (old.parent / "replica.damaged").exists() == kept
    assert client.get("/readyz").json() == {"status": "ok", "missing": {}}
    assert_same(engine, replica)


def test_an_error_of_postgres_that_has_ended_is_not_named_any_more(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine, database_url: str
) -> None:
    labeller.add_label("first")
    labeller.wait_for(replica)
    with engine.begin() as connection:
        connection.execute(text("alter table labels rename to away"))
    wait_until(lambda: follower_of(client).error)
    with engine.begin() as connection:
        connection.execute(text("alter table away rename to labels"))
    labeller.add_label("second")
    labeller.wait_for(replica)
    with builds_wait(database_url):
        another_database(replica)
        wait_until(lambda: follower_of(client).rebuilding)
        assert client.get("/readyz").json()["notes"]["replica"].endswith("Postgres: fine")


def test_same_answers_after_a_rebuild_have_the_same_etags(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    labeller.add_label("first")
    labeller.wait_for(replica)
    told: list[State] = []
    replica.on_change(told.append)
    before = client.get("/texts")
    replica.file.damaged = True
    wait_until(lambda: told)
    again = client.get("/texts", headers={"If-None-Match": before.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["x-replica-version"] == before.headers["x-replica-version"]
    assert float(again.headers["x-replica-age"]) < 20
    assert told == [replace(replica.loaded(), cursor=told[0].cursor, read_at=told[0].read_at)]


def total(program: Program) -> int:
    answer = httpx.get(f"{program.url}/stats", timeout=20)
    return int(answer.json()["total"]) if answer.status_code == 200 else -1


def begun(folder: Path) -> bool:
    return (folder / "serving" / "replica.building").exists()


@pytest.fixture
def elsewhere(
    labeller: Labeller, environment: dict[str, str], tmp_path: Path, other_database_url: str
) -> dict[str, str]:
    """A replica of one text, and the environment with another, empty database, so that it must be rebuilt."""
    labeller.add_label("of the first database")
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        wait_until(lambda: total(program) == 1)
    return environment | {"DATABASE_URL": other_database_url}


@pytest.mark.soak
def test_killed_while_building_the_old_one_is_still_there(elsewhere: dict[str, str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with builds_wait(elsewhere["DATABASE_URL"]):
        for _ in range(2):
            with running("serving_api", elsewhere, log, "/readyz") as program:
                wait_until(lambda: begun(tmp_path))
                assert total(program) == 1
                program.kill()
    with running("serving_api", elsewhere, log) as program:
        wait_until(lambda: total(program) == 0)
        wait_until(lambda: [file.name for file in (tmp_path / "serving").glob("*.duckdb")] == ["replica-2.duckdb"])
        assert not list((tmp_path / "serving").glob("replica.building*"))


def test_full_disk_leaves_the_old_one_and_is_tried_again(elsewhere: dict[str, str], tmp_path: Path) -> None:
    with (
        builds_wait(elsewhere["DATABASE_URL"]) as lock,
        running("serving_api", elsewhere, tmp_path / "log") as program,
    ):
        wait_until(lambda: begun(tmp_path))
        limits = psutil.Process(program.process.pid)
        limits.rlimit(psutil.RLIMIT_FSIZE, (16_384, psutil.RLIM_INFINITY))
        lock.rollback()
        wait_until(lambda: "feed.failed" in program.log.read_text())
        assert total(program) == 1
        limits.rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        wait_until(lambda: total(program) == 0)


@pytest.mark.soak
def test_damage_while_serving_is_refused_and_healed(
    labeller: Labeller, environment: dict[str, str], tmp_path: Path
) -> None:
    ids = [labeller.add_text(f"{random.Random(n).randbytes(2000).hex()}") for n in range(600)]  # noqa: S311
    said = {"ada": "toxic"}
    labeller.annotate(dict.fromkeys(ids, said))
    with running("serving_api", environment, tmp_path / "log") as program:
        wait_until(lambda: total(program) == len(ids))
    file = tmp_path / "serving" / "replica-1.duckdb"
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        with file.open("r+b") as blocks:  # while it is open, and mostly not read yet
            for position in range(3 * 4096, file.stat().st_size, 4096):
                blocks.seek(position)
                blocks.write(b"\xa5" * 64)
        seen = set()
        deadline = time.monotonic() + 30
        while "damaged file" not in program.log.read_text() and time.monotonic() < deadline:
            answers = [httpx.get(f"{program.url}/texts/{id_}", timeout=20) for id_ in ids[:20]]
            seen |= {answer.status_code for answer in answers}
        assert 503 in seen
        assert seen <= {200, 503}
        wait_until(lambda: "replica.built" in program.log.read_text().partition("damaged file")[2])
        assert {httpx.get(f"{program.url}/texts/{id_}").status_code for id_ in ids} == {200}
