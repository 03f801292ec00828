"""The end of a run: the look-up of acknowledged texts, their removal, the verdict, and Locust's exit code."""

import logging
import time
from argparse import Namespace

import orjson
import psycopg
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from locust import events, log
from locust.env import Environment
from locust.runners import STATE_INIT, STATE_STOPPED

from load_testing.targets import find_database, key_headers, remove_texts
from load_testing.users.api_users import IngestionUser
from load_testing.users.checked_user import given_to
from load_testing.users.checks import id_of
from load_testing.users.comment_texts import submission
from load_testing.users.load_run import LOADTEST, Journal, Lookup, journal, problems

_AT_ONCE = 16
_ATTEMPTS = 10
_PAUSE_SECONDS = 1
_FAILURES = (OSError, ValueError, KeyError)
_COUNTS = ("requests", "refused", "failures", "arrivals", "late", "dropped")
logger = logging.getLogger("load_testing")


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    done, given = journal(), given_to(environment)
    done.end()
    logger.info("Looking up %d acknowledged texts", len(done.acknowledged))
    found = _look_up(done)
    logger.info("%s acknowledged, %s lost", f"{len(done.acknowledged):,}", f"{len(found.lost):,}")
    objectives = {"post": given.objective_post_ms, "get": given.objective_get_ms}
    wrong = [*problems(done, found, objectives), *_remove_texts(done, given)]
    for problem in wrong:
        logger.error("Failed: %s", problem)
    # Locust counts a refusal as an error; its own exceptions still fail the run.
    has_caught = log.unhandled_greenlet_exception or (environment.runner and environment.runner.exceptions)
    if wrong or not has_caught:
        environment.process_exit_code = max(environment.process_exit_code or 0, int(bool(wrong)))
    done.write(
        **{name: done.counts[name] for name in _COUNTS},
        acknowledged=len(done.acknowledged),
        **found._asdict(),
        problems=wrong,
    )


def _look_up(journal: Journal) -> Lookup:
    """Request each acknowledged text by its id. A response with another text counts as lost."""
    url, headers = IngestionUser.host, key_headers()
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


def _remove_texts(done: Journal, given: Namespace) -> list[str]:
    """Delete the run's texts from the dataset `loadtest`; return the problems."""
    if done.dataset != LOADTEST or given.keep:
        return []
    database_url = find_database(IngestionUser.host)
    if database_url is None:
        logger.warning("The texts stay in the dataset %s: set DATABASE_URL to have them removed.", done.dataset)
        return []
    try:
        removed, uploaded = remove_texts(database_url, done.dataset, done.seed)
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
