"""Comments with a known label: words of each label, and words of all. Some are ambiguous, as real ones are."""

import random
from typing import NamedTuple

LABELS = ("toxic", "non_toxic")

_SYLLABLES = ("ba", "do", "fi", "ke", "lu", "mo", "na", "pe", "ri", "so", "tu", "va", "wi", "zo", "gra", "shi")


class Comment(NamedTuple):
    """A text, and the label that it has in truth."""

    text: str
    label: str


def simulate_comments(count: int, seed: int, own_words: float = 0.3) -> list[Comment]:
    """Return `count` different comments; `own_words`: share of words that hint at the label."""
    generator = random.Random(seed)  # noqa: S311 - repeatable
    # The same language for every seed.
    common, *own = (_make_words(random.Random(salt), count) for salt, count in ((1, 300), (2, 60), (3, 60)))  # noqa: S311
    found: dict[str, Comment] = {}
    while len(found) < count:
        label = generator.randrange(2)
        words = [
            # The other label's words occur, too.
            generator.choice(own[label if generator.random() < 0.9 else 1 - label])
            if generator.random() < own_words
            else generator.choice(common)
            for _ in range(generator.randint(6, 24))
        ]
        text = " ".join(words)
        found[text] = Comment(text, LABELS[label])
    return list(found.values())


def _make_words(generator: random.Random, count: int) -> list[str]:
    return ["".join(generator.choices(_SYLLABLES, k=generator.randint(1, 4))) for _ in range(count)]
