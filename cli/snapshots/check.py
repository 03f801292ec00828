"""Whether a file of a snapshot is what its manifest says."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import httpx
import pyarrow as pa
from pyarrow import compute as pc
from pyarrow import parquet

_PIECE_BYTES = 2**20


def complaints(
    client: httpx.Client, url: str, copy: Path | None, about: Mapping[str, Any]
) -> tuple[list[str], pa.Array]:
    """Return what is wrong with a split's file, downloaded or a copy, and the ids in it.

    Raises:
        httpx.HTTPError, OSError: it cannot be read.
    """
    with TemporaryFile() as file:
        if copy:
            with copy.open("rb") as source:
                size, digest = _take(iter(lambda: source.read(_PIECE_BYTES), b""), file)
        else:
            with client.stream("GET", url) as answer:
                answer.raise_for_status()
                size, digest = _take(answer.iter_bytes(), file)
        wrong = []
        if size != about["bytes"]:
            wrong.append(f"has {size:,} bytes, not {about['bytes']:,}")
        if digest != about["sha256"]:
            wrong.append(f"has the SHA-256 {digest}, not {about['sha256']}")
        try:
            more, ids = _compare_rows(file, about)
        except (pa.ArrowException, OSError) as error:
            return [*wrong, f"cannot be read as Parquet: {error}".strip()], pa.array([], pa.string())
        return wrong + more, ids


def _take(pieces: Any, file: BinaryIO) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for piece in pieces:
        file.write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _compare_rows(file: BinaryIO, about: Mapping[str, Any]) -> tuple[list[str], pa.Array]:
    table = parquet.read_table(file, columns=["id", "label"])
    wrong = []
    if len(table) != about["rows"]:
        wrong.append(f"holds {len(table):,} texts, not {about['rows']:,}")
    ids = table["id"].combine_chunks()
    if len(pc.unique(ids)) != len(ids):
        wrong.append("holds a text twice")
    labels = Counter(
        {one["values"] or "null": one["counts"] for one in pc.value_counts(table["label"]).to_pylist()}
    )
    if labels != Counter(about["labels"]):
        wrong.append(f"has these labels: {dict(labels)}, not {about['labels']}")
    return wrong, ids


def disjoint_complaints(ids: Mapping[str, pa.Array]) -> list[str]:
    """Return which splits hold the same texts."""
    names = [*ids]
    wrong = []
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            both = pc.sum(pc.is_in(ids[name], ids[other])).as_py() or 0
            if both:
                wrong.append(f"{name} and {other} have {both:,} texts in common")
    return wrong
