"""The YAML in front of a dataset card: what the Hugging Face Hub and `datasets` read of it.

By https://github.com/huggingface/hub-docs/blob/main/datasetcard.md.
"""

import re
from typing import Any

import yaml

from serving_api.snapshots.columns import COLUMNS
from serving_api.snapshots.facts import Facts
from serving_api.snapshots.manifest import Manifest

_MAGNITUDES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_LARGER = ((10**7, "1M<n<10M"), (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))
# The Hub takes codes of ISO 639; fewer texts than this share may be mistakes of the detector.
_LANGUAGE = re.compile("[a-z]{2,3}")
_UNKNOWN_LANGUAGE = "und"
_LANGUAGE_SHARE = 0.01


def make_front_matter(manifest: Manifest, facts: Facts) -> str:
    """Return the YAML in front of the card, without the lines around it."""
    files = [{"split": name, "path": split.path} for name, split in manifest.splits.items()]
    splits = [
        {"name": name, "num_bytes": split.memory_bytes, "num_examples": split.rows}
        for name, split in manifest.splits.items()
    ]
    matter: dict[str, Any] = {
        "pretty_name": manifest.dataset,
        "license": facts.license,
        "language": list_languages(facts),
        "task_categories": ["text-classification"],
        "size_categories": [_magnitude(manifest.rows)],
        "tags": ["human-annotated", "croissant"],
        "configs": [{"config_name": "default", "data_files": files}],
        "dataset_info": {
            "features": [{"name": name, "dtype": column.type} for name, column in COLUMNS.items()],
            "splits": splits,
            "download_size": sum(split.bytes for split in manifest.splits.values()),
            "dataset_size": sum(split.memory_bytes for split in manifest.splits.values()),
        },
    }
    # As ASCII on lines of any length: nothing in it can look like the end of the YAML.
    dumped: str = yaml.safe_dump(
        {key: value for key, value in matter.items() if value}, sort_keys=False, width=10**9
    )
    return dumped


def list_languages(facts: Facts) -> list[str]:
    """Return the codes of ISO 639 of the languages that a hundredth of the texts, or more, are in."""
    return [
        code
        for code, texts in facts.languages.items()
        if _LANGUAGE.fullmatch(code) and code != _UNKNOWN_LANGUAGE and texts >= _LANGUAGE_SHARE * facts.texts
    ]


def _magnitude(texts: int) -> str:
    return next((name for end, name in (*_MAGNITUDES, *_LARGER) if texts < end), "n>1B")
