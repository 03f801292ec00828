"""Examples for the OpenAPI documents: each answer has one, refusals included."""

from http import HTTPStatus
from typing import Any

Responses = dict[int | str, dict[str, Any]]

PROBLEM_TYPE = "application/problem+json"

_PROBLEM_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def answer(description: str, example: Any, media_type: str = "application/json", **more: Any) -> dict[str, Any]:
    """Describe an answer of success."""
    return {"description": description, "content": {media_type: {"example": example}}, **more}


def header(description: str, example: str) -> dict[str, Any]:
    """Describe a header."""
    return {"description": description, "schema": {"type": "string"}, "example": example}


def problem(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Describe a refusal; `extra` are its further members."""
    title = HTTPStatus(status).phrase
    example = {"type": f"urn:problem:{code}", "title": title, "status": status, "detail": detail, "code": code}
    content = {PROBLEM_TYPE: {"schema": _PROBLEM_SCHEMA, "example": example | extra}}
    return {"description": title, "content": content}


def wrong_parameter(parameter: str, code: str, detail: str) -> dict[str, Any]:
    """Describe the refusal of a parameter."""
    errors = [{"parameter": parameter, "code": code, "detail": detail}]
    return problem(422, "invalid_fields", f"Wrong: {parameter}. See errors.", errors=errors)


def wrong_field(pointer: str, code: str, detail: str) -> dict[str, Any]:
    """Describe the refusal of a field of the body."""
    errors = [{"pointer": pointer, "code": code, "detail": detail}]
    return problem(422, "invalid_fields", f"Wrong: {pointer}. See errors.", errors=errors)


def unavailable(code: str, detail: str, retry_after_seconds: int = 1) -> dict[str, Any]:
    """Describe a refusal that passes."""
    example = str(retry_after_seconds)
    headers = {"Retry-After": header("Seconds after which to ask again.", example)}
    return problem(503, code, detail) | {"headers": headers}


def key_refusals(scope: str) -> Responses:
    """Describe the refusals of whoever lacks a key."""
    return {
        401: problem(401, "missing_key", "Send an API key: Authorization: Bearer KEY."),
        403: problem(403, "scope_missing", f"This API key lacks the scope {scope}."),
    }
