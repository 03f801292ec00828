"""How annotations add up to a label."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.label_rule import majority
from core.models import LabelStatus

VOTES = st.lists(st.sampled_from(["toxic", "non_toxic", "unsure"]), max_size=12)


def test_nothing_submitted_is_withdrawn() -> None:
    assert majority([]).status == LabelStatus.WITHDRAWN


def test_a_tie_is_disputed_without_label() -> None:
    outcome = majority(["toxic", "non_toxic"])
    assert (outcome.status, outcome.label, outcome.agreement) == (LabelStatus.DISPUTED, None, 0.5)


@given(VOTES)
def test_the_label_is_what_strictly_most_say(votes: list[str]) -> None:
    outcome = majority(votes)
    counts = Counter(votes).most_common()
    strict = bool(counts) and (len(counts) == 1 or counts[0][1] > counts[1][1])
    assert (outcome.label is not None) == strict
    assert (outcome.status == LabelStatus.LABELLED) == strict
    if strict:
        assert outcome.label == counts[0][0]


@given(VOTES.filter(bool))
def test_votes_agreement_and_number_are_consistent(votes: list[str]) -> None:
    outcome = majority(votes)
    assert sum(outcome.votes.values()) == outcome.annotations == len(votes)
    assert outcome.agreement == max(outcome.votes.values()) / len(votes)


@given(VOTES, st.randoms())
def test_the_order_of_annotations_does_not_matter(votes: list[str], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert majority(shuffled) == majority(votes)
