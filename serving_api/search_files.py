"""Tells whether the files of a search index are as they were written: tantivy itself does not."""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

_CRC_BYTES = 2**20


class Damaged(Exception):
    """The folder cannot be used any more."""


def check_files(path: Path) -> None:
    """Compare each file that the last commit names with the checksum at its end.

    Raises:
        Damaged: one differs.
    """
    for file in _committed(path):
        _check(file)


def _committed(path: Path) -> Iterator[Path]:
    """Give the files that the last commit names; others may be what a killed process left half written."""
    try:
        segments = json.loads((path / "meta.json").read_text())["segments"]
        names = {segment["segment_id"].replace("-", ""): segment["deletes"] for segment in segments}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Damaged("it names no segments") from error
    for file in path.iterdir():
        segment, *rest = file.name.split(".")
        current = len(rest) == 1 or (names.get(segment) and rest[0] == str(names[segment]["opstamp"]))
        if segment in names and current:
            yield file


def _check(file: Path) -> None:
    try:
        with file.open("rb") as content:
            size = content.seek(-8, os.SEEK_END) + 8
            length = int.from_bytes(content.read(4), "little")
            content.seek(size - 8 - length)
            expected = json.loads(content.read(length))["crc"]
            content.seek(0)
            left, found = size - 8 - length, 0
            while left > 0 and (chunk := content.read(min(left, _CRC_BYTES))):
                left, found = left - len(chunk), zlib.crc32(chunk, found)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Damaged(f"{file.name} has no end") from error
    if found != expected:
        raise Damaged(f"{file.name} has another checksum")
