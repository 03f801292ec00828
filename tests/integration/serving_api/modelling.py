"""Stands in for the uploader's training: small real models, stored as it stores them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import numpy as np
from scipy.sparse import hstack
from sklearn.linear_model import LogisticRegression
from sqlalchemy import Connection, Engine, insert, text, update
from starlette.testclient import TestClient

from core.classifiers.classifier import Classifier, Parameters, make_vectorizers
from core.classifiers.model_files import (
    MODEL,
    Bin,
    Estimate,
    Measures,
    ModelFiles,
    ModelManifest,
    Sizes,
    name_version,
)
from core.models import Model, Prediction
from tests.integration.serving_api.labelling import wait_until

BAD = ["you are an idiot", "what an idiot", "shut up idiot", "stupid idiot, go away", "you stupid fool"]
GOOD = ["thank you, that helped", "what a nice day", "thank you very much", "nice work", "very helpful, thanks"]
_MEASURES = Measures(texts=10, roc_auc=Estimate(value=0.9, low=0.8, high=0.95))


def train(labels: tuple[str, str] = ("toxic", "non_toxic"), more: str = "") -> Classifier:
    """Return a classifier of ten texts; another one for other `more`."""
    texts = [*BAD, *GOOD, more or "hello"]
    truth = np.array([0] * len(BAD) + [1] * (len(GOOD) + 1))
    vectorizers = make_vectorizers()
    features = hstack([each.fit_transform(texts) for each in vectorizers], format="csr")
    fitted = LogisticRegression(C=10).fit(features, truth)
    words, characters = vectorizers
    return Classifier(
        Parameters(
            labels=labels,
            words=tuple(words.get_feature_names_out()),
            word_idf=words.idf_,
            characters=tuple(characters.get_feature_names_out()),
            character_idf=characters.idf_,
            weights=fitted.coef_.astype(np.float32),
            intercepts=fitted.intercept_,
            slopes=np.ones(1),
            offsets=np.zeros(1),
        )
    )


def make_manifest(classifier: Classifier, dataset: str = "toxicity") -> ModelManifest:
    """Return a manifest that fits the classifier."""
    sizes = Sizes(texts=10, by_label={}, by_source={}, groups=10, disputed=0, features=100)
    return ModelManifest(
        version=name_version(classifier.save()),
        dataset=dataset,
        labels=tuple(classifier.labels),
        created_at=datetime.now(UTC),
        data_version=1,
        sha256={},
        seconds=0.1,
        sizes=sizes,
        metrics={"model": _MEASURES},
        by_source={},
        reliability=(Bin(texts=10, probability=0.9, right=0.88),),
        scores_by_source={},
        compared=None,
        decision="Active: the first one.",
        is_accepted=True,
    )


def store_model(
    engine: Engine,
    folder: Path | str,
    classifier: Classifier,
    *,
    dataset: str = "toxicity",
    active: bool = True,
) -> str:
    """Store a model's files and its row, and return its version; an active one replaces the one before."""
    manifest = make_manifest(classifier, dataset)
    ModelFiles(str(folder)).write(manifest, {MODEL: classifier.save()})
    with engine.begin() as connection:
        if active:
            connection.execute(update(Model).where(Model.dataset == dataset).values(is_active=False))
        connection.execute(
            insert(Model).values(
                dataset=dataset,
                version=manifest.version,
                created_at=manifest.created_at,
                is_active=active,
                activated_at=manifest.created_at if active else None,
                decision=manifest.decision,
                manifest=manifest.model_dump(mode="json"),
            )
        )
    return manifest.version


def wait_for_model(client: TestClient, version: str) -> None:
    """Wait until the application scores by a model."""
    body = {"texts": ["a"]}
    wait_until(lambda: client.post("/score", json=body).json().get("model_version") == version)


def predict(
    engine: Engine, version: str, predictions: Mapping[UUID, tuple[str, float, float]], quality_of: str = "toxic"
) -> None:
    """Store predictions (label, probability, quality of the label `quality_of`), and stamp the labels."""
    with engine.begin() as connection:
        for id_, (label, probability, quality) in predictions.items():
            connection.execute(text("delete from predictions where text_id = :id"), {"id": id_})
            connection.execute(
                insert(Prediction).values(
                    text_id=id_,
                    dataset="toxicity",
                    model_version=version,
                    label=label,
                    probability=probability,
                    probabilities=[probability, 1 - probability],
                    quality=quality,
                    quality_of=quality_of,
                )
            )
            _stamp(connection, id_)


def _stamp(connection: Connection, id_: UUID) -> None:
    connection.execute(
        text("update labels set changed_xid = pg_current_xact_id() where text_id = :id"), {"id": id_}
    )
