"""How good probabilities are: measures with bootstrap intervals, comparison, decision, calibration and drift.

scikit-learn has the measures, but not by weights of whole samples a thousand times within seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
_SIGNIFICANT = 0.05
# Shares below count as this in the PSI, which has a logarithm of them.
_LEAST_SHARE = 1e-4

Array = np.ndarray[Any, Any]
_Measure = Callable[[Array], float]  # of weights of the texts


def measure(probabilities: Array, labels: Array) -> Measures:
    """Measure probabilities, [texts, labels], against labels, the number of each text's label."""
    if not len(labels):
        return Measures(texts=0)
    losses = get_losses(probabilities, labels)
    found: dict[str, _Measure] = {
        "f1": _f1(probabilities, labels),
        "log_loss": lambda weights: float(weights @ losses / weights.sum()),
        "calibration_error": _calibration_error(probabilities, labels),
    }
    present = np.unique(labels)
    if len(present) > 1:
        # Of two labels, the ranking by the one is that by the other.
        ranked = present[1:] if probabilities.shape[1] == 2 else present
        rankings = [_rank(probabilities[:, label], labels == label) for label in ranked]
        found["roc_auc"] = lambda weights: float(np.mean([_roc_auc(*rank(weights)) for rank in rankings]))
        found["average_precision"] = lambda weights: float(
            np.mean([_average_precision(*rank(weights)) for rank in rankings])
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


def _bootstrap(found: dict[str, _Measure], size: int) -> dict[str, Estimate]:
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


def _rank(scores: Array, is_label: Array) -> Callable[[Array], tuple[Array, Array]]:
    """Return a function of weights: those of this label, and of all others, by score, the highest first."""
    levels, level = np.unique(-scores, return_inverse=True)
    is_label = is_label.astype(np.float64)

    def count(weights: Array) -> tuple[Array, Array]:
        ours = np.bincount(level, weights * is_label, len(levels))
        return ours, np.bincount(level, weights * (1 - is_label), len(levels))

    return count


def _roc_auc(ours: Array, others: Array) -> float:
    if not ours.sum() or not others.sum():
        return float("nan")
    above = np.cumsum(ours) - ours / 2  # equal scores count half
    return float(above @ others / (ours.sum() * others.sum()))


def _average_precision(ours: Array, others: Array) -> float:
    if not ours.sum():
        return float("nan")
    found, seen = np.cumsum(ours), np.cumsum(ours + others)
    precision = np.divide(found, seen, out=np.ones_like(found), where=seen > 0)
    return float(precision @ ours / ours.sum())


def _f1(probabilities: Array, labels: Array) -> _Measure:
    """Return the mean F1 of the labels that occur."""
    predicted, size = probabilities.argmax(axis=1), probabilities.shape[1]
    present = np.unique(labels)

    def compute(weights: Array) -> float:
        right = np.bincount(labels, weights * (labels == predicted), size)
        both = np.bincount(labels, weights, size) + np.bincount(predicted, weights, size)
        f1 = np.divide(2 * right, both, out=np.zeros(size), where=both > 0)
        return float(f1[present].mean())

    return compute


def _calibration_error(probabilities: Array, labels: Array) -> _Measure:
    """Return the mean distance of confidence and share of right predictions, by tenth of confidence."""
    confidence = probabilities.max(axis=1)
    excess = confidence - (probabilities.argmax(axis=1) == labels)
    bins = _tenths(confidence)
    return lambda weights: float(np.abs(np.bincount(bins, weights * excess)).sum() / weights.sum())


def read_claims(labels: Array, scores: Array, count: int) -> tuple[Array, Array]:
    """Return which texts have a sender's claim, and the probabilities that the claims give `count` labels.

    `labels` are the numbers of the claimed labels, -1 without one; `scores` are the confidence. Without it
    (nan) the sender counts as sure.
    """
    has = labels >= 0
    sure = np.where(np.isnan(scores[has]), 1.0, scores[has])
    found = np.repeat(((1 - sure) / (count - 1))[:, None], count, axis=1)
    found[np.arange(len(sure)), labels[has]] = sure
    return has, found


def measure_all(found: Array, labels: Array, claims: tuple[Array, Array]) -> dict[str, Measures]:
    """Measure a model's probabilities, [texts, labels], beside those of the majority and of the claims."""
    shares = np.bincount(labels, minlength=found.shape[1]) / len(labels)
    metrics = {
        "model": measure(found, labels),
        "majority": measure(np.broadcast_to(shares, found.shape), labels),
    }
    has, claimed = claims
    if has.any():
        metrics["senders"] = measure(claimed, labels[has])
        metrics["model_on_claims"] = measure(found[has], labels[has])
    return metrics


def decide(metrics: Mapping[str, Measures], comparison: Comparison | None) -> tuple[bool, str]:
    """Return whether a model becomes active, and why."""
    if comparison is not None:
        difference = comparison.log_loss_difference
        numbers = (
            f"log loss {difference.value:+.4f} ({difference.low:+.4f} to {difference.high:+.4f}) against "
            f"{comparison.version} on {comparison.model.texts:,} texts, p = {comparison.p_worse:.3f}"
        )
        is_worse = comparison.p_worse < _SIGNIFICANT
        return not is_worse, f"{'Refused: worse' if is_worse else 'Accepted: not worse'}. {numbers}."
    ours, majority = metrics["model"].log_loss, metrics["majority"].log_loss
    assert ours is not None  # noqa: S101 - there are labels
    assert majority is not None  # noqa: S101 - the same
    is_better = ours.high < majority.value
    numbers = (
        f"log loss {ours.value:.4f} ({ours.low:.4f} to {ours.high:.4f}), of the majority {majority.value:.4f}"
    )
    verdict = "Accepted: the first model, and better" if is_better else "Refused: the first model, but no better"
    return is_better, f"{verdict} than always predicting the most frequent label. {numbers}."
