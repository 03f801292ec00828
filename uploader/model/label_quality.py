"""How likely each label is right, by cleanlab: from the model's probabilities and the annotators' answers."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
from cleanlab.multiannotator import get_label_quality_multiannotator
from cleanlab.rank import get_label_quality_scores

Array = np.ndarray[Any, Any]
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
