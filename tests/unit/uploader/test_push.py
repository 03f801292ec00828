"""Tests of uploader.push.deliver against a fake that is as moody as the real Argilla."""

import asyncio
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.uploader.fake_destination import FakeDestination, Flaw
from uploader.argilla.errors import Refused, Unreachable
from uploader.argilla.records import Record
from uploader.push.deliver import BROKE_DOWN, NOT_VISIBLE, UNREADABLE, Delivery, deliver

_REFUSED = {Flaw.REFUSED_ALL, Flaw.REFUSED_FIRST, Flaw.REFUSED_NAMELESS}


def _deliver(destination: FakeDestination, count: int) -> Delivery:
    return asyncio.run(deliver(destination, [{"external_id": str(i)} for i in range(count)]))


@st.composite
def _batches(draw: st.DrawFn) -> tuple[int, dict[str, Flaw]]:
    """A batch with at least one good record."""
    count = draw(st.integers(1, 250))
    bad = draw(st.dictionaries(st.integers(1, count), st.sampled_from(list(Flaw)), max_size=min(count - 1, 12)))
    return count, {str(i): flaw for i, flaw in bad.items() if i < count}


@given(_batches())
def test_exactly_the_bad_records_fail_and_the_rest_is_uploaded(batch: tuple[int, dict[str, Flaw]]) -> None:
    count, flaws = batch
    destination = FakeDestination(flaws)
    outcome = _deliver(destination, count)
    bad = {id_ for id_, flaw in flaws.items() if flaw != Flaw.HEALS}
    assert outcome.failed.keys() == bad
    assert outcome.uploaded == {str(i) for i in range(count)} - bad
    # Each halving asks twice, since a first 500 may pass.
    assert destination.puts <= 2 + 4 * (len(flaws) + 1) * (1 + math.ceil(math.log2(count + 1)))


@given(_batches())
def test_each_failure_has_its_reason(batch: tuple[int, dict[str, Flaw]]) -> None:
    count, flaws = batch
    failed = _deliver(FakeDestination(flaws), count).failed
    for id_, words in failed.items():
        flaw = flaws[id_]
        expected = {Flaw.BREAKS: BROKE_DOWN, Flaw.INVISIBLE: NOT_VISIBLE, Flaw.UNREADABLE: UNREADABLE}
        assert words == expected[flaw] if flaw in expected else words.startswith("refused: ")


def test_a_good_batch_takes_one_call() -> None:
    destination = FakeDestination({})
    assert len(_deliver(destination, 250).uploaded) == 250
    assert destination.puts == 1


def test_a_refused_text_alone_fails() -> None:
    assert _deliver(FakeDestination({"0": Flaw.REFUSED_NAMELESS}), 1).failed == {"0": "refused: nameless"}


def test_a_refusal_that_names_a_record_that_was_not_sent_names_none() -> None:
    class Confused(FakeDestination):
        async def put(self, records: Sequence[Record]) -> None:
            if any(record["external_id"] == "1" for record in records):
                raise Refused("confused", {len(records): "of another one"})
            await super().put(records)

    outcome = _deliver(Confused({}), 3)
    assert (outcome.failed, outcome.uploaded) == ({"1": "confused"}, {"0", "2"})


def test_a_text_that_breaks_argilla_alone_fails_when_argilla_takes_another() -> None:
    assert _deliver(FakeDestination({"0": Flaw.BREAKS}), 1).failed == {"0": BROKE_DOWN}


def test_a_text_over_which_the_search_breaks_down_fails_alone_and_is_not_put_again() -> None:
    destination = FakeDestination({"0": Flaw.UNREADABLE})
    assert _deliver(destination, 1).failed == {"0": UNREADABLE}
    assert destination.puts == 1


def test_nothing_fails_when_argilla_breaks_down_over_everything() -> None:
    with pytest.raises(Unreachable):
        _deliver(FakeDestination({}, is_down=True), 4)


def test_nothing_fails_when_there_is_no_good_record_to_tell_by() -> None:
    with pytest.raises(Unreachable):
        _deliver(FakeDestination({}, is_down=True, has_good_record=False), 4)


def test_nothing_fails_when_argilla_shows_no_new_record() -> None:
    with pytest.raises(Unreachable):
        _deliver(FakeDestination({str(i): Flaw.INVISIBLE for i in range(3)}), 3)


def test_an_outage_is_noticed_in_few_calls() -> None:
    destination = FakeDestination({}, is_down=True)
    with pytest.raises(Unreachable):
        _deliver(destination, 250)
    assert destination.puts == 2


def test_records_that_a_500_stored_and_shows_are_uploaded() -> None:
    destination = FakeDestination({"1": Flaw.BREAKS}, visible={"1"})
    assert _deliver(destination, 3).uploaded == {"0", "1", "2"}
