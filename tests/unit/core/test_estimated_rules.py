"""Estimates of the true label from answers and the annotators' accuracy."""

import math
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.datasets import LabelRule
from core.labels.rules import Abilities, Answer, Confusions, RuleInForce, half_knowing, load_parameters, majority
from core.models import LabelStatus

LABELS = ("a", "b", "c")
EXPERT = ((0.98, 0.01, 0.01), (0.01, 0.98, 0.01), (0.01, 0.01, 0.98))
CONFUSIONS = Confusions(
    labels=LABELS, priors=(1 / 3, 1 / 3, 1 / 3), matrices={"expert": EXPERT}, average=half_knowing(3)
)
ABILITIES = Abilities(labels=LABELS, abilities={"expert": 2, "liar": -2}, average=0.5, easiness=1)
BOTH = pytest.mark.parametrize(
    "rule",
    [RuleInForce(LabelRule.DAWID_SKENE, 4, CONFUSIONS), RuleInForce(LabelRule.GLAD, 4, ABILITIES)],
    ids=["confusions", "abilities"],
)
VOTES = st.lists(st.tuples(st.sampled_from(["expert", "liar", "x", "y"]), st.sampled_from(LABELS)), max_size=30)


@BOTH
def test_an_expert_outvotes_two_strangers(rule: RuleInForce) -> None:
    outcome = rule.label([("expert", "a"), ("x", "b"), ("y", "b")])
    assert (outcome.label, outcome.votes, outcome.rule_version) == ("a", {"a": 1, "b": 2}, 4)
    assert outcome.agreement == pytest.approx(1 / 3)
    assert outcome.confidence is not None
    assert 0.5 < outcome.confidence < 1


@BOTH
def test_two_strangers_who_differ_are_a_dispute(rule: RuleInForce) -> None:
    outcome = rule.label([("x", "b"), ("y", "a")])
    assert (outcome.status, outcome.label, outcome.confidence) == (LabelStatus.DISPUTED, None, None)
    assert (outcome.agreement, outcome.rule) == (0.5, rule.rule)


@BOTH
def test_nothing_submitted_is_withdrawn_and_a_label_it_does_not_know_is_left_to_the_majority(
    rule: RuleInForce,
) -> None:
    assert rule.label([]).status == LabelStatus.WITHDRAWN
    new = [("expert", "a"), ("x", "new"), ("y", "new")]
    assert rule.label(new) == majority(value for _, value in new)


def test_a_liars_answer_speaks_against_its_label() -> None:
    assert ABILITIES.weigh([("liar", "a")])["a"] < 0.01


def test_the_probabilities_are_those_of_bayes() -> None:
    first, second = EXPERT, half_knowing(3)
    products = [first[truth][0] * second[truth][1] for truth in range(3)]
    expected = [product / sum(products) for product in products]
    assert [*CONFUSIONS.weigh([("x", "b"), ("expert", "a")]).values()] == pytest.approx(expected)


@BOTH
@given(answers=VOTES, random=st.randoms())
def test_the_order_of_answers_does_not_matter(rule: RuleInForce, answers: list[Answer], random: object) -> None:
    shuffled = list(answers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rule.label(shuffled) == rule.label(answers)


@given(
    answers=VOTES,
    abilities=st.dictionaries(st.sampled_from(["expert", "liar", "x", "y"]), st.floats(-50, 50)),
    easiness=st.floats(-5, 5),
)
def test_any_abilities_make_probabilities(
    answers: list[Answer], abilities: dict[str, float], easiness: float
) -> None:
    parameters = Abilities(labels=LABELS, abilities=abilities, average=1, easiness=easiness)
    probabilities = [*parameters.weigh(answers).values()]
    assert math.fsum(probabilities) == pytest.approx(1)
    assert min(probabilities) >= 0


def _likeliest(parameters: Abilities, answers: list[Answer]) -> list[float]:
    """Find the easiness by trying them all, in place of the steps of the code."""
    labels, best = parameters.labels, (-math.inf, [0.0])
    for step in range(-4000, 4000):
        easiness = parameters.easiness + step / 2000
        likelihoods = [1.0] * len(labels)
        for annotator, value in answers:
            ability = parameters.abilities.get(annotator, parameters.average)
            right = 1 / (1 + math.exp(min(700, -ability * math.exp(easiness))))
            for truth, label in enumerate(labels):
                likelihoods[truth] *= right if label == value else (1 - right) / max(len(labels) - 1, 1)
        score = math.log(sum(likelihoods)) - (easiness - parameters.easiness) ** 2 / 2
        best = max(best, (score, [one / sum(likelihoods) for one in likelihoods]))
    return best[1]


@pytest.mark.parametrize(
    "answers",
    [
        [("expert", "a")],
        [("expert", "a"), ("x", "b"), ("y", "b")],
        [("liar", "a"), ("x", "a"), ("x", "c"), ("y", "c")],
    ],
)
@pytest.mark.parametrize("labels", [LABELS, (*LABELS, "d")])
def test_abilities_are_weighed_at_the_likeliest_easiness(labels: tuple[str, ...], answers: list[Answer]) -> None:
    parameters = ABILITIES.model_copy(update={"labels": labels, "easiness": 0.3})
    assert [*parameters.weigh(answers).values()] == pytest.approx(_likeliest(parameters, answers), abs=1e-3)


def test_one_who_is_certainly_wrong_makes_no_text_easier() -> None:
    """The exponent of such an ability is out of the range of floats."""
    parameters = Abilities(labels=LABELS, abilities={"liar": -500, "x": 0.5}, average=1, easiness=1)
    answers = [("liar", "a"), ("x", "b")]
    assert [*parameters.weigh(answers).values()] == pytest.approx(_likeliest(parameters, answers), abs=1e-3)


def test_with_two_labels_who_is_not_right_names_the_other_one_and_with_one_label_it_is_certain() -> None:
    two = Abilities(labels=("a", "b"), abilities={"x": 1}, average=1, easiness=0.5)
    assert [*two.weigh([("x", "a")]).values()] == pytest.approx(_likeliest(two, [("x", "a")]), abs=1e-3)
    assert two.model_copy(update={"labels": ("a",)}).weigh([("x", "a")]) == {"a": 1}


def test_a_text_that_is_far_easier_than_others_is_reached_in_steps() -> None:
    """Its easiness lies several steps away, and the last digits are those of any way there."""
    hard = Abilities(labels=("a", "b"), abilities={}, average=3, easiness=-8)
    answers = [(f"annotator {n}", "a") for n in range(2000)]
    assert hard.weigh(answers)["a"] == pytest.approx(1)


def test_parameters_are_read_as_they_were_stored() -> None:
    for parameters in (CONFUSIONS, ABILITIES):
        assert load_parameters(parameters.model_dump(mode="json")) == parameters


@pytest.mark.parametrize(("probability", "fits"), [(0, False), (1e-9, True), (1, True), (1.1, False)])
def test_only_probabilities_above_0_are_stored(probability: float, fits: bool) -> None:
    """Of one that is 0 no answer could ever convince: its logarithm is infinite."""
    stored = CONFUSIONS.model_dump(mode="json") | {"priors": [probability, 0.5, 0.5]}
    with nullcontext() if fits else pytest.raises(ValidationError):
        load_parameters(stored)


def test_a_half_knowing_annotator_knows_half_and_guesses_the_rest() -> None:
    assert half_knowing(2) == ((0.75, 0.25), (0.25, 0.75))
    assert [sum(row) for row in half_knowing(5)] == pytest.approx([1] * 5)
