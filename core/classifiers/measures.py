"""How good probabilities are: measures with bootstrap intervals, a paired comparison, calibration and drift.

scikit-learn has the measures, but not by weights of whole samples a thousand times within seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.classifiers.model_files import Bin, Comparison, Estimate, Measures

# Samples of the bootstrap for 95 % intervals, the same ones in each run.
_SAMPLES = 400
_SEED = 0
_BINS = 10
# A smaller probability of the right label counts as this, so that one text cannot make the log loss infinite.
_LEAST_PROBABILITY = 1e-6
# A new model is refused when it is worse beyond chance at this level, one-sided.
SIGNIFICANT = 0.05
# Shares below count as this in the PSI, which has a logarithm of them.
_LEAST_SHARE = 1e-4

Array = np.ndarray[Any, Any]


def measure(probabilities: Array, labels: Array) -> Measures:
    """Measure probabilities, [texts, labels], against labels, the number of each text's label."""
    if not len(labels):
        return Measures(texts=0)
    present = np.unique(labels)
    losses = get_losses(probabilities, labels)
    found: dict[str, Callable[[Array], float]] = {
        "f1": _F1(probabilities, labels, present),
        "log_loss": lambda weights: float(weights @ losses / weights.sum()),
        "calibration_error": _CalibrationError(probabilities, labels),
    }
    if len(present) > 1:
        # Of two labels, the ranking by the one is that by the other.
        ranked = present[1:] if probabilities.shape[1] == 2 else present
        rankings = [_Ranking(probabilities[:, label], labels == label) for label in ranked]
        found["roc_auc"] = lambda weights: float(np.mean([one.roc_auc(weights) for one in rankings]))
        found["average_precision"] = lambda weights: float(
            np.mean([one.average_precision(weights) for one in rankings])
        )
    return Measures(texts=len(labels), **_bootstrap(found, len(labels)))


def get_losses(probabilities: Array, labels: Array) -> Array:
    """Return -ln of the probability of each text's label."""
    right = probabilities[np.arange(len(labels)), labels]
    losses: Array = -np.log(np.clip(right, _LEAST_PROBABILITY, 1))
    return losses


def compare(version: str, new: Array, previous: Array, labels: Array) -> Comparison:
    """Compare two models on the same texts: a paired bootstrap of the difference of their log losses."""
    differences = get_losses(new, labels) - get_losses(previous, labels)
    means = np.array([weights @ differences / len(labels) for weights in _samples(len(labels))])
    low, high = np.percentile(means, (2.5, 97.5))
    return Comparison(
        version=version,
        model=measure(new, labels),
        previous=measure(previous, labels),
        log_loss_difference=Estimate(value=differences.mean(), low=low, high=high),
        p_worse=float((means <= 0).mean()),
    )


def make_reliability(probabilities: Array, labels: Array) -> tuple[Bin, ...]:
    """Return the reliability diagram of the predicted label: one bar for each tenth that has texts."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = _tenths(confidence)
    return tuple(
        Bin(texts=int(here.sum()), probability=float(confidence[here].mean()), right=float(right[here].mean()))
        for one in range(_BINS)
        if (here := bins == one).any()
    )


def count_tenths(probabilities: Array) -> tuple[int, ...]:
    """Return how many probabilities are in each tenth."""
    return tuple(int(count) for count in np.bincount(_tenths(probabilities), minlength=_BINS))


def population_stability(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the population stability index of two counts by tenth: 0 is equal; from 0.25 on it is a shift."""
    e, a = (np.clip(np.array(counts) / max(1, sum(counts)), _LEAST_SHARE, None) for counts in (expected, actual))
    return float(((a - e) * np.log(a / e)).sum())


def _tenths(probabilities: Array) -> Array:
    tenths: Array = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
    return tenths


def _samples(size: int) -> Iterator[Array]:
    """Yield how often each text is in a sample."""
    generator = np.random.default_rng(_SEED)
    for _ in range(_SAMPLES):
        yield np.bincount(generator.integers(0, size, size), minlength=size)


def _bootstrap(found: dict[str, Callable[[Array], float]], size: int) -> dict[str, Estimate]:
    whole = np.ones(size)
    resampled = {name: np.empty(_SAMPLES) for name in found}
    for at, weights in enumerate(_samples(size)):
        for name, compute in found.items():
            resampled[name][at] = compute(weights)
    estimates = {}
    for name, compute in found.items():
        # A sample without a label has no ranking.
        low, high = np.nanpercentile(resampled[name], (2.5, 97.5))
        estimates[name] = Estimate(value=compute(whole), low=low, high=high)
    return estimates


class _Ranking:
    """How well scores put the texts of one label before the others; equal scores count half."""

    def __init__(self, scores: Array, is_label: Array) -> None:
        levels, self._level = np.unique(-scores, return_inverse=True)
        self._levels = len(levels)
        self._is_label = is_label.astype(np.float64)

    def _count(self, weights: Array) -> tuple[Array, Array]:
        """Return the weight of this label, and of all others, by level; the highest score first."""
        ours = np.bincount(self._level, weights * self._is_label, self._levels)
        return ours, np.bincount(self._level, weights * (1 - self._is_label), self._levels)

    def roc_auc(self, weights: Array) -> float:
        ours, others = self._count(weights)
        if not ours.sum() or not others.sum():
            return float("nan")
        above = np.cumsum(ours) - ours / 2
        return float(above @ others / (ours.sum() * others.sum()))

    def average_precision(self, weights: Array) -> float:
        ours, others = self._count(weights)
        if not ours.sum():
            return float("nan")
        found, seen = np.cumsum(ours), np.cumsum(ours + others)
        precision = np.divide(found, seen, out=np.ones_like(found), where=seen > 0)
        return float(precision @ ours / ours.sum())


class _F1:
    """Mean F1 of the labels that occur."""

    def __init__(self, probabilities: Array, labels: Array, present: Array) -> None:
        self._labels = labels
        self._predicted = probabilities.argmax(axis=1)
        self._size = probabilities.shape[1]
        self._present = present

    def __call__(self, weights: Array) -> float:
        right = np.bincount(self._labels, weights * (self._labels == self._predicted), self._size)
        both = np.bincount(self._labels, weights, self._size) + np.bincount(self._predicted, weights, self._size)
        f1 = np.divide(2 * right, both, out=np.zeros(self._size), where=both > 0)
        return float(f1[self._present].mean())


class _CalibrationError:
    """Mean distance of confidence and share of right predictions, by tenth of confidence."""

    def __init__(self, probabilities: Array, labels: Array) -> None:
        confidence = probabilities.max(axis=1)
        self._excess = confidence - (probabilities.argmax(axis=1) == labels)
        self._bins = _tenths(confidence)

    def __call__(self, weights: Array) -> float:
        return float(np.abs(np.bincount(self._bins, weights * self._excess)).sum() / weights.sum())


@dataclass(frozen=True)
class Claims:
    """What senders said about some of the labelled texts."""

    labels: Array  # number of the claimed label; -1: none, or none of the dataset's
    scores: Array  # the sender's confidence in it; nan: none given

    def probabilities(self, count: int) -> tuple[Array, Array]:
        """Return which texts have a claim, and its probabilities; without a score the sender counts as sure."""
        has = self.labels >= 0
        sure = np.where(np.isnan(self.scores[has]), 1.0, self.scores[has])
        found = np.repeat(((1 - sure) / (count - 1))[:, None], count, axis=1)
        found[np.arange(len(sure)), self.labels[has]] = sure
        return has, found
