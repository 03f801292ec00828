"""The grammar of `where` and `orderby`: what each form is read as, and where a bound begins."""

from datetime import datetime

import pytest

from serving_api.texts.repository import Condition
from serving_api.viewer.split_rows import LIVE, SortKey
from serving_api.viewer.where import NotUnderstood, parse_orderby, parse_where, read_filter

_NAMED = {column.name: column for column in LIVE}
ONE: Condition = ('"score" = ?', [1])
NOON = datetime(2026, 11, 1, 12)  # noqa: DTZ001 - the replica holds UTC without a zone

READ: dict[str, Condition] = {
    "score = 1": ONE,
    "score == 1": ONE,
    "SCORE = 1": ONE,
    '"score" = 1': ONE,
    " score=1 \n": ONE,
    "(score = 1)": ONE,
    "((score = 1))": ONE,
    "score = +1": ONE,
    "score != -1": ('"score" <> ?', [-1]),
    "score <> 1": ('"score" <> ?', [1]),
    "score < 0.5": ('"score" < ?', [0.5]),
    "score <= -.5": ('"score" <= ?', [-0.5]),
    "score >= 2e1": ('"score" >= ?', [20.0]),
    "score = confidence": ('"score" = "confidence"', []),
    "text <> metadata": ('"text" <> "metadata"', []),
    "1 = score": ONE,
    "+1 = score": ONE,
    "-1 < score": ('"score" > ?', [-1]),
    "1 <= score": ('"score" >= ?', [1]),
    "1 > score": ('"score" < ?', [1]),
    "1 >= score": ('"score" <= ?', [1]),
    "1 != score": ('"score" <> ?', [1]),
    "'a' = label": ('"label" = ?', ["a"]),
    "label = 'it''s'": ('"label" = ?', ["it's"]),
    "label = ''": ('"label" = ?', [""]),
    "labelled_at > '2026-11-01T12:00:00Z'": ('"labelled_at" > ?', [NOON]),
    "labelled_at > TIMESTAMP '2026-11-01T12:00:00Z'": ('"labelled_at" > ?', [NOON]),
    "timestamp '2026-11-01T12:00:00Z' < labelled_at": ('"labelled_at" > ?', [NOON]),
    "label in ('a', 'b')": ('"label" in (?, ?)', ["a", "b"]),
    "score NOT IN (1)": ('not ("score" in (?))', [1]),
    "score between 1 and 2": ('"score" between ? and ?', [1, 2]),
    "score not between 1 and 2": ('not ("score" between ? and ?)', [1, 2]),
    "text like 'a%%'": ('"text" like ?', ["a%"]),
    "text ILIKE 'a%'": ('lower("text") like lower(?)', ["a%"]),
    "text not like 'a%'": ('not ("text" like ?)', ["a%"]),
    "score is null": ('"score" is null', []),
    "score IS NOT NULL": ('not ("score" is null)', []),
    "not score = 1": ('not ("score" = ?)', [1]),
    "not not score = 1": ONE,
    "not (score = 1)": ('not ("score" = ?)', [1]),
    "score = 1 and score = 1 AND score = 1": ('("score" = ?) and ("score" = ?) and ("score" = ?)', [1, 1, 1]),
    "score = 1 or score = 1 and score is null": ('("score" = ?) or (("score" = ?) and ("score" is null))', [1, 1]),
    "(score = 1 or score = 1) and score is null": (
        '(("score" = ?) or ("score" = ?)) and ("score" is null)',
        [1, 1],
    ),
}


@pytest.mark.parametrize(("where", "expected"), READ.items())
def test_each_form_of_a_condition_is_read_as_it_says(where: str, expected: Condition) -> None:
    assert parse_where(where, LIVE).where == expected


@pytest.mark.parametrize(
    ("digits", "kind"),
    [
        ("1000000000000000001", int),
        (f"{2**63 - 1}", int),
        (f"{2**63}", float),
        (f"{2**64 - 1}", float),
        ("9" * 40, float),
        ("1.0", float),
    ],
)
def test_whole_numbers_of_64_bits_are_exact(digits: str, kind: type) -> None:
    [value] = parse_where(f"score = {digits}", LIVE).where[1]
    assert isinstance(value, kind)
    assert value == kind(digits)


ORDERED = {
    "score": [SortKey(('"score"', []), "asc nulls last")],
    "score asc": [SortKey(('"score"', []), "asc nulls last")],
    "score DESC": [SortKey(('"score"', []), "desc nulls last")],
    "score nulls first": [SortKey(('"score"', []), "asc nulls first")],
    "score asc NULLS LAST, text desc nulls first": [
        SortKey(('"score"', []), "asc nulls last"),
        SortKey(('"text"', []), "desc nulls first"),
    ],
}


