"""Reads what clients send in `where` and `orderby`, and names what is wrong there."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from core.problems import FieldError, InvalidFields
from serving_api.dataset_viewer.columns import Column
from serving_api.dataset_viewer.slices import Filter
from serving_api.dataset_viewer.where import NotUnderstood, parse_orderby, parse_where

T = TypeVar("T")


def read_filter(where: str | None, orderby: str | None, columns: Sequence[Column]) -> Filter:
    """Return what is asked of a split with these columns.

    Raises:
        InvalidFields: either cannot be understood; both are named if both are wrong.
    """
    errors: list[FieldError] = []
    node = _read("where", where, columns, parse_where, errors)
    orderings = _read("orderby", orderby, columns, parse_orderby, errors)
    if errors:
        raise InvalidFields(errors)
    return Filter(node, orderings or ())


def _read(
    name: str,
    text: str | None,
    columns: Sequence[Column],
    parse: Callable[[str, Sequence[Column]], T],
    errors: list[FieldError],
) -> T | None:
    try:
        return None if text is None else parse(text, columns)
    except NotUnderstood as error:
        errors.append(FieldError(f"invalid_{name}", str(error), parameter=name))
        return None
