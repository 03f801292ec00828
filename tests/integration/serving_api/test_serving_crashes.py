"""The program and its Postgres are killed; the responses stay consistent and become complete again."""

import random
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from core.migrate import migrate
from core.settings import DatabaseSettings
from local_stack.testing import running_stack
from tests.integration.serving_api.labelling import Labeller, wait_until
from tests.programs import running


def walk(url: str) -> list[tuple[str, int]]:
    """Return the ids and the numbers of annotations of all texts."""
    items: list[tuple[str, int]] = []
    parameters: dict[str, str | int] = {"limit": 1000}
    while True:
        page = httpx.get(f"{url}/texts", params=parameters).raise_for_status().json()
        items += [(item["id"], item["annotations"]) for item in page["items"]]
        if page["next_cursor"] is None:
            return items
        parameters["cursor"] = page["next_cursor"]


def version(url: str) -> int:
    answer = httpx.get(f"{url}/texts?limit=1")
    return int(answer.headers.get("x-replica-version", -1))


def held(labeller: Labeller) -> list[tuple[str, int]]:
    statement = text(
        "select text_id::text, annotations from labels where status <> 'withdrawn' "
        "order by labelled_at desc, text_id"
    )
    with labeller.engine.connect() as connection:
        return [(row[0], row[1]) for row in connection.execute(statement)]


def test_killed_while_applying_it_is_consistent_and_catches_up(
    labeller: Labeller, environment: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random(5)  # noqa: S311
    ids = [labeller.add_text(str(number)) for number in range(300)]
    stop = threading.Event()

    def write() -> None:
        # Each transaction gives all texts of one group the same number of annotations: a half-applied one shows.
        while not stop.is_set():
            group = chance.randrange(3)
            said = {f"annotator {n}": "toxic" for n in range(chance.randint(1, 4))}
            labeller.annotate(dict.fromkeys(ids[group::3], said))

    writer = threading.Thread(target=write)
    writer.start()
    groups = [{str(id_) for id_ in ids[group::3]} for group in range(3)]
    try:
        for _ in range(3):
            with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
                items = _one_page(program.url)
                for group in groups:
                    assert len({count for id_, count in items.items() if id_ in group}) <= 1
                time.sleep(chance.uniform(0, 0.5))
                program.kill()
    finally:
        stop.set()
        writer.join()
    with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
        wait_until(lambda: version(program.url) == labeller.newest_stamp())
        assert walk(program.url) == held(labeller)
    assert "replica.damaged" not in (tmp_path / "log").read_text()


def _one_page(url: str) -> dict[str, int]:
    """Return all texts of one version: fewer than a page holds."""
    page = httpx.get(f"{url}/texts?limit=1000").raise_for_status().json()
    return {item["id"]: item["annotations"] for item in page["items"]}


@pytest.fixture
def many_labels(labeller: Labeller) -> int:
    """Enough labels for a build that takes a while."""
    with labeller.engine.begin() as connection:
        connection.execute(
            text(
                "insert into texts (id, dataset, text) "
                "select gen_random_uuid(), 'toxicity', repeat(md5(n::text), 20) from generate_series(1, 60000) n"
            )
        )
        connection.execute(
            text(
                "insert into labels (text_id, dataset, label, status, agreement, votes, annotations, labelled_at) "
                "select id, 'toxicity', 'toxic', 'labelled', 1, '{\"toxic\": 1}', 1, now() from texts"
            )
        )
    return 60_000


@pytest.mark.soak
def test_killed_while_building_it_builds_again(
    labeller: Labeller, many_labels: int, environment: dict[str, str], tmp_path: Path
) -> None:
    for seconds in (0.1, 0.3, 0.6):
        with running("serving_api", environment, tmp_path / "log") as program:
            time.sleep(seconds)
            program.kill()
    with running("serving_api", environment, tmp_path / "log") as program:
        wait_until(lambda: version(program.url) == labeller.newest_stamp())
        assert httpx.get(f"{program.url}/stats").json()["total"] == many_labels
    assert "replica.damaged" not in (tmp_path / "log").read_text()


@pytest.mark.soak
@pytest.mark.usefixtures("many_labels")
def test_stopped_while_building_it_ends_cleanly(environment: dict[str, str], tmp_path: Path) -> None:
    for seconds in (0.0, 0.1, 0.2, 0.4, 0.6):
        shutil.rmtree(tmp_path / "serving", ignore_errors=True)
        with running("serving_api", environment, tmp_path / "log") as program:
            time.sleep(seconds)
            program.process.terminate()
            assert program.process.wait(60) in {0, -signal.SIGTERM}


def test_postgres_goes_and_comes_back(tmp_path: Path) -> None:
    with running_stack({"postgres"}) as stack:
        migrate(DatabaseSettings(url=SecretStr(stack.database_url)))
        database = DatabaseSettings(url=SecretStr(stack.database_url))
        engine = create_engine(database.sqlalchemy_url, pool_pre_ping=True)
        labeller = Labeller(engine)
        labeller.add_label("before")
        environment = {"DATABASE_URL": stack.database_url, "DATA_DIR": str(tmp_path)}
        with running("serving_api", environment, tmp_path / "log", "/readyz") as program:
            before = httpx.get(f"{program.url}/texts")
            stack.stop_component("postgres")
            time.sleep(1.5)
            away = httpx.get(f"{program.url}/texts?limit=99")
            assert away.json() == before.json()
            assert float(away.headers["x-replica-age"]) > 1
            assert httpx.get(f"{program.url}/readyz").status_code == 200
            stack.start_component("postgres")
            labeller.add_label("after")
            wait_until(lambda: len(walk(program.url)) == 2)
        engine.dispose()
