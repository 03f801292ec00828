"""Which part of a file a client asks for, as RFC 9110 has it."""

import re
from typing import NamedTuple

# Numbers longer than any file's are those of somebody who tries things out.
_RANGE = re.compile(r"[ \t]*bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE)


class Part(NamedTuple):
    """Bytes of a file: from `start` up to, not with, `end`."""

    start: int
    end: int


class NotSatisfiable(Exception):
    """There is nothing of the file where the client asks for it."""


def requested_part(header: str | None, size: int) -> Part | None:
    """Return the part that a Range header asks for; None: all of it.

    Several ranges at once, other units and what cannot be read are disregarded, as a server may do.

    Raises:
        NotSatisfiable: the range begins behind the end, or is empty.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            return None  # not a range at all
    if start >= end:
        raise NotSatisfiable
    return Part(start, end)
