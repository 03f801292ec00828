"""Trains, measures and stores a classifier. Predicts every labelled text by models that did not see its label.

The vocabulary and its weights are counted on all texts: they depend on no label. All that depends on labels is
cross-fitted. A text in fold k is scored by a model fitted without fold k. This score is calibrated on scores of
models that saw neither fold k nor the text that they score. So, given the folds, a label has no influence on
the prediction of its own text, nor of its near duplicates, which are in the same fold.
See docs/decisions/0048-model-in-the-loop.md.
"""

import hashlib
import io
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix, hstack
from scipy.sparse.csgraph import connected_components
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from core.classifiers import measures
from core.classifiers.classifier import Classifier, ForeignModel, Parameters, calibrate, cut, make_vectorizers
from core.classifiers.model_files import (
    CARD,
    MODEL,
    OUT_OF_FOLD,
    BadModel,
    Comparison,
    ModelFiles,
    ModelManifest,
    Sizes,
    name_version,
    write_card,
)
from core.connections import connect_in_thread
from uploader.model import repository
from uploader.model.model_process import Workplace

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
_SOURCES = 20
_LEAST_OF_SOURCE = 50
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
    by_word, by_character = make_vectorizers(min_df=_LEAST_TEXTS)
    in_words, words, word_idf = _fit_terms(by_word.set_params(max_features=_WORDS), texts)
    in_characters, characters, character_idf = _fit_terms(by_character.set_params(max_features=_CHARACTERS), texts)
    features = hstack([in_words, in_characters], format="csr", dtype=np.float32)
    targets = _make_targets(data.labels, len(data.names))
    scores = _CrossFitted(features, targets, folds)
    slopes, offsets = scores.calibration(range(FOLDS))
    weights, intercepts = _fit(features, targets)
    parameters = Parameters(
        labels=data.names,
        words=words,
        word_idf=word_idf,
        characters=characters,
        character_idf=character_idf,
        weights=weights,
        intercepts=intercepts,
        slopes=slopes,
        offsets=offsets,
    )
    return Trained(Classifier(parameters), scores.probabilities(), int(groups.max()) + 1, features.shape[1])


def _fit_terms(vectorizer: TfidfVectorizer, texts: Sequence[str]) -> tuple[Any, tuple[str, ...], Array]:
    """Return features, [texts, terms], the terms, and their weights."""
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no term is in two texts: languages without spaces have such words
        return csr_matrix((len(texts), 0), dtype=np.float32), (), np.empty(0, np.float32)
    return features, tuple(vectorizer.get_feature_names_out()), vectorizer.idf_.astype(np.float32)


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


@dataclass(frozen=True)
class _Read:
    """What Postgres held when the training began."""

    clock: Any
    data: LabelledTexts
    sources: Array
    claims: tuple[Array, Array]
    disputed: int
    left_out: int


def train_model(place: Workplace, active: str | None) -> ModelManifest:
    """Train a model, store its files, and return its manifest: see `uploader.model.model_process`."""
    began = time.process_time()
    read = _read(place)
    trained = train(read.data)
    comparison = None
    if active is not None and (previous := _predict_again(place, active, read.data)) is not None:
        comparison = measures.compare(active, trained.probabilities, previous, read.data.labels)
    content = trained.classifier.save()
    others = {OUT_OF_FOLD: _write_out_of_fold(read.data, trained)}
    manifest = _describe(place.dataset, read, trained, comparison, name_version(content), others)
    manifest = manifest.model_copy(update={"seconds": round(time.process_time() - began, 1)})
    ModelFiles(place.address).write(manifest, {MODEL: content, CARD: write_card(manifest).encode(), **others})
    return manifest


@lru_cache(maxsize=1)
def load_model(address: str, dataset: str, version: str) -> tuple[ModelManifest, Classifier]:
    """Load a model that is stored; raises as `ModelFiles.read_model` and `Classifier.load` do."""
    files = ModelFiles(address)
    return files.read_manifest(dataset, version), Classifier.load(files.read_model(dataset, version))


