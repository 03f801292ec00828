"""Says in plain words what is wrong with a parameter: its name, what it must be, and what was sent."""

from collections.abc import Callable, Mapping
from typing import Any

_SHOWN_CHARACTERS = 50

Schema = Mapping[str, Any]  # of the parameter, in the OpenAPI document

_KINDS = {
    "bool_parsing": "true or false",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "uuid_parsing": "a UUID",
    "uuid_type": "a UUID",
}
_FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "string_too_short": lambda context: f"have at least {context['min_length']} characters",
    "string_too_long": lambda context: f"have at most {context['max_length']} characters",
    "too_short": lambda context: f"be sent at least {context['min_length']} times",
    "too_long": lambda context: f"be sent at most {context['max_length']} times",
    "enum": lambda context: f"be {context['expected'].replace(chr(39), '')}",
    "literal_error": lambda context: f"be {context['expected'].replace(chr(39), '')}",
}
_BOUNDS = {"greater_than_equal", "less_than_equal", "greater_than", "less_than"}


def explain_parameter(name: str, error: Mapping[str, Any], schema: Schema) -> str:
    """Return a sentence about one of pydantic's errors."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return f"{name} is required."
    if kind == "extra_forbidden":
        return f"{name} is not a parameter of this path."
    if kind == "value_error":
        return f"{name} {str(error['msg']).removeprefix('Value error, ')}."
    if kind in _BOUNDS:
        need = f"be {_bounds(schema, kind, context)}"
    elif kind in _KINDS:
        need = f"be {_KINDS[kind]}"
    elif kind in _FORMS:
        need = _FORMS[kind](context)
    elif kind == "string_pattern_mismatch":
        need = f"look like {_example(schema)}"
    else:
        return f"{name}: {error['msg']}."
    return f"{name} must {need} (got {_shown(error.get('input'))})."


def _bounds(schema: Schema, kind: str, context: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"between {_number(least)} and {_number(most)}"
    words = {
        "greater_than_equal": ("at least", "ge"),
        "less_than_equal": ("at most", "le"),
        "greater_than": ("more than", "gt"),
        "less_than": ("less than", "lt"),
    }
    word, bound = words[kind]
    return f"{word} {_number(context[bound])}"


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else f"{bound:g}"


def _example(schema: Schema) -> str:
    examples = schema.get("examples") or [schema.get("example", "the documentation's example")]
    return str(examples[0])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        value = len(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
