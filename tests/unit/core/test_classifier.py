"""Tests of core.classifiers: files that hold anything else than numbers are refused; models are written once."""

import io
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from core.classifiers.classifier import Classifier, ForeignModel, Parameters
from core.classifiers.model_files import MANIFEST, MODEL, BadModel, ModelFiles, ModelManifest, Sizes, name_version

_PARAMETERS = Parameters(
    labels=("non_toxic", "toxic"),
    words=("fool", "nice"),
    word_idf=np.array([1.5, 2], np.float32),
    characters=(" foo", "ool "),
    character_idf=np.array([1, 1], np.float32),
    weights=np.array([[2, -2, 1, 1]], np.float32),
    intercepts=np.array([0.0]),
    slopes=np.array([1.0]),
    offsets=np.array([0.0]),
)


class Evil:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


def _manifest(content: bytes, **changes: object) -> ModelManifest:
    values: dict[str, object] = {
        "version": name_version(content),
        "dataset": "toxicity",
        "labels": ("non_toxic", "toxic"),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "data_version": 7,
        "sha256": {},
        "seconds": 1,
        "sizes": Sizes(texts=2, by_label={}, by_source={}, groups=2, disputed=0, features=4),
        "metrics": {},
        "by_source": {},
        "reliability": (),
        "scores_by_source": {},
        "decision": "Accepted.",
        "is_accepted": True,
    }
    return ModelManifest.model_validate(values | {"compared": None} | changes)


def test_a_loaded_model_scores_as_the_saved_one() -> None:
    classifier = Classifier(_PARAMETERS)
    loaded = Classifier.load(classifier.save())
    texts = ["a fool", "Nice!", "", "nothing known"]
    np.testing.assert_array_equal(loaded.probabilities(texts), classifier.probabilities(texts))
    [fool, nice, empty, unknown] = loaded.probabilities(texts)[:, 1]
    assert fool > 0.9
    assert nice < 0.2
    assert (empty, unknown) == (0.5, 0.5)
    assert loaded.probabilities([]).shape == (0, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        skops.io.dumps(LogisticRegression()),
        skops.io.dumps({"labels": LogisticRegression()}),
        skops.io.dumps(Evil()),
        skops.io.dumps(np.arange(3)),
        skops.io.dumps({"labels": np.array([1])}),
        skops.io.dumps(print),
    ],
)
def test_foreign_files_are_refused(content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ForeignModel):
        Classifier.load(content)
    assert capsys.readouterr().out == ""


def test_a_type_hidden_in_a_good_file_is_refused() -> None:
    with zipfile.ZipFile(io.BytesIO(Classifier(_PARAMETERS).save())) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(entries["schema.json"])
    schema["content"]["labels"] |= {"__module__": "builtins", "__class__": "eval", "__loader__": "TypeNode"}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, entry in (entries | {"schema.json": json.dumps(schema).encode()}).items():
            archive.writestr(name, entry)
    with pytest.raises(ForeignModel, match=r"builtins.*eval"):
        Classifier.load(written.getvalue())


def test_parts_that_do_not_fit_are_refused() -> None:
    changed = Parameters(**(vars(_PARAMETERS) | {"words": ("one",)}))
    with pytest.raises(ForeignModel, match="do not fit"):
        Classifier.load(Classifier(changed).save())


def test_a_model_is_written_once_and_checked_when_read(tmp_path: Path) -> None:
    files = ModelFiles(str(tmp_path))
    content = Classifier(_PARAMETERS).save()
    manifest = _manifest(content)
    files.write(manifest, {MODEL: content})
    version = manifest.version
    assert files.read_model("toxicity", version) == content
    files.write(_manifest(content, data_version=8), {MODEL: b"other"})
    assert files.read_manifest("toxicity", version) == manifest
    assert files.read_model("toxicity", version) == content
    folder = tmp_path / "models" / "toxicity" / version
    (folder / MODEL).write_bytes(content[:-1])
    with pytest.raises(BadModel):
        files.read_model("toxicity", version)
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(BadModel):
        files.read_manifest("toxicity", version)
    with pytest.raises(FileNotFoundError):
        files.read_model("toxicity", "0" * 12)


def test_removed_models_are_gone_and_others_stay(tmp_path: Path) -> None:
    files = ModelFiles(str(tmp_path))
    assert files.remove("toxicity", ["a"]) == []
    folder = tmp_path / "models" / "toxicity"
    for name in ("a", "b", "c"):
        (folder / name).mkdir(parents=True)
        (folder / name / MODEL).write_bytes(b"x")
    (folder / "b" / MANIFEST).write_text("{}")  # the removal of the others was cut short
    assert files.remove("toxicity", ["d", "b", "a"]) == ["a", "b"]
    assert [path.name for path in folder.iterdir()] == ["c"]


def test_a_model_that_a_killed_writer_left_is_completed(tmp_path: Path) -> None:
    content = Classifier(_PARAMETERS).save()
    manifest = _manifest(content)
    left = tmp_path / "models" / "toxicity" / manifest.version
    left.mkdir(parents=True)
    (left / MODEL).write_bytes(content[:9])
    (left / MANIFEST).write_text(manifest.model_dump_json()[:9])
    files = ModelFiles(str(tmp_path))
    files.write(manifest, {MODEL: content})
    assert files.read_model("toxicity", manifest.version) == content
    assert files.read_manifest("toxicity", manifest.version) == manifest
