"""The bytes of a skops file: which types it names, and a form that depends on the content alone.

A skops file is a zip of `schema.json` and one `.npy` file for each array. skops names the arrays after memory
addresses and stamps the entries with the time, so two dumps of equal objects differ.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from itertools import count
from typing import Any

_SCHEMA = "schema.json"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def list_types(content: bytes) -> set[tuple[str, str]]:
    """Return module and name of every type in a skops file, without loading it."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
    return {(node["__module__"], node["__class__"]) for node in _walk(schema) if "__class__" in node}


def normalise(content: bytes) -> bytes:
    """Return the same skops file with numbers in place of memory addresses, and without times."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        numbers = count()
        files: dict[str, str] = {}
        for node in _walk(schema):
            if "__id__" in node:
                node["__id__"] = next(numbers)
            if "file" in node:
                node["file"] = files.setdefault(node["file"], f"{len(files)}.npy")
        entries = {_SCHEMA: json.dumps(schema, sort_keys=True).encode()}
        entries |= {new: archive.read(old) for old, new in files.items()}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(entries):
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), entries[name], zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects within JSON, in the order of the document."""
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)
