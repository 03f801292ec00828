"""Trains, measures and stores a dataset's model."""

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from core.classifiers.classifier import Classifier, ForeignModel
from core.classifiers.measures import (
    SIGNIFICANT,
    Claims,
    compare,
    count_tenths,
    make_reliability,
    measure,
)
from core.classifiers.model_files import (
    CARD,
    MODEL,
    OUT_OF_FOLD,
    BadModel,
    Comparison,
    Measures,
    ModelFiles,
    ModelManifest,
    Sizes,
    name_version,
    write_card,
)
from core.connections import connect_in_thread
from uploader.model import repository
from uploader.model.model_process import Workplace
from uploader.model.training import LabelledTexts, Trained, train

_SOURCES = 20
_LEAST_OF_SOURCE = 50

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Read:
    """What Postgres held when the training began."""

    clock: Any
    data: LabelledTexts
    sources: Array
    claims: Claims
    disputed: int
    left_out: int


def train_model(place: Workplace, active: str | None) -> ModelManifest:
    """Train a model, store its files, and return its manifest: see `uploader.model.model_process`."""
    began = time.process_time()
    read = _read(place)
    trained = train(read.data)
    comparison = None
    if active is not None and (previous := _predict_again(place, active, read.data)) is not None:
        comparison = compare(active, trained.probabilities, previous, read.data.labels)
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
        rows = list(repository.read_labelled(connection, place.dataset, names, place.max_texts))
        links = repository.read_links(connection, place.dataset)
    data = LabelledTexts(
        names,
        [row.text_id for row in rows],
        [row.text for row in rows],
        np.array([number[row.label] for row in rows]),
        links,
    )
    claims = Claims(
        np.array([number.get(row.claimed_label, -1) for row in rows]),
        np.array([np.nan if row.score is None else row.score for row in rows]),
    )
    sources = np.array([row.source or "" for row in rows])
    return _Read(clock, data, sources, claims, counts.disputed, counts.labelled - len(rows))


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
    metrics = _measure_all(read, found)
    top = _largest(sources)
    is_accepted, decision = _decide(metrics, comparison)
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
            source: measure(found[sources == source], labels[sources == source])
            for source, count in top.items()
            if count >= _LEAST_OF_SOURCE
        },
        reliability=make_reliability(found, labels),
        scores_by_source={source: count_tenths(found[sources == source, 0]) for source in top},
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


def _measure_all(read: _Read, found: Array) -> dict[str, Measures]:
    labels = read.data.labels
    shares = np.bincount(labels, minlength=len(read.data.names)) / len(labels)
    metrics = {
        "model": measure(found, labels),
        "majority": measure(np.broadcast_to(shares, found.shape), labels),
    }
    has, claimed = read.claims.probabilities(len(read.data.names))
    if has.any():
        metrics["senders"] = measure(claimed, labels[has])
        metrics["model_on_claims"] = measure(found[has], labels[has])
    return metrics


def _decide(metrics: Mapping[str, Measures], comparison: Comparison | None) -> tuple[bool, str]:
    """Return whether a model becomes active, and why."""
    if comparison is not None:
        difference = comparison.log_loss_difference
        numbers = (
            f"log loss {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) against "
            f"{comparison.version} on {comparison.model.texts:,} texts, p = {comparison.p_worse:.3f}"
        )
        is_worse = comparison.p_worse < SIGNIFICANT
        return not is_worse, f"{'Refused: worse' if is_worse else 'Accepted: not worse'}. {numbers}."
    ours, majority = metrics["model"].log_loss, metrics["majority"].log_loss
    assert ours is not None  # noqa: S101 - there are labels
    assert majority is not None  # noqa: S101 - the same
    is_better = ours.high < majority.value
    numbers = (
        f"log loss {ours.value:.4f} ({ours.low:.4f} to {ours.high:.4f}), of the majority {majority.value:.4f}"
    )
    verdict = "Accepted: the first model, and better" if is_better else "Refused: the first model, but no better"
    return is_better, f"{verdict} than always predicting the most frequent label. {numbers}."


def _largest(sources: Array) -> dict[str, int]:
    names, counts = np.unique(sources, return_counts=True)
    order = np.lexsort((names, -counts))[:_SOURCES]
    return {str(names[at]): int(counts[at]) for at in order}


def _write_out_of_fold(data: LabelledTexts, trained: Trained) -> bytes:
    table = pa.table(
        {
            "text_id": pa.array([id_.bytes for id_ in data.ids], pa.binary(16)),
            "probabilities": pa.array(list(trained.probabilities.astype(np.float32)), pa.list_(pa.float32())),
        }
    )
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return written.getvalue()
