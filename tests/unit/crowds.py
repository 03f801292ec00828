"""Simulated annotators of known accuracy, and what theory says about them."""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.labels.rules import Answer
from uploader.rules.crowd import AnswerTable

Floats = npt.NDArray[np.float64]

LABELS = ("toxic", "non_toxic")
# The last one flips a coin.
ACCURACIES = (0.9, 0.85, 0.8, 0.7, 0.6, 0.55, 0.5)
NAMES = tuple(f"annotator {number}" for number in range(len(ACCURACIES)))


@dataclass(frozen=True)
class Crowd:
    """What everybody answered about each text, and the truth."""

    texts: list[list[Answer]]
    truth: list[str]

    @property
    def answers(self) -> AnswerTable:
        """The same as the estimation reads it."""
        answers = AnswerTable()
        for given in self.texts:
            answers.add(given)
        return answers


def simulate(texts: int, seed: int) -> Crowd:
    """Have everybody answer each text, right with their probability; both labels are as frequent."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, texts)
    right = random.random((texts, len(ACCURACIES))) < ACCURACIES
    given = np.where(right, truth[:, None], 1 - truth[:, None])
    rows = [[(name, LABELS[n]) for name, n in zip(NAMES, row, strict=True)] for row in given]
    return Crowd(rows, [LABELS[n] for n in truth])


def _patterns() -> tuple[Floats, Floats]:
    """Return who is right in each possible case, and how probable it is."""
    right = np.array(list(itertools.product((0, 1), repeat=len(ACCURACIES))))
    accuracies = np.array(ACCURACIES)
    return right, np.where(right, accuracies, 1 - accuracies).prod(axis=1)


def expected_accuracy(weights: Floats) -> float:
    """Return how often a vote with these weights is right; a tie is right half of the time."""
    right, probability = _patterns()
    return float((probability * _wins(right, weights)).sum())


def expected_margin(weights: Floats) -> tuple[float, float]:
    """Return by how much a weighted vote is right more often than the majority: mean and deviation of one text."""
    right, probability = _patterns()
    gain = _wins(right, weights) - _wins(right, np.ones(len(ACCURACIES)))
    mean = float((probability * gain).sum())
    return mean, float(np.sqrt((probability * (gain - mean) ** 2).sum()))


def _wins(right: Floats, weights: Floats) -> Floats:
    return np.asarray((np.sign(np.round((2 * right - 1) @ weights, 9)) + 1) / 2)


def best_weights() -> Floats:
    """Return the weights with which a vote is right most often: the log odds of being right."""
    accuracies = np.array(ACCURACIES)
    return np.asarray(np.log(accuracies / (1 - accuracies)))


def least_errors(texts: int) -> Floats:
    """Return the lower bound of the standard error of each accuracy, for unbiased methods without the truth.

    By Cramér and Rao, for the model of Dawid and Skene with two labels: of each annotator the probability of
    answering 1 where the truth is 1, and where it is 0, and the frequency of 1.
    """
    given = np.array(list(itertools.product((0, 1), repeat=len(ACCURACIES))))
    yes = np.array([ACCURACIES, 1 - np.array(ACCURACIES)])  # of the answer 1, where the truth is 1 and 0
    shares = np.array([0.5, 0.5])
    single = np.where(given[:, None, :], yes, 1 - yes)  # case, truth, annotator
    cases = single.prod(axis=2)
    total = cases @ shares
    slopes = shares[:, None] * cases[:, :, None] * np.where(given[:, None, :], 1, -1) / single
    scores = np.column_stack([slopes.reshape(len(given), -1), cases[:, 0] - cases[:, 1]]) / total[:, None]
    information = texts * (scores.T * total) @ scores
    covariance = np.linalg.inv(information)
    count = len(ACCURACIES)
    errors = []
    for number in range(count):
        # Accuracy = share of 1 times right there + share of 0 times right there; shares move it, too.
        gradient = np.zeros(2 * count + 1)
        gradient[number], gradient[count + number] = 0.5, -0.5
        errors.append(np.sqrt(gradient @ covariance @ gradient))
    return np.array(errors)
