"""How many snapshots there may be, and how large: checked before one is written, and before it is published."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from core.problems import Conflict
from serving_api.settings import DataSettings
from serving_api.snapshots.manifest import Manifest, SplitFile
from serving_api.snapshots.storage import storage_full


def check_room(known: Sequence[Manifest], folder: Path, settings: DataSettings) -> None:
    """Check that one more snapshot may be written, by way of `folder`.

    Raises:
        Conflict: there are as many as may be, or they are as large.
        Unavailable: the disk is nearly full.
    """
    if len(known) >= settings.snapshots_max:
        raise _refusal(
            f"There are {len(known):,} snapshots, and SNAPSHOTS_MAX is {settings.snapshots_max:,}.", known
        )
    _check_bytes(known, 1, settings)
    _check_disk(folder, settings)


def check_size(
    known: Sequence[Manifest], splits: Sequence[SplitFile], folder: Path, settings: DataSettings
) -> None:
    """Check that a snapshot with these files, which lie in `folder`, may be added; raises as `check_room` does."""
    _check_bytes(known, sum(split.bytes for split in splits), settings)
    _check_disk(folder, settings)


def _check_bytes(known: Sequence[Manifest], more: int, settings: DataSettings) -> None:
    held = sum(map(_size, known))
    if held + more > settings.snapshots_max_bytes:
        told = f"The {len(known):,} snapshots have {held:,} bytes, and SNAPSHOTS_MAX_BYTES is "
        raise _refusal(f"{told}{settings.snapshots_max_bytes:,}.", known)


def _check_disk(folder: Path, settings: DataSettings) -> None:
    if shutil.disk_usage(folder).free < settings.snapshots_min_free_bytes:
        raise storage_full()


def _refusal(detail: str, known: Sequence[Manifest]) -> Conflict:
    advice = "Delete some first, as an administrator: DELETE /snapshots/{name}, or annotate snapshot delete NAME."
    if known:
        oldest, largest = known[-1], max(known, key=_size)
        advice += f" The oldest is {oldest.name}; the largest is {largest.name}, of {_size(largest):,} bytes."
    return Conflict(f"{detail} {advice}", code="snapshot_quota")


def _size(manifest: Manifest) -> int:
    return sum(split.bytes for split in manifest.splits.values())
