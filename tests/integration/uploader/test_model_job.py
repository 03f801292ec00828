"""Tests of uploader.model: labels become a model, its predictions and scores, on a real Postgres."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from core.classifiers.classifier import Classifier
from core.classifiers.model_files import KEPT_MODELS, ModelFiles, ModelManifest, write_card
from core.datasets import ModelInLoop
from core.forgetting.service import Traces, forget_texts
from tests.integration.uploader.conftest import AddTexts, Compute, Rows, RunWithEngine
from tests.integration.uploader.leading import DATASET
from tests.integration.uploader.modelling import (
    DEFINITION,
    START,
    add_labelled,
    keeping_model,
    remove_model,
)
from tests.unit.simulated_comments import LABELS, Comment, simulate_comments
from uploader.leadership import NotLeading
from uploader.model.model_process import score_pending
from uploader.model.repository import activate, list_outdated

COMMENTS = simulate_comments(1200, seed=1)
FIRST, NEW, PENDING = COMMENTS[:400], COMMENTS[400:700], COMMENTS[700:]

# All tests work in one process, which imports scikit-learn once; test_model_process.py is about the processes.
pytestmark = pytest.mark.usefixtures("one_process")

_PREDICTIONS = "select text_id, model_version, label, probability, quality, quality_of from predictions"


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _flip(comment: Comment) -> Comment:
    return comment._replace(label=LABELS[1 - LABELS.index(comment.label)])


def test_labels_become_a_model_and_predictions(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    comments = [_flip(one) if n % 20 == 0 else one for n, one in enumerate(FIRST)]
    ids = add_labelled(database_url, comments[:100])
    before = rows("select text_id, changed_xid::text from labels")

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            assert rows("select * from models") == []  # too few labels
            assert _names(tmp_path) == []
            ids.extend(await anyio.to_thread.run_sync(add_labelled, database_url, comments[100:]))
            await loop.look()

    run(work)
    [(version, is_active, stored)] = rows("select version, is_active, manifest from models")
    manifest = ModelManifest.model_validate(stored)
    assert is_active
    assert manifest.is_accepted
    assert manifest.decision.startswith("Accepted: the first model, and better than always")
    files = ModelFiles(str(tmp_path))
    assert files.read_manifest(DATASET, version) == manifest
    assert Classifier.load(files.read_model(DATASET, version)).labels == list(LABELS)
    card = (tmp_path / "models" / DATASET / version / "README.md").read_text()
    assert card == write_card(manifest)
    assert f"# Model {version}" in card
    assert manifest.sizes.by_label == {label: sum(c.label == label for c in comments) for label in LABELS}

    # Every label got a prediction and a quality, and went through the change feed.
    predictions = {row[0]: row[1:] for row in rows(_PREDICTIONS)}
    assert predictions.keys() == set(ids)
    assert {row[0] for row in predictions.values()} == {version}
    given = {id_: comment.label for id_, comment in zip(ids, comments, strict=True)}
    assert {id_: row[4] for id_, row in predictions.items()} == given
    for id_, (_, label, probability, quality, _) in predictions.items():
        assert quality == pytest.approx(probability if label == given[id_] else 1 - probability, abs=1e-5)
    stamps = dict(rows("select text_id, changed_xid::text from labels"))
    assert all(int(stamps[id_]) > int(stamp) for id_, stamp in before)
    # The flipped ones are the suspects.
    worst = sorted(ids, key=lambda id_: predictions[id_][3])[:20]
    flipped = set(ids[::20])
    assert len(flipped & set(worst)) >= 10


def test_a_model_is_trained_again_when_a_share_of_new_labels_came(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, FIRST)
    now = datetime.now(UTC).replace(year=2100)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            [(first,)] = rows("select version from models")
            await anyio.to_thread.run_sync(lambda: add_labelled(database_url, NEW[:199], at=now))
            await loop.look()
            assert rows("select version from models") == [(first,)]
            # Texts that were labelled since have the prediction of the model, which did not see them.
            assert rows("select count(*) from predictions where quality is not null") == [(599,)]
            await anyio.to_thread.run_sync(lambda: add_labelled(database_url, NEW[199:200], at=now))
            await loop.look()

    run(work)
    models = rows("select version, is_active, manifest, decision from models order by created_at")
    assert [row[1] for row in models] == [False, True]
    second = ModelManifest.model_validate(models[1][2])
    assert second.compared is not None
    assert (second.compared.version, second.compared.model.texts) == (models[0][0], 600)
    assert second.decision == models[1][3]
    assert second.decision.startswith("Accepted: not worse.")
    assert rows("select distinct model_version from predictions") == [(second.version,)]


def test_a_worse_model_is_not_activated(run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path) -> None:
    add_labelled(database_url, FIRST)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            assert rows("select count(*) from predictions") == [(len(FIRST),)]
        # One that learns from a few texts only is worse on them than the first one.
        async with keeping_model(engine, tmp_path, max_texts=40) as loop:
            async with engine.begin() as connection:
                await connection.execute(text("update datasets set model_asked_at = now()"))
            await loop.look()

    run(work)
    first, second = rows("select is_active, decision, version from models order by created_at")
    assert (first[0], second[0]) == (True, False)
    assert second[1].startswith("Refused: worse.")
    assert rows("select model_asked_at from datasets") == [(None,)]
    assert rows("select distinct model_version from predictions") == [(first[2],)]


def test_pending_texts_without_a_claimed_score_get_the_models(
    run: RunWithEngine, database_url: str, add_texts: AddTexts, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, FIRST)
    scored = add_texts(*(comment.text for comment in PENDING))
    claimed = add_texts("claimed", score=0.9)
    [sent] = add_texts("was sent before", page_position=3)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()

    run(work)
    scores = dict(rows("select id, model_score from texts where status = 'pending'"))
    assert (scores[claimed[0]], scores[sent]) == (None, None)
    probabilities = dict(rows("select text_id, probability from predictions where quality is null"))
    assert probabilities.keys() == set(scored)
    # Of two labels, the score is the probability of the more likely one.
    assert all(scores[id_] == pytest.approx(probabilities[id_], abs=1e-5) for id_ in scored)
    # Those that the model is sure about are right.
    truth = {id_: comment.label for id_, comment in zip(scored, PENDING, strict=True)}
    sure = [(id_, label) for id_, label, p in rows("select text_id, label, probability from predictions")
            if id_ in truth and p > 0.9]  # fmt: skip
    assert len(sure) > 50
    assert sum(truth[id_] == label for id_, label in sure) / len(sure) > 0.9


def test_a_label_that_changes_gets_another_quality(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    [first, *_] = add_labelled(database_url, FIRST)

    def read() -> Any:
        return rows(f"{_PREDICTIONS} where text_id = '{first}'")[0]

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            before = read()
            other = _flip(FIRST[0]).label
            async with engine.begin() as connection:
                await connection.execute(
                    text(
                        "update labels set label = :label, changed_xid = pg_current_xact_id() where text_id = :id"
                    ),
                    {"label": other, "id": first},
                )
            await loop.look()
            after = read()
            assert after[:4] == before[:4]
            assert (before[5], after[5]) == (FIRST[0].label, other)
            assert after[4] == pytest.approx(1 - before[4], abs=1e-5)
            # Then there is nothing to write: the job does not follow its own changes.
            stamps = rows("select text_id, changed_xid::text from labels")
            await loop.look()
            await loop.look()
            assert rows("select text_id, changed_xid::text from labels") == stamps

    run(work)


def test_a_forgotten_text_leaves_no_prediction_and_gets_none(
    run: RunWithEngine,
    database_url: str,
    add_texts: AddTexts,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_process: Compute,
) -> None:
    [labelled, *_] = add_labelled(database_url, FIRST)
    [pending, late] = add_texts(PENDING[0].text, PENDING[1].text)

    async def forget(engine: AsyncEngine, *ids: UUID) -> None:
        async with engine.begin() as connection:
            await connection.run_sync(lambda c: forget_texts(c, ids, Traces(), "a test"))

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            # Forgotten between the computing of its score and the writing.
            async def run_and_forget(stopping: Any, limiter: Any, work: Any, *arguments: Any) -> Any:
                result = await one_process(stopping, limiter, work, *arguments)
                if work is score_pending:
                    await forget(engine, late)
                return result

            monkeypatch.setattr("uploader.model.model_job.run_in_process", run_and_forget)
            await loop.look()
            predicted = {row[0] for row in rows(_PREDICTIONS)}
            assert {labelled, pending} <= predicted
            assert late not in predicted
            await forget(engine, labelled, pending)
            await loop.look()

    run(work)
    assert not {labelled, pending, late} & {row[0] for row in rows(_PREDICTIONS)}
    assert rows("select count(*) from texts where status = 'forgotten' and model_score is not null") == [(0,)]


def test_predictions_are_completed_after_a_crash_between_two_batches(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, COMMENTS[:700])

    class Crash(Exception):
        pass

    def crash() -> None:
        if rows("select count(*) from predictions")[0][0]:
            raise Crash

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            with pytest.raises(Crash):
                await loop.look(crash)
        assert rows("select count(*) from predictions") == [(500,)]
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()

    run(work)
    assert rows("select count(*) from predictions") == [(700,)]
    assert rows("select count(*) from models") == [(1,)]


def test_what_is_turned_off_leaves_no_trace_and_can_be_turned_on_again(
    run: RunWithEngine, database_url: str, add_texts: AddTexts, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, COMMENTS[:700])
    add_texts(*(comment.text for comment in PENDING))

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
        stamps = dict(rows("select text_id, changed_xid::text from labels"))
        await remove_model(engine)
        assert rows("select count(*) from predictions") == [(0,)]
        assert rows("select count(*) from texts where model_score is not null") == [(0,)]
        assert rows("select is_active from models") == [(False,)]
        # The replicas hear of it.
        after = dict(rows("select text_id, changed_xid::text from labels"))
        assert all(after[id_] != stamp for id_, stamp in stamps.items())
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()

    run(work)
    assert rows("select is_active from models") == [(True,)]
    assert rows("select count(*) from predictions") == [(1200,)]


def test_an_older_model_can_be_activated(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, FIRST)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            first = {row[0]: row[1:4] for row in rows(_PREDICTIONS)}
            await anyio.to_thread.run_sync(add_labelled, database_url, NEW)
            async with engine.begin() as connection:
                await connection.execute(text("update datasets set model_asked_at = now()"))
            await loop.look()
            [(former,)] = rows("select version from models where not is_active")
            async with engine.begin() as connection:
                await activate(connection, DATASET, former)
            await loop.look()
            now = {row[0]: row[1:4] for row in rows(_PREDICTIONS)}
            # Its out-of-fold predictions are back, not those of a model that saw the labels.
            assert {id_: now[id_] for id_ in first} == first
            assert len(now) == len(FIRST) + len(NEW)

    run(work)


def test_labels_beyond_the_definition_are_no_part_of_the_model(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, FIRST)
    add_labelled(database_url, [comment._replace(label="former") for comment in NEW[:50]])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update labels set status = 'disputed', label = null where text_id in"
            " (select text_id from labels where label = 'former' limit 20)"
        )

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()

    run(work)
    [(stored,)] = rows("select manifest from models")
    sizes = ModelManifest.model_validate(stored).sizes
    assert (sizes.texts, sizes.disputed, sizes.left_out) == (len(FIRST), 20, 0)
    assert rows("select count(*) from predictions") == [(len(FIRST),)]


def test_demo_texts_do_not_count(run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path) -> None:
    add_labelled(database_url, FIRST)
    with psycopg.connect(database_url) as connection:
        connection.execute("update texts set status = 'demo'")

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()
            assert rows("select * from models") == []
            await anyio.to_thread.run_sync(add_labelled, database_url, NEW)
            await loop.look()

    run(work)
    [(stored,)] = rows("select manifest from models")
    sizes = ModelManifest.model_validate(stored).sizes
    assert (sizes.texts, sizes.left_out) == (len(NEW), 0)


def test_only_the_leader_writes(run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path) -> None:
    add_labelled(database_url, FIRST)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            async with engine.begin() as connection:
                await connection.execute(text("update datasets set leader_id = gen_random_uuid()"))
            with pytest.raises(NotLeading):
                await loop.look()

    run(work)
    assert rows("select * from models") == []


def test_the_settings_ask_for_as_many_labels_of_each(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    toxic = [comment for comment in COMMENTS if comment.label == "toxic"]
    others = [comment for comment in COMMENTS if comment.label != "toxic"]
    add_labelled(database_url, toxic[:300] + others[:29])
    definition = DEFINITION.model_copy(update={"model": ModelInLoop(enabled=True, min_labels=30)})

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path, definition) as loop:
            await loop.look()
            assert rows("select * from models") == []
            await anyio.to_thread.run_sync(add_labelled, database_url, others[29:30])
            await loop.look()

    run(work)
    assert rows("select count(*) from models") == [(1,)]


def test_the_files_of_old_models_are_removed_and_their_rows_stay(
    run: RunWithEngine, database_url: str, rows: Rows, tmp_path: Path
) -> None:
    add_labelled(database_url, FIRST)
    folder = tmp_path / "models" / DATASET
    old = [f"{n:012x}" for n in range(KEPT_MODELS + 2)]
    with psycopg.connect(database_url) as connection:
        for n, version in enumerate(old):
            (folder / version).mkdir(parents=True)
            (folder / version / "model.json").write_text("{}")
            connection.execute(
                "insert into models (dataset, version, created_at, is_active, decision, manifest)"
                " values (%s, %s, %s, %s, '', '{}')",
                [DATASET, version, START + timedelta(days=n), n == 0],
            )

    async def list_removable(engine: AsyncEngine) -> list[str]:
        async with engine.connect() as connection:
            return await list_outdated(connection, DATASET, KEPT_MODELS)

    async def work(engine: AsyncEngine) -> None:
        async with keeping_model(engine, tmp_path) as loop:
            await loop.look()

    assert run(list_removable) == [old[1]]  # not the active one, though it is the oldest
    run(work)
    [(new,)] = rows("select version from models where is_active")
    assert set(_names(folder)) == {new, *old[2:]}
    assert rows("select count(*) from models") == [(len(old) + 1,)]