def predict_honestly(place: Workplace, version: str, ids: Sequence[UUID], texts: Sequence[str]) -> Array:
    """Return a model's probabilities, [texts, labels]: out-of-fold ones of the texts that it was trained on."""
    manifest, classifier = load_model(place.address, place.dataset, version)
    stored = pq.read_table(io.BytesIO(ModelFiles(place.address).read_file(manifest, OUT_OF_FOLD)))
    trained_on = dict(zip(stored["text_id"].to_pylist(), stored["probabilities"].to_pylist(), strict=True))
    known = [trained_on.get(id_.bytes) for id_ in ids]
    unseen = [at for at, one in enumerate(known) if one is None]
    found = np.array([one or [0.0] * len(manifest.labels) for one in known]).reshape(-1, len(manifest.labels))
    found[unseen] = classifier.probabilities([texts[at] for at in unseen])
    return found


def _read(place: Workplace) -> _Read:
    names = place.definition.labels
    number = {name: at for at, name in enumerate(names)}
    with connect_in_thread(place.database, "uploader training") as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        clock = repository.read_clock(connection)
        counts = repository.count_labels(connection, place.dataset, names)
        disputed = counts.pop(None, 0)
        rows = list(repository.read_labelled(connection, place.dataset, names, place.max_texts))
        links = repository.read_links(connection, place.dataset)
    data = LabelledTexts(
        names,
        [row.text_id for row in rows],
        [row.text for row in rows],
        np.array([number[row.label] for row in rows]),
        links,
    )
    claims = measures.read_claims(
        np.array([number.get(row.claimed_label, -1) for row in rows]),
        np.array([np.nan if row.score is None else row.score for row in rows]),
        len(names),
    )
    sources = np.array([row.source or "" for row in rows])
    return _Read(clock, data, sources, claims, disputed, sum(counts.values()) - len(rows))


def _predict_again(place: Workplace, version: str, data: LabelledTexts) -> Array | None:
    """Return the predictions of a former model for the same texts; None where its files cannot be used."""
    try:
        found = predict_honestly(place, version, data.ids, data.texts)
        labels = load_model(place.address, place.dataset, version)[0].labels
    except (FileNotFoundError, BadModel, ForeignModel):
        return None
    # The dataset may have other labels by now.
    columns = [labels.index(name) if name in labels else -1 for name in data.names]
    return np.hstack([found, np.zeros((len(found), 1))])[:, columns]


def _describe(
    dataset: str,
    read: _Read,
    trained: Trained,
    comparison: Comparison | None,
    version: str,
    others: Mapping[str, bytes],
) -> ModelManifest:
    labels, sources, found = read.data.labels, read.sources, trained.probabilities
    metrics = measures.measure_all(found, labels, read.claims)
    top = dict(Counter(sources.tolist()).most_common(_SOURCES))
    is_accepted, decision = measures.decide(metrics, comparison)
    return ModelManifest(
        version=version,
        dataset=dataset,
        labels=read.data.names,
        created_at=read.clock.now,
        data_version=int(read.clock.version),
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in others.items()},
        seconds=0,
        sizes=_measure_sizes(read, trained, top),
        metrics=metrics,
        by_source={
            source: measures.measure(found[sources == source], labels[sources == source])
            for source, count in top.items()
            if count >= _LEAST_OF_SOURCE
        },
        reliability=measures.make_reliability(found, labels),
        scores_by_source={source: measures.count_tenths(found[sources == source, 0]) for source in top},
        compared=comparison,
        decision=decision,
        is_accepted=is_accepted,
    )


def _measure_sizes(read: _Read, trained: Trained, by_source: dict[str, int]) -> Sizes:
    labels = read.data.labels
    return Sizes(
        texts=len(labels),
        by_label={name: int((labels == at).sum()) for at, name in enumerate(read.data.names)},
        by_source=by_source,
        groups=trained.groups,
        disputed=read.disputed,
        left_out=read.left_out,
        features=trained.features,
    )


def _write_out_of_fold(data: LabelledTexts, trained: Trained) -> bytes:
    ids = pa.array([id_.bytes for id_ in data.ids], pa.binary(16))
    rows = pa.array(list(trained.probabilities.astype(np.float32)), pa.list_(pa.float32()))
    written = io.BytesIO()
    pq.write_table(pa.table({"text_id": ids, "probabilities": rows}), written, compression="zstd")
    return written.getvalue()
