"""OpenAPI documents: every response has a schema and an example, refusals included.

`explain_parameters` explains refused parameters by their schemas in the document.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from pydantic.json_schema import models_json_schema

from core import text_identity
from core.datasets import DEFAULT_DATASET, Datasets
from core.web.problems import (
    ERRORS_SHOWN,
    PROBLEM_TYPE,
    FieldError,
    InvalidFields,
    MissingKey,
    Problem,
    RateLimited,
    ScopeMissing,
)
from core.web.requirements import requirement

Responses = dict[int | str, dict[str, Any]]

BLANK = text_identity.BLANK
WITHOUT_NUL = r"^[^\x00]*$"
NOT_BLANK = rf"^[^\x00]*[^\x00{BLANK}][^\x00]*$"
VISIBLE = rf"^[^\x00]*[^{text_identity.INVISIBLE}][^\x00]*$"

# Marks of datasets' and labels' names: `describe` replaces them by the names in the settings.
DATASET_NAME: JsonDict = {"format": "dataset"}
LABEL_NAME: JsonDict = {"format": "label"}
# Marks a number of bytes that INGESTION_IMPORT_MAX_BYTES limits.
IMPORT_BYTES: JsonDict = {"format": "import-bytes"}

_KEY = "ApiKey"
_SCHEMAS = "#/components/schemas"


class ProblemError(BaseModel):
    """An error in one field, parameter or row."""

    code: str
    detail: str
    pointer: str | None = None
    parameter: str | None = None
    row: int | None = None


class ProblemRead(BaseModel):
    """A refusal: a problem of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError] = []


def answer(description: str, example: Any, media_type: str = "application/json", **more: Any) -> dict[str, Any]:
    """Describe a successful response; pass `model` if the endpoint's return type is not its schema."""
    return {"description": description, "content": {media_type: {"example": example}}, **more}


def with_example(example: dict[str, Any]) -> ConfigDict:
    """Return the configuration of a model that has this example in the document."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def header(description: str, example: str) -> dict[str, Any]:
    """Describe a header."""
    return {"description": description, "schema": {"type": "string"}, "example": example}


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Refer to the schema of a model; pass the model to `describe` if no endpoint returns it."""
    return {"$ref": f"{_SCHEMAS}/{model.__name__}"}


_HEADERS = {
    "Retry-After": "Seconds after which to try again.",
    "WWW-Authenticate": "How to authenticate.",
    "Allow": "The methods of this path.",
    "Location": "Where the resource is.",
    "X-Error-Code": "The name of the refusal in Hugging Face's dataset viewer.",
}


def refusals(*problems: Problem, scope: str | None = None) -> Responses:
    """Describe the problems that an endpoint raises, with the status, headers and body that it sends.

    Pass one problem for each status; of two with the same status the later one is the example. `scope` is the
    scope of the API key that the endpoint requires: it adds 401, 403 and 429.
    """
    keys: tuple[Problem, ...] = ()
    if scope is not None:
        keys = (
            MissingKey("Send an API key: Authorization: Bearer KEY."),
            ScopeMissing(f"This API key lacks the scope {scope}."),
            RateLimited(50, 100, 1),
        )
    described = {each.status: _refusal(each) for each in (*keys, *problems)}
    return {status: described[status] for status in sorted(described)}


def _refusal(refused: Problem) -> dict[str, Any]:
    content = {PROBLEM_TYPE: {"schema": reference(ProblemRead), "example": refused.as_dict()}}
    headers = {name: header(_HEADERS.get(name, name), value) for name, value in refused.headers.items()}
    if isinstance(refused, RateLimited):
        headers = _LIMITED | headers
    described = {"description": HTTPStatus(refused.status).phrase, "content": content}
    return described | {"headers": headers} if headers else described


