import pytest

from core.datasets import Dataset, Datasets
from core.web.problems import InvalidFields
from serving_api.texts.parameters import TextsParameters
from serving_api.texts.query import Mismatch, TextsQuery, choose_dataset, page_query
from serving_api.texts.repository import conditions

DATASETS: Datasets = {
    "mood": Dataset(labels=("happy", "sad"), guidelines="…"),
    "toxicity": Dataset(labels=("toxic", "non_toxic"), guidelines="…"),
    "other_mood": Dataset(labels=("happy", "angry"), guidelines="…"),
}


def query(**parameters: object) -> TextsQuery:
    checked = TextsParameters.model_validate(parameters)
    return page_query(checked, checked.label, DATASETS).texts


def test_same_question_in_other_words_is_the_same_query() -> None:
    one = query(label=["toxic", "non_toxic", "toxic"], labelled_after="2026-11-24T10:00:00+02:00", limit=5)
    other = query(
        label=["non_toxic", "toxic"], labelled_after="2026-11-24T08:00:00Z", dataset="toxicity", q=None, limit=9
    )
    assert one.fingerprint == other.fingerprint


def test_each_filter_makes_another_query() -> None:
    filters: list[dict[str, object]] = [
        {},
        {"dataset": "mood"},
        {"label": ["toxic"]},
        {"source": "a"},
        {"annotator": "a"},
        {"q": "a"},
        {"status": "labelled"},
        {"min_agreement": 0},
        {"min_annotations": 0},
        {"labelled_after": "2026-11-24"},
        {"labelled_before": "2026-11-24"},
        {"order": "oldest"},
    ]
    assert len({query(**chosen).fingerprint for chosen in filters}) == len(filters)


def test_values_are_bound_and_never_in_the_sql() -> None:
    hostile = "x' or 1=1 --"
    sql, values = conditions(query(source=hostile, annotator=hostile, q=hostile))
    assert hostile not in sql
    assert sum(hostile in str(value) for value in values) == 3
    assert sql.count("?") == len(values)


@pytest.mark.parametrize(
    ("asked", "labels", "chosen"),
    [
        (None, [], "toxicity"),
        (None, ["happy"], "mood"),
        (None, ["sad", "happy"], "mood"),
        (None, ["angry"], "other_mood"),
        ("other_mood", ["happy"], "other_mood"),
        (None, ["unknown"], "toxicity"),
    ],
)
def test_dataset_is_the_default_or_the_one_with_the_label(
    asked: str | None, labels: list[str], chosen: str
) -> None:
    assert choose_dataset(asked, labels, DATASETS) == chosen


def test_every_unknown_label_is_named() -> None:
    with pytest.raises(InvalidFields) as refusal:
        query(label=["toxic", "x", "y"])
    assert [error["detail"].split("'")[1] for error in refusal.value.extra["errors"]] == ["x", "y"]


def test_a_label_of_another_dataset_does_not_go_with_this_one() -> None:
    with pytest.raises(Mismatch) as refusal:
        query(dataset="toxicity", label=["toxic", "happy"])
    assert (refusal.value.status, refusal.value.code) == (409, "unknown_label")


def test_search_text_is_normalised_as_the_texts_are() -> None:
    decomposed = "a\u0308"
    assert query(q=decomposed).filters.q == "ä"
