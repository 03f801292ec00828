"""The loop on a real Argilla: labels become a model, which orders the queue and doubts a wrong label."""

from pathlib import Path
from typing import Any

import psycopg

from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.unit.simulated_comments import LABELS, simulate_comments
from tests.waiting import wait_for

# The answer of one annotator makes a label, and leaves the record open: so nothing new is uploaded meanwhile.
_DEFINITION = """
[toxicity]
labels = ["toxic", "non_toxic"]
guidelines = "Decide."
answers_wanted = 2
order = "uncertain"
suggestions = "model"
max_open_records = 120
model = {enabled = true, min_labels = 40}
"""
_ANSWERED, _ROOM = 120, 10


def test_labels_change_what_annotators_get(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, tmp_path: Path
) -> None:
    definition = tmp_path / "datasets.toml"
    definition.write_text(_DEFINITION)
    comments = simulate_comments(180, seed=3, own_words=0.6)
    answered = comments[:_ANSWERED]
    ids = add_texts(*(comment.text for comment in answered))
    wrong = ids[17]

    def rows(query: str, *values: Any) -> list[Any]:
        with psycopg.connect(database_url) as connection:
            return connection.execute(query, values).fetchall()

    with start_uploader(
        DATASETS_FILE=str(definition), DATA_DIR=str(tmp_path / "data"), MODEL_INTERVAL_SECONDS="1", MODEL_SHARE="1"
    ):
        wait_for(lambda: argilla.visible_count() == _ANSWERED, seconds=120)
        add_texts(*(comment.text for comment in comments[_ANSWERED:]))
        annotator = argilla.add_annotator("first")
        for id_, comment in zip(ids, answered, strict=True):
            right = LABELS.index(comment.label)
            annotator.answer(argilla.record(id_)["id"], LABELS[1 - right if id_ == wrong else right])
        wait_for(lambda: rows("select version from models where is_active") != [], seconds=240)
        unscored = "select count(*) from texts where status = 'pending' and model_score is null"
        wait_for(lambda: rows(unscored) == [(0,)], seconds=120)
        [(version,)] = rows("select version from models where is_active")
        assert (tmp_path / "data" / "snapshots" / "models" / "toxicity" / version / "model.json").exists()

        # The wrong answer stands out, by a model that did not see it.
        doubted = rows(
            "select text_id, quality from predictions where quality is not null order by quality limit 5"
        )
        assert wrong in [row[0] for row in doubted]

        # The next ones are those of which the model is least sure, with its suggestion.
        queued = rows("select id, model_score from texts where status = 'pending' order by model_score")
        second = argilla.add_annotator("second")
        for id_, comment in zip(ids[:_ROOM], answered, strict=False):
            second.answer(argilla.record(id_)["id"], comment.label)
        chosen = "select id from texts where status = 'uploaded' and not id = any(%s)"
        wait_for(lambda: len(rows(chosen, ids)) == _ROOM, seconds=120)  # committed after Argilla shows them
        uploaded = {row[0] for row in rows(chosen, ids)}
        assert uploaded == {row[0] for row in queued[:_ROOM]}
        for id_ in uploaded:
            [suggestion] = argilla.record(id_)["suggestions"]
            [(label, probability)] = rows("select label, probability from predictions where text_id = %s", id_)
            assert (suggestion["value"], suggestion["agent"]) == (label, f"model:{version}")
            assert abs(suggestion["score"] - probability) < 1e-6
