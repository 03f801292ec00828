"""Made-up comments, as long as real ones: half under 100 characters, a tenth over 250; a fifth is not ASCII."""

import os
import random
from collections.abc import Iterator
from typing import Any

_WORDS = ("you", "are", "the", "map", "update", "idiot", "thanks", "nobody", "better", "again")


def make_submissions(count: int) -> Iterator[dict[str, Any]]:
    """Yield `count` submissions that no earlier call has made."""
    run = os.urandom(6).hex()
    chance = random.Random(0)  # noqa: S311 - texts of realistic lengths, no secret
    for number in range(count):
        words = chance.choices(_WORDS, k=1 + min(int(chance.lognormvariate(2.6, 0.85)), 300))
        ending = "" if chance.random() < 0.8 else " naïve 😀"
        yield {
            "text": f"{' '.join(words)}{ending} {run}/{number}",
            "label": "toxic",
            "source": "bench",
            "external_id": f"post-{number}",
        }
