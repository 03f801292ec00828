"""Starts and ends a run: its journal, the look-up of acknowledged texts, their removal, and Locust's exit code."""

import json
import logging
import time
from argparse import Namespace
from pathlib import Path

import orjson
import psycopg
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from locust import events, log
from locust.env import Environment
from locust.runners import STATE_INIT, STATE_STOPPED, DistributedRunner, Runner

from load_testing import targets
from load_testing.users import api_users, checked_user, run_journal
from load_testing.users.checks import id_of
from load_testing.users.comment_texts import submission
from load_testing.users.run_journal import Journal, Lookup, begin, journal

_AT_ONCE = 16
_ATTEMPTS = 10
_PAUSE_SECONDS = 1
_FAILURES = (OSError, ValueError, KeyError)


def look_up(url: str, headers: dict[str, str], journal: Journal) -> Lookup:
    """Request each acknowledged text by its id. A response with another text counts as lost."""
    client = HTTPClient.from_url(url, concurrency=_AT_ONCE, headers=headers, connection_timeout=10)
    lost, unknown = [], []
    texts = (submission(journal.seed, number)["text"] for number in journal.acknowledged)
    ids = ((id_of(text, journal.dataset), text) for text in texts)
    for id_, found in Pool(_AT_ONCE).imap_unordered(lambda asked: _ask(client, *asked), ids, maxsize=_AT_ONCE):
        if found is None:
            unknown.append(id_)
        elif not found:
            lost.append(id_)
    client.close()
    return Lookup(len(journal.acknowledged), lost, unknown)


def _ask(client: HTTPClient, id_: str, text: str) -> tuple[str, bool | None]:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        try:
            answer = client.get(f"/texts/{id_}")
            body = bytes(answer.read())
            if answer.status_code == 200:
                return id_, bool(orjson.loads(body)["text"] == text)
        except _FAILURES:
            continue
        if answer.status_code == 404:
            return id_, False
    return id_, None


_COUNTS = ("requests", "refused", "failures", "arrivals", "late", "dropped")
logger = logging.getLogger("load_testing")

events.request.add_listener(checked_user.note_request)


@events.init.add_listener
def _refuse_workers(environment: Environment, runner: Runner, **_: object) -> None:
    if isinstance(runner, DistributedRunner):
        raise SystemExit("Run it as one process: only that process knows the acknowledged texts.")


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    given = checked_user.given_to(environment)
    started = begin(checked_user.seed_of(given), given.dataset)
    if given.record:
        started.record_to(Path(given.record))
    logger.info("Texts follow from the seed %s", started.seed)


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    done, given = journal(), checked_user.given_to(environment)
    done.end()
    logger.info("Looking up %d acknowledged texts", len(done.acknowledged))
    found = look_up(api_users.IngestionUser.host, checked_user.headers(), done)
    logger.info("%s acknowledged, %s lost", f"{len(done.acknowledged):,}", f"{len(found.lost):,}")
    objectives = {"post": given.objective_post_ms, "get": given.objective_get_ms}
    wrong = [*run_journal.problems(done, found, objectives), *_remove_texts(done, given)]
    for problem in wrong:
        logger.error("Failed: %s", problem)
    # Locust counts a refusal as an error; its own exceptions still fail the run.
    has_caught = log.unhandled_greenlet_exception or (environment.runner and environment.runner.exceptions)
    if wrong or not has_caught:
        environment.process_exit_code = max(environment.process_exit_code or 0, int(bool(wrong)))
    if given.record:
        said = {
            "seed": done.seed,
            "generator": {
                "cpu_seconds": round(done.cpu_seconds, 3),
                "wall_seconds": round(done.wall_seconds, 3),
                "cpu_share": round(done.cpu_seconds / done.wall_seconds, 3),
            },
            **{name: done.counts[name] for name in _COUNTS},
            "acknowledged": len(done.acknowledged),
            "looked_up": found.looked_up,
            "lost": found.lost,
            "unknown": found.unknown,
            "problems": wrong,
        }
        (Path(given.record) / "run.json").write_text(json.dumps(said, indent=2) + "\n")


def _remove_texts(done: Journal, given: Namespace) -> list[str]:
    """Delete the run's texts from the dataset `loadtest`; return the problems."""
    if done.dataset != checked_user.LOADTEST or given.keep:
        return []
    database_url = targets.find_database(api_users.IngestionUser.host)
    if database_url is None:
        logger.warning("The texts stay in the dataset %s: set DATABASE_URL to have them removed.", done.dataset)
        return []
    try:
        removed, uploaded = targets.remove_texts(database_url, done.dataset, done.seed)
    except psycopg.Error as error:
        return [f"the texts of this run could not be removed: {error}"]
    logger.info("%s texts removed from the dataset %s", f"{removed:,}", done.dataset)
    if uploaded:
        return [f"{uploaded:,} texts went to annotators: the dataset {done.dataset} needs `upload = false`"]
    return []


@events.quitting.add_listener
def _stop_first(environment: Environment, **_: object) -> None:
    # After Ctrl-C the run still continues. Its end decides the exit code.
    runner = environment.runner
    if runner is not None and runner.state not in {STATE_INIT, STATE_STOPPED}:
        runner.stop()