@pytest.mark.parametrize(("orderby", "expected"), ORDERED.items())
def test_each_form_of_an_order_is_read_as_it_says(orderby: str, expected: list[SortKey]) -> None:
    assert parse_orderby(orderby, LIVE).orderby == tuple(expected)


def test_an_id_is_compared_and_sorted_as_text() -> None:
    asked = read_filter("id = 'a' and 'b' < id", "id", LIVE)
    assert asked.where == ("(id::varchar = ?) and (id::varchar > ?)", ["a", "b"])
    assert asked.orderby == (SortKey(("id::varchar", []), "asc nulls last"),)


WRONG = {
    '"SCORE" = 1': "At character 1: there is no column 'SCORE'; there are: " + ", ".join(_NAMED) + ".",
    "5 score = 1": "At character 3: expected a comparison, found 'score'.",
    "- = score": "At character 3: expected a column or a value, found '='.",
    "1 = 'a'": "At character 5: expected a column, found \"'a'\".",
    "score = -+1": "At character 10: expected a number, as score holds, found '+'.",
    "score = 'a'": "At character 9: expected a number, as score holds, found \"'a'\".",
    "label = 1": "At character 9: expected a string in single quotes, as label holds, found '1'.",
    "labelled_at = 1": "At character 15: expected a string in single quotes, found '1'.",
    "labelled_at = 'x'": "At character 15: not a time as RFC 3339 has it: '2026-11-24T08:30:00Z'.",
    "label = score": "At character 9: score and label are of different kinds.",
    "score in 1": "At character 10: expected (, found '1'.",
    "score in (1": "At character 12: expected ), found the end.",
    "score between 1 or 2": "At character 17: expected AND, found 'or'.",
    "score like 'a'": "At character 7: score holds no text: compare it by =, <, > or BETWEEN.",
    f"text like '{'_' * 9}'": "At character 11: a pattern may have 8 % and 8 _.",
    "score is not": "At character 13: expected NULL, found the end.",
    "score = 1 ? 2": "At character 11: '? 2' means nothing here.",
    "score ": "At character 6: expected a comparison, IN, BETWEEN, LIKE, ILIKE or IS, found the end.",
    f"{'a' * 21} = 1": f"At character 1: there is no column '{'a' * 20}…'; there are: {', '.join(_NAMED)}.",
    f"{'a' * 20} = 1": f"At character 1: there is no column '{'a' * 20}'; there are: {', '.join(_NAMED)}.",
}


@pytest.mark.parametrize(("where", "told"), WRONG.items())
def test_a_wrong_condition_is_told_in_full(where: str, told: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        parse_where(where, LIVE)
    assert str(refusal.value) == told


@pytest.mark.parametrize(
    ("orderby", "told"),
    [
        ("score,", "At character 7: expected a column, found the end."),
        ("score desc nulls up", "At character 18: expected LAST, found 'up'."),
        ("score 1", "At character 7: expected nothing more, AND, or OR, found '1'."),
        (", ".join(["id"] * 9), "At character 1: names 9 columns; at most 8."),
    ],
)
def test_a_wrong_order_is_told_in_full(orderby: str, told: str) -> None:
    with pytest.raises(NotUnderstood) as refusal:
        parse_orderby(orderby, LIVE)
    assert str(refusal.value) == told


@pytest.mark.parametrize(
    ("longest", "longer", "told"),
    [
        ("score = 1".ljust(4000), "score = 1".ljust(4001), "At character 4001: longer than 4000 characters."),
        (
            "(" * 50 + "score = 1" + ")" * 50,
            "(" * 51 + "score = 1" + ")" * 51,
            "At character 52: nested more than 50 deep.",
        ),
        (
            " or ".join(["text like 'a'"] * 10),
            " or ".join(["text like 'a'"] * 11),
            "At character 181: a condition may have 10 LIKE and ILIKE.",
        ),
    ],
    ids=["length", "depth", "patterns"],
)
def test_a_bound_allows_so_much_and_no_more(longest: str, longer: str, told: str) -> None:
    parse_where(longest, LIVE)
    with pytest.raises(NotUnderstood) as refusal:
        parse_where(longer, LIVE)
    assert str(refusal.value) == told


def test_an_order_has_eight_columns_at_most() -> None:
    assert len(parse_orderby(", ".join(["id"] * 8), LIVE).orderby) == 8
