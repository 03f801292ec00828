"""Labels by an estimated rule are a function of the answers there are, whatever happened before."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.datasets import LabelRule
from core.labels.annotations import Response, replace_annotations, rewrite_labels
from core.labels.rules import Abilities, Confusions, RuleInForce
from tests.integration.core.answering import (
    ANSWERS,
    DATASETS,
    START,
    TEXTS,
    answer,
    label_of,
)

LABELS = ("toxic", "non_toxic")
SHARP, DULL = ((0.9, 0.1), (0.2, 0.8)), ((0.6, 0.4), (0.4, 0.6))
# The third annotator came after the estimate.
RULES = [
    RuleInForce(
        LabelRule.DAWID_SKENE,
        7,
        Confusions(
            labels=LABELS,
            priors=(0.3, 0.7),
            matrices={"annotator 0": SHARP, "annotator 1": DULL},
            average=((0.75, 0.25), (0.3, 0.7)),
        ),
    ),
    RuleInForce(
        LabelRule.GLAD,
        2,
        Abilities(labels=LABELS, abilities={"annotator 0": 1.5, "annotator 1": 0.2}, average=0.8, easiness=1),
    ),
    # Without a label that annotators choose: for those texts the majority decides.
    RuleInForce(
        LabelRule.MACE,
        1,
        Confusions(labels=("toxic", "other"), priors=(0.5, 0.5), matrices={}, average=((0.9, 0.1), (0.1, 0.9))),
    ),
]
History = list[dict[tuple[int, int], tuple[str, str]]]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.rule)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(states=st.lists(ANSWERS, min_size=1, max_size=4))
def test_edits_and_withdrawals_lead_to_the_same_labels_as_computing_anew(
    engine: sa.Engine, rule: RuleInForce, states: History
) -> None:
    datasets = {"toxicity": DATASETS["toxicity"].model_copy(update={"label_rule": rule.rule})}
    _store(engine, rule)
    for minute, state in enumerate(states, 1):
        held: dict[UUID, list[Response]] = {id_: [] for id_ in TEXTS}
        for (text, annotator), (value, status) in state.items():
            response = answer(TEXTS[text], annotator, value, status)
            held[TEXTS[text]].append(replace(response, updated_at=START + timedelta(minutes=minute)))
        with engine.begin() as connection:
            replace_annotations(connection, datasets, "toxicity", START + timedelta(minutes=minute), held)
    before = [label_of(engine, text) for text in TEXTS]
    for number, label in enumerate(before):
        submitted = [
            (f"annotator {annotator}", value)
            for (text, annotator), (value, status) in states[-1].items()
            if text == number and status == "submitted"
        ]
        if label is None:
            assert not submitted
            continue
        outcome = rule.label(submitted)
        for name in ("label", "status", "agreement", "votes", "confidence", "rule", "rule_version"):
            assert label[name] == getattr(outcome, name), name
    with engine.begin() as connection:
        rewrite_labels(connection, datasets, "toxicity", [label["text_id"] for label in before if label])
    for label in before:
        # The tombstone's time is that of its last change.
        if label and label["status"] != "withdrawn":
            assert {**(label_of(engine, label["text_id"]) or {}), "changed_xid": label["changed_xid"]} == label


def _store(engine: sa.Engine, rule: RuleInForce) -> None:
    assert rule.parameters is not None
    statement = sa.text(
        "insert into datasets (name, rule, rule_version, rule_parameters)"
        " values ('toxicity', :rule, :version, cast(:parameters as jsonb))"
    )
    values = {"rule": rule.rule, "version": rule.version, "parameters": rule.parameters.model_dump_json()}
    with engine.begin() as connection:
        connection.execute(sa.text("truncate labels, annotations, datasets"))
        connection.execute(statement, values)
