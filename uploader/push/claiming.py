"""Chooses the pending texts that annotators get next. See docs/decisions/0024-pacing-and-order.md."""

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from core.datasets import UploadOrder
from uploader.argilla.records import PendingText
from uploader.dataset import Pace
from uploader.push import repository
from uploader.push.repository import Owed, Pick, QueueOrder
from uploader.repository import get_clock

# The distance of a score from 0.5 as a whole number, below all others.
_DISTANCE_UNITS = 10**12
# How far a gold text stands from its neighbour: a second, or a millionth of a score.
_APART = 10**6
# Limits the debt to the effect of randomness: a lack of gold texts is not made up for later.
_MOST_OWED = 3.0
# Sums of shares are not exact.
_ROUNDING = 1e-9

# How often a claim looks at the whole queue and at all claims, and which share of the time each of them may take.
_WHOLE_QUEUE_SECONDS = 5
_STALE_SECONDS = 1
_SHARE = 0.05

_random = random.SystemRandom()
_OLDEST_FIRST = Pace()


@dataclass(slots=True)
class _Start:
    bound: float  # all texts before it, in the order, were claimed, if they were received up to `since`
    since: int = 0
    until: float = 0  # then the whole queue is read again
    # What the last read found: all pending texts before `bound`, the first ones from there on, and those left out.
    arrived: Sequence[Pick] = ()
    ordered: Sequence[Pick] = ()
    left_out: Collection[Pick] = ()

    def move(self, queue: QueueOrder, claimed: Collection[UUID]) -> None:
        not_claimed = [one.sequence for one in self.arrived if one.id not in claimed]
        latest = max((one.sequence for one in self.arrived), default=self.since)
        self.since = min(not_claimed) - 1 if not_claimed else latest
        if self.ordered:
            next_ = [one for one in (*self.left_out, *self.ordered) if one.id not in claimed]
            self.bound = min(queue.bound_of(one) for one in (*next_, self.ordered[-1]))
        self.arrived = self.ordered = self.left_out = ()


