"""Prepares a dataset in Argilla for what the settings define; doing it again changes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.datasets import PAGE_POSITION, Dataset, Question, page_path
from uploader.argilla.client import Argilla
from uploader.argilla.errors import AlreadyThere, Refused, Stopped
from uploader.argilla.records import LABEL_QUESTION, TEXT_FIELD

Json = dict[str, Any]

# Texts are hostile: as Markdown they could load pictures and show links.
_TEXT_SETTINGS = {"type": "text", "use_markdown": False}

# Only what annotators filter or sort by: a filter lists every term, and ids and times have millions.
_FILTERS = {"source": ("Source", "terms"), PAGE_POSITION: ("Order", "integer")}


# Without a sort in its address, the page shows each annotator an order by chance.
# First in the guidelines, so that annotators need not look for it.
_ORDER_LINK = "**[Annotate in the recommended order]({})**\n\n"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset in Argilla that is ready to take records."""

    dataset_id: UUID
    question_id: UUID  # of the question `label`
    # Set when the definition asks for fewer answers than Argilla: Argilla keeps this number.
    former_answers_wanted: int | None = None


async def prepare(
    argilla: Argilla, workspace: str, name: str, definition: Dataset, *, may_lower: bool = True
) -> Prepared:
    """Create the missing parts of a dataset in Argilla, and update the parts that may change.

    Without `may_lower` a definition that asks annotators for fewer answers than Argilla does changes nothing: most
    likely the uploader was started with another DATASETS_FILE, or without one.

    Raises:
        Stopped: Argilla refuses the definition, or holds a dataset of this name that does not fit it.
        ArgillaError: Argilla cannot be worked with.
    """
    try:
        workspace_id: str = (await _find_or_create(argilla, "workspace", {"name": workspace}))["id"]
        query = {"workspace_id": workspace_id, "name": name}
        body = query | {"allow_extra_metadata": True} | _changeable(definition)
        dataset = await _find_or_create(argilla, "dataset", body, **query)
        asked: int = dataset["distribution"]["min_submitted"]
        is_held = definition.answers_wanted < asked and not may_lower
        if not is_held:
            await _update(argilla, dataset, definition)
        await _complete_fields(argilla, dataset)
        await _complete_filters(argilla, dataset)
        question_id = await complete_questions(argilla, dataset, definition, may_change=not is_held)
        # Records put into a draft would make Argilla's index one that finds nothing.
        if dataset["status"] != "ready":
            await argilla.change("PUT", f"datasets/{dataset['id']}/publish")
    except Refused as refusal:
        raise Stopped(
            f"Argilla refuses the definition of {name}: {refusal.words}. Correct it in DATASETS_FILE.",
            "argilla_definition_refused",
        ) from refusal
    return Prepared(UUID(dataset["id"]), question_id, asked if is_held else None)


async def _find_or_create(argilla: Argilla, kind: str, body: Json, **query: str) -> Json:
    """Return the workspace or dataset that has the body's name, among those that the query finds."""
    for may_create in (True, False):
        found: list[Json] = (await argilla.call("GET", f"me/{kind}s", **query))["items"]
        for one in found:
            if one["name"] == body["name"]:
                return one
        if may_create:
            await _create(argilla, f"{kind}s", body)
    raise Stopped(
        f"Argilla has the {kind} {body['name']}, but does not show it to our key. "
        "Set ARGILLA_API_KEY to an owner's key.",
        "argilla_key_forbidden",
    )


async def _create(argilla: Argilla, path: str, body: Json) -> None:
    try:
        await argilla.change("POST", path, body)
    except AlreadyThere:
        # Another dataset's work, or another uploader, was quicker; it is the same thing.
        return


def _changeable(definition: Dataset) -> Json:
    distribution = {"strategy": "overlap", "min_submitted": definition.answers_wanted}
    return {"guidelines": definition.guidelines.strip(), "distribution": distribution}


async def _update(argilla: Argilla, dataset: Json, definition: Dataset) -> None:
    wanted = _changeable(definition)
    wanted["guidelines"] = _ORDER_LINK.format(page_path(UUID(dataset["id"]))) + wanted["guidelines"]
    changed = [key for key, value in wanted.items() if dataset[key] != value]
    if changed:
        details = {
            "dataset": dataset["name"],
            "changed": changed,
            "answers_wanted": definition.answers_wanted,
            "answers_wanted_before": dataset["distribution"]["min_submitted"],
        }
        await argilla.change("PATCH", f"datasets/{dataset['id']}", wanted, **details)


async def _complete_fields(argilla: Argilla, dataset: Json) -> None:
    path = f"datasets/{dataset['id']}/fields"
    fields = {field["name"]: field for field in (await argilla.call("GET", path))["items"]}
    if not fields and dataset["status"] == "draft":
        body = {"name": TEXT_FIELD, "title": "Text", "required": True, "settings": _TEXT_SETTINGS}
        await argilla.change("POST", path, body)
        return
    field = fields.pop(TEXT_FIELD, None)
    if field is None or field["settings"]["type"] != "text" or any(f["required"] for f in fields.values()):
        raise does_not_fit(dataset["name"], f"its only required field must be a text field named {TEXT_FIELD}")
    if field["settings"] != _TEXT_SETTINGS:
        await argilla.change("PATCH", f"fields/{field['id']}", {"settings": _TEXT_SETTINGS})


async def _complete_filters(argilla: Argilla, dataset: Json) -> None:
    there = await argilla.call("GET", f"me/datasets/{dataset['id']}/metadata-properties")
    for name in _FILTERS.keys() - {item["name"] for item in there["items"]}:
        title, type_ = _FILTERS[name]
        body = {
            "name": name,
            "title": title,
            "visible_for_annotators": True,
            "settings": {"type": type_},
        }
        await _create(argilla, f"datasets/{dataset['id']}/metadata-properties", body)


# Of a published dataset Argilla 2.8 lets titles, descriptions and the order of options be changed; not which
# questions there are, nor their types and options.


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
            await _create(argilla, f"datasets/{dataset['id']}/questions", wanted[name])
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
