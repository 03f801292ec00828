"""How annotations add up to a label."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import LabelRule
from core.labels.rules import Confusions, Outcome, RuleInForce, adjudicate, majority
from core.models import Decider, LabelStatus

VOTES = st.lists(st.sampled_from(["toxic", "non_toxic", "unsure"]), max_size=12)
DISPUTE = majority(["toxic", "non_toxic"])


def test_nothing_submitted_is_withdrawn() -> None:
    assert majority([]) == Outcome(LabelStatus.WITHDRAWN, None, None, {}, 0)


def test_a_tie_is_disputed_without_label() -> None:
    assert Outcome(LabelStatus.DISPUTED, None, 0.5, {"toxic": 1, "non_toxic": 1}, 2) == DISPUTE


def test_what_most_say_is_the_label_with_their_share() -> None:
    votes = {"non_toxic": 1, "toxic": 2}
    outcome = majority(["toxic", "non_toxic", "toxic"])
    assert outcome == Outcome(LabelStatus.LABELLED, "toxic", 2 / 3, votes, 3, confidence=2 / 3)
    assert list(outcome.votes) == ["non_toxic", "toxic"]  # always in the same order


@given(VOTES)
def test_the_label_is_what_strictly_most_say(votes: list[str]) -> None:
    outcome = majority(votes)
    counts = Counter(votes).most_common()
    strict = bool(counts) and (len(counts) == 1 or counts[0][1] > counts[1][1])
    assert (outcome.label is not None) == strict
    assert (outcome.status == LabelStatus.LABELLED) == strict
    if strict:
        assert outcome.label == counts[0][0]


@given(VOTES, st.randoms())
def test_the_order_of_annotations_does_not_matter(votes: list[str], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert majority(shuffled) == majority(votes)


def _estimated(probability: float) -> RuleInForce:
    """A rule by which any one answer leaves label "a" with this probability."""
    even = ((0.5, 0.5), (0.5, 0.5))
    parameters = Confusions(labels=("a", "b"), priors=(probability, 1 - probability), matrices={}, average=even)
    return RuleInForce(LabelRule.DAWID_SKENE, 3, parameters)


def test_without_an_estimate_the_majority_decides_by_its_only_version() -> None:
    rule = RuleInForce()
    assert rule.label([("ann", "a"), ("bob", "a")]) == majority(["a", "a"])
    assert (rule.version, majority(["a"]).rule, majority(["a"]).rule_version) == (1, LabelRule.MAJORITY, 1)


def test_an_estimate_decides_where_it_knows_every_label_that_was_named() -> None:
    rule = _estimated(0.9)
    assert rule.label([("ann", "a"), ("bob", "b")]).label == "a"
    assert rule.label([("ann", "b"), ("bob", "new")]) == majority(["b", "new"])
    assert rule.label([]) == majority([])


def test_two_labels_that_are_nearly_as_likely_are_disputed() -> None:
    outcome = _estimated(0.5049).label([("ann", "a")])
    assert outcome == Outcome(
        LabelStatus.DISPUTED, None, 1, {"a": 1}, 1, None, LabelRule.DAWID_SKENE, 3, Decider.ANNOTATORS
    )


def test_a_label_that_is_likelier_by_a_hundredth_is_taken() -> None:
    outcome = _estimated(0.5051).label([("ann", "b")])
    assert (outcome.status, outcome.label, outcome.agreement) == (LabelStatus.LABELLED, "a", 0)
    assert outcome.confidence == pytest.approx(0.5051)


def test_an_estimate_of_a_single_label_needs_no_second_one() -> None:
    parameters = Confusions(labels=("a",), priors=(1,), matrices={}, average=((1,),))
    outcome = RuleInForce(LabelRule.MACE, 1, parameters).label([("ann", "a")])
    assert (outcome.status, outcome.label, outcome.confidence) == (LabelStatus.LABELLED, "a", 1)


def test_adjudicators_decide_and_the_votes_stay_those_of_the_annotators() -> None:
    outcome = adjudicate(DISPUTE, ["non_toxic", "non_toxic", "toxic"])
    assert outcome == Outcome(
        LabelStatus.LABELLED, "non_toxic", 0.5, DISPUTE.votes, 2, 2 / 3, decided_by=Decider.ADJUDICATORS
    )


def test_adjudicators_may_choose_a_label_that_no_annotator_named() -> None:
    assert adjudicate(DISPUTE, ["unsure"]).agreement == 0


@pytest.mark.parametrize("decisions", [[], ["toxic", "non_toxic"]])
def test_adjudicators_who_say_nothing_or_are_divided_decide_nothing(decisions: list[str]) -> None:
    assert adjudicate(DISPUTE, decisions) == DISPUTE


def test_nothing_is_decided_about_a_text_without_annotations() -> None:
    assert adjudicate(majority([]), ["toxic"]) == majority([])
