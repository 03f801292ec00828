"""Where models are stored: `models/{dataset}/{version}/` below the address of the snapshots.

A model is there once its `model.json` is. In a folder it comes by one rename of the finished whole; in a bucket
the manifest comes last. Models are immutable: what is there is never written again. Snapshots do not see them.
Only the active model and the newest ones stay; the rows of the others remain in Postgres.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from core.classifiers.model_manifest import ModelManifest

FOLDER = "models"
MANIFEST = "model.json"
MODEL = "model.skops"
OUT_OF_FOLD = "out_of_fold.parquet"
CARD = "README.md"
_UNFINISHED = ".writing-"
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 3}},
    }
}


class BadModel(ValueError):
    """The files of a model are damaged, or not those that its manifest names."""


class ModelFiles:
    """The models below one address, which is that of the snapshots: a folder, or `s3://bucket/prefix`.

    Every method raises OSError, or an error of the bucket's client, when the storage does not answer.
    """

    def __init__(self, url: str) -> None:
        protocol = url.split("://", 1)[0] if "://" in url else "file"
        self._fs, root = fsspec.core.url_to_fs(url, **_OPTIONS.get(protocol, {}))
        self._root = f"{root}/{FOLDER}"
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def read_manifest(self, dataset: str, version: str) -> ModelManifest:
        """Return a model's manifest.

        Raises:
            FileNotFoundError: there is no such model.
            BadModel: the manifest cannot be read.
        """
        try:
            return ModelManifest.model_validate_json(self._read(dataset, version, MANIFEST))
        except ValidationError as error:
            raise BadModel(f"The manifest of model {version} of {dataset} cannot be read.") from error

    def read_model(self, dataset: str, version: str) -> bytes:
        """Return the bytes of `model.skops`; they have the hash that the version names.

        Raises:
            FileNotFoundError: there is no such model.
            BadModel: the file is damaged.
        """
        content = self._read(dataset, version, MODEL)
        if name_version(content) != version:
            raise BadModel(f"The file of model {version} of {dataset} is damaged.")
        return content

    def read_file(self, manifest: ModelManifest, name: str) -> bytes:
        """Return another file of a model; raises as `read_model` does."""
        content = self._read(manifest.dataset, manifest.version, name)
        if hashlib.sha256(content).hexdigest() != manifest.sha256[name]:
            raise BadModel(f"{name} of model {manifest.version} of {manifest.dataset} is damaged.")
        return content

    def write(self, manifest: ModelManifest, files: Mapping[str, bytes]) -> None:
        """Store a model: its files by name, then its manifest. A model that is there already stays as it is."""
        target = f"{self._root}/{manifest.dataset}/{manifest.version}"
        self._fs.invalidate_cache()
        if self._fs.exists(f"{target}/{MANIFEST}"):
            return
        contents = {**files, MANIFEST: manifest.model_dump_json(indent=2).encode()}
        if self._is_local:
            _write_folder(Path(target), contents)
        else:
            for name, content in contents.items():
                self._fs.pipe_file(f"{target}/{name}", content)

    def remove(self, dataset: str, versions: Collection[str]) -> list[str]:
        """Remove those of the models that are there; return them. One that was removed in part goes, too."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            names = {
                path.rstrip("/").split("/")[-1] for path in self._fs.ls(f"{self._root}/{dataset}", detail=False)
            }
            there = sorted(names & set(versions))
            for version in there:
                folder = f"{self._root}/{dataset}/{version}"
                # First the manifest: without it, the rest is no model.
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{folder}/{MANIFEST}")
                self._fs.rm(folder, recursive=True)
            return there
        return []

    def _read(self, dataset: str, version: str, name: str) -> bytes:
        return cast(bytes, self._fs.cat_file(f"{self._root}/{dataset}/{version}/{name}"))


def name_version(content: bytes) -> str:
    """Return the version of a model with this `model.skops`."""
    return hashlib.sha256(content).hexdigest()[:12]


def _write_folder(target: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files into a folder beside `target`, and rename it. Removes those that a killed writer left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=target.parent))
    try:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        # Another process may have been quicker: equal bytes, so either one will do.
        with suppress(OSError):
            folder.rename(target)
        if not (target / MANIFEST).exists():
            raise OSError(f"the model could not be stored at {target}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
