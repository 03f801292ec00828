"""Parts are killed, frozen or cut off; nothing is lost or doubled, and every response is right.

A round disturbs each part once, under load. Then everything must recover and be right. All the time a transaction
holds an old snapshot, so that Postgres keeps the dead rows of the queue. CHAOS_MINUTES adds rounds with new seeds;
CHAOS_SEED repeats a round's failures, though not their timing.
"""

import os
import random
import time
import uuid
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from psycopg import sql

from local_stack.components.postgres import database_url
from local_stack.guarded import last_lines
from local_stack.testing import RunningStack
from tests.chaos.load import Load, running_load
from tests.chaos.monkey import Monkey
from tests.chaos.parts import PROGRAMS, Platform, running_platform
from tests.chaos.snapshot import holding_snapshot, snapshot_is_held
from tests.chaos.truth import list_complaints
from tests.e2e.uploader.conftest import Annotator, ArgillaSpace, open_argilla
from tests.waiting import wait_for

_FIRST_SEED = 1230  # kills Postgres, OpenSearch, the worker and the uploader; freezes Argilla and Redis
_REST_SECONDS = 300  # at most; a busy machine takes minutes to start OpenSearch again


@pytest.fixture
def platform(stack: RunningStack) -> Iterator[Platform]:
    """The programs over a database of the test's own, in the Postgres that Argilla uses, too."""
    name = f"chaos_{uuid.uuid4().hex[:12]}"
    owner = sql.Identifier("annotation_platform")
    with psycopg.connect(stack.admin_database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), owner))
    with running_platform(stack, database_url(stack.stack.context, name)) as running:
        yield running


@pytest.fixture
def argilla(platform: Platform) -> Iterator[ArgillaSpace]:
    """Argilla as its owner sees it, past the bad network."""
    url = platform.stack.argilla_url
    with open_argilla(url, platform.stack.argilla_api_key) as http:
        yield ArgillaSpace(http, platform.workspace, url, platform.database_url)


def _rounds() -> Iterator[int]:
    """Give seeds until the time is over."""
    ends_at = time.monotonic() + 60 * float(os.environ.get("CHAOS_MINUTES", "0"))
    yield int(os.environ.get("CHAOS_SEED", _FIRST_SEED))
    while time.monotonic() < ends_at:
        yield random.SystemRandom().getrandbits(32)


def _refuse_many(argilla: ArgillaSpace, dataset_id: str) -> None:
    """Make a filter that bad texts do not fit."""
    body = {"name": "a_integer", "title": "a", "settings": {"type": "integer"}, "visible_for_annotators": True}
    argilla.http.post(f"datasets/{dataset_id}/metadata-properties", json=body).raise_for_status()


def _complaints(load: Load) -> list[str]:
    if not load.platform.is_ready():
        return ["not everything is ready"]
    try:
        return list_complaints(load.platform, load.dataset_id, load.acknowledged, load.bad, load.deleted)
    except (httpx.HTTPError, psycopg.OperationalError) as error:
        return [f"cannot look: {error!r}"]


def _wait_until_right(load: Load) -> list[str]:
    """Return the faults that remain after a recovery time."""
    ends_at = time.monotonic() + _REST_SECONDS
    while (complaints := _complaints(load)) and time.monotonic() < ends_at:
        time.sleep(1)
    return complaints


def _one_round(load: Load, argilla: ArgillaSpace, annotators: list[Annotator], seed: int) -> None:
    print(f"seed {seed}: begins")  # noqa: T201
    monkey = Monkey(load.platform, seed)
    leaving = argilla.add_annotator("leaving")
    with running_load(load, [*annotators, leaving], f"round {seed}", seed):
        sent = len(load.acknowledged)
        monkey.strike_all()
        wait_for(load.platform.is_ready, _REST_SECONDS)
        wait_for(lambda: len(load.acknowledged) > sent + 20)  # some of it after the noise
    began_at = time.monotonic()
    argilla.http.delete(f"users/{leaving.id}").raise_for_status()
    complaints = _wait_until_right(load)
    counts = f"{len(load.acknowledged)} texts, {load.answer_count} answers, {len(load.deleted)} deleted records"
    print(f"seed {seed}: {counts}; right {time.monotonic() - began_at:.1f} s after the last")  # noqa: T201

    if complaints:
        _show(load.platform, monkey)
    assert complaints == [], f"seed {seed}"


def _show(platform: Platform, monkey: Monkey) -> None:
    print("\n".join(monkey.done[-100:]), "\n".join(platform.said), sep="\n")  # noqa: T201
    for log in [f"chaos_{part}" for part in PROGRAMS] + ["argilla", "argilla_worker"]:
        print(f"--- {log}", last_lines(platform.stack.logs_dir / f"{log}.log", 60), sep="\n")  # noqa: T201


@pytest.mark.soak
@pytest.mark.timeout(0)  # it has limits of its own
def test_nothing_is_lost_or_doubled_whatever_dies(platform: Platform, argilla: ArgillaSpace) -> None:
    dataset_id = str(argilla.dataset()["id"])
    _refuse_many(argilla, dataset_id)
    load = Load(platform, argilla, dataset_id)
    annotators = [argilla.add_annotator(name) for name in ("ann", "bob")]
    with holding_snapshot(platform.database_url):
        for seed in _rounds():
            _one_round(load, argilla, annotators, seed)
            assert snapshot_is_held(platform.database_url)
