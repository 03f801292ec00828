"""Splits: by the hash alone, or with each label's shares; the assignment never changes."""

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from uuid import UUID

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_api.snapshots.repository import SPACE, bounds_of, hashed, place_of, thresholds
from tests.unit.serving_api.snapshot_world import Row, World, world

_NAMES = st.from_regex(r"\A(?![Aa][Ll][Ll]\Z)[A-Za-z0-9][A-Za-z0-9_]{0,8}\Z")


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    names = draw(st.lists(_NAMES, min_size=1, max_size=6, unique=True))
    weights = draw(st.lists(st.integers(1, 50), min_size=len(names), max_size=len(names)))
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}


def model_hash(id_: UUID, seed: int) -> Fraction:
    """Return what decides, from 0 up to 1."""
    return Fraction(int(hashlib.sha256(f"{seed} {id_}".encode()).hexdigest()[:13], 16), 16**13)


def model_split(id_: UUID, seed: int, shares: dict[str, float]) -> str:
    """Return the split by the guide's rule."""
    end, hash_ = Fraction(0), model_hash(id_, seed)
    for name in sorted(shares):
        end += Fraction(str(shares[name]))
        # A bound between two hashes belongs to the lower one.
        if hash_ < Fraction(int(end * 16**13), 16**13):
            return name
    return max(shares)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as one:
        yield one


@pytest.fixture
def fresh(labelled: World) -> World:
    """The same replica, without snapshots."""
    for manifest in labelled.snapshots.list():
        labelled.snapshots.storage.fs.rm(f"{labelled.snapshots.storage.root}/{manifest.name}", recursive=True)
    return labelled


@pytest.mark.parametrize(
    ("rows", "shares", "bounds"),
    [
        ({None: 10}, (0.5, 0.5), [10]),
        ({None: 10}, (0.1, 0.9), [2]),
        ({None: 1}, (0.3, 0.7), [1]),
        ({None: 7}, (0.25, 0.25, 0.5), [4, 7]),
        ({None: 10, 0: 10}, (0.5, 0.5), [0]),
        ({None: 10, 0: 2}, (0.5, 0.5), [8]),
        ({None: 2, 0: 9, 1: 1}, (0.25, 0.25, 0.5), [0, 1]),
        ({0: 10}, (0.5, 0.5), [0]),
        ({}, (0.5, 0.5), [0]),
    ],
)
def test_texts_without_a_split_go_to_the_splits_in_proportion_to_what_these_lack(
    rows: dict[int | None, int], shares: tuple[float, ...], bounds: list[int]
) -> None:
    """Bounds are in twice the rows, so that the middle of a text is a whole number."""
    assert bounds_of(rows, shares) == bounds


@given(
    shares=shares(), seed=st.integers(0, 2**63 - 1), ids=st.lists(st.uuids(), min_size=1, max_size=50, unique=True)
)
def test_the_split_is_what_the_model_says(shares: dict[str, float], seed: int, ids: list[UUID]) -> None:
    with duckdb.connect(":memory:") as database:
        database.execute("create table items (id uuid, near_duplicate_of uuid)")
        database.executemany("insert into items (id) values (?)", [[id_] for id_ in ids])
        statement = f"select id, {place_of(shares)} from (select *, {hashed(seed)} as hash from items)"  # noqa: S608
        found = {id_: sorted(shares)[place] for id_, place in database.execute(statement).fetchall()}
    assert found == {id_: model_split(id_, seed, shares) for id_ in ids}


@given(shares())
def test_the_bounds_share_out_the_whole_space(shares: dict[str, float]) -> None:
    starts = 0
    for name, end in thresholds(shares):
        assert abs((end - starts) / SPACE - shares[name]) < 1e-8
        starts = end
    assert starts == SPACE


def test_the_order_of_the_shares_says_nothing(fresh: World) -> None:
    fresh.hold([Row(number) for number in range(60)])
    one = fresh.create(splits={"train": 0.7, "test": 0.3}).manifest
    other = fresh.create(splits={"test": 0.3, "train": 0.7}, name="other").manifest
    assert fresh.splits(one) == fresh.splits(other)
    assert list(other.splits) == ["test", "train"]


