"""`annotate model` and `annotate suspects`, run as users run them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from core.classifiers.classifier import Classifier
from core.classifiers.measures import measure
from core.classifiers.model_files import MODEL, ModelFiles, ModelManifest, Sizes, name_version
from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.integration.uploader.modelling import add_labelled
from tests.unit.simulated_comments import LABELS, Comment, simulate_comments
from uploader.model.training import LabelledTexts, train

COMMENTS = simulate_comments(300, seed=9)
DEFINITION = """
[toxicity]
labels = ["toxic", "non_toxic"]
guidelines = "x"
dispute_extra = 1
model = {enabled = true, min_labels = 100}
"""


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    definition = tmp_path / "datasets.toml"
    definition.write_text(DEFINITION)
    return {
        "DATABASE_URL": database_url,
        "DATASETS_FILE": str(definition),
        "SNAPSHOTS_URL": str(tmp_path / "snapshots"),
    }


def _add_model(connection: psycopg.Connection, folder: str, seed: int, *, is_active: bool) -> str:
    """Store a model as the uploader does; return its version."""
    comments = simulate_comments(120, seed)
    labels = np.array([LABELS.index(comment.label) for comment in comments])
    ids = [UUID(int=at) for at in range(len(comments))]
    trained = train(LabelledTexts(LABELS, ids, [comment.text for comment in comments], labels))
    content = trained.classifier.save()
    manifest = ModelManifest(
        version=name_version(content),
        dataset="toxicity",
        labels=LABELS,
        created_at=datetime(2026, 1, seed, tzinfo=UTC),
        data_version=7,
        sha256={},
        seconds=1,
        sizes=Sizes(texts=120, by_label={}, by_source={}, groups=120, disputed=0, features=4),
        metrics={"model": measure(trained.probabilities, labels)},
        by_source={},
        reliability=(),
        scores_by_source={},
        compared=None,
        decision="Accepted: for a test.",
        is_accepted=True,
    )
    ModelFiles(folder).write(manifest, {MODEL: content})
    connection.execute(
        "insert into models (dataset, version, created_at, is_active, decision, manifest)"
        " values ('toxicity', %s, %s, %s, %s, %s)",
        [
            manifest.version,
            manifest.created_at,
            is_active,
            manifest.decision,
            Jsonb(manifest.model_dump(mode="json")),
        ],
    )
    return manifest.version


def test_models_are_listed_shown_activated_and_evaluated(
    connection: psycopg.Connection, database_url: str, environment: dict[str, str]
) -> None:
    assert "toxicity has no model yet" in annotate("model", "list", **environment).stdout
    first = _add_model(connection, environment["SNAPSHOTS_URL"], 1, is_active=False)
    second = _add_model(connection, environment["SNAPSHOTS_URL"], 2, is_active=True)
    listed = annotate("model", "list", COLUMNS="80", **environment).stdout
    assert listed.index(second) < listed.index(first)
    assert max(map(len, listed.splitlines())) <= 80
    row = next(line for line in listed.splitlines() if second in line)
    assert ("2026-01-02 00:00" in row, "yes" in row) == (True, True)
    assert f"{first}: Accepted: for a test." in listed

    shown = json.loads(annotate("model", "show", **environment).stdout)
    assert (shown["version"], shown["is_active"]) == (second, True)
    assert annotate("model", "show", "0" * 12, **environment).returncode == 1

    assert "is active already" in annotate("model", "activate", second, **environment).stderr
    assert annotate("model", "activate", first, **environment).returncode == 0
    assert connection.execute("select version from models where is_active").fetchall() == [(first,)]
    [(action, ids)] = connection.execute("select action, object_ids from audit_log").fetchall()
    assert (action, ids) == ("model.activated", [first])

    # Labels from before the training say nothing new.
    add_labelled(database_url, COMMENTS[:100], at=datetime(2025, 1, 1, tzinfo=UTC))
    refused = annotate("model", "evaluate", **environment)
    assert (refused.returncode, "0 labels came after the training" in refused.stderr) == (1, True)
    add_labelled(database_url, COMMENTS[100:200], at=datetime(2026, 2, 1, tzinfo=UTC))
    evaluated = annotate("model", "evaluate", **environment)
    assert evaluated.returncode == 0, evaluated.stderr
    truth = np.array([LABELS.index(comment.label) for comment in COMMENTS[100:200]])
    files = ModelFiles(environment["SNAPSHOTS_URL"])
    classifier = Classifier.load(files.read_model("toxicity", first))
    expected = measure(classifier.probabilities([comment.text for comment in COMMENTS[100:200]]), truth)
    assert expected.roc_auc is not None
    assert f"{expected.roc_auc.value:.3f}" in evaluated.stdout


def test_a_training_is_asked_for_when_there_are_labels(
    connection: psycopg.Connection, database_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    def train_now() -> Any:
        return annotate("model", "train", **environment)

    assert "needs 100 texts of each label; there are toxic: 0, non_toxic: 0" in " ".join(
        train_now().stderr.split()
    )
    add_labelled(database_url, COMMENTS)
    connection.execute("update texts set status = 'demo'")
    assert "there are toxic: 0, non_toxic: 0" in " ".join(train_now().stderr.split())
    connection.execute("update texts set status = 'uploaded'")
    assert "No uploader has worked on toxicity" in train_now().stderr
    connection.execute("insert into datasets (name) values ('toxicity')")
    assert train_now().returncode == 0
    assert connection.execute("select model_asked_at is not null from datasets").fetchone() == (True,)
    (tmp_path / "datasets.toml").write_text(DEFINITION.replace("enabled = true", "enabled = false"))
    assert "is off" in train_now().stderr
    # Else it would score texts until the uploader starts again.
    assert "is off" in annotate("model", "activate", "0" * 12, **environment).stderr
    assert "does not define mood" in annotate("model", "list", "--dataset", "mood", **environment).stderr


def test_suspects_go_before_adjudicators_once(
    connection: psycopg.Connection, database_url: str, environment: dict[str, str], tmp_path: Path
) -> None:
    ids = add_labelled(database_url, [Comment(f"text {n}", "toxic") for n in range(6)])
    for n, id_ in enumerate(ids):
        # The model agrees with the last two, and the fourth has another label by now.
        connection.execute(
            "insert into predictions values (%s, 'toxicity', 'v', %s, 0.9, '{0.1,0.9}', %s, %s)",
            [id_, "non_toxic" if n < 4 else "toxic", 0.05 * (4 - n) if n < 4 else 0.9, "toxic" if n != 3 else "x"],
        )

    def copies() -> set[UUID]:
        rows = connection.execute("select adjudicates from texts where dataset = 'toxicity-adjudication'")
        return {row[0] for row in rows}

    asked = annotate("suspects", "ask-again", "--limit", "2", **environment)
    assert asked.returncode == 0, asked.stderr
    assert "2 of 2 texts" in asked.stdout
    assert copies() == {ids[1], ids[2]}
    [(votes,)] = connection.execute(
        "select metadata->>'votes' from texts where id = %s", [text_id("toxicity-adjudication", "text 1")]
    ).fetchall()
    assert votes == "toxic: 1"
    assert "1 of 1 texts" in annotate("suspects", "ask-again", **environment).stdout
    assert "0 of 0 texts" in annotate("suspects", "ask-again", **environment).stdout
    assert copies() == set(ids[:3])
    # Chosen ones need no low quality.
    some = annotate("suspects", "ask-again", str(ids[0]), str(ids[5]), **environment).stdout
    assert "1 of 2 texts go before the adjudicators; the others are there already, or have no label." in " ".join(
        some.split()
    )
    assert copies() == {*ids[:3], ids[5]}
    (tmp_path / "datasets.toml").write_text(DEFINITION.replace("dispute_extra = 1", ""))
    assert "set dispute_extra = 1" in annotate("suspects", "ask-again", **environment).stderr