class QueueStart:
    """Where claims begin in each order: behind the index entries of texts that were claimed before.

    While any transaction holds an old snapshot, Postgres keeps those entries, and each claim would pass them all.
    A text that comes back to the queue, commits late or gets another score may be before the start. So a claim
    reads the whole queue when it finds too few texts, and every few seconds, if that takes a small share of the
    time. The same goes for claims that ran out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starts: dict[QueueOrder, _Start] = {}
        self._stale_at = 0.0  # then it is time to look for claims that ran out

    def _next(self, began_at: float, shortest_seconds: float) -> float:
        """Return when a look that began at this time may be repeated."""
        now = self._clock()
        return now + max(shortest_seconds, (now - began_at) / _SHARE)

    async def return_stale(self, connection: AsyncConnection, dataset: str) -> int:
        """Make texts whose claim ran out pending again, if it is time to look for them; return how many."""
        began_at = self._clock()
        if began_at < self._stale_at:
            return 0
        returned = await repository.return_stale_claims(connection, dataset)
        self._stale_at = self._next(began_at, _STALE_SECONDS)
        return returned

    async def pick(
        self,
        connection: AsyncConnection,
        queue: QueueOrder,
        dataset: str,
        count: int,
        picked: Collection[Pick] = (),
    ) -> list[Pick]:
        """Choose and lock the first texts of a queue, as `repository.pick` does."""
        start = self._starts.setdefault(queue, _Start(queue.first_bound))
        picks: list[Pick] = []
        if self._clock() < start.until:
            picks = await _pick_from(connection, queue, dataset, count, picked, start)
        if len(picks) < count:
            began_at = self._clock()
            bound = queue.first_bound
            picks = await repository.pick(connection, queue.ordered, dataset, count, picked, bound=bound)
            start.until = self._next(began_at, _WHOLE_QUEUE_SECONDS)
            start.since = max((one.sequence for one in picks), default=start.since)
            start.arrived, start.ordered, start.left_out = (), picks, picked
        return picks

    def move(self, claimed: Collection[UUID]) -> None:
        """Begin the next claim behind the texts that were picked and claimed."""
        for queue, start in self._starts.items():
            start.move(queue, claimed)


async def _pick_from(
    connection: AsyncConnection,
    queue: QueueOrder,
    dataset: str,
    count: int,
    picked: Collection[Pick],
    start: _Start,
) -> list[Pick]:
    arrived: list[Pick] = []
    if queue.arrived is not None:
        bounds = {"bound": start.bound, "since": start.since}
        arrived = await repository.pick(connection, queue.arrived, dataset, count, picked, **bounds)
    rest = count - len(arrived)
    ordered = await repository.pick(
        connection, queue.ordered, dataset, rest, [*picked, *arrived], bound=start.bound
    )
    # With as many as wanted, there may be more that arrived.
    start.arrived, start.ordered, start.left_out = arrived if rest else (), ordered, picked
    return arrived + ordered


@dataclass(frozen=True, slots=True)
class _Chosen:
    pick: Pick
    neighbour: Pick  # whose place in the order it has: its own, unless it is gold
    is_gold: bool = False
    is_uncertain: bool = False


async def claim_texts(
    connection: AsyncConnection,
    dataset: str,
    claim: UUID,
    pace: Pace = _OLDEST_FIRST,
    *,
    count: int,
    bytes_: int,
    lease_seconds: int,
    start: QueueStart | None = None,
) -> list[PendingText]:
    """Claim up to `count` pending texts that together have `bytes_` at most; a larger one alone.

    Those that were sent before go first, and have their room already. When the pace takes turns, the caller holds
    the lock on the dataset's row. `start` is kept from claim to claim; without one, the whole queue is read.
    """
    start = start or QueueStart()
    returning = await repository.pick(connection, repository.RETURNING, dataset, count)
    if returning:
        chosen = _fit([_Chosen(one, one) for one in returning], bytes_)
    else:
        chosen = await _choose_new(connection, dataset, pace, count, bytes_, start)
    if not chosen:
        return []
    clock = round((await get_clock(connection)).timestamp() * 1_000_000)
    positions = [_position(one, pace.order, clock + place) for place, one in enumerate(chosen)]
    return await repository.lease(connection, claim, [one.pick for one in chosen], positions, lease_seconds)


async def _choose_new(
    connection: AsyncConnection, dataset: str, pace: Pace, count: int, bytes_: int, start: QueueStart
) -> list[_Chosen]:
    if pace.max_open_records is not None:
        taken = await repository.count_taken_room(connection, dataset, pace.max_open_records)
        count = min(count, pace.max_open_records - taken)
    if count <= 0:
        return []
    owed = await repository.get_owed(connection, dataset) if pace.has_shares else Owed()
    ordinary = await _pick_ordinary(connection, dataset, pace.order, count, owed, start)
    gold_count = count_gold(owed.gold, pace.gold_share, count, len(ordinary))
    gold = await repository.pick(connection, repository.GOLD, dataset, gold_count)
    chosen = _fit(_mix(ordinary, gold, count), bytes_)
    start.move({one.pick.id for one in chosen})
    if chosen and pace.has_shares:
        await repository.store_owed(connection, dataset, _owed_after(owed, pace, chosen))
    return chosen


async def _pick_ordinary(
    connection: AsyncConnection, dataset: str, order: UploadOrder, count: int, owed: Owed, start: QueueStart
) -> list[_Chosen]:
    match order:
        case UploadOrder.OLDEST:
            picks = await start.pick(connection, repository.OLDEST, dataset, count)
        case UploadOrder.NEWEST:
            picks = await start.pick(connection, repository.NEWEST, dataset, count)
        case UploadOrder.UNCERTAIN:
            picks = await start.pick(connection, repository.UNCERTAIN, dataset, count)
            picks += await start.pick(connection, repository.UNSCORED, dataset, count - len(picks))
        case UploadOrder.MIXED:
            return await _pick_mixed(connection, dataset, count, owed, start)
    return [_Chosen(one, one) for one in picks]


async def _pick_mixed(
    connection: AsyncConnection, dataset: str, count: int, owed: Owed, start: QueueStart
) -> list[_Chosen]:
    wanted = min(count, max(0, int(owed.uncertain + count / 2 + _ROUNDING)))
    uncertain = await start.pick(connection, repository.UNCERTAIN, dataset, wanted)
    oldest = await start.pick(connection, repository.OLDEST, dataset, count - len(uncertain), uncertain)
    pairs = zip_longest(
        [_Chosen(one, one, is_uncertain=True) for one in uncertain], [_Chosen(one, one) for one in oldest]
    )
    return [one for one in chain.from_iterable(pairs) if one]


def count_gold(owed: float, share: float, count: int, ordinary_count: int) -> int:
    """Return how many of the next `count` texts should be gold when `ordinary_count` others are pending.

    The debt decides, plus or minus half a text at random: otherwise every tenth record, say, would be gold.
    """
    if share <= 0:
        return 0
    # Gold texts alone would be known, too.
    slack = _random.uniform(-0.5, 0.5) if ordinary_count else 0
    gold = 0
    while gold < count:
        others = min(ordinary_count, count - gold - 1)
        if gold + 1 > owed + others * _gold_by_other(share) + slack + _ROUNDING:
            break
        gold += 1
    return gold


def _gold_by_other(share: float) -> float:
    return share / (1 - share)


def _owed_after(owed: Owed, pace: Pace, chosen: Sequence[_Chosen]) -> Owed:
    gold = sum(one.is_gold for one in chosen)
    uncertain = sum(one.is_uncertain for one in chosen)
    others = len(chosen) - gold
    return Owed(
        min(_MOST_OWED, owed.gold + others * _gold_by_other(pace.gold_share) - gold),
        min(_MOST_OWED, owed.uncertain + others / 2 - uncertain) if pace.order == UploadOrder.MIXED else 0,
    )


def _mix(ordinary: Sequence[_Chosen], gold: Sequence[Pick], count: int) -> list[_Chosen]:
    """Put gold texts at random positions, each next to an ordinary text whose rank in the order it takes."""
    kept = ordinary[: count - len(gold)]
    places = set(_random.sample(range(len(kept) + len(gold)), len(gold)))
    mixed: list[_Chosen] = []
    golds, others = iter(gold), iter(kept)
    for place in range(len(kept) + len(gold)):
        mixed.append(_as_gold(next(golds), mixed, ordinary) if place in places else next(others))
    return mixed


def _as_gold(pick: Pick, before: Sequence[_Chosen], ordinary: Sequence[_Chosen]) -> _Chosen:
    neighbours = chain((one.neighbour for one in before[-1:]), (one.pick for one in ordinary[:1]), (pick,))
    return _Chosen(pick, next(neighbours), is_gold=True)


def _fit(chosen: Sequence[_Chosen], bytes_: int) -> list[_Chosen]:
    totals = accumulate(one.pick.bytes for one in chosen)
    fitting = sum(total <= bytes_ for total in totals)
    return list(chosen[: max(1, fitting)])


def _position(chosen: _Chosen, order: UploadOrder, upload_place: int) -> int:
    """Return where a record stands in Argilla's page, which sorts them upwards."""
    likeness = chosen.neighbour
    apart = _random.randrange(_APART) if chosen.is_gold else 0
    match order:
        case UploadOrder.NEWEST:
            return apart - int(likeness.received_at.timestamp() * 1_000_000)
        case UploadOrder.UNCERTAIN if likeness.score is not None:
            return apart + round(abs(likeness.score - 0.5) * _DISTANCE_UNITS)
        case UploadOrder.UNCERTAIN:
            return _DISTANCE_UNITS + upload_place
        case _:
            return upload_place
