"""Tests of core.classifiers.measures: against scikit-learn, and against what is known of the data."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, log_loss, roc_auc_score

from core.classifiers.measures import (
    compare,
    count_tenths,
    make_reliability,
    measure,
    population_stability,
    read_claims,
)


def _two(size: int, seed: int, *, signal: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, size)
    # Rounded, so that some are equal.
    scores = np.clip(np.round(labels * signal + generator.random(size) * (1 - signal), 2), 0.01, 0.99)
    return np.column_stack([1 - scores, scores]), labels


def test_two_labels_as_scikit_learn_measures_them() -> None:
    probabilities, labels = _two(2000, 1)
    found = measure(probabilities, labels)
    scores = probabilities[:, 1]
    expected = {
        "roc_auc": roc_auc_score(labels, scores),
        "average_precision": average_precision_score(labels, scores),
        "f1": f1_score(labels, probabilities.argmax(axis=1), average="macro"),
        "log_loss": log_loss(labels, scores),
    }
    for name, value in expected.items():
        estimate = getattr(found, name)
        assert estimate.value == pytest.approx(value), name
        assert estimate.low < value < estimate.high, name


def test_several_labels_as_scikit_learn_measures_them() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 4, 1000)
    probabilities = generator.random((1000, 4))
    probabilities[np.arange(1000), labels] += 0.5
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    found = measure(probabilities, labels)
    assert found.roc_auc is not None
    assert found.roc_auc.value == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert found.average_precision is not None
    precision = average_precision_score(np.eye(4)[labels], probabilities, average="macro")
    assert found.average_precision.value == pytest.approx(precision)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # Of coin flips with a known share: the log loss of the right probability.
    truth = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3))
    held = 0
    for seed in range(20):
        labels = (np.random.default_rng(seed).random(300) < 0.7).astype(int)
        estimate = measure(np.tile([0.3, 0.7], (300, 1)), labels).log_loss
        assert estimate is not None
        held += estimate.low <= truth <= estimate.high
    assert held >= 16


def test_what_cannot_be_measured_is_null() -> None:
    assert measure(np.empty((0, 2)), np.empty(0, int)).model_dump(exclude_none=True) == {"texts": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = measure(np.tile([0.4, 0.6], (5, 1)), np.ones(5, int))
    assert (one.roc_auc, one.average_precision) == (None, None)
    assert one.f1 is not None
    assert one.f1.value == 1


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    generator = np.random.default_rng(3)
    scores = generator.random(6_000)
    labels = (generator.random(6_000) < scores).astype(int)
    honest = measure(np.column_stack([1 - scores, scores]), labels).calibration_error
    bold = np.clip((scores - 0.5) * 2 + 0.5, 0.01, 0.99)
    boasting = measure(np.column_stack([1 - bold, bold]), labels).calibration_error
    assert honest is not None
    assert boasting is not None
    assert honest.value < 0.03
    assert boasting.value > 0.1
    for bar in make_reliability(np.column_stack([1 - scores, scores]), labels):
        assert abs(bar.probability - bar.right) < 0.06


def test_a_model_is_worse_only_beyond_chance() -> None:
    good, labels = _two(1000, 4, signal=0.6)
    generator = np.random.default_rng(5)
    blurred = np.clip(good + generator.normal(0, 0.01, (1000, 1)) * [1, -1], 0.01, 0.99)
    assert compare("a", good, good, labels).p_worse == 1
    assert compare("a", blurred, good, labels).p_worse > 0.05
    coin = np.full_like(good, 0.5)
    worse, better = compare("a", coin, good, labels), compare("a", good, coin, labels)
    assert worse.p_worse < 0.01
    assert worse.log_loss_difference.low > 0
    assert better.p_worse == 1
    assert better.log_loss_difference.high < 0


def test_of_equal_models_few_are_called_worse() -> None:
    refused = 0
    for seed in range(16):
        generator = np.random.default_rng(seed)
        probabilities, labels = _two(200, seed)
        first, second = (
            np.clip(probabilities + generator.normal(0, 0.1, (200, 1)) * [1, -1], 0.01, 0.99) for _ in range(2)
        )
        refused += compare("a", first, second, labels).p_worse < 0.05
    assert refused <= 3


def test_a_shifted_distribution_is_seen() -> None:
    generator = np.random.default_rng(6)
    before = count_tenths(generator.beta(2, 5, 5000))
    assert population_stability(before, count_tenths(generator.beta(2, 5, 2000))) < 0.02
    assert population_stability(before, count_tenths(generator.beta(5, 2, 2000))) > 0.25
    assert count_tenths(np.array([0.0, 0.05, 0.95, 1.0])) == (2, 0, 0, 0, 0, 0, 0, 0, 0, 2)


def test_claims_without_a_score_count_as_sure() -> None:
    claims = np.array([0, -1, 1]), np.array([0.7, 0.9, np.nan])
    has, probabilities = read_claims(*claims, 3)
    assert has.tolist() == [True, False, True]
    np.testing.assert_allclose(probabilities, np.array([[0.7, 0.15, 0.15], [0, 1, 0]]))
