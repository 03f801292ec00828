"""The replica follows the change feed: nothing missed, nothing doubled, whatever happens in between."""

import contextlib
import random
import shutil
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import Engine, text
from starlette.testclient import TestClient

from core.settings import DatabaseSettings
from core.web.problems import Unavailable
from serving_api.metrics import APPLY_SECONDS, LABEL_LAG_SECONDS
from serving_api.replica.replica import Replica
from serving_api.settings import ReplicaSettings
from tests.integration.serving_api.conftest import Serve, World, fresh_world, make_client
from tests.integration.serving_api.labelling import Labeller, assert_same, wait_until


def replica_of(client: TestClient) -> Replica:
    replica: Replica = client.app.state.replica  # type: ignore[attr-defined]
    return replica


def builds() -> float:
    samples = next(iter(APPLY_SECONDS.labels("build").collect())).samples
    return next(sample.value for sample in samples if sample.name.endswith("_count"))


def lags() -> tuple[float, float]:
    """Return how many lags were measured, and their sum in seconds."""
    samples = {sample.name: sample.value for sample in next(iter(LABEL_LAG_SECONDS.collect())).samples}
    return samples["serving_label_lag_seconds_count"], samples["serving_label_lag_seconds_sum"]


def change_at_random(labeller: Labeller, seed: int, rounds: int) -> None:
    """Label, edit and withdraw, several texts a transaction."""
    chance = random.Random(seed)  # noqa: S311
    texts = [uuid.uuid4().hex for _ in range(12)]
    ids = [labeller.add_text(words) for words in texts]
    for _ in range(rounds):
        disputed = labeller.list_disputed(texts)
        if disputed and chance.random() < 0.5:
            annotators = chance.sample(["ada", "judge"], chance.randint(0, 2))
            said = {name: chance.choice(["toxic", "non_toxic"]) for name in annotators}
            labeller.decide({chance.choice(disputed): said})
        with labeller.engine.begin() as connection:
            for id_ in sorted(chance.sample(ids, 4)):
                annotators = chance.sample(["ada", "bob", "cleo"], chance.randint(0, 3))
                labeller.annotate_within(
                    connection, {id_: {name: chance.choice(["toxic", "non_toxic"]) for name in annotators}}
                )