def test_shares_are_right_for_many_texts(fresh: World) -> None:
    """Within five standard deviations: one run in two million fails by chance, and ids never change here."""
    rows = 4000
    fresh.hold([Row(number) for number in range(rows)])
    manifest = fresh.create().manifest
    for name, share in manifest.shares.items():
        assert abs(manifest.splits[name].rows - rows * share) < 5 * (rows * share * (1 - share)) ** 0.5


_WORLD = st.builds(
    # Every third text is a near duplicate of one of the first six; that never changes.
    lambda labels: [Row(n, label, n % 6 if n > 5 and n % 3 == 0 else None) for n, label in labels.items()],
    st.dictionaries(st.integers(0, 60), st.sampled_from(["toxic", "non_toxic", None]), min_size=1),
)


_RUN = itertools.count()


@settings(max_examples=10)
@given(earlier=_WORLD, later=_WORLD, seed=st.integers(0, 3), stratify=st.booleans())
def test_texts_keep_their_splits_and_twins_theirs(
    labelled: World, earlier: list[Row], later: list[Row], seed: int, stratify: bool
) -> None:
    # What earlier examples made is history, too, which a text's split must not contradict.
    shares = {f"train{next(_RUN)}": 0.5, "x": 0.25, "test": 0.25}
    found = []
    for rows in (earlier, later):
        labelled.hold(rows)
        found.append(labelled.splits(labelled.create(splits=shares, seed=seed, stratify=stratify).manifest))
        assert found[-1].keys() == {row.id for row in rows}
    before, after = found
    for id_ in before.keys() & after.keys():
        assert before[id_] == after[id_]
    groups: dict[UUID, set[str]] = defaultdict(set)
    for row in earlier + later:
        root = Row(row.number if row.root is None else row.root).id
        groups[root] |= {splits[row.id] for splits in found if row.id in splits}
    assert all(len(splits) == 1 for splits in groups.values())


@settings(max_examples=10)
@given(
    counts=st.fixed_dictionaries({"toxic": st.integers(0, 40), "non_toxic": st.integers(1, 40)}),
    shares=shares(),
)
def test_each_label_has_its_shares_when_stratified(
    labelled: World, counts: dict[str, int], shares: dict[str, float]
) -> None:
    numbers = itertools.count()
    labelled.hold([Row(next(numbers), label) for label, count in counts.items() for _ in range(count)])
    manifest = labelled.create(splits=shares, seed=next(_RUN), stratify=True).manifest
    for label, count in counts.items():
        for name, share in shares.items():
            assert abs(manifest.splits[name].labels.get(label, 0) - share * count) <= 1


@pytest.mark.parametrize(("shares", "split"), [((0.5, 0.5), "b"), ((0.51, 0.49), "a"), ((0.49, 0.51), "b")])
def test_a_text_whose_middle_is_on_a_bound_belongs_to_the_later_split(
    fresh: World, shares: tuple[float, float], split: str
) -> None:
    fresh.hold([row := Row(0, "toxic")])
    manifest = fresh.create(splits=dict(zip("ab", shares, strict=True)), stratify=True).manifest
    assert fresh.splits(manifest) == {row.id: split}


def test_later_texts_fill_up_what_a_label_lacks(fresh: World) -> None:
    shares = {"train": 0.5, "test": 0.5}
    first = [Row(number, "toxic") for number in range(20)]
    fresh.hold(first)
    placed = fresh.splits(fresh.create(splits=shares, stratify=True, name="first").manifest)
    # Of those in test, annotators change their minds; ten new ones make up for it.
    changed = [Row(row.number, "non_toxic" if placed[row.id] == "test" else "toxic") for row in first]
    fresh.hold([*changed, *(Row(number, "toxic") for number in range(20, 30))])
    second = fresh.create(splits=shares, stratify=True, name="second").manifest
    assert second.follows == ("first",)
    assert {name: split.labels for name, split in second.splits.items()} == {
        "train": {"toxic": 10},
        "test": {"non_toxic": 10, "toxic": 10},
    }
    assert placed.items() <= fresh.splits(second).items()


def test_other_seeds_give_other_splits(fresh: World) -> None:
    fresh.hold([Row(number) for number in range(200)])
    counts = Counter(fresh.splits(fresh.create(seed=seed).manifest)[Row(7).id] for seed in range(12))
    assert len(counts) > 1
