"""A dataset in Argilla that refuses, breaks down or forgets as the real one was seen to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from uploader.argilla.errors import Fault, Refused, Unreachable
from uploader.argilla.records import Record
from uploader.push.deliver import Found


class Flaw(StrEnum):
    """The fault of a record."""

    REFUSED_FIRST = "422 that names the first bad record only"
    REFUSED_ALL = "422 that names every such record"
    REFUSED_NAMELESS = "422 that names none"
    BREAKS = "500, always"
    INVISIBLE = "accepted, but never shown"
    HEALS = "shown after a second PUT"
    UNREADABLE = "the search breaks down over it"


@dataclass
class FakeDestination:
    """Implements push.Destination; `flaws` by external id."""

    flaws: Mapping[str, Flaw]
    has_good_record: bool = True
    is_down: bool = False
    visible: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    puts: int = 0

    async def put(self, records: Sequence[Record]) -> None:
        self.puts += 1
        assert records
        ids = [record["external_id"] for record in records]
        by_flaw = {flaw: [i for i, id_ in enumerate(ids) if self.flaws.get(id_) == flaw] for flaw in Flaw}
        if by_flaw[Flaw.REFUSED_ALL]:
            raise Refused("all", dict.fromkeys(by_flaw[Flaw.REFUSED_ALL], "refused: all"))
        if by_flaw[Flaw.REFUSED_NAMELESS]:
            raise Refused("refused: nameless")
        if by_flaw[Flaw.REFUSED_FIRST]:
            raise Refused("first", {by_flaw[Flaw.REFUSED_FIRST][0]: "refused: first"})
        if self.is_down or by_flaw[Flaw.BREAKS]:
            raise Fault("500")
        for id_ in ids:
            flaw = self.flaws.get(id_)
            if flaw is None or (flaw == Flaw.HEALS and id_ in self.stored):
                self.visible.add(id_)
        self.stored.update(ids)

    async def find(self, external_ids: Sequence[str]) -> Found:
        assert 1 <= len(external_ids) <= 250
        unreadable = {id_ for id_ in external_ids if self.flaws.get(id_) == Flaw.UNREADABLE}
        return Found(self.visible & set(external_ids), unreadable & self.stored)

    async def takes_records(self) -> bool:
        if self.is_down and self.has_good_record:
            raise Unreachable("down")
        return self.has_good_record
