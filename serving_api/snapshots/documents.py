"""The documents beside a snapshot's data: its card and its Croissant description."""

import json

from serving_api.snapshots.manifest import CARD, CROISSANT, Manifest

_PARQUET = "application/vnd.apache.parquet"


def make_documents(manifest: Manifest) -> dict[str, bytes]:
    """Return the documents by their paths."""
    return {CARD: _card(manifest).encode(), CROISSANT: json.dumps(_croissant(manifest), indent=2).encode()}


def _card(manifest: Manifest) -> str:
    rows = sum(split.rows for split in manifest.splits.values())
    return f"# {manifest.name}\n\nA snapshot of {manifest.dataset}, version {manifest.version}: {rows} texts.\n"


def _croissant(manifest: Manifest) -> dict[str, object]:
    files = [
        {
            "@type": "cr:FileObject",
            "@id": split.path,
            "name": split.path,
            "contentUrl": split.path,
            "encodingFormat": _PARQUET,
            "sha256": split.sha256,
        }
        for split in manifest.splits.values()
    ]
    return {
        "@context": {
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
        },
        "@type": "sc:Dataset",
        "name": manifest.name,
        "distribution": files,
    }
