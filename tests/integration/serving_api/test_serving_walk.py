"""A walk by cursor shows each text exactly once, while labels come, change and go."""

import uuid

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from serving_api.replica.replica import Replica
from tests.integration.serving_api.labelling import Labeller

Change = tuple[str, int]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["new", "edit", "withdraw"]), st.integers(0, 1000)), min_size=0, max_size=4
)


class World:
    """Texts, some of them labelled, and which of them stayed labelled since a walk began."""

    def __init__(self, labeller: Labeller, replica: Replica) -> None:
        self.labeller = labeller
        self.replica = replica
        self.labelled: list[uuid.UUID] = []
        self.stayed: set[uuid.UUID] = set()

    def apply(self, changes: list[Change]) -> None:
        for kind, number in changes:
            if kind == "new" or not self.labelled:
                self.labelled.append(self.labeller.add_label(uuid.uuid4().hex))
                continue
            id_ = self.labelled[number % len(self.labelled)]
            if kind == "edit":
                self.labeller.annotate({id_: {"ada": "toxic", f"other {number}": "toxic"}})
            else:
                self.labeller.annotate({id_: {}})
                self.labelled.remove(id_)
                self.stayed.discard(id_)
        self.labeller.wait_for(self.replica)


def test_walk_shows_each_text_once(client: TestClient, labeller: Labeller, replica: Replica) -> None:
    world = World(labeller, replica)

    @settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        CHANGES,
        st.lists(CHANGES, min_size=1, max_size=6),
        st.integers(1, 5),
        st.sampled_from(["newest", "oldest"]),
    )
    def walk(before: list[Change], between: list[list[Change]], limit: int, order: str) -> None:
        world.apply([*before, ("new", 0), ("new", 0)])
        world.stayed = set(world.labelled)
        seen: list[str] = []
        parameters: dict[str, str | int] = {"limit": limit, "order": order}
        for changes in [*between, *[[]] * 1000]:
            page = client.get("/texts", params=parameters).json()
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                break
            parameters["cursor"] = page["next_cursor"]
            world.apply(changes)
        assert len(seen) == len(set(seen))
        assert {str(id_) for id_ in world.stayed} <= set(seen)

    walk()
