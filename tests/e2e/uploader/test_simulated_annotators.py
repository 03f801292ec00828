"""Annotators of known accuracy answer in a real Argilla; the tests check the estimates and the labels."""

import itertools
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from tests.e2e.uploader.conftest import DATASET, AddTexts, Annotator, ArgillaSpace, StartUploader
from tests.waiting import wait_for

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

TEXTS = 250
LABELS = ("toxic", "non_toxic")
ACCURACIES = (0.95, 0.9, 0.7, 0.4, 0.4)
BATCH = 50

_SETTINGS = f"""
[{DATASET}]
labels = {json.dumps(LABELS)}
guidelines = "Say what you think."
answers_wanted = {len(ACCURACIES)}
label_rule = "dawid_skene"
"""

_ESTIMATED = """
select rule_parameters from datasets
where rule_estimated_at > (select max(seen_at) from annotations)
    and not exists (select from labels where rule = 'majority')
    and (select count(*) from annotations where status = 'submitted') = %s
"""


def _theory() -> tuple[float, float, float]:
    """Return by how much the best possible vote beats the majority, that difference's deviation for one text, and
    how often the best possible vote is right; by counting all cases of independent annotators."""
    weights = [math.log(accuracy / (1 - accuracy)) for accuracy in ACCURACIES]
    mean, square, best = 0.0, 0.0, 0.0
    for right in itertools.product((True, False), repeat=len(ACCURACIES)):
        probability = math.prod(a if r else 1 - a for a, r in zip(ACCURACIES, right, strict=True))
        wins = sum(w if r else -w for w, r in zip(weights, right, strict=True)) > 0
        difference = wins - (sum(right) > len(ACCURACIES) / 2)
        mean, square = mean + probability * difference, square + probability * difference**2
        best += probability * wins
    return mean, math.sqrt(square - mean**2), best


def _answer(annotator: Annotator, records: Sequence[str], values: Sequence[str]) -> None:
    for first in range(0, len(records), BATCH):
        part = list(zip(records, values, strict=True))[first : first + BATCH]
        items = [
            {"record_id": record, "status": "submitted", "values": {"label": {"value": value}}}
            for record, value in part
        ]
        annotator.http.post("me/responses/bulk", json={"items": items}).raise_for_status()


def test_the_rule_finds_out_whom_to_believe(
    argilla: ArgillaSpace, start_uploader: StartUploader, add_texts: AddTexts, database_url: str, tmp_path: Path
) -> None:
    chance = random.Random(6)  # noqa: S311 - repeatable on purpose
    settings = tmp_path / "datasets.toml"
    settings.write_text(_SETTINGS)
    truth = {str(id_): chance.choice(LABELS) for id_ in add_texts(*(f"text {n}" for n in range(TEXTS)))}
    with (
        start_uploader(DATASETS_FILE=str(settings), RULE_INTERVAL_SECONDS="1"),
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        uploaded = "select count(*) from texts where status = 'uploaded'"
        wait_for(lambda: connection.execute(uploaded).fetchone() == (TEXTS,), 60)
        found = argilla.http.get(f"datasets/{argilla.dataset()['id']}/records", params={"limit": TEXTS})
        records = {item["id"]: truth[item["external_id"]] for item in found.raise_for_status().json()["items"]}
        names = {}
        for accuracy in ACCURACIES:
            annotator = argilla.add_annotator("simulated")
            names[annotator.name] = accuracy
            values = [
                label if chance.random() < accuracy else LABELS[1 - LABELS.index(label)]
                for label in records.values()
            ]
            _answer(annotator, list(records), values)
        query, count = _ESTIMATED, [TEXTS * len(ACCURACIES)]
        wait_for(lambda: connection.execute(query, count).fetchone() is not None, 240)
        (parameters,) = connection.execute(query, count).fetchone() or (None,)
        rows = connection.execute("select text_id::text, label, votes from labels").fetchall()
    _check_accuracies(parameters["matrices"], names)
    _check_labels(rows, truth)


def _check_accuracies(matrices: dict[str, list[list[float]]], accuracies: dict[str, float]) -> None:
    for name, accuracy in accuracies.items():
        estimated = (matrices[name][0][0] + matrices[name][1][1]) / 2
        # Twice the error with a known truth of each text, since the truth is estimated, too.
        assert abs(estimated - accuracy) < 4 * 2 * math.sqrt(accuracy * (1 - accuracy) / TEXTS), name


def _check_labels(rows: list[tuple[str, str | None, dict[str, int]]], truth: dict[str, str]) -> None:
    by_rule = sum(label == truth[id_] for id_, label, _ in rows) / TEXTS
    by_majority = sum(votes.get(truth[id_], 0) > len(ACCURACIES) / 2 for id_, _, votes in rows) / TEXTS
    margin, deviation, best = _theory()
    assert by_rule > best - 4 * math.sqrt(best * (1 - best) / TEXTS)
    assert by_rule - by_majority > margin - 3 * deviation / math.sqrt(TEXTS) > 0
