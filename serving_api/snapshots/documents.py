"""The documents beside a snapshot's data: its card, its Croissant description, and what both are made from."""

import orjson

from serving_api.snapshots.card import make_card
from serving_api.snapshots.croissant import make_croissant
from serving_api.snapshots.facts import Facts
from serving_api.snapshots.manifest import CARD, CROISSANT, FACTS, Manifest


def make_documents(manifest: Manifest, facts: Facts) -> dict[str, bytes]:
    """Return the documents by their paths.

    Whoever rewrites a snapshot, of whose version nothing else is left, finds the facts in it.
    """
    return {
        CARD: make_card(manifest, facts).encode(),
        CROISSANT: orjson.dumps(make_croissant(manifest, facts), option=orjson.OPT_INDENT_2),
        FACTS: facts.model_dump_json(indent=2).encode(),
    }
