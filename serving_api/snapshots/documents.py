"""The documents beside a snapshot's data: its card and its Croissant description."""

from serving_api.snapshots.manifest import CARD, Manifest


def make_documents(manifest: Manifest) -> dict[str, bytes]:
    """Return the documents by their paths."""
    rows = sum(split.rows for split in manifest.splits.values())
    card = f"# {manifest.name}\n\nA snapshot of {manifest.dataset}, version {manifest.version}: {rows} texts.\n"
    return {CARD: card.encode()}
