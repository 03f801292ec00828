"""The texts that the load test sends."""

import json
import statistics
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import load_datasets
from core.text_identity import TEXT_BYTES, normalise
from ingestion_api.texts.schemas import TextCreate
from load_testing.users.comment_texts import bulk_body, submission

SEEDS = st.text("abcXYZ019._-", min_size=1, max_size=40)
NUMBERS = st.integers(0, 2**40)


@given(SEEDS, NUMBERS)
def test_a_text_follows_from_its_seed_and_number(seed: str, number: int) -> None:
    made = submission(seed, number)
    assert made == submission(seed, number)
    TextCreate.model_validate(made, context=load_datasets(None))
    assert normalise(made["text"]) == made["text"]
    assert len(made["text"].encode()) < TEXT_BYTES / 2


@given(st.tuples(SEEDS, NUMBERS), st.tuples(SEEDS, NUMBERS))
def test_no_two_make_the_same_text(one: tuple[str, int], other: tuple[str, int]) -> None:
    assert (submission(*one)["text"] == submission(*other)["text"]) == (one == other)


def test_lengths_languages_and_claims_are_like_those_of_comments() -> None:
    made: list[dict[str, Any]] = [submission("lengths", number) for number in range(3000)]
    lengths = sorted(len(text["text"]) for text in made)
    assert 60 < statistics.median(lengths) < 130
    assert 200 < lengths[2700] < 450
    assert lengths[-1] > 1000
    languages = [text["metadata"]["language"] for text in made]
    assert {"en", "de", "fr", "es", "ru", "zh", "ja", "ar"} == set(languages)
    assert 0.4 < languages.count("en") / 3000 < 0.6
    assert 0.6 < sum("label" in text for text in made) / 3000 < 0.8
    assert {text.get("label") for text in made} == {"toxic", "non_toxic", None}


def test_a_bulk_body_is_its_submissions_and_then_rows_that_are_refused() -> None:
    lines = bulk_body("seed", [3, 5], bad_rows=2).splitlines()
    assert [orjson.loads(line) for line in lines[:2]] == [submission("seed", 3), submission("seed", 5)]
    assert [json.loads(line)["text"].strip() for line in lines[2:]] == ["", ""]
