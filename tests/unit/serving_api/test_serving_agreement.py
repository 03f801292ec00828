"""The coefficients against other people's packages, their intervals against plain resampling of texts."""

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa  # type: ignore[import-untyped]

from serving_api.statistics import agreement as module
from serving_api.statistics.agreement import Agreement, Coefficient, Votes, agreement, cohen_kappa, votes_of_pair

Texts = list[list[str]]  # the answers about each text

LABELS = "abc"
ANY = st.lists(st.lists(st.sampled_from(LABELS), max_size=5), max_size=12)
OF_THREE = st.lists(st.lists(st.sampled_from(LABELS), min_size=3, max_size=3), min_size=1, max_size=12)
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=15)


def votes(texts: Texts) -> dict[Votes, int]:
    return Counter(tuple(sorted(Counter(answers).items())) for answers in texts)


def table(texts: Texts) -> np.ndarray:
    return np.array([[answers.count(label) for label in LABELS] for answers in texts])


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-6)


@given(ANY)
def test_alpha_is_that_of_krippendorff(texts: Texts) -> None:
    measured = agreement(votes(texts)).krippendorff_alpha
    used = [answers for answers in texts if len(answers) > 1]
    assert measured.n == len(used)
    if len({answer for answers in used for answer in answers}) < 2:
        assert measured.value is None
    else:
        assert measured.value == near(krippendorff.alpha(value_counts=table(used), level_of_measurement="nominal"))


@given(OF_THREE)
def test_fleiss_is_that_of_statsmodels_for_equal_numbers(texts: Texts) -> None:
    measured = agreement(votes(texts)).fleiss_kappa
    assert measured.n == len(texts)
    if len({answer for answers in texts for answer in answers}) < 2:
        assert measured.value is None
    else:
        assert measured.value == near(fleiss_kappa(table(texts)))


@given(ANY)
def test_fleiss_for_unequal_numbers_is_that_of_texts_with_equal_weight(texts: Texts) -> None:
    used = [answers for answers in texts if len(answers) > 1]
    measured = agreement(votes(texts)).fleiss_kappa
    shares = [[answers.count(label) / len(answers) for label in LABELS] for answers in used]
    expected = sum(np.mean(shares, axis=0) ** 2) if used else 1
    if math.isclose(expected, 1):
        assert measured.value is None
    else:
        observed = np.mean([agreeing(answers) / (len(answers) * (len(answers) - 1)) for answers in used])
        assert measured.value == near((observed - expected) / (1 - expected))


def agreeing(answers: Sequence[str]) -> int:
    """Ordered pairs of equal answers, counted one by one."""
    return sum(i != j and one == other for i, one in enumerate(answers) for j, other in enumerate(answers))


@given(ANY)
def test_observed_is_the_share_of_agreeing_pairs(texts: Texts) -> None:
    pairs = sum(len(answers) * (len(answers) - 1) for answers in texts)
    value = agreement(votes(texts)).observed_agreement.value
    assert value == (near(sum(map(agreeing, texts)) / pairs) if pairs else None)


@given(PAIRS)
def test_cohen_is_that_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    measured = cohen_kappa(Counter(pairs))
    assert measured.n == len(pairs)
    if len({answer for pair in pairs for answer in pair}) < 2:
        assert measured.value is None
    else:
        assert measured.value == near(cohen_kappa_score(*zip(*pairs, strict=True)))


@given(PAIRS)
def test_pair_agrees_as_its_texts_do(pairs: list[tuple[str, str]]) -> None:
    texts = [list(pair) for pair in pairs]
    assert agreement(votes_of_pair(Counter(pairs))) == agreement(votes(texts))


@given(ANY, st.randoms(use_true_random=False))
def test_same_texts_always_have_the_same_answer(texts: Texts, chance: random.Random) -> None:
    shuffled = chance.sample(texts, len(texts))
    assert agreement(votes(texts)) == agreement(votes(texts)) == agreement(votes(shuffled))


