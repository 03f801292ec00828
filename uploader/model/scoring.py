"""Computes predictions with the active model, and how likely each label is right."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from cleanlab.multiannotator import get_label_quality_multiannotator
from cleanlab.rank import get_label_quality_scores

from core.classifiers.measures import count_tenths, population_stability
from core.classifiers.model_files import SUSPECT_BELOW, ModelManifest
from core.connections import connect_in_thread
from uploader.model import repository
from uploader.model.model_process import Page, Refreshed, Workplace
from uploader.model.repository import Predicted
from uploader.model.training import load_model, predict_honestly

# Smaller changes of a quality are not written: each write sends the label through the change feed.
_TOLERANCE = 0.01
# Pending texts that one call reads and scores.
PAGE_TEXTS = 1_000
_RECENT_TEXTS = 2_000
# Fewer texts of a source say nothing about its distribution.
_LEAST_OF_SOURCE = 100
_DIGITS = 6

Array = np.ndarray[Any, Any]


def refresh_predictions(place: Workplace, version: str) -> Refreshed:
    """Return the predictions of labelled texts that have to be written: see `uploader.model.model_process`."""
    manifest, _ = load_model(place.address, place.dataset, version)
    with connect_in_thread(place.database, "uploader scoring") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        clock = repository.read_clock(connection)
        rows = list(repository.read_predicted(connection, place.dataset, manifest.labels, version))
        answers = _group(repository.read_answers(connection, place.dataset, manifest.labels), manifest)
    if not rows:
        return Refreshed(clock.version, [], 0, 0)
    found = np.empty((len(rows), len(manifest.labels)))
    stale = [at for at, row in enumerate(rows) if row.model_version != version]
    for at, row in enumerate(rows):
        if row.model_version == version:
            found[at] = row.probabilities
    if stale:
        texts = [rows[at].text for at in stale]
        found[stale] = predict_honestly(place, version, [rows[at].text_id for at in stale], texts)
    return _compare_with_stored(clock.version, rows, found, manifest, answers, version)


def _compare_with_stored(
    seen: str,
    rows: Sequence[Any],
    found: Array,
    manifest: ModelManifest,
    answers: Mapping[UUID, Sequence[tuple[str, int]]],
    version: str,
) -> Refreshed:
    number = {name: at for at, name in enumerate(manifest.labels)}
    labels = np.array([number[row.label] for row in rows])
    quality = score_labels(
        [row.text_id for row in rows], labels, found / found.sum(axis=1, keepdims=True), answers
    )
    to_write = [
        _predicted(row.text_id, one, manifest.labels, float(score), row.label)
        for row, one, score in zip(rows, found, quality, strict=True)
        if row.model_version != version
        or row.quality_of != row.label
        or row.quality is None
        or abs(row.quality - score) > _TOLERANCE
    ]
    suspects = (found.argmax(axis=1) != labels) & (quality < SUSPECT_BELOW)
    return Refreshed(seen, to_write, len(rows), int(suspects.sum()))


def score_pending(place: Workplace, version: str, after: int) -> Page:
    """Return the scores of the next pending texts that lack one: see `uploader.model.model_process`."""
    manifest, classifier = load_model(place.address, place.dataset, version)
    also_claimed = place.definition.suggestions == "model"
    with connect_in_thread(place.database, "uploader scoring") as connection:
        rows = repository.read_pending(
            connection, place.dataset, version, after, PAGE_TEXTS, also_claimed=also_claimed
        )
    to_score = [row for row in rows if row.is_to_score]
    found = classifier.probabilities([row.text for row in to_score])
    predicted = [_predicted(row.id, one, manifest.labels) for row, one in zip(to_score, found, strict=True)]
    return Page(predicted, rows[-1].sequence if rows else None)


def measure_drift(place: Workplace, version: str) -> dict[str, float]:
    """Return the PSI of each source of the training: see `uploader.model.model_process`."""
    manifest, classifier = load_model(place.address, place.dataset, version)
    with connect_in_thread(place.database, "uploader scoring") as connection:
        rows = repository.read_recent(connection, place.dataset, _RECENT_TEXTS)
    sources = np.array([row.source for row in rows])
    scores = classifier.probabilities([row.text for row in rows])[:, 0]
    return {
        source: population_stability(expected, count_tenths(scores[sources == source]))
        for source, expected in manifest.scores_by_source.items()
        if min(sum(expected), (sources == source).sum()) >= _LEAST_OF_SOURCE
    }


def _group(rows: Any, manifest: ModelManifest) -> dict[UUID, list[tuple[str, int]]]:
    number = {name: at for at, name in enumerate(manifest.labels)}
    answers: dict[UUID, list[tuple[str, int]]] = {}
    for row in rows:
        answers.setdefault(row.text_id, []).append((row.annotator, number[row.value]))
    return answers


def _predicted(
    text_id: UUID,
    probabilities: Array,
    labels: Sequence[str],
    quality: float | None = None,
    quality_of: str | None = None,
) -> Predicted:
    best = int(probabilities.argmax())
    rounded = [round(float(one), _DIGITS) for one in probabilities]
    scored = None if quality is None else round(quality, _DIGITS)
    return Predicted(text_id, labels[best], rounded[best], rounded, scored, quality_of)


# By text: what each annotator said.
Answers = Mapping[UUID, Sequence[tuple[str, int]]]
# cleanlab needs annotators who can be compared with each other.
_LEAST_SHARED_TEXTS = 10


def score_labels(ids: Sequence[UUID], labels: Array, probabilities: Array, answers: Answers) -> Array:
    """Return the quality of each label, 0 to 1.

    A label of one annotator has the model's probability of that label. One of several has the probability that
    cleanlab's CROWDLAB derives from the model and the annotators, each weighted by how reliable it is. The model
    alone scores a label that no annotator chose, as after an adjudication.
    """
    quality: Array = get_label_quality_scores(labels, probabilities)
    shared = [at for at, id_ in enumerate(ids) if len(answers.get(id_, ())) > 1]
    if len(shared) >= _LEAST_SHARED_TEXTS:
        given = [answers[ids[at]] for at in shared]
        quality[shared] = _score_shared(labels[shared], probabilities[shared], given, quality[shared])
    return quality


def _score_shared(
    labels: Array, probabilities: Array, given: Sequence[Sequence[tuple[str, int]]], otherwise: Array
) -> Array:
    names = sorted({annotator for answers in given for annotator, _ in answers})
    column = {name: at for at, name in enumerate(names)}
    table = np.full((len(labels), len(names)), np.nan)
    for row, answers in zip(table, given, strict=True):
        for annotator, label in answers:
            row[column[annotator]] = label
    with warnings.catch_warnings():
        # About annotators who share no text with others: they get an average weight.
        warnings.simplefilter("ignore")
        found = get_label_quality_multiannotator(table, probabilities, return_annotator_stats=False, verbose=False)
    by_annotator = found["detailed_label_quality"].to_numpy()
    agrees = table == labels[:, None]
    first = agrees.argmax(axis=1)
    rows = np.arange(len(labels))
    quality: Array = np.where(agrees.any(axis=1), by_annotator[rows, first], otherwise)
    return quality
