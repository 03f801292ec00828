"""Accounts, disputes and questions on a real Argilla, from the command line to what readers are served."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli import addresses
from cli.people.annotators import app
from local_stack.testing import RunningStack
from tests.e2e.uploader.conftest import AddTexts, Annotator, ArgillaSpace, StartUploader, open_argilla
from tests.e2e.uploader.stored import fetch
from tests.integration.cli.test_commands import annotate
from tests.programs import Program, running
from tests.waiting import wait_for

_DATASET = """
[toxicity]
labels = ["toxic", "non_toxic", "unsure"]
guidelines = "Judge."
answers_wanted = 3
dispute_extra = 1
"""
_QUESTIONS = """
[[toxicity.questions]]
name = "why"
title = "Why?"
type = "text"
[[toxicity.questions]]
name = "severity"
title = "How bad?"
type = "rating"
ratings = [1, 2, 3]
[[toxicity.questions]]
name = "parts"
title = "Where?"
type = "span"
labels = ["insult", "threat"]
"""
_NO_SWEEP = {"SWEEP_INTERVAL_SECONDS": "86400"}
_SWEEPS = {"UPLOADER_RETRY_CAP_SECONDS": "1", "SWEEP_INTERVAL_SECONDS": "0.5", "COUNT_INTERVAL_SECONDS": "1"}


@dataclass(frozen=True)
class Way:
    """The APIs and the command line."""

    argilla: ArgillaSpace
    ingestion_url: str
    serving_url: str
    env: dict[str, str]

    def run(self, *arguments: str, **changes: str) -> Result:
        """Run `annotate annotators` in this process: a new process takes a second to start."""
        addresses.settings.cache_clear()
        result = CliRunner().invoke(app, arguments, env=self.env | changes)
        addresses.settings.cache_clear()
        return result

    def annotate(self, *arguments: str) -> str:
        """Run `annotate annotators`; return its output."""
        result = self.run(*arguments)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def add_annotator(self, name: str, *options: str) -> Annotator:
        """Create an account or reset its password, and log in with the printed password."""
        password = self.annotate("add", name, *options).strip()
        assert len(password) == 24
        http = open_argilla(self.argilla.url, "")
        del http.headers["X-Argilla-Api-Key"]
        token = http.post("token", data={"username": name, "password": password}).raise_for_status().json()
        http.headers["Authorization"] = f"Bearer {token['access_token']}"
        return Annotator(UUID(http.get("me").json()["id"]), name, http)

    def served(self, id_: UUID) -> tuple[str, str | None] | None:
        """Return status and label that readers get."""
        answer = httpx.get(f"{self.serving_url}/texts/{id_}")
        return (answer.json()["status"], answer.json()["label"]) if answer.status_code == 200 else None

    def alerts(self) -> list[dict[str, Any]]:
        """Return the blocked jobs."""
        items: list[dict[str, Any]] = httpx.get(f"{self.ingestion_url}/queue").json()["alerts"]
        return items

    def datasets(self) -> dict[str, dict[str, Any]]:
        """Return the datasets in our workspaces."""
        ours = (self.argilla.workspace, f"{self.argilla.workspace}_adjudication")
        spaces = {w["id"] for w in self.argilla.http.get("me/workspaces").json()["items"] if w["name"] in ours}
        found = self.argilla.http.get("me/datasets").json()["items"]
        return {dataset["name"]: dataset for dataset in found if dataset["workspace_id"] in spaces}

    def record(self, dataset: str, id_: UUID) -> dict[str, Any]:
        """Return a visible record with its responses."""
        scope = {"entity": "record", "property": "external_id"}
        body = {"filters": {"and": [{"type": "terms", "scope": scope, "values": [str(id_)]}]}}
        path = f"datasets/{self.datasets()[dataset]['id']}/records/search?include=responses,suggestions"
        [item] = self.argilla.http.post(path, json=body).raise_for_status().json()["items"]
        record: dict[str, Any] = item["record"]
        return record


@pytest.fixture
def datasets_file(tmp_path: Path) -> Path:
    file = tmp_path / "datasets.toml"
    file.write_text(_DATASET)
    return file


@pytest.fixture
def way(
    stack: RunningStack, argilla: ArgillaSpace, database_url: str, tmp_path: Path, datasets_file: Path
) -> Iterator[Way]:
    env = {"DATABASE_URL": database_url, "DATA_DIR": str(tmp_path / "data"), "DATASETS_FILE": str(datasets_file)}
    there = {"ARGILLA_URL": stack.argilla_url, "ARGILLA_API_KEY": stack.argilla_api_key}
    with ExitStack() as programs:
        ingestion = programs.enter_context(running("ingestion_api", env, tmp_path / "ingestion.log"))
        serving = programs.enter_context(running("serving_api", env, tmp_path / "serving.log", "/readyz"))
        yield Way(argilla, ingestion.url, serving.url, env | there | {"ARGILLA_WORKSPACE": argilla.workspace})
        for webhook in argilla.http.get("webhooks").raise_for_status().json()["items"]:
            if webhook["url"].startswith(ingestion.url):
                argilla.http.delete(f"webhooks/{webhook['id']}").raise_for_status()


def _copy_of(database_url: str, id_: UUID) -> UUID:
    query = "select id from texts where adjudicates = %s and status = 'uploaded'"
    wait_for(lambda: len(fetch(database_url, query, id_)) == 1)
    copy: UUID = fetch(database_url, query, id_)[0][0]
    return copy


def _is_registered(uploader: Program) -> bool:
    return "uploader_webhook_registered 1.0" in httpx.get(f"{uploader.url}/metrics").text


@pytest.mark.soak
def test_disputes_are_decided_by_adjudicators_with_accounts_of_their_own(
    way: Way, start_uploader: StartUploader, add_texts: AddTexts, database_url: str, datasets_file: Path
) -> None:
    names = [f"{name}_{way.argilla.workspace[-6:]}" for name in ("ann", "bob", "eve", "judge")]
    ann, bob, eve = (way.add_annotator(name) for name in names[:3])
    judge = way.add_annotator(names[3], "--adjudicator", "--first-name", "The judge")
    assert way.annotate("add", ann.name) == ""  # there already, keeps the password
    [id_] = add_texts("some text")
    settings = {"DATASETS_FILE": str(datasets_file), "WEBHOOK_URL": way.ingestion_url}
    with start_uploader(**settings, **_NO_SWEEP) as uploader:
        wait_for(lambda: fetch(database_url, "select status from texts") == [("uploaded",)])
        swept = "select count(*) from datasets where swept_at is not null"
        wait_for(lambda: fetch(database_url, swept) == [(2,)] and _is_registered(uploader))
        record = way.record("toxicity", id_)
        for annotator, value in ((ann, "toxic"), (bob, "non_toxic"), (eve, "unsure")):
            annotator.answer(record["id"], value)
        wait_for(lambda: way.served(id_) == ("disputed", None))
        refused = httpx.post(
            f"{way.ingestion_url}/texts", json={"text": "some text", "dataset": "toxicity-adjudication"}
        )
        assert refused.status_code == 422

        copy = way.record("toxicity-adjudication", _copy_of(database_url, id_))
        assert (copy["fields"], copy["suggestions"]) == ({"text": "some text"}, [])
        assert copy["metadata"]["votes"] == "non_toxic: 1, toxic: 1, unsure: 1"
        dataset = way.datasets()["toxicity-adjudication"]
        assert "For adjudicators" in dataset["guidelines"]
        assert dataset["distribution"]["min_submitted"] == 1
        shown = {a.name: {d["name"] for d in a.http.get("me/datasets").json()["items"]} for a in (ann, judge)}
        assert shown == {ann.name: {"toxicity"}, judge.name: {"toxicity-adjudication"}}

        decision = judge.answer(copy["id"], "non_toxic")
        wait_for(lambda: way.served(id_) == ("labelled", "non_toxic"))
        judge.delete(decision)
        wait_for(lambda: way.served(id_) == ("disputed", None))
        judge.answer(copy["id"], "toxic")
        wait_for(lambda: way.served(id_) == ("labelled", "toxic"))

    listed = way.annotate("list")
    for name, workspace in (
        (ann.name, way.argilla.workspace),
        (judge.name, f"{way.argilla.workspace}_adjudication"),
    ):
        assert re.search(rf" {name} +annotator +{workspace} +1 ", listed), listed
    verified = annotate("uploads", "verify", **way.env)
    assert (verified.returncode, "toxicity-adjudication" in verified.stdout) == (0, True), verified.stdout

    way.annotate("remove", bob.name)
    assert bob.http.get("me/datasets").json()["items"] == []
    way.annotate("remove", eve.name, "--delete-account", "--yes")
    datasets_file.write_text(_DATASET.replace("dispute_extra = 1", ""))
    with start_uploader(**settings, **_SWEEPS) as uploader:
        # Without adjudication the decision stays. The deleted annotator's answer does not; the other's does.
        label = "select label, annotations from labels where text_id = %s"
        wait_for(lambda: fetch(database_url, label, id_) == [("toxic", 2)])
        assert "dataset.undefined" in uploader.log.read_text()


def test_what_the_command_line_cannot_do_it_says_and_what_it_does_is_noted(way: Way, database_url: str) -> None:
    name = f"ann_{way.argilla.workspace[-6:]}"
    way.add_annotator(name)
    owner = way.argilla.http.get("me").json()["username"]
    for arguments, changes, said in (
        (("add", " ann"), {}, "no white space around it"),
        (("add", "a\nb"), {}, "no control characters"),
        (("add", owner, "--reset-password"), {}, "is an owner of Argilla"),
        (("remove", owner, "--delete-account", "--yes"), {}, "is an owner of Argilla"),
        (("remove", "nobody"), {}, "Argilla has no user nobody"),
        (("remove", name, "--adjudicator"), {}, f"{name} is in no workspace of ours"),
        (("add", name), {"ARGILLA_API_KEY": "wrong"}, "does not know the key in ARGILLA_API_KEY"),
        (("list",), {"ARGILLA_URL": "http://127.0.0.1:1"}, "Argilla at http://127.0.0.1:1 does not answer"),
        (("list",), {"ARGILLA_URL": way.serving_url}, "answered 404"),
    ):
        result = way.run(*arguments, **changes)
        assert (result.exit_code, result.stdout, said in " ".join(result.stderr.split())) == (1, "", True), said
    asked = CliRunner().invoke(app, ["remove", name, "--delete-account"], env=way.env, input="n\n")
    assert (asked.exit_code, "and its 0 answers?" in asked.stderr) == (1, True)
    way.add_annotator(name, "--reset-password")
    way.annotate("remove", name, "--delete-account", "--yes")
    noted = fetch(
        database_url, "select action, object_ids, outcome from audit_log where program = 'cli' order by id"
    )
    assert noted == [
        ("annotator.added", [name], "done"),
        ("annotator.password_reset", [owner], "failed"),
        ("annotator.removed", [name], "failed"),
        ("annotator.password_reset", [name], "done"),
        ("annotator.deleted", [name], "done"),
    ]


@pytest.mark.soak
def test_settings_change_what_argilla_lets_change_and_refuse_the_rest(
    way: Way, start_uploader: StartUploader, add_texts: AddTexts, database_url: str, datasets_file: Path
) -> None:
    datasets_file.write_text(_DATASET + _QUESTIONS)
    [id_] = add_texts("you fool")
    settings = {"DATASETS_FILE": str(datasets_file)} | _SWEEPS
    values: dict[str, dict[str, Any]] = {
        "label": {"value": "toxic"},
        "why": {"value": "It insults."},
        "severity": {"value": 2},
        "parts": {"value": [{"label": "insult", "start": 4, "end": 8}]},
    }
    answers = {question: answer["value"] for question, answer in values.items()}
    held = "select answers from annotations where withdrawn_at is null"
    with start_uploader(**settings):
        wait_for(lambda: fetch(database_url, "select status from texts") == [("uploaded",)])
        ann = way.argilla.add_annotator("ann")
        body = {"status": "submitted", "values": values}
        record = way.record("toxicity", id_)
        ann.http.post(f"records/{record['id']}/responses", json=body).raise_for_status()
        wait_for(lambda: fetch(database_url, held) == [(answers,)])
    first = way.datasets()["toxicity"]["id"]

    changed = _QUESTIONS.replace("Why?", "Reason?").replace('"insult", "threat"', '"threat", "insult"')
    changed = changed.replace('title = "How bad?"', 'title = "How bad?"\ndescription = "3 is worst"')
    dataset = _DATASET.replace('"toxic", "non_toxic"', '"non_toxic", "toxic"')
    datasets_file.write_text(dataset + changed)
    with start_uploader(**settings):
        asked = way.argilla.http.get(f"datasets/{first}/questions").json()["items"]
    label, why, severity, parts = asked
    assert [option["value"] for option in label["settings"]["options"]] == ["non_toxic", "toxic", "unsure"]
    assert (why["title"], severity["description"]) == ("Reason?", "3 is worst")
    assert [option["value"] for option in parts["settings"]["options"]] == ["threat", "insult"]

    datasets_file.write_text(dataset + changed.replace("[1, 2, 3]", "[1, 2]"))
    with start_uploader(probe="/healthz", **settings):
        both = {("toxicity", "argilla_dataset_unfit"), ("toxicity-adjudication", "argilla_dataset_unfit")}
        wait_for(lambda: {(alert["dataset"], alert["code"]) for alert in way.alerts()} == both)
        said = next(alert["reason"] for alert in way.alerts() if alert["dataset"] == "toxicity")
        assert "the dataset toxicity in Argilla" in said
        assert "its question severity must offer 1, 2, not 1, 2, 3" in said
        for name, old in way.datasets().items():
            way.argilla.http.patch(f"datasets/{old['id']}", json={"name": f"{name}_old"}).raise_for_status()
        # As it says: another is made, and filled again, answers included.
        wait_for(lambda: "toxicity" in way.datasets() and way.alerts() == [])
        query = "select status from texts join datasets on name = dataset where uploaded_at > argilla_dataset_at"
        wait_for(lambda: fetch(database_url, query) == [("uploaded",)])
        [response] = way.record("toxicity", id_)["responses"]
        assert (response["user_id"], response["values"]) == (str(ann.id), values)
