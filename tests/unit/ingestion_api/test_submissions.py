"""What a submission may hold."""

import json
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.datasets import Datasets, load_datasets
from core.text_identity import normalise, text_id
from core.web.problems import InvalidFields, Problem, TooLarge
from ingestion_api.texts.submissions import NewText, check_fields, parse_submission

DATASETS = load_datasets(None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
FIELDS = ["text", "dataset", "label", "score", "source", "external_id", "metadata", "other"]


def test_a_full_submission_is_taken_as_it_is() -> None:
    row = check_fields(
        {
            "text": " \u0065\u0301t\u00e9 ",
            "label": "toxic",
            "score": 1,
            "source": "forum",
            "external_id": "7",
            "metadata": {"a": 1, "b": True, "c": 0.5, "d": "x"},
        },
        DATASETS,
    )
    assert (row.text, row.claimed_label, row.score, row.source) == ("\u00e9t\u00e9", "toxic", 1, "forum")
    assert row.id == text_id("toxicity", "\u00e9t\u00e9")
    assert orjson.loads(row.metadata) == {"a": 1, "b": True, "c": 0.5, "d": "x"}


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({}, "/text", "missing"),
        ({"text": 5}, "/text", "string_type"),
        ({"text": ""}, "/text", "empty_text"),
        ({"text": " \u3000\n"}, "/text", "empty_text"),
        ({"text": "a\0b"}, "/text", "nul_character"),
        ({"text": "a\ud800"}, "/text", "lone_surrogate"),
        ({"text": "a", "label": "toxc"}, "/label", "unknown_label"),
        ({"text": "a", "dataset": "none"}, "/dataset", "unknown_dataset"),
        ({"text": "a", "score": float("nan")}, "/score", "finite_number"),
        ({"text": "a", "score": 1.01}, "/score", "less_than_equal"),
        ({"text": "a", "score": "0.5"}, "/score", "float_type"),
        ({"text": "a", "lable": "toxic"}, "/lable", "extra_forbidden"),
        ({"text": "a", "source": ""}, "/source", "string_too_short"),
        ({"text": "a", "external_id": "x\0"}, "/external_id", "nul_character"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], pointer: str, code: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        check_fields(fields, DATASETS)
    assert [(e.pointer, e.code) for e in refused.value.errors] == [(pointer, code)]


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({}, "is required"),
        ({"text": 5}, "must be a string"),
        ({"text": "a", "label": "toxc"}, 'label "toxc" is not one of toxic, non_toxic'),
        ({"text": "a", "score": 1.01}, "must be at most 1"),
        ({"text": "a", "score": "0.5"}, "must be a number"),
        ({"text": "a", "source": ""}, "must not be empty"),
        ({"text": "a", "source": "x" * 1001}, "must have at most 1000 characters"),
        ({"text": "a", "lable": "toxic"}, "is not a known field"),
    ],
)
def test_an_error_says_what_a_field_must_be(fields: dict[str, Any], detail: str) -> None:
    with pytest.raises(InvalidFields) as refused:
        check_fields(fields, DATASETS)
    assert [e.detail for e in refused.value.errors] == [detail]


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, float("inf"), None, [], {}, "x" * 8001, "\0"])
def test_metadata_that_argilla_would_not_index_is_refused(value: Any) -> None:
    with pytest.raises(InvalidFields):
        check_fields({"text": "a", "metadata": {"key": value}}, DATASETS)


def test_null_is_what_is_left_out() -> None:
    names = ["dataset", "label", "score", "source", "external_id", "metadata"]
    assert check_fields({"text": "a"} | dict.fromkeys(names), DATASETS) == check_fields({"text": "a"}, DATASETS)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidFields) as refused:
        check_fields({"text": " ", "label": "x", "score": 2, "other": 1}, DATASETS)
    assert {e.pointer for e in refused.value.errors} == {"/text", "/label", "/score", "/other"}


def test_the_limit_counts_bytes() -> None:
    assert check_fields({"text": "x" * 65536}, DATASETS)
    for text in ["x" * 65537, "é" * 32769]:
        with pytest.raises(TooLarge):
            check_fields({"text": text}, DATASETS)


@given(st.binary() | JSON.map(lambda value: orjson.dumps(str(value)[:50].encode("ascii", "replace").decode())))
def test_any_bytes_are_a_row_or_a_problem(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_submission(body, DATASETS)
    assert refused.value.status in {400, 422}


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_any_fields_are_a_row_or_a_problem(fields: dict[str, Any]) -> None:
    try:
        row = check_fields(fields, DATASETS)
    except (InvalidFields, TooLarge):
        return
    assert row.text == normalise(fields["text"])


TEXTS = ["\0", "\\u0000", "\ud800", "", " ", "\u3000", "toxic", "toxicity", *("x" * n for n in (200, 201))]
LONG_TEXTS = ["x" * n for n in (1000, 1001, 8000, 8001, 65536, 65537)]
NUMBERS = [0, 1, 1.01, -0.0, -0.1, 5e-324, 1e999, -(2**63), -(2**63) - 1, 2**63 - 1, 2**63, 2**64, 10**400]
VALUES: st.SearchStrategy[Any] = (
    st.sampled_from([None, True, [], {}, *TEXTS, *LONG_TEXTS, *NUMBERS]) | st.floats(0, 1) | st.text()
)
METADATA = st.dictionaries(st.sampled_from(TEXTS) | st.text(), VALUES, max_size=2)


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES | METADATA, max_size=2), st.booleans())
@example({"metadata": {"a": 2**63}}, True)
@example({"metadata": {"a": "x" * 8001}}, True)
@example({"metadata": {"": 1}}, True)
@example({"metadata": {"x" * 201: 1}}, True)
@example({"metadata": {str(n): n for n in range(100)}}, True)
@example({"metadata": {str(n): n for n in range(101)}}, True)
@settings(max_examples=60)
def test_the_quick_ways_are_the_slow_ones(fields: dict[str, Any], ascii_only: bool) -> None:
    fields = {"text": "a"} | fields
    body = json.dumps(fields, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert _outcome(parse_submission, body) == _outcome_of_the_slow_way(parse_submission, body)
    assert _outcome(check_fields, fields) == _outcome_of_the_slow_way(check_fields, fields)


Parse = Callable[[Any, Datasets], NewText]


def _outcome_of_the_slow_way(parse: Parse, given: Any) -> Any:
    with (
        patch("ingestion_api.texts.submissions.read_quickly", lambda _: None),
        patch("ingestion_api.texts.submissions.convert_quickly", lambda _: None),
    ):
        return _outcome(parse, given)


def _outcome(parse: Parse, given: Any) -> Any:
    try:
        return parse(given, DATASETS)
    except InvalidFields as invalid:
        return invalid.errors
    except Problem as problem:
        return problem.code


@pytest.mark.parametrize("where", ["", "/metadata"])
def test_very_many_wrong_fields_are_told_as_one(where: str) -> None:
    wrong: dict[str, object] = {str(n): None for n in range(50_000)}
    fields: dict[str, object] = {"text": "a"} | (wrong if not where else {"metadata": wrong})
    with pytest.raises(InvalidFields) as in_body:
        parse_submission(json.dumps(fields).encode(), DATASETS)
    with pytest.raises(InvalidFields) as in_row:
        check_fields(fields, DATASETS)
    for refused in (in_body, in_row):
        assert [(error.code, error.pointer) for error in refused.value.errors] == [("too_many_fields", where)]
