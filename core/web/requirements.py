"""States in plain words what a refused value must be, by pydantic's error."""

from collections.abc import Mapping
from typing import Any

_TIME = "be a time by RFC 3339, like 2026-11-24T08:30:00Z"
_OBJECT = "be an object"
# By the error's type; filled in with its context.
_REQUIREMENTS = {
    "datetime_from_date_parsing": _TIME,
    "datetime_parsing": _TIME,
    "bool_parsing": "be true or false",
    "bool_type": "be true or false",
    "dict_type": _OBJECT,
    "model_attributes_type": _OBJECT,
    "model_type": _OBJECT,
    "list_type": "be an array",
    "enum": "be {expected}",
    "literal_error": "be {expected}",
    "float_parsing": "be a number",
    "float_type": "be a number",
    "finite_number": "be a finite number",
    "int_from_float": "be a whole number",
    "int_parsing": "be a whole number",
    "int_parsing_size": "be a whole number",
    "int_type": "be a whole number",
    "string_type": "be a string",
    "uuid_parsing": "be a UUID",
    "uuid_type": "be a UUID",
    "string_too_short": "have at least {min_length} characters",
    "string_too_long": "have at most {max_length} characters",
    "too_short": "have at least {min_length} items",
    "too_long": "have at most {max_length} items",
    "greater_than_equal": "be at least {ge:.15g}",
    "less_than_equal": "be at most {le:.15g}",
    "greater_than": "be more than {gt:.15g}",
    "less_than": "be less than {lt:.15g}",
}
_WHOLE = {"missing": "is required", "extra_forbidden": "is not a known field"}


def requirement(error: Mapping[str, Any]) -> str | None:
    """Return what the value must be, such as `be at most 1`; None for errors that have a text of their own."""
    known = _REQUIREMENTS.get(error["type"])
    return known.format_map(error.get("ctx", {})).replace("'", "") if known else None


def explain_field(error: Mapping[str, Any]) -> str:
    """Return the detail of an error in a field of a body.

    It does not contain the value, so that equal errors of many rows are reported as a group.
    """
    if error["type"] in _WHOLE:
        return _WHOLE[error["type"]]
    if error["type"] == "string_too_short" and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    need = requirement(error)
    return f"must {need}" if need else str(error["msg"]).removeprefix("Value error, ")
