"""Reads records in batches although Argilla's search may break down over single ones."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from uploader.argilla.errors import Fault, Unreachable

# No text has this external id: a search for it only shows whether Argilla can search at all.
_NO_RECORD = "none"

RawResponses = dict[str, list[dict[str, Any]]]  # by external id, as Argilla's API has them
Read = Callable[[Sequence[str]], Awaitable[RawResponses]]


async def read_isolating(read: Read, external_ids: Sequence[str]) -> tuple[RawResponses, list[str]]:
    """Read the responses to some records; return them, and the records over which Argilla breaks down.

    Raises:
        Unreachable: it is not about the records, Argilla cannot read any.
    """
    found: RawResponses = {}
    unreadable: list[str] = []
    parts = [list(external_ids)]
    while parts:
        part = parts.pop()
        try:
            found |= await read(part)
        except Fault:
            await _check_reading(read)
            if len(part) == 1:
                unreadable += part
            else:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
    return found, unreadable


async def _check_reading(read: Read) -> None:
    try:
        await read([_NO_RECORD])
    except Fault as fault:
        raise Unreachable("Argilla breaks down over every search") from fault