def problem(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Describe a refusal; `extra` are its further members."""
    refused = Problem(detail, code=code)
    refused.status, refused.extra = status, extra
    return _refusal(refused)


def wrong_parameter(parameter: str, code: str, detail: str) -> dict[str, Any]:
    """Describe the refusal of a parameter."""
    errors = [{"parameter": parameter, "code": code, "detail": detail}]
    return problem(422, "invalid_fields", detail, errors=errors)


_LIMITED = {
    "Retry-After": header("Seconds after which to ask again.", "1"),
    "RateLimit-Policy": header("Requests (q) in a window of w seconds.", '"key";q=100;w=2'),
    "RateLimit": header("Requests left (r), and seconds until all are available again (t).", '"key";r=0;t=2'),
}


_MALFORMED_QUERY = problem(400, "malformed_query", "The query string is not UTF-8.")
_NOT_ACCEPTABLE = problem(406, "not_acceptable", "Accept rules out what is sent here: application/json.")
_REQUEST_ID = header("The request's own id, or a new one.", "5f0c6f5e3c1b8a43")


def describe(
    app: FastAPI,
    datasets: Datasets,
    key_is_required: bool,
    *request_models: type[BaseModel],
    import_max_bytes: int = 0,
) -> None:
    """Complete the document: responses of all endpoints, and names and limits from the settings.

    `request_models` are bodies that endpoints read themselves, without FastAPI.
    """
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate(), datasets, key_is_required, [*request_models, ProblemRead])
            _fill_in(app.openapi_schema, _marked(datasets, import_max_bytes))
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _complete(
    document: dict[str, Any], datasets: Datasets, key_is_required: bool, models: list[type[BaseModel]]
) -> None:
    components = document.setdefault("components", {})
    schemas = models_json_schema([(model, "validation") for model in models], ref_template=_SCHEMAS + "/{model}")
    components.setdefault("schemas", {}).update(schemas[1]["$defs"])
    for model in models:
        _couple_labels(components["schemas"][model.__name__], datasets)
    if key_is_required:
        components["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete_operation(operation, key_is_required)
            _show_examples(operation, components["schemas"])


def _marked(datasets: Datasets, import_max_bytes: int) -> dict[str, JsonDict]:
    labels = sorted({label for dataset in datasets.values() for label in dataset.labels})
    return {
        "dataset": {"enum": [*sorted(datasets)]},
        "label": {"enum": [*labels]},
        "import-bytes": {"maximum": import_max_bytes},
    }


def _complete_operation(operation: dict[str, Any], key_is_required: bool) -> None:
    responses = operation["responses"]
    responses.setdefault("406", _NOT_ACCEPTABLE)
    if "422" in responses:  # the endpoint checks its query string
        responses.setdefault("400", _MALFORMED_QUERY)
    for status, response in responses.items():
        headers = {"X-Request-ID": _REQUEST_ID} | response.get("headers", {})
        responses[status] = response | {"headers": headers}
    if key_is_required and "401" in responses:
        operation["security"] = [{_KEY: []}]
    for parameter in operation.get("parameters", []):
        _forbid_null(parameter["schema"])


def _show_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Show the first example of a body's model where the endpoint gives none: many tools look for it only here."""
    for body in (operation.get("requestBody", {}), *operation["responses"].values()):
        for content in body.get("content", {}).values():
            name = content.get("schema", {}).get("$ref", "").removeprefix(f"{_SCHEMAS}/")
            examples = schemas.get(name, {}).get("examples")
            if examples and "example" not in content:
                content["example"] = examples[0]


def _forbid_null(schema: dict[str, Any]) -> None:
    """Remove null: a None in the model means that the parameter may be left out."""
    kinds = [kind for kind in schema.pop("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        schema |= kinds[0]
    elif kinds:
        schema["anyOf"] = kinds


def _couple_labels(schema: dict[str, Any], datasets: Datasets) -> None:
    """State in a body's schema which labels belong to which dataset, if there are several datasets."""
    if len(datasets) > 1 and schema["properties"].keys() >= {"dataset", "label"}:
        schema["anyOf"] = [_labels_of(name, list(dataset.labels)) for name, dataset in sorted(datasets.items())]


def _labels_of(name: str, labels: list[str]) -> dict[str, Any]:
    without = [None] if name == DEFAULT_DATASET else []  # no dataset means the default one
    return {
        "properties": {"dataset": {"enum": [name, *without]}, "label": {"enum": [*labels, None]}},
        "required": [] if without else ["dataset"],
    }


def _fill_in(node: Any, marked: dict[str, JsonDict]) -> None:
    """Replace the marks by what the settings allow: DATASET_NAME, LABEL_NAME, IMPORT_BYTES."""
    if isinstance(node, dict):
        if isinstance(node.get("format"), str) and node["format"] in marked:
            node |= marked[node.pop("format")]
        for part in node.values():
            _fill_in(part, marked)
    elif isinstance(node, list):
        for part in node:
            _fill_in(part, marked)


_SHOWN_CHARACTERS = 50

_TIMES = {"too_short": "be sent at least {min_length} times", "too_long": "be sent at most {max_length} times"}
_BOUNDS = {"greater_than_equal", "less_than_equal", "greater_than", "less_than"}


def explain_parameters(request: Request, error: RequestValidationError) -> InvalidFields:
    """Return the problem of parameters that FastAPI refuses, by their schemas in the document.

    Endpoints read their bodies themselves, so the errors are about parameters only.
    """
    operations = request.app.openapi()["paths"].get(getattr(request.scope.get("route"), "path", ""), {})
    method = "get" if request.method == "HEAD" else request.method.lower()
    parameters = operations.get(method, {}).get("parameters", [])
    schemas = {one["name"]: {"example": one.get("example")} | one["schema"] for one in parameters}
    errors, found = error.errors(), []
    for wrong in errors[:ERRORS_SHOWN]:
        name = str(wrong["loc"][-1] if len(wrong["loc"]) < 2 else wrong["loc"][1])
        detail = _explain(name, wrong, schemas.get(name, {}))
        found.append(FieldError(wrong["type"], detail, parameter=name))
    return InvalidFields(found, len(errors))


def _explain(name: str, error: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return a sentence about one of pydantic's errors."""
    kind, said = error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return f"{name} is required."
    if kind == "extra_forbidden":
        return f"{name} is not a parameter of this path."
    if kind == "value_error":
        return f"{name} {said}."
    if kind == "string_too_short" and not error.get("input"):
        return f"{name} must not be empty."
    need: str | None
    if kind in _BOUNDS and schema.keys() >= {"minimum", "maximum"}:
        need = "be between {minimum:.15g} and {maximum:.15g}".format_map(schema)
    elif kind == "string_pattern_mismatch":
        examples = schema.get("examples") or [schema.get("example", "the documentation's example")]
        need = f"look like {examples[0]}"
    elif kind in _TIMES:
        need = _TIMES[kind].format_map(error.get("ctx", {}))
    else:
        need = requirement(error)
    if not need:
        return f"{name}: {said}."
    return f"{name} must {need} (got {_shown(error.get('input'))})."


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = len(value)
    text = (value or "nothing") if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
