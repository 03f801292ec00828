"""Pages of changes: a consumer that follows them holds what the replica holds, whatever happens meanwhile."""

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.testclient import TestClient

from core.datasets import Dataset, Datasets
from serving_api.changes import service as changes_module
from serving_api.replica import tables
from serving_api.replica.replica import Replica
from tests.integration.serving_api.conftest import Serve
from tests.integration.serving_api.labelling import Labeller
from tests.integration.serving_api.mirror import Mirror, all_texts

_LABELS = ("toxic", "non_toxic")
DATASETS: Datasets = {
    name: Dataset(labels=_LABELS, guidelines="x", dispute_extra=2) for name in ("toxicity", "mood")
}


@pytest.fixture
def client(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    # So small that a few texts fill several batches, and that the replica forgets recent changes.
    monkeypatch.setattr(changes_module, "PAGE_BATCH", 3)
    monkeypatch.setattr(tables, "RECENT_MAX", 12)
    monkeypatch.setattr(tables, "RECENT_KEPT", 6)
    with serve(datasets=DATASETS) as client:
        yield client


class World:
    """Texts of two datasets, some labelled, and what may happen to them."""

    def __init__(self, labeller: Labeller, replica: Replica) -> None:
        self.labeller = labeller
        self.replica = replica
        self.texts: dict[str, list[uuid.UUID]] = {name: [] for name in DATASETS}

    def apply(self, happenings: list[tuple[str, str, list[int]]]) -> None:
        for kind, dataset, numbers in happenings:
            texts = self.texts[dataset]
            if kind == "new" or not texts:
                texts += [self.labeller.add_text(uuid.uuid4().hex, dataset) for _ in numbers]
                chosen = texts[-len(numbers) :]
            else:
                chosen = [texts[number % len(texts)] for number in numbers]
            said = {} if kind == "withdraw" else {"ada": _LABELS[numbers[0] % 2], f"other {numbers[0]}": "toxic"}
            self.labeller.annotate(dict.fromkeys(chosen, said), dataset)
        self.labeller.wait_for(self.replica)


HAPPENINGS = st.lists(
    st.tuples(
        st.sampled_from(["new", "edit", "withdraw"]),
        st.sampled_from(["toxicity", "toxicity", "mood"]),
        st.lists(st.integers(0, 100), min_size=1, max_size=8),  # of one transaction, and so of one version
    ),
    max_size=3,
)


@pytest.mark.parametrize("examples", [4, pytest.param(200, marks=pytest.mark.soak)])
def test_a_mirror_becomes_the_replica(
    client: TestClient, labeller: Labeller, replica: Replica, examples: int
) -> None:
    world = World(labeller, replica)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        HAPPENINGS,
        st.lists(HAPPENINGS, min_size=1, max_size=5),
        st.sampled_from([1, 2, 5, 1000]),
        st.sampled_from([*DATASETS]),
    )
    def follow(
        before: list[tuple[str, str, list[int]]],
        between: list[list[tuple[str, str, list[int]]]],
        limit: int,
        dataset: str,
    ) -> None:
        world.apply(before)
        mirror = Mirror(limit=limit, dataset=dataset)
        for happenings in between:
            mirror.read(client)
            world.apply(happenings)
        mirror.read_all(client)
        assert mirror.items == all_texts(client, dataset)

    follow()


def test_an_early_mirror_goes_on_after_a_restart(
    serve: Serve, labeller: Labeller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "PAGE_BATCH", 2)
    mirror = Mirror(limit=2)
    kept, withdrawn = labeller.add_label("kept"), labeller.add_label("withdrawn")
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        mirror.read_all(client)
    labeller.annotate({withdrawn: {}})
    labeller.annotate({kept: {"ada": "non_toxic"}})
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        mirror.read_all(client)
        assert mirror.items == all_texts(client)
    assert [item["label"] for item in mirror.items.values()] == ["non_toxic"]


def test_a_page_goes_on_to_the_end_of_its_version(
    client: TestClient, labeller: Labeller, replica: Replica
) -> None:
    many = [labeller.add_text(f"text {number}") for number in range(20)]
    labeller.add_label("before")
    labeller.annotate({id_: {"ada": "toxic"} for id_ in many})
    labeller.add_label("after")
    labeller.wait_for(replica)
    first = client.get("/changes?limit=2").json()
    assert [change["version"] for change in first["items"]][1:] == [first["next"]] * 20
    assert client.get(f"/changes?limit=2&since={first['next']}").json()["items"][0]["text"] == "after"


def test_an_item_is_the_same_as_in_texts(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.add_label('"quoted"\n\u2028 \x85 naïve 🙂', source="forum", metadata_={"n": 1.5})
    labeller.wait_for(replica)
    (change,) = client.get("/changes").json()["items"]
    (item,) = client.get("/texts").json()["items"]
    assert change == {"op": "upsert", "version": labeller.newest_stamp()} | item


def test_nothing_new_is_an_empty_page(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.add_label("a")
    labeller.wait_for(replica)
    for since in (labeller.newest_stamp(), 10**12, 2**63 - 1):
        page = client.get(f"/changes?since={since}").json()
        assert (page["items"], page["next"]) == ([], since)


def test_a_page_that_is_held_is_not_sent_again(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    many = [labeller.add_text(f"text {number}") for number in range(20)]
    labeller.add_label("one")
    labeller.annotate({id_: {"ada": "toxic"} for id_ in many})
    labeller.wait_for(replica)
    for limit in (1, 2):  # in one piece, and in several
        answer = client.get(f"/changes?limit={limit}")
        held = client.get(f"/changes?limit={limit}", headers={"If-None-Match": answer.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
        assert answer.headers["vary"] == "Accept, Accept-Encoding"
        assert answer.headers["x-replica-version"] == str(labeller.newest_stamp())
        assert client.head(f"/changes?limit={limit}").status_code == 200
    labeller.add_label("two")
    labeller.wait_for(replica)
    again = client.get("/changes?limit=1", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 200


@pytest.mark.soak
def test_all_rows_stamped_anew_come_once(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    for word in "abcde":
        labeller.add_label(word)
    labeller.wait_for(replica)
    mirror = Mirror(limit=1)
    mirror.read_all(client)
    with labeller.engine.begin() as connection:
        connection.execute(text("update labels set changed_xid = pg_current_xact_id()"))
    labeller.wait_for(replica)
    assert mirror.read(client) == 5
    assert mirror.read(client) == 0


def test_another_database_is_noticed(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    labeller.add_label("a")
    labeller.wait_for(replica)
    feed = client.get("/changes").json()["feed"]
    assert client.get(f"/changes?feed={feed}").status_code == 200
    answer = client.get("/changes?feed=0123456789abcdef")
    assert (answer.status_code, answer.json()["code"]) == (409, "feed_replaced")
    assert answer.json()["errors"][0]["parameter"] == "feed"
