"""Decides which of a group of new texts are near twins of which, and which of them need not be asked."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from core.datasets import Dataset
from ingestion_api.enrichment.near_duplicates import Shingles, bands, shingles, similarity

# Of a million texts with the same beginning, each is compared with the first ones only.
BAND_TEXTS = 20
CANDIDATES = 20
_LINKS = 10

Key = TypeVar("Key")
Link = tuple[UUID, UUID, float]  # the later text, its twin, their similarity


@dataclass(slots=True)
class Known:
    """A text that may be a twin; `asked`: annotators are, or will be, asked for it."""

    id: UUID
    shingles: Shingles
    asked: bool


class NewKnown(Known):
    """One that was just stored."""

    __slots__ = ("bands", "dataset")

    def __init__(self, id_: UUID, dataset: str, text: str) -> None:
        super().__init__(id_, shingles(text), asked=True)
        self.dataset = dataset
        self.bands = bands(dataset, self.shingles)


@dataclass(slots=True)
class Outcome:
    """The links that were found, and the texts that are held."""

    links: list[Link] = field(default_factory=list)
    held: set[UUID] = field(default_factory=set)


def most_shared(counts: Counter[Key]) -> list[Key]:
    """Return the candidates that share most bands."""
    return [candidate for candidate, _ in counts.most_common(CANDIDATES)]


def decide(
    group: list[NewKnown],
    shared: dict[UUID, Counter[UUID]],
    known: dict[UUID, Known],
    datasets: dict[str, Dataset],
) -> Outcome:
    """Go through new texts in their order; each is compared with stored ones and with those before it.

    `shared` counts the bands that a new text shares with stored ones, `known` has those that share most.
    """
    outcome = Outcome()
    before: defaultdict[int, list[int]] = defaultdict(list)  # places in the group by band
    for place, text in enumerate(group):
        here = Counter(other for band in text.bands for other in before[band])
        candidates = [known[id_] for id_ in most_shared(shared[text.id])]
        candidates += [group[other] for other in most_shared(here)]
        twins = _twins(text, candidates, datasets[text.dataset].near_duplicate_similarity)
        outcome.links += [(text.id, twin.id, alike) for twin, alike in twins]
        if datasets[text.dataset].near_duplicates == "ask_once" and any(twin.asked for twin, _ in twins):
            text.asked = False
            outcome.held.add(text.id)
        for band in text.bands:
            if len(before[band]) < BAND_TEXTS:
                before[band].append(place)
    return outcome


def _twins(text: Known, candidates: list[Known], least: float) -> list[tuple[Known, float]]:
    """Return the twins among the candidates; those that are asked, then the most similar, come first."""
    alike = [(candidate, similarity(text.shingles, candidate.shingles)) for candidate in candidates]
    twins = [(candidate, alike) for candidate, alike in alike if alike >= least]
    return sorted(twins, key=lambda twin: (not twin[0].asked, -twin[1]))[:_LINKS]
