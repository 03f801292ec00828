"""The questions of a dataset in Argilla: the label, and further ones of the settings.

Of a published dataset Argilla 2.8 lets titles, descriptions and the order of options be changed; not which
questions there are, nor their types and options.
"""

from typing import Any
from uuid import UUID

from core.datasets import Dataset, Question
from uploader.argilla.client import Argilla
from uploader.argilla.errors import AlreadyThere, Stopped
from uploader.argilla.records import LABEL_QUESTION, TEXT_FIELD

Json = dict[str, Any]


async def complete_questions(argilla: Argilla, dataset: Json, definition: Dataset, *, may_change: bool) -> UUID:
    """Create the questions of a dataset that is not published yet, and update them if they `may_change`.

    Return the id of the question `label`.

    Raises:
        Stopped: the dataset has other questions than the settings define.
        ArgillaError: Argilla cannot be worked with.
    """
    wanted = to_questions(definition)
    there = await _list(argilla, dataset)
    if dataset["status"] == "draft" and (missing := [name for name in wanted if name not in there]):
        for name in missing:
            await _create(argilla, dataset, wanted[name])
        there = await _list(argilla, dataset)
    check_questions(dataset["name"], wanted, there)
    for name, question in wanted.items():
        changes = find_changes(question, there[name])
        if changes and may_change:
            details = {"dataset": dataset["name"], "question": name, "changed": sorted(changes)}
            await argilla.change("PATCH", f"questions/{there[name]['id']}", changes, **details)
    return UUID(there[LABEL_QUESTION]["id"])


async def _list(argilla: Argilla, dataset: Json) -> dict[str, Json]:
    found = await argilla.call("GET", f"datasets/{dataset['id']}/questions")
    return {question["name"]: question for question in found["items"]}


async def _create(argilla: Argilla, dataset: Json, question: Json) -> None:
    try:
        await argilla.change("POST", f"datasets/{dataset['id']}/questions", question)
    except AlreadyThere:
        return  # another uploader was quicker


def to_questions(definition: Dataset) -> dict[str, Json]:
    """Return the questions as Argilla's API takes them, by name, in the order of the page."""
    options = _to_options(definition.labels)
    label = {
        "name": LABEL_QUESTION,
        "title": definition.question,
        "description": None,
        "required": True,
        "settings": {"type": "label_selection", "options": options},
    }
    return {LABEL_QUESTION: label} | {question.name: _to_question(question) for question in definition.questions}


def _to_question(question: Question) -> Json:
    return {
        "name": question.name,
        "title": question.title,
        "description": question.description,
        "required": False,
        "settings": _to_settings(question),
    }


def _to_settings(question: Question) -> Json:
    match question.type:
        case "text":
            return {"type": "text", "use_markdown": False}
        case "rating":
            # Argilla cannot reorder them later: one order for all.
            return {"type": "rating", "options": [{"value": value} for value in sorted(question.ratings)]}
        case "span":
            return {"type": "span", "field": TEXT_FIELD, "options": _to_options(question.labels)}


def _to_options(labels: tuple[str, ...]) -> list[Json]:
    return [{"value": label, "text": to_title(label)} for label in labels]


def to_title(label: str) -> str:
    """Return a label as annotators read it."""
    return label.replace("_", " ").strip().capitalize() or label


def check_questions(dataset: str, wanted: dict[str, Json], there: dict[str, Json]) -> None:
    """Check the properties of a dataset's questions that Argilla cannot change.

    Raises:
        Stopped: it does not; says what of which question, and what to do.
    """
    complaints = [f"it asks {name}, which the settings do not define" for name in there if name not in wanted]
    complaints += [
        f"it does not ask {name}" if name not in there else f"its question {name} {why}"
        for name, question in wanted.items()
        if name not in there or (why := _differs(question, there[name]))
    ]
    if complaints:
        raise does_not_fit(dataset, "; ".join(complaints))


def _differs(wanted: Json, there: Json) -> str | None:
    kind, options = wanted["settings"]["type"], _values(wanted)
    if there["settings"]["type"] != kind:
        return f"must be of type {kind}, not {there['settings']['type']}"
    if set(options) != set(_values(there)):
        return f"must offer {', '.join(map(str, options))}, not {', '.join(map(str, _values(there)))}"
    if there["settings"].get("field", TEXT_FIELD) != TEXT_FIELD:
        return f"must be about the field {TEXT_FIELD}"
    if there["required"] != wanted["required"]:
        return "must be required" if wanted["required"] else "must not be required"
    return None


def _values(question: Json) -> list[Any]:
    return [option["value"] for option in question["settings"].get("options", [])]


def find_changes(wanted: Json, there: Json) -> Json:
    """Return the changes that make a fitting question equal to the wanted one."""
    changes = {name: wanted[name] for name in ("title", "description") if there[name] != wanted[name]}
    held = {name: _without_nothing(there["settings"].get(name)) for name in wanted["settings"]}
    if held != wanted["settings"] and wanted["settings"]["type"] != "rating":
        changes["settings"] = {name: value for name, value in wanted["settings"].items() if name != "field"}
    return changes


def _without_nothing(value: Any) -> Any:
    """Return options without the descriptions that they do not have."""
    if isinstance(value, list):
        return [{name: part for name, part in option.items() if part is not None} for option in value]
    return value


def does_not_fit(dataset: str, why: str) -> Stopped:
    """Return the error of a dataset in Argilla that has what Argilla cannot change of a published one."""
    return Stopped(
        f"the dataset {dataset} in Argilla does not fit the settings: {why}. Argilla cannot change that of a "
        "published dataset. Define it in DATASETS_FILE as it is there, or under another name; or rename the one "
        "in Argilla: another is made as defined, and filled again, answers included.",
        "argilla_dataset_unfit",
    )
