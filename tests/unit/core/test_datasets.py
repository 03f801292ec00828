"""What a datasets file may say."""

from pathlib import Path

import pytest

from core.datasets import load_datasets

LABELS = 'labels = ["a", "b"]\nguidelines = "g"\n'


def _write(tmp_path: Path, settings: str) -> Path:
    path = tmp_path / "datasets.toml"
    path.write_text(f"[d]\n{LABELS}{settings}")
    return path


def test_enrichment_is_off_unless_set() -> None:
    for dataset in load_datasets(None).values():
        assert not dataset.enriches
        assert dataset.near_duplicates == "off"


def test_all_of_it_can_be_set(tmp_path: Path) -> None:
    settings = 'language = true\nredact = ["phone"]\nphone_regions = ["DE"]\nnear_duplicates = "link"\n'
    dataset = load_datasets(_write(tmp_path, settings))["d"]
    assert (dataset.enriches, dataset.phone_regions, dataset.near_duplicate_similarity) == (True, ("DE",), 0.8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('redact = ["name"]', "d.redact.0: Input should be 'email', 'phone', 'card' or 'token'"),
        ('redact = ["phone"]\nphone_regions = ["Germany"]', "d.phone_regions: .*Germany"),
        ('phone_regions = ["DE"]', 'redact does not name "phone"'),
        ('near_duplicates = "yes"', "d.near_duplicates: Input should be 'off', 'link' or 'ask_once'"),
        ("near_duplicate_similarity = 0.5", "d.near_duplicate_similarity: .*greater than or equal to 0.7"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        load_datasets(_write(tmp_path, settings))
