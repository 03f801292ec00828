"""Tests of uploader.push.claiming: the share of gold texts."""

from hypothesis import given
from hypothesis import strategies as st

from uploader.push.claiming import count_gold


@given(
    share=st.floats(0.01, 0.5),
    claims=st.lists(st.tuples(st.integers(1, 250), st.integers(0, 250)), min_size=1, max_size=40),
)
def test_gold_keeps_its_share_whatever_is_claimed(share: float, claims: list[tuple[int, int]]) -> None:
    owed, gold_total, other_total = 0.0, 0, 0
    for count, ordinary_count in claims:
        gold = count_gold(owed, share, count, ordinary_count)
        others = min(ordinary_count, count - gold)
        assert gold + others <= count
        owed += others * share / (1 - share) - gold
        gold_total, other_total = gold_total + gold, other_total + others
        assert abs(gold_total - (gold_total + other_total) * share) <= 2


def test_gold_never_goes_alone() -> None:
    assert {count_gold(0.9, 0.2, 10, 0) for _ in range(100)} == {0}


def test_without_a_share_there_is_none() -> None:
    assert count_gold(5, 0, 10, 10) == 0


def test_chance_moves_a_gold_text_by_half_a_text_at_most() -> None:
    counts = {owed: {count_gold(owed, 0.5, 1, 1) for _ in range(100)} for owed in (0.45, 1.0, 1.55)}
    assert counts == {0.45: {0}, 1.0: {0, 1}, 1.55: {1}}