def test_concurrent_writers_and_a_long_transaction(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    slow = labeller.add_text("labelled first, committed last")
    with engine.begin() as connection:
        labeller.annotate_within(connection, {slow: {"ada": "toxic"}})
        writers = [threading.Thread(target=change_at_random, args=(labeller, seed, 25)) for seed in range(5)]
        for writer in writers:
            writer.start()
        for writer in writers[:3]:
            writer.join()
    for writer in writers[3:]:
        writer.join()
    labeller.wait_for(replica)
    assert_same(engine, replica)
    assert client.get(f"/texts/{slow}").status_code == 200


def test_a_lag_is_measured_for_each_new_answer_and_for_nothing_else(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    first = labeller.add_label("first")
    labeller.wait_for(replica)
    count, seconds = lags()
    labeller.annotate({first: {"ada": "toxic", "bob": "toxic"}})
    labeller.wait_for(replica)
    wait_until(lambda: lags()[0] == count + 1)
    assert 0 <= lags()[1] - seconds < 120
    # As an estimated rule rewrites it: the answers are old.
    with engine.begin() as connection:
        connection.execute(text("update labels set confidence = 0.9, changed_xid = pg_current_xact_id()"))
    labeller.annotate({first: {"ada": "toxic"}})  # taken back
    labeller.annotate({first: {}})
    labeller.add_label("another one")
    labeller.wait_for(replica)
    wait_until(lambda: lags()[0] == count + 2)


def test_open_transaction_holds_back_what_came_later(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    first = labeller.add_text("first")
    with engine.begin() as connection:
        labeller.annotate_within(connection, {first: {"ada": "toxic"}})
        second = labeller.add_label("second")
        read_at = replica.loaded().read_at if replica.state else None
        wait_until(lambda: replica.state is not None and replica.state.read_at != read_at)
        assert client.get(f"/texts/{second}").status_code == 404
    labeller.wait_for(replica)
    assert {item["text"] for item in client.get("/texts").json()["items"]} == {"first", "second"}


def test_how_long_a_transaction_holds_back_the_feed_is_measured(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    def held_seconds() -> float:
        return REGISTRY.get_sample_value("serving_feed_held_seconds") or 0

    labeller.add_label("a")
    labeller.wait_for(replica)
    with engine.begin() as slow:
        slow.execute(text("select pg_current_xact_id()"))
        labeller.add_label("b")
        wait_until(lambda: held_seconds() > 0.2)
    wait_until(lambda: held_seconds() == 0)


def test_text_that_is_withdrawn_and_labelled_again_in_one_window(
    serve: Serve, labeller: Labeller, engine: Engine
) -> None:
    ids = [labeller.add_label(str(number)) for number in range(50)]
    with serve() as client:
        labeller.wait_for(replica_of(client))
    for _ in range(3):
        labeller.annotate({id_: {} for id_ in ids})
        labeller.annotate({id_: {"bob": "non_toxic"} for id_ in ids[:40]})
    with serve() as client:
        labeller.wait_for(replica_of(client))
        assert_same(engine, replica_of(client))
        assert client.get("/stats").json()["total"] == 40


@pytest.mark.soak
def test_same_texts_labelled_again_and_again(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    ids = [labeller.add_label(str(number)) for number in range(200)]
    for round_ in range(15):
        value = ["toxic", "non_toxic"][round_ % 2]
        labeller.annotate({id_: {"ada": value, f"annotator {round_}": value} for id_ in ids})
    labeller.wait_for(replica)
    assert_same(engine, replica)
    assert client.get("/stats").json()["by_label"] == {"toxic": 200, "non_toxic": 0}


def test_changes_are_followed_when_postgres_tells_of_them_before_the_next_poll(
    serve: Serve, labeller: Labeller
) -> None:
    with serve(poll_seconds=3600) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)

        def is_followed() -> bool:
            labeller.add_label(uuid.uuid4().hex)  # another transaction may hold back one of them
            return bool(client.get("/stats").json()["total"])

        wait_until(is_followed)


def test_restart_catches_up_without_a_build(serve: Serve, labeller: Labeller, engine: Engine) -> None:
    edited, withdrawn = labeller.add_label("a"), labeller.add_label("b")
    with serve() as client:
        labeller.wait_for(replica_of(client))
    built = builds()
    labeller.annotate({edited: {"ada": "non_toxic"}, withdrawn: {}})
    labeller.add_label("c")
    with serve() as client:
        assert client.get("/readyz").status_code == 200
        labeller.wait_for(replica_of(client))
        assert_same(engine, replica_of(client))
    assert builds() == built


def everything(client: TestClient) -> list[tuple[bytes, str | None]]:
    ids = [item["id"] for item in client.get("/texts?limit=1000").json()["items"]]
    paths = ["/texts", "/texts?limit=3", "/toxic_texts?order=oldest", *(f"/texts/{id_}" for id_ in ids)]
    answers = [client.get(path) for path in paths]
    return [(answer.content, answer.headers.get("etag")) for answer in answers]


def delete(path: Path) -> None:
    path.unlink()


def fill_with_noise(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(200_000))  # noqa: S311


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def overwrite_the_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for position in range(4096 * 3, len(content), 500):
        content[position] ^= 0xFF
    path.write_bytes(content)


def overwrite_the_end(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 262_144] + b"\xa5" * 262_144)


def damage_the_log(path: Path) -> None:
    path.with_name(f"{path.name}.wal").write_bytes(b"noise" * 1000)


@dataclass(frozen=True)
class Left:
    """The files of a stopped application, and its database."""

    world: World
    folder: Path
    file: Path  # of the replica, within the folder
    answers: list[tuple[bytes, str | None]]


@pytest.fixture(scope="module")
def left(
    admin_database_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    folder = tmp_path_factory.mktemp("left")
    with fresh_world(admin_database_url, template_database, folder) as world:
        change_at_random(world.labeller, 3, 20)
        with world.client:
            world.labeller.wait_for(world.replica)
            change_at_random(world.labeller, 4, 20)
            world.labeller.wait_for(world.replica)
            answers = everything(world.client)
        yield Left(world, folder, world.replica.file.path.relative_to(folder), answers)


@pytest.mark.parametrize(
    "harm", [delete, empty, fill_with_noise, cut_in_half, overwrite_the_middle, overwrite_the_end, damage_the_log]
)
def test_lost_or_damaged_file_comes_back_the_same(left: Left, tmp_path: Path, harm: object) -> None:
    assert callable(harm)
    shutil.copytree(left.folder, tmp_path, dirs_exist_ok=True)
    harm(tmp_path / left.file)
    with make_client(tmp_path, left.world.database) as client:

        def is_the_same_again() -> bool:
            # Damage in the middle of a file shows when it is read: that answer is a 503, and the file is renewed.
            with contextlib.suppress(Unavailable):
                assert_same(left.world.engine, replica_of(client))
                return everything(client) == left.answers
            return False

        left.world.labeller.wait_for(replica_of(client))
        wait_until(is_the_same_again)


def test_damage_noticed_while_serving_is_healed(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine, tmp_path: Path
) -> None:
    labeller.add_label("a")
    labeller.wait_for(replica)
    before = everything(client)
    replica.file.damaged = True
    wait_until(lambda: not replica.file.damaged)
    assert everything(client) == before
    assert_same(engine, replica)
    wait_until((tmp_path / "serving" / "replica.damaged").exists)


def test_file_of_another_layout_is_built_anew(serve: Serve, labeller: Labeller, engine: Engine) -> None:
    labeller.add_label("a")
    with serve() as client:
        labeller.wait_for(replica_of(client))
        with replica_of(client).file.transaction() as cursor:
            cursor.execute("update layout set number = 0")
            cursor.execute("drop table annotations")
    with serve() as client:
        labeller.wait_for(replica_of(client))
        assert_same(engine, replica_of(client))


def test_file_of_another_database_is_built_anew(serve: Serve, labeller: Labeller, other_database_url: str) -> None:
    labeller.add_label("a")
    with serve() as client:
        labeller.wait_for(replica_of(client))
        assert client.get("/stats").json()["total"] == 1
    with serve(database=DatabaseSettings(url=SecretStr(other_database_url))) as client:
        wait_until(lambda: client.get("/stats").json()["total"] == 0)


def test_database_that_went_back_in_time_is_read_anew(serve: Serve, labeller: Labeller, engine: Engine) -> None:
    labeller.add_label("a")
    with serve() as client:
        labeller.wait_for(replica_of(client))
        before = client.get("/texts")
        with replica_of(client).file.transaction() as cursor:
            cursor.execute("update state set cursor = cursor + 1000000000")
            cursor.execute("delete from items")
    built = builds()
    with serve() as client:
        wait_until(lambda: builds() > built)
        assert_same(engine, replica_of(client))
        # The same version of another history: a cached response may differ.
        after = client.get("/texts", headers={"If-None-Match": before.headers["etag"]})
        assert after.headers["x-replica-version"] == before.headers["x-replica-version"]
        assert after.status_code == 200
        replica_of(client).file.damaged = True
        wait_until(lambda: not replica_of(client).file.damaged)
        assert client.get("/texts", headers={"If-None-Match": after.headers["etag"]}).status_code == 304


def test_a_restore_into_the_same_database_is_noticed(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    for name in ("kept", "of after the back-up"):
        labeller.add_label(name)
    labeller.wait_for(replica)
    before = client.get("/changes").json()["feed"]
    # As after a restore: another table, without tombstones for the missing rows.
    with engine.begin() as connection:
        for statement in (
            "create table restored (like labels including all)",
            "insert into restored select * from labels order by changed_xid limit 1",
            "update restored set changed_xid = pg_current_xact_id()",
            "drop table labels",
            "alter table restored rename to labels",
        ):
            connection.execute(text(statement))
    wait_until(lambda: client.get("/stats").json()["total"] == 1)
    assert_same(engine, replica)
    assert client.get("/changes").json()["feed"] != before


def test_labels_from_a_dump_are_refused_loudly(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    labeller.add_label("a")
    labeller.wait_for(replica)
    with engine.begin() as connection:
        connection.execute(text("update labels set changed_xid = '99999999999'"))
    follower = client.app.state.follower  # type: ignore[attr-defined]
    wait_until(lambda: follower.error == "StampedAhead")
    with engine.begin() as connection:
        connection.execute(text("update labels set changed_xid = pg_current_xact_id()"))
    labeller.wait_for(replica)
    assert_same(engine, replica)


def test_follower_outlives_its_connections(
    client: TestClient, labeller: Labeller, replica: Replica, engine: Engine
) -> None:
    for number in range(3):
        labeller.add_label(str(number))
        labeller.wait_for(replica)
        with engine.begin() as connection:
            ended = connection.execute(
                text(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where application_name = 'serving_api' and datname = current_database()"
                )
            )
            assert ended.rowcount == 2
    labeller.add_label("last")
    labeller.wait_for(replica)
    assert client.get("/stats").json()["total"] == 4


def test_second_process_is_refused(client: TestClient, serve: Serve, replica: Replica) -> None:
    wait_until(lambda: replica.state is not None)
    with pytest.raises(SystemExit, match="Another process uses the replica"):
        Replica(replica.file.path, ReplicaSettings()).open()
