"""Estimates of annotators: against crowd-kit's own result, against theory, and at their edges."""

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets import LabelRule
from core.labels.rules import Abilities, Answer, Confusions, Outcome, RuleInForce, load_parameters, majority
from core.models import LabelStatus
from tests.unit.crowds import (
    ACCURACIES,
    LABELS,
    NAMES,
    Crowd,
    best_weights,
    expected_accuracy,
    expected_margin,
    least_errors,
    simulate,
)
from uploader.rules.crowd import AnswerTable, NoEstimate, estimate

ESTIMATED = [LabelRule.DAWID_SKENE, LabelRule.MACE, LabelRule.GLAD]
# GLAD takes 100 times as long an answer.
TEXTS = {LabelRule.DAWID_SKENE: 3000, LabelRule.MACE: 3000, LabelRule.GLAD: 200}
ERRORS = 4  # standard errors that a figure may be off: once in 16,000


@cache
def _crowd(rule: LabelRule) -> Crowd:
    return simulate(TEXTS[rule], seed=6)


@cache
def _estimate(rule: LabelRule) -> Confusions | Abilities:
    parameters = estimate(rule, _crowd(rule).answers, LABELS)
    assert parameters is not None
    return parameters


@cache
def _outcomes(rule: LabelRule) -> list[Outcome]:
    in_force = RuleInForce(rule, 3, _estimate(rule))
    return [in_force.label(answers) for answers in _crowd(rule).texts]


def _accuracy(outcomes: list[Outcome], truth: list[str]) -> float:
    """A dispute is right half of the time, as in theory."""
    right = [0.5 if o.label is None else float(o.label == t) for o, t in zip(outcomes, truth, strict=True)]
    return sum(right) / len(right)


_SLOW = {LabelRule.GLAD}


@pytest.mark.parametrize(
    "rule", [pytest.param(rule, marks=pytest.mark.soak) if rule in _SLOW else rule for rule in ESTIMATED]
)
def test_labels_are_as_good_as_theory_allows_and_beat_the_majority_by_its_margin(rule: LabelRule) -> None:
    crowd, outcomes = _crowd(rule), _outcomes(rule)
    error = 0.5 / math.sqrt(len(crowd.texts))  # of a share, at most
    reached = _accuracy(outcomes, crowd.truth)
    simple = _accuracy([majority(value for _, value in answers) for answers in crowd.texts], crowd.truth)
    assert simple == pytest.approx(expected_accuracy(np.ones(len(ACCURACIES))), abs=ERRORS * error)
    assert reached == pytest.approx(expected_accuracy(best_weights()), abs=ERRORS * error)
    margin, deviation = expected_margin(best_weights())
    assert 0.05 < margin < 0.06
    assert reached - simple == pytest.approx(margin, abs=ERRORS * deviation / math.sqrt(len(crowd.texts)))
    assert reached > simple


@pytest.mark.parametrize("rule", [LabelRule.DAWID_SKENE, LabelRule.MACE])
def test_accuracies_are_recovered_as_exactly_as_theory_allows(rule: LabelRule) -> None:
    parameters = _estimate(rule)
    assert isinstance(parameters, Confusions)
    errors = least_errors(TEXTS[rule])
    assert max(errors) < 0.011
    for name, accuracy, error in zip(NAMES, ACCURACIES, errors, strict=True):
        matrix = parameters.matrices[name]
        recovered = sum(share * matrix[n][n] for n, share in enumerate(parameters.priors))
        assert recovered == pytest.approx(accuracy, abs=ERRORS * error), name


def test_abilities_follow_the_accuracies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader.rules.crowd.GLAD_STEPS", 2)  # of this order after the first ones already
    parameters = estimate(LabelRule.GLAD, simulate(60, seed=1).answers, LABELS)
    assert isinstance(parameters, Abilities)
    abilities = [parameters.abilities[name] for name in NAMES]
    assert abilities[0] > abilities[2] > abilities[4] > abilities[6]
    assert abilities[6] == pytest.approx(0, abs=0.2)  # a coin
    assert parameters.average == pytest.approx(sum(abilities) / len(abilities))


