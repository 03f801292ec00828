"""Begins and ends a run's journal, looks for lost texts at its end, and decides about Locust's exit code."""

import json
import logging
from argparse import Namespace
from pathlib import Path

import psycopg
from locust import events, log
from locust.env import Environment
from locust.runners import STATE_INIT, STATE_STOPPED, DistributedRunner, Runner

from load_testing import removal
from load_testing.reports import verdict
from load_testing.users import checked_user, ingestion_users, options
from load_testing.users.lookup import look_up
from load_testing.users.run_journal import Journal, begin, journal

_COUNTS = ("requests", "refused", "failures", "arrivals", "late", "dropped")
logger = logging.getLogger("load_testing")

events.request.add_listener(checked_user.note_request)


@events.init.add_listener
def _refuse_workers(environment: Environment, runner: Runner, **_: object) -> None:
    if isinstance(runner, DistributedRunner):
        raise SystemExit("Run it as one process: what was acknowledged is known to that process only.")


@events.test_start.add_listener
def _begin(environment: Environment, **_: object) -> None:
    given = options.given_to(environment)
    started = begin(options.seed_of(given), given.dataset)
    if given.record:
        started.record_to(Path(given.record))
    logger.info("Texts follow from the seed %s", started.seed)


@events.test_stop.add_listener
def _end(environment: Environment, **_: object) -> None:
    done, given = journal(), options.given_to(environment)
    done.end()
    logger.info("Looking up %d acknowledged texts", len(done.acknowledged))
    found = look_up(ingestion_users.IngestionUser.host, options.headers(), done)
    logger.info("%s acknowledged, %s lost", f"{len(done.acknowledged):,}", f"{len(found.lost):,}")
    objectives = {"post": given.objective_post_ms, "get": given.objective_get_ms}
    wrong = [*verdict.problems(done, found, objectives), *_remove_texts(done, given)]
    for problem in wrong:
        logger.error("Failed: %s", problem)
    # Else Locust takes a refusal for an error. What it has caught itself stays one.
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
    """Delete the run's texts from the dataset `loadtest`; return what is wrong with that."""
    if done.dataset != options.LOADTEST or given.keep:
        return []
    database_url = removal.find_database(ingestion_users.IngestionUser.host)
    if database_url is None:
        logger.warning("The texts stay in the dataset %s: set DATABASE_URL to have them removed.", done.dataset)
        return []
    try:
        removed, uploaded = removal.remove_texts(database_url, done.dataset, done.seed)
    except psycopg.Error as error:
        return [f"the texts of this run could not be removed: {error}"]
    logger.info("%s texts removed from the dataset %s", f"{removed:,}", done.dataset)
    if uploaded:
        return [f"{uploaded:,} texts went to annotators: the dataset {done.dataset} needs `upload = false`"]
    return []


@events.quitting.add_listener
def _stop_first(environment: Environment, **_: object) -> None:
    # After Ctrl-C the run is still going on; its end decides about the exit code.
    runner = environment.runner
    if runner is not None and runner.state not in {STATE_INIT, STATE_STOPPED}:
        runner.stop()
