"""Snapshots as the viewer reads them: which there are, and their splits' files."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from core.web.problems import NotFound, Unavailable
from serving_api.snapshots.facts import Facts
from serving_api.snapshots.manifest import FACTS, Manifest, SplitFile
from serving_api.snapshots.service import Snapshots
from serving_api.snapshots.storage import reaching_storage
from serving_api.viewer.cache import Kept
from serving_api.viewer.columns import Column
from serving_api.viewer.descriptions import ConfigFacts, SplitFacts
from serving_api.viewer.parquet_rows import SplitReader
from serving_api.viewer.refusals import no_config, no_split

# The config of live labels, which no snapshot can have, and its split.
LIVE = "live"
LIVE_SPLIT = "train"

Footer = tuple[tuple[Column, ...], int]  # columns, and bytes before compression


class Stored:
    """The snapshots; every method waits for the storage."""

    def __init__(self, snapshots: Snapshots, kept: Kept) -> None:
        self._snapshots = snapshots
        self._kept = kept

    def find(self, dataset: str, config: str | None) -> list[Manifest]:
        """Return a dataset's snapshot of this name, or all of them, the newest first; raises as `get` does."""
        if config is not None:
            return [self.get(dataset, config)]
        return [one for one in self._snapshots.list() if one.dataset == dataset]

    def get(self, dataset: str, config: str) -> Manifest:
        """Return a snapshot of a dataset.

        Raises:
            NotFound: the dataset has none of this name.
            Unavailable: the storage does not answer.
        """
        try:
            manifest = self._snapshots.get(config)
        except NotFound as error:
            raise no_config(config, dataset) from error
        if manifest.dataset != dataset:
            raise no_config(config, dataset)
        return manifest

    def get_facts(self, dataset: str, config: str) -> tuple[Manifest, Facts]:
        """Return a snapshot and its facts; raises as `get` does."""
        manifest = self.get(dataset, config)
        return manifest, Facts.model_validate_json(self._snapshots.storage.read(config, FACTS))

    def get_split(self, dataset: str, config: str, split: str) -> tuple[Manifest, SplitFile]:
        """Return a snapshot and one of its splits; raises as `get` does, also where it has no such split."""
        manifest = self.get(dataset, config)
        if split not in manifest.splits:
            raise no_split(split, config, list(manifest.splits))
        return manifest, manifest.splits[split]

    @contextmanager
    def opened(self, manifest: Manifest, split: SplitFile, until: float) -> Iterator[SplitReader]:
        """Give the open file of a split, to be read `until` then, by the monotonic clock.

        Raises:
            Unavailable: the storage does not answer, the file is damaged, or it took too long.
        """
        with reaching_storage(), self._snapshots.open(manifest.name, split.path) as file, _reading(manifest):
            yield SplitReader(file, until)

    def facts(self, manifest: Manifest, until: float) -> ConfigFacts:
        """Return what is known of a snapshot from its manifest and its files' ends."""
        columns: tuple[Column, ...] = ()
        splits = []
        for name, split in manifest.splits.items():
            columns, memory = self._footer(manifest, split, until)
            splits.append(SplitFacts(name, split.rows, memory, split.bytes))
        return ConfigFacts(manifest.dataset, manifest.name, columns, splits)

    def _footer(self, manifest: Manifest, split: SplitFile, until: float) -> Footer:
        def read() -> Footer:
            if time.monotonic() > until:
                raise Unavailable("The query took too long.", code="query_timeout", retry_after_seconds=5)
            with self.opened(manifest, split, until) as reader:
                return reader.columns, reader.uncompressed_bytes

        footer: Footer = self._kept.get("footer", split.sha256, read)
        return footer


@contextmanager
def _reading(manifest: Manifest) -> Iterator[None]:
    """Tell a damaged file from a storage that does not answer: of the former Arrow says so, without a number."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and (type(error) is not OSError or error.errno is not None):
            raise
        detail = f"The snapshot {manifest.name} cannot be read; its files may be damaged."
        raise Unavailable(detail, code="snapshot_damaged", retry_after_seconds=60) from error
