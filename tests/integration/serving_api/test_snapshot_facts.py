"""What a snapshot's documents say is what Postgres holds of the texts that its filters leave."""

import json
from pathlib import Path

from sqlalchemy import insert
from starlette.testclient import TestClient

from core.models import NearDuplicate
from serving_api.replica.replica import Replica
from serving_api.snapshots.manifest import Facts
from serving_api.snapshots.service import Snapshots
from tests.integration.serving_api.labelling import Labeller

FORGOTTEN = "said by one person alone"
ENGLISH = {"language": {"code": "en", "confidence": 0.9}}


def facts_of(folder: Path) -> Facts:
    return Facts.model_validate_json((folder / "facts.json").read_text())


def test_facts_are_of_the_texts_in_it(
    client: TestClient, labeller: Labeller, replica: Replica, tmp_path: Path
) -> None:
    ids = [labeller.add_text(f"text {number}", source="forum", enrichment=ENGLISH) for number in range(6)]
    ids.append(labeller.add_text("text 7", source=FORGOTTEN))
    with labeller.engine.begin() as connection:
        connection.execute(insert(NearDuplicate).values(text_id=ids[1], twin_id=ids[0], similarity=0.9))
    said = {"ada": "toxic", "bob": "toxic", "eve": "non_toxic"}
    labeller.annotate({id_: {name: said[name] for name in ("ada", "bob")} for id_ in ids[:4]})
    labeller.annotate({ids[4]: said, ids[5]: {"ada": "toxic", "eve": "non_toxic"}, ids[6]: {"zoe": "toxic"}})
    labeller.decide({"text 5": {"judge": "non_toxic"}})
    labeller.add_label("elsewhere", source="chat")
    labeller.wait_for(replica)

    client.post("/snapshots", json={"name": "forum", "source": "forum"}).raise_for_status()
    facts = facts_of(tmp_path / "snapshots" / "forum")
    assert (facts.texts, facts.statuses) == (6, {"labelled": 6})
    assert facts.decided_by == {"annotators": 5, "adjudicators": 1}
    assert (facts.answers.total, facts.answers.fewest, facts.answers.most) == (13, 2, 3)
    assert (facts.answers.annotators, facts.answers.adjudicators) == (3, 1)
    assert (facts.sources, facts.sources_total) == ({"forum": 6}, 1)
    assert (facts.languages, facts.near_twins) == ({"en": 6}, 1)
    measured = client.get("/stats/agreement", params={"source": "forum"}).json()
    for name, estimate in json.loads(facts.model_dump_json())["agreement"].items():
        assert estimate == measured[name]

    client.post("/snapshots", json={"name": "all"}).raise_for_status()
    everything = tmp_path / "snapshots" / "all"
    assert facts_of(everything).sources == {"forum": 6, "chat": 1, FORGOTTEN: 1}
    assert facts_of(everything).answers.annotators == 4
    snapshots: Snapshots = client.app.state.snapshots  # type: ignore[attr-defined]
    snapshots.rewrite("all", {str(ids[6])})
    assert "1 text was removed from it" in (everything / "README.md").read_text()
    for document in ("README.md", "croissant.json", "facts.json", "snapshot.json"):
        assert FORGOTTEN not in (everything / document).read_text(), document


def test_agreement_does_not_depend_on_filters_that_choose_by_agreement(
    client: TestClient, labeller: Labeller, replica: Replica, tmp_path: Path
) -> None:
    for number in range(12):
        bob = "toxic" if number % 3 else "non_toxic"
        labeller.annotate({labeller.add_text(f"text {number}", source="forum"): {"ada": "toxic", "bob": bob}})
    labeller.annotate({labeller.add_text("other"): {"ada": "toxic", "bob": "non_toxic"}})
    labeller.wait_for(replica)
    measured = client.get("/stats/agreement", params={"source": "forum"}).json()
    chosen = {"source": "forum", "min_agreement": 1, "label": ["toxic"], "status": "labelled"}
    client.post("/snapshots", json={"name": "agreed"} | chosen).raise_for_status()
    facts = facts_of(tmp_path / "snapshots" / "agreed")
    assert facts.texts == 8
    assert json.loads(facts.model_dump_json())["agreement"]["krippendorff_alpha"] == measured["krippendorff_alpha"]
    assert facts.agreement["krippendorff_alpha"].value != 1
    assert facts.agreement_without == ("label", "min_agreement", "status")
    card = client.get("/snapshots/agreed/README.md").text
    assert "Measured before these filters" in card
    client.post("/snapshots", json={"name": "all", "source": "forum"}).raise_for_status()
    assert "Measured before" not in client.get("/snapshots/all/README.md").text
