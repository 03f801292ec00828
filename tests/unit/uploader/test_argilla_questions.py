"""Which questions a dataset in Argilla must have, and what may change of them."""

from typing import Any

import pytest

from core.datasets import Dataset, Question
from uploader.argilla.errors import Stopped
from uploader.argilla.setup import check_questions, find_changes, to_questions

_WHY = Question(name="why", title="Why?", type="text")
_SEVERITY = Question(name="severity", title="How bad?", description="5 is worst", type="rating", ratings=(3, 1, 2))
_PARTS = Question(name="parts", title="Where?", type="span", labels=("insult", "threat"))


def _wanted(*questions: Question, labels: tuple[str, ...] = ("toxic", "non_toxic")) -> dict[str, Any]:
    return to_questions(Dataset(labels=labels, guidelines="g", questions=questions))


def _as_argilla_shows(wanted: dict[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, question in wanted.items():
        settings = question["settings"]
        if settings["type"] != "text":
            described = settings["type"] != "rating"
            options = [option | ({"description": None} if described else {}) for option in settings["options"]]
            settings = settings | {"options": options, "visible_options": None}
        shown[name] = question | {"id": name, "settings": settings}
    return shown


def test_what_was_made_fits_and_needs_no_change() -> None:
    wanted = _wanted(_WHY, _SEVERITY, _PARTS)
    assert list(wanted) == ["label", "why", "severity", "parts"]
    there = _as_argilla_shows(wanted)
    check_questions("d", wanted, there)
    assert [find_changes(question, there[name]) for name, question in wanted.items()] == [{}] * 4


def test_titles_descriptions_and_the_order_of_options_are_changed() -> None:
    there = _as_argilla_shows(_wanted(_WHY, _SEVERITY, _PARTS))
    wanted = _wanted(
        _WHY.model_copy(update={"title": "Reason?"}),
        _SEVERITY.model_copy(update={"description": None, "ratings": (1, 2, 3)}),
        _PARTS.model_copy(update={"labels": ("threat", "insult")}),
        labels=("non_toxic", "toxic"),
    )
    check_questions("d", wanted, there)
    assert find_changes(wanted["why"], there["why"]) == {"title": "Reason?"}
    assert find_changes(wanted["severity"], there["severity"]) == {"description": None}
    for name, first in (("parts", "threat"), ("label", "non_toxic")):
        changes = find_changes(wanted[name], there[name])
        assert changes.keys() == {"settings"}
        assert (changes["settings"]["options"][0]["value"], changes["settings"].get("field")) == (first, None)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (_wanted(_WHY), "it asks severity, which the settings do not define"),
        (_wanted(_WHY, _SEVERITY, _PARTS), "it does not ask parts"),
        (_wanted(_WHY, _SEVERITY, labels=("a", "b")), "its question label must offer a, b, not toxic, non_toxic"),
        (
            _wanted(_WHY, _SEVERITY.model_copy(update={"ratings": (1, 2)})),
            "its question severity must offer 1, 2, not 1, 2, 3",
        ),
        (
            _wanted(_SEVERITY, _WHY.model_copy(update={"type": "span", "labels": ("x",)})),
            "its question why must be of type span, not text",
        ),
    ],
)
def test_what_argilla_cannot_change_is_refused(wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(Stopped, match=f"the dataset spam in Argilla does not fit the settings: {said}") as refusal:
        check_questions("spam", wanted, _as_argilla_shows(_wanted(_WHY, _SEVERITY)))
    assert refusal.value.code == "argilla_dataset_unfit"


def test_all_that_does_not_fit_is_said_at_once() -> None:
    with pytest.raises(Stopped, match=r"it asks why.*; it does not ask parts"):
        check_questions("d", _wanted(_PARTS), _as_argilla_shows(_wanted(_WHY)))


def test_a_question_that_must_be_answered_is_not_ours() -> None:
    there = _as_argilla_shows(_wanted(_WHY))
    there["why"]["required"] = True
    with pytest.raises(Stopped, match="its question why must not be required"):
        check_questions("d", _wanted(_WHY), there)