@given(PAIRS, st.randoms(use_true_random=False))
def test_same_pairs_always_have_the_same_answer(pairs: list[tuple[str, str]], chance: random.Random) -> None:
    shuffled = chance.sample(pairs, len(pairs))
    assert cohen_kappa(Counter(pairs)) == cohen_kappa(Counter(shuffled))


def test_the_order_of_texts_decides_no_rounding() -> None:
    texts = [
        ["a", "b", "c", "c", "c"],
        ["b", "b"],
        ["a", "a", "b", "c"],
        ["a", "c", "c", "b"],
        ["b", "b", "a", "c"],
        ["c", "b", "a"],
    ]
    for turn in range(len(texts)):
        assert agreement(votes(texts[turn:] + texts[:turn])) == agreement(votes(texts))


def test_what_rounds_to_zero_has_no_sign() -> None:
    many = 10**9
    measured = cohen_kappa({("a", "a"): many, ("b", "b"): many, ("a", "b"): many + 1, ("b", "a"): many})
    assert str(measured.value) == "0.0"


def test_nothing_to_compare_is_undefined() -> None:
    none = Coefficient(None, 0, None, None)
    assert agreement({}) == agreement({(("a", 1),): 7}) == Agreement(none, none, none)
    assert cohen_kappa({}) == none


def test_one_text_has_no_interval() -> None:
    observed = agreement({(("a", 1), ("b", 2)): 1}).observed_agreement
    assert observed == Coefficient(near(1 / 3), 1, None, None)


def synthetic(count: int, labels: str, seed: int) -> Texts:
    """Texts with 2 to 5 answers, three quarters of which are right."""
    chance = random.Random(seed)  # noqa: S311
    truths = [chance.choice(labels) for _ in range(count)]
    return [
        [truth if chance.random() < 0.75 else chance.choice(labels) for _ in range(chance.randint(2, 5))]
        for truth in truths
    ]


def by_resampling(texts: Texts, value_of: Callable[[Texts], float]) -> tuple[float, float]:
    chance = random.Random(3)  # noqa: S311
    values = [value_of(chance.choices(texts, k=len(texts))) for _ in range(400)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def alpha(texts: Texts) -> float:
    labels = sorted({answer for answers in texts for answer in answers})
    counts = np.array([[answers.count(label) for label in labels] for answers in texts])
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


@pytest.mark.parametrize(("labels", "kinds_are_many"), [("ab", False), ("abcdefgh", True)])
def test_interval_is_that_of_resampled_texts(labels: str, kinds_are_many: bool) -> None:
    texts = synthetic(400, labels, 1)
    assert (len(votes(texts)) > module.KINDS_MAX) == kinds_are_many
    measured = agreement(votes(texts)).krippendorff_alpha
    low, high = by_resampling(texts, alpha)
    chance = (high - low) / 8  # that of percentiles of a few hundred resamples
    assert measured.low == pytest.approx(low, abs=chance)
    assert measured.high == pytest.approx(high, abs=chance)


def test_interval_ends_at_the_quantiles_that_95_percent_lie_between() -> None:
    # The share of agreeing pairs of resampled texts is binomial, and for so many texts normal: 95 % lie within
    # 1.96 standard deviations (90 %: 1.64). A percentile of 1,000 resamples strays by 0.085, a mean of 50 by 0.01.
    lows, highs = [], []
    for texts in range(1000, 51_000, 1000):
        same = texts * 68 // 100
        deviation = math.sqrt(0.68 * 0.32 / texts)
        measured = agreement({(("a", 2),): same, (("a", 1), ("b", 1)): texts - same}).observed_agreement
        assert measured.low is not None
        assert measured.high is not None
        lows.append((measured.low - 0.68) / deviation)
        highs.append((measured.high - 0.68) / deviation)
    assert np.mean(lows) == pytest.approx(-1.96, abs=0.06)
    assert np.mean(highs) == pytest.approx(1.96, abs=0.06)


@settings(max_examples=20)
@given(st.integers(1, 10**9))
def test_many_texts_are_counted_exactly(count: int) -> None:
    measured = agreement({(("a", 3),): count, (("a", 1), ("b", 2)): count}).observed_agreement
    assert measured.n == 2 * count
    assert measured.value == near(2 / 3)
