"""Trains a classifier, and predicts every labelled text by models that did not see its label.

The vocabulary and its weights are counted on all texts: they depend on no label. All that depends on labels is
cross-fitted. A text in fold k is scored by a model fitted without fold k. This score is calibrated on scores of
models that saw neither fold k nor the text that they score. So, given the folds, a label has no influence on
the prediction of its own text, nor of its near duplicates, which are in the same fold.
See docs/decisions/0048-model-in-the-loop.md.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from uuid import UUID

import numpy as np
from scipy.sparse import csr_matrix, hstack
from scipy.sparse.csgraph import connected_components
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from core.classifiers.classifier import Classifier, Parameters, calibrate, cut, make_vectorizers

FOLDS = 5
_SEED = 0
# The terms that the most texts use. They bound the memory of training, and of every process that scores.
_WORDS = 40_000
_CHARACTERS = 80_000
# A term of a single text teaches nothing about others.
_LEAST_TEXTS = 2
_INVERSE_REGULARISATION = 4.0
_ITERATIONS = 200
_TOLERANCE = 1e-3
_NO_LETTER = re.compile(r"[\W\d_]+")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LabelledTexts:
    """The labelled texts of a dataset, in the order of their ids: the same order gives the same model."""

    names: tuple[str, ...]  # the labels
    ids: Sequence[UUID]
    texts: Sequence[str]
    labels: Array  # place of each text's label in `names`
    links: Sequence[tuple[UUID, UUID]] = ()  # near duplicates


@dataclass(frozen=True)
class Trained:
    """A classifier, and the out-of-fold probabilities of the texts that it was trained on."""

    classifier: Classifier
    probabilities: Array  # [texts, labels]
    groups: int  # of near duplicates
    features: int


def train(data: LabelledTexts, folds: Array | None = None) -> Trained:
    """Train on texts with at least five of each label. Deterministic: equal data gives equal bytes.

    `folds` is the fold of each text, below `FOLDS`; else near duplicates share one, and labels are spread evenly.
    """
    groups = group_texts(data)
    folds = assign_folds(data.labels, groups) if folds is None else folds
    texts = cut(data.texts)
    words, characters = make_vectorizers(min_df=_LEAST_TEXTS)
    words.set_params(max_features=_WORDS)
    characters.set_params(max_features=_CHARACTERS)
    features = hstack([each.fit_transform(texts) for each in (words, characters)], format="csr", dtype=np.float32)
    targets = _make_targets(data.labels, len(data.names))
    scores = _CrossFitted(features, targets, folds)
    slopes, offsets = scores.calibration(range(FOLDS))
    weights, intercepts = _fit(features, targets)
    parameters = Parameters(
        labels=data.names,
        words=tuple(words.get_feature_names_out()),
        word_idf=words.idf_.astype(np.float32),
        characters=tuple(characters.get_feature_names_out()),
        character_idf=characters.idf_.astype(np.float32),
        weights=weights,
        intercepts=intercepts,
        slopes=slopes,
        offsets=offsets,
    )
    return Trained(Classifier(parameters), scores.probabilities(), int(groups.max()) + 1, features.shape[1])


def group_texts(data: LabelledTexts) -> Array:
    """Return a number for each text; near duplicates, also over several links, have the same one.

    Texts with the same letters are near duplicates even where the dataset does not look for links.
    """
    place = {id_: at for at, id_ in enumerate(data.ids)}
    pairs = [(place[a], place[b]) for a, b in data.links if a in place and b in place]
    first: dict[str, int] = {}
    for at, text in enumerate(data.texts):
        letters = _NO_LETTER.sub("", text.casefold())
        if letters:
            pairs.append((first.setdefault(letters, at), at))
    ends = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    size = len(data.ids)
    graph = csr_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
    groups: Array = connected_components(graph, directed=False)[1]
    return groups


def assign_folds(labels: Array, groups: Array) -> Array:
    """Return the fold of each text: groups stay together, and labels are spread evenly."""
    folds = np.empty(len(labels), dtype=np.int64)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED)
    for fold, (_, tested) in enumerate(splitter.split(labels, labels, groups)):
        folds[tested] = fold
    return folds


def _make_targets(labels: Array, count: int) -> Array:
    """Return one row for each label, with 1 where a text has it; with two labels, only that of the second."""
    return np.array([labels == label for label in (range(count) if count > 2 else (1,))])


def _fit(features: Any, targets: Array) -> tuple[Array, Array]:
    """Return weights, [rows, features], and intercepts, [rows]: one label against the rest."""
    weights, intercepts = [], []
    for target in targets:
        regression = LogisticRegression(
            C=_INVERSE_REGULARISATION, solver="lbfgs", max_iter=_ITERATIONS, tol=_TOLERANCE
        )
        regression.fit(features, target)
        weights.append(regression.coef_[0])
        intercepts.append(regression.intercept_[0])
    return np.array(weights, dtype=np.float32), np.array(intercepts, dtype=np.float64)


class _CrossFitted:
    """Scores of each text by models that were fitted without its fold, and without a further one."""

    def __init__(self, features: Any, targets: Array, folds: Array) -> None:
        self._targets = targets
        self._folds = folds
        self._scores: dict[frozenset[int], Array] = {}
        left_out = [frozenset(out) for size in (1, 2) for out in combinations(range(FOLDS), size)]
        for out in left_out:
            used = ~np.isin(folds, list(out))
            weights, intercepts = _fit(features[used], targets[:, used])
            self._scores[out] = np.asarray(features @ weights.T + intercepts)

    def calibration(self, folds: Sequence[int], without: int | None = None) -> tuple[Array, Array]:
        """Return slopes and offsets, [rows], from the texts in `folds`, by scores that saw no fold `without`."""
        chosen = np.isin(self._folds, list(folds))
        scores = np.empty((len(self._folds), len(self._targets)))
        for fold in folds:
            out = frozenset({fold} if without is None else {fold, without})
            scores[self._folds == fold] = self._scores[out][self._folds == fold]
        fitted = [
            LogisticRegression(C=1e6).fit(scores[chosen, row : row + 1], target[chosen])
            for row, target in enumerate(self._targets)
        ]
        return np.array([one.coef_[0, 0] for one in fitted]), np.array([one.intercept_[0] for one in fitted])

    def probabilities(self) -> Array:
        """Return the out-of-fold probabilities, [texts, labels]."""
        found = []
        for fold in range(FOLDS):
            others = [other for other in range(FOLDS) if other != fold]
            slopes, offsets = self.calibration(others, without=fold)
            found.append(calibrate(self._scores[frozenset({fold})], slopes, offsets))
        result: Array = np.choose(self._folds[:, None], found)
        return result