@pytest.mark.parametrize("rule", [LabelRule.DAWID_SKENE, LabelRule.MACE])
def test_confidence_is_how_often_the_label_is_right(rule: LabelRule) -> None:
    crowd, outcomes = _crowd(rule), _outcomes(rule)
    sure = [(o, truth) for o, truth in zip(outcomes, crowd.truth, strict=True) if o.confidence is not None]
    expected = sum(o.confidence or 0 for o, _ in sure)
    right = sum(o.label == truth for o, truth in sure)
    deviation = math.sqrt(sum((o.confidence or 0) * (1 - (o.confidence or 0)) for o, _ in sure))
    assert right == pytest.approx(expected, abs=ERRORS * deviation)


def _frame(crowd: Crowd) -> pd.DataFrame:
    return pd.DataFrame(dict(zip(("task", "worker", "label"), crowd.answers.columns, strict=True)))


def _weighed(parameters: Confusions | Abilities, crowd: Crowd) -> np.ndarray[Any, Any]:
    """Probabilities of all texts, the labels in the order in which they appeared."""
    return np.array(
        [[parameters.weigh(answers)[label] for label in crowd.answers.labels] for answers in crowd.texts]
    )


@pytest.mark.filterwarnings("ignore")
def test_answers_weigh_as_with_crowd_kits_dawid_skene() -> None:
    from crowdkit.aggregation import DawidSkene

    crowd = simulate(500, seed=1)
    model = DawidSkene(n_iter=10_000, tol=1e-9).fit(_frame(crowd))
    errors = model.errors_
    assert errors is not None
    assert model.priors_ is not None
    assert model.probas_ is not None
    matrices = {
        name: [[errors.loc[(n, answer), truth] for answer in (0, 1)] for truth in (0, 1)]
        for name, n in crowd.answers.annotators.items()
    }
    parameters = Confusions.model_validate(
        {
            "labels": [*crowd.answers.labels],
            "priors": list(model.priors_.sort_index()),
            "matrices": matrices,
            "average": matrices[NAMES[0]],
        }
    )
    theirs = model.probas_.sort_index()[[0, 1]].to_numpy()
    assert np.abs(_weighed(parameters, crowd) - theirs).max() < 1e-5
    # With our one answer as the average among theirs: less than one in a hundred of each one's.
    ours = estimate(LabelRule.DAWID_SKENE, crowd.answers, LABELS)
    assert ours is not None
    assert np.abs(_weighed(ours, crowd) - theirs).max() < 0.03


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_answers_weigh_as_with_crowd_kits_mace() -> None:
    from crowdkit.aggregation import MACE

    crowd = simulate(500, seed=1)
    theirs = MACE(n_restarts=2).fit(_frame(crowd)).probas_
    ours = estimate(LabelRule.MACE, crowd.answers, LABELS)
    assert ours is not None
    assert theirs is not None
    # A restart changes nothing: each begins with the same numbers.
    assert np.abs(_weighed(ours, crowd) - theirs.sort_index()[[0, 1]].to_numpy()).max() < 1e-9


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
def test_answers_weigh_as_with_crowd_kits_glad() -> None:
    from crowdkit.aggregation import GLAD

    crowd = simulate(50, seed=1)
    theirs = GLAD(n_iter=10, tol=-np.inf).fit(_frame(crowd)).probas_
    ours = estimate(LabelRule.GLAD, crowd.answers, LABELS)
    assert ours is not None
    assert theirs is not None
    # The easiness of each text, which we do not store, comes out of its answers the same.
    assert np.abs(_weighed(ours, crowd) - theirs.sort_index()[[0, 1]].to_numpy()).max() < 0.003


def test_abilities_are_told_from_the_first_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader.rules.crowd.GLAD_TEXTS", 8)
    monkeypatch.setattr("uploader.rules.crowd.GLAD_STEPS", 1)
    crowd = simulate(8, seed=4)
    alone = estimate(LabelRule.GLAD, crowd.answers, LABELS)
    crowd.texts.extend([[("late", "toxic"), (NAMES[0], "toxic")]] * 5)
    assert estimate(LabelRule.GLAD, crowd.answers, LABELS) == alone


def test_a_stranger_counts_as_the_average_and_one_answer_makes_nobody_an_oracle() -> None:
    crowd = simulate(300, seed=2)
    crowd.texts[0].append(("once", crowd.truth[0]))
    parameters = estimate(LabelRule.DAWID_SKENE, crowd.answers, LABELS)
    assert parameters is not None
    alone = {name: parameters.weigh([(name, "toxic")])["toxic"] for name in ("once", "stranger", NAMES[0])}
    assert alone["stranger"] < alone["once"] < alone[NAMES[0]] < 0.95


