"""How far annotators agree: the usual coefficients, each with a bootstrap interval.

Every coefficient is a function of sums over texts. A text's summands depend on its kind only: its votes by label,
or the answers of a pair's two annotators. A million texts have few kinds. So resampling texts means drawing the
number of texts of each kind from a multinomial distribution.

Kinds are sorted first: another order changes the last bit of the sums, and all that is drawn.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Array = NDArray[np.float64]
Votes = tuple[tuple[str, int], ...]  # the labels that were chosen for a text, and how often
Cells = dict[tuple[str, str], int]  # number of texts by what the first and the second annotator said
Measure = Callable[[Array], Array]  # of sums over texts, a row a sample; NaN where it is undefined

RESAMPLES = 1000
_SEED = 6
_INTERVAL_PERCENT = (2.5, 97.5)
# Above this number of kinds, the sums are drawn from a normal distribution, which approximates them well.
KINDS_MAX = 100
_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient of agreement with its bootstrap 95 % interval."""

    # Rounded to six decimals. Resamples in which the coefficient is undefined are left out.
    value: Annotated[
        float | None, Field(description="Null where it is undefined: no such texts, or one label only.")
    ]
    n: Annotated[int, Field(description="Texts used: those with two or more answers.")]
    low: Annotated[float | None, Field(description="Null also where there is one text only.")]
    high: float | None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far any number of annotators agree."""

    krippendorff_alpha: Coefficient
    fleiss_kappa: Coefficient
    observed_agreement: Coefficient


def agreement(texts: Mapping[Votes, int]) -> Agreement:
    """Return the coefficients of `texts`: how many there are with the same votes.

    `n` is the number of texts with two or more votes; the others say nothing and are left out.

    - Krippendorff's alpha for nominal data (Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011). A
      text weighs as its number of votes. Undefined where all votes name one label.
    - Fleiss' kappa (Fleiss, "Measuring nominal scale agreement among many raters", 1971). For unequal numbers of
      votes it is generalised as in Gwet, "Handbook of Inter-Rater Reliability", 4th ed. 2014, chapter 2: the
      observed agreement is the mean of the texts' shares of agreeing pairs, and a label's probability the mean of
      its shares of the texts' votes. So each text weighs the same. With equal numbers that is Fleiss' own form.
      Undefined where all votes name one label.
    - Observed agreement: the share of agreeing pairs among all pairs of votes on the same text.
    """
    kinds = [(dict(votes), number) for votes, number in sorted(texts.items())]
    used = [(votes, number) for votes, number in kinds if sum(votes.values()) > 1]
    labels = sorted({label for votes, _ in used for label in votes})
    counts = np.array([[votes.get(label, 0) for label in labels] for votes, _ in used], dtype=np.float64)
    numbers = np.array([number for _, number in used], dtype=np.int64)
    sums = _vote_sums(counts.reshape(len(used), len(labels)))
    return Agreement(*_coefficients(sums, numbers, (_alpha, _fleiss, _observed)))


def cohen_kappa(cells: Cells) -> Coefficient:
    """Return Cohen's kappa of two annotators (Cohen, "A coefficient of agreement for nominal scales", 1960).

    `n` is the number of texts that both answered. Undefined where there are none, or where both always name the
    same one label.
    """
    labels = sorted({label for pair in cells for label in pair})
    place = {label: index for index, label in enumerate(labels)}
    one_hot = np.eye(len(labels))
    kinds = sorted(cells.items())
    rows = [
        np.concatenate(([1, first == second], one_hot[place[first]], one_hot[place[second]]))
        for (first, second), _ in kinds
    ]
    sums = np.array(rows, dtype=np.float64).reshape(len(cells), 2 + 2 * len(labels))
    return _coefficients(sums, np.array([number for _, number in kinds], dtype=np.int64), (_cohen,))[0]


def votes_of_pair(cells: Cells) -> dict[Votes, int]:
    """Return what `agreement` takes, of what `cohen_kappa` takes."""
    texts: dict[Votes, int] = {}
    for (first, second), number in cells.items():
        votes: Votes = tuple(sorted(Counter((first, second)).items()))
        texts[votes] = texts.get(votes, 0) + number
    return texts


def _vote_sums(counts: Array) -> Array:
    """Return the summands of each kind of text; its row of `counts` is its votes by label."""
    votes = counts.sum(axis=1, keepdims=True)
    agreeing = (counts * (counts - 1)).sum(axis=1, keepdims=True)  # ordered pairs, here and below
    pairs = votes * (votes - 1)
    texts, coincidences = np.ones_like(votes), agreeing / (votes - 1)
    return np.hstack((texts, agreeing, pairs, agreeing / pairs, coincidences, counts, counts / votes))


def _observed(sums: Array) -> Array:
    return _ratio(sums[:, 1], sums[:, 2])


def _fleiss(sums: Array) -> Array:
    texts = sums[:, 0]
    shares = np.split(sums[:, 5:], 2, axis=1)[1]
    expected = _ratio((shares**2).sum(axis=1), texts**2)
    return _ratio(_ratio(sums[:, 3], texts) - expected, 1 - expected)


def _alpha(sums: Array) -> Array:
    by_label = np.split(sums[:, 5:], 2, axis=1)[0]
    votes = by_label.sum(axis=1)
    expected = (by_label * (by_label - 1)).sum(axis=1)
    return _ratio((votes - 1) * sums[:, 4] - expected, votes * (votes - 1) - expected)


def _cohen(sums: Array) -> Array:
    texts = sums[:, 0]
    first, second = np.split(sums[:, 2:], 2, axis=1)
    expected = (first * second).sum(axis=1)
    return _ratio(texts * sums[:, 1] - expected, texts**2 - expected)


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def _coefficients(kinds: Array, numbers: NDArray[np.int64], measures: Sequence[Measure]) -> list[Coefficient]:
    n = int(numbers.sum())
    if n == 0:
        return [Coefficient(None, 0, None, None) for _ in measures]
    sums = (numbers @ kinds)[np.newaxis]
    resampled = _resample(kinds, numbers, n)
    return [_coefficient(measure(sums)[0], n, measure(resampled)) for measure in measures]


def _coefficient(value: float, n: int, resampled: Array) -> Coefficient:
    if np.isnan(value):
        return Coefficient(None, n, None, None)
    defined = resampled[~np.isnan(resampled)]
    if n == 1 or not len(defined):
        return Coefficient(_rounded(value), n, None, None)
    low, high = np.percentile(defined, _INTERVAL_PERCENT)
    return Coefficient(_rounded(value), n, _rounded(low), _rounded(high))


def _resample(kinds: Array, numbers: NDArray[np.int64], n: int) -> Array:
    """Return the sums over `n` texts drawn with replacement, a row a sample."""
    random = np.random.default_rng(_SEED)
    if len(numbers) <= KINDS_MAX:
        return random.multinomial(n, numbers / n, size=RESAMPLES) @ kinds
    mean = numbers @ kinds / n
    centred = kinds - mean
    covariance = (centred * numbers[:, np.newaxis]).T @ centred / n
    # Unchecked: eigenvalues that rounding made negative count as zero.
    return random.multivariate_normal(
        n * mean, n * covariance, size=RESAMPLES, method="eigh", check_valid="ignore"
    )


def _rounded(value: float) -> float:
    # More is different from processor to processor. Adding 0 makes -0 to 0.
    return round(float(value), _DECIMALS) + 0.0
