"""Reads a dataset's answers, estimates its label rule, and lists the labels that must be derived again.

Runs in a separate process (`anyio.to_process`): an estimate keeps a core busy for seconds to minutes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from core.database import connect_in_thread
from core.datasets import Dataset
from core.labels.estimated_rules import load_parameters
from core.labels.rules import TOLERANCE, Outcome, RuleInForce
from core.models import Decider
from core.os_process import step_back
from core.settings import DatabaseSettings
from uploader.rules.crowd import Answers, estimate

_READ_TEXTS = 10_000

_HELD = """
select rule_version, rule_parameters, rule_answers, pg_snapshot_xmin(pg_current_snapshot())::text as seen_xid
from datasets where name = %(dataset)s
"""

# Sorted, so that an estimate depends on the answers alone.
_ANSWERS = """
select labels.text_id, labels.status, labels.label, labels.confidence, labels.rule, labels.decided_by,
    array_agg(annotations.annotator order by annotations.annotator, annotations.value) as annotators,
    array_agg(annotations.value order by annotations.annotator, annotations.value) as "values"
from labels join annotations using (text_id)
where labels.dataset = %(dataset)s and annotations.status = 'submitted' and annotations.value is not null
    and annotations.withdrawn_at is null
group by labels.text_id order by labels.text_id
"""


@dataclass(frozen=True, slots=True)
class Estimate:
    """The result of an estimate, in values that can be sent between processes."""

    is_new: bool  # else these answers were estimated before
    parameters: dict[str, Any] | None  # of a majority, none
    answers: str  # digest of rule and answers
    seen_xid: str  # transactions from this one on may have changed answers that were not read
    annotators: int
    texts: int
    to_rewrite: list[UUID]  # texts whose label is not what the rule says


def estimate_dataset(dataset: str, definition: Dataset, database: DatabaseSettings) -> Estimate:
    """Estimate the rule of a dataset from all of its submitted answers, unless that was done with the same ones.

    Raises:
        NoEstimate: the library made nothing of these answers.
        psycopg.Error: Postgres is away.
    """
    step_back()
    with connect_in_thread(database, "uploader estimation") as connection:
        # Both passes read the same: the second is cheaper than to keep all answers.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        held: Any = connection.cursor(row_factory=namedtuple_row).execute(_HELD, {"dataset": dataset}).fetchone()
        answers, digest = _read_answers(connection, dataset, definition)
        is_new = digest != held.rule_answers
        if is_new:
            parameters = estimate(definition.label_rule, answers, definition.labels)
        else:
            parameters = held.rule_parameters and load_parameters(held.rule_parameters)
        rule = RuleInForce(definition.label_rule, held.rule_version + is_new, parameters)
        to_rewrite = [row.text_id for row in _read(connection, dataset) if _is_to_change(row, rule)]
    return Estimate(
        is_new,
        None if parameters is None else parameters.model_dump(mode="json"),
        digest,
        held.seen_xid,
        len(answers.annotators),
        answers.texts,
        to_rewrite,
    )


def _read_answers(connection: psycopg.Connection, dataset: str, definition: Dataset) -> tuple[Answers, str]:
    answers = Answers()
    digest = blake2b(repr((definition.label_rule.value, definition.labels)).encode(), digest_size=16)
    for row in _read(connection, dataset):
        given = list(zip(row.annotators, row.values, strict=True))
        digest.update(repr((row.text_id.bytes, given)).encode())
        answers.add(given)
    return answers, digest.hexdigest()


def _read(connection: psycopg.Connection, dataset: str) -> Iterator[Any]:
    with connection.cursor("answers", row_factory=namedtuple_row) as cursor:
        cursor.itersize = _READ_TEXTS
        cursor.execute(_ANSWERS, {"dataset": dataset})
        yield from cursor


def _is_to_change(row: Any, rule: RuleInForce) -> bool:
    outcome = rule.label(list(zip(row.annotators, row.values, strict=True)))
    if row.rule != outcome.rule:
        return True
    # What adjudicators decided stays, whatever the annotators' answers weigh.
    return row.decided_by == Decider.ANNOTATORS and _differs(row, outcome)


def _differs(row: Any, outcome: Outcome) -> bool:
    if (row.status, row.label) != (outcome.status, outcome.label):
        return True
    if outcome.confidence is None or row.confidence is None:
        return bool(outcome.confidence != row.confidence)
    return bool(abs(row.confidence - outcome.confidence) > TOLERANCE)