LABEL = st.sampled_from(["a", "b", "c"])
TEXT = st.dictionaries(st.sampled_from("vwxyz"), LABEL, max_size=5).map(lambda given: sorted(given.items()))


def _answers(texts: list[list[Answer]]) -> AnswerTable:
    answers = AnswerTable()
    for given_ in texts:
        answers.add(given_)
    return answers


def _check_any_answers(rule: LabelRule, texts: list[list[Answer]], labels: list[str]) -> None:
    texts = [answers for answers in texts if answers]
    parameters = estimate(rule, _answers(texts), labels)
    assert parameters is not None
    assert load_parameters(parameters.model_dump(mode="json")) == parameters
    in_force = RuleInForce(rule, 1, parameters)
    for answers in [*texts, [("stranger", labels[0])]]:
        probabilities = parameters.weigh(answers)
        assert sum(probabilities.values()) == pytest.approx(1)
        assert probabilities.keys() == {*labels, *(value for given_ in texts for _, value in given_)}
        outcome = in_force.label(answers)
        assert outcome == in_force.label(answers[::-1])
        assert outcome.rule == rule
        if outcome.status == LabelStatus.LABELLED:
            assert outcome.confidence == max(probabilities.values())
        else:
            assert (outcome.status, outcome.label, outcome.confidence) == (LabelStatus.DISPUTED, None, None)


@pytest.mark.soak
@pytest.mark.parametrize("rule", [LabelRule.DAWID_SKENE, LabelRule.MACE])
@settings(max_examples=12)
@given(texts=st.lists(TEXT, max_size=8), labels=st.sampled_from([["a", "b"], ["a", "b", "c", "d"]]))
def test_any_answers_make_probabilities(rule: LabelRule, texts: list[list[Answer]], labels: list[str]) -> None:
    _check_any_answers(rule, texts, labels)


@pytest.mark.soak
@settings(max_examples=4)
@given(texts=st.lists(TEXT, max_size=6), labels=st.sampled_from([["a", "b"], ["a", "b", "c", "d"]]))
def test_any_answers_make_probabilities_with_glad(texts: list[list[Answer]], labels: list[str]) -> None:
    _check_any_answers(LabelRule.GLAD, texts, labels)


@pytest.mark.parametrize("rule", ESTIMATED)
@pytest.mark.parametrize(
    "texts",
    [
        [],
        [[("x", "a")]],
        [[("x", "a")], [("x", "b")]],
        [[("x", "a"), ("y", "a")], [("x", "a"), ("y", "a")]],
        [[("x", "a"), ("y", "b"), ("z", "c")]],
        [[(f"annotator {n}", "a" if n % 3 else "b") for n in range(400)]],
    ],
    ids=["nothing", "one_answer", "one_annotator", "one_label", "all_differ", "400_answers_to_one_text"],
)
def test_the_edges(rule: LabelRule, texts: list[list[Answer]]) -> None:
    _check_any_answers(rule, texts, ["a", "b", "c"])


@settings(max_examples=6)
@given(texts=st.lists(TEXT, max_size=8), random=st.randoms())
def test_who_has_which_name_and_which_text_came_first_does_not_matter(
    texts: list[list[Answer]], random: Any
) -> None:
    names = dict(zip("vwxyz", random.sample("vwxyz", 5), strict=True))
    renamed = [[(names[name], value) for name, value in answers] for answers in texts if answers]
    one = estimate(LabelRule.DAWID_SKENE, _answers([answers for answers in texts if answers]), ["a", "b", "c"])
    random.shuffle(renamed)
    other = estimate(LabelRule.DAWID_SKENE, _answers(renamed), ["a", "b", "c"])
    assert one is not None
    assert other is not None
    for name in "vwxyz":
        for value in "abc":
            weighed = other.weigh([(names[name], value)])
            assert one.weigh([(name, value)]) == pytest.approx(weighed, abs=1e-6)


def test_what_is_no_number_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    from crowdkit.aggregation import MACE

    class Broken(MACE):
        def fit(self, data: pd.DataFrame) -> "Broken":
            self.n_iter = 1
            super().fit(data)
            self.thetas_ = self.thetas_ * np.nan
            return self

    monkeypatch.setattr("crowdkit.aggregation.MACE", Broken)
    with pytest.raises(NoEstimate, match="mace"):
        estimate(LabelRule.MACE, simulate(10, seed=1).answers, LABELS)


def test_a_majority_is_not_estimated() -> None:
    assert estimate(LabelRule.MAJORITY, simulate(3, seed=1).answers, LABELS) is None
