"""Prepares a dataset in Argilla for what the settings define; doing it again changes nothing."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.datasets import PAGE_POSITION, Dataset, page_path
from uploader.argilla.client import Argilla
from uploader.argilla.errors import AlreadyThere, Refused, Stopped
from uploader.argilla.questions import complete_questions, does_not_fit
from uploader.argilla.records import TEXT_FIELD

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
    # The number that Argilla asks for, if the definition asks for fewer: then nothing was changed.
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
        workspace_id = await _get_workspace(argilla, workspace)
        dataset = await _get_dataset(argilla, workspace_id, name, definition)
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


async def _get_workspace(argilla: Argilla, name: str) -> str:
    for attempt_to_create in (True, False):
        for workspace in (await argilla.call("GET", "me/workspaces"))["items"]:
            if workspace["name"] == name:
                return str(workspace["id"])
        if attempt_to_create:
            await _create(argilla, "workspaces", {"name": name})
    raise _hidden("workspace", name)


async def _get_dataset(argilla: Argilla, workspace_id: str, name: str, definition: Dataset) -> Json:
    for attempt_to_create in (True, False):
        query = {"workspace_id": workspace_id, "name": name}
        found: list[Json] = (await argilla.call("GET", "me/datasets", **query))["items"]
        if found:
            return found[0]
        if attempt_to_create:
            body = query | {"allow_extra_metadata": True} | _changeable(definition)
            await _create(argilla, "datasets", body)
    raise _hidden("dataset", name)


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


def _hidden(what: str, name: str) -> Stopped:
    return Stopped(
        f"Argilla has the {what} {name}, but does not show it to our key. Set ARGILLA_API_KEY to an owner's key.",
        "argilla_key_forbidden",
    )
