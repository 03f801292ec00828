"""Texts reach a real Argilla exactly once, whatever is wrong with their neighbours or the uploader."""

import json
from typing import Any
from uuid import UUID

import httpx
import pytest

from core.datasets import page_path
from tests.e2e.uploader.conftest import AddTexts, ArgillaSpace, StartUploader
from tests.e2e.uploader.stored import fetch, statuses
from tests.integration.cli.test_commands import annotate
from tests.programs import Program, free_port
from tests.waiting import wait_for

_HOSTILE = [
    "line one\nline two\r\nline three\u2028four",
    "<script>alert(1)</script> ![x](http://127.0.0.1/x.png)",
    "\u202eright to left \U0001f600 e\u0301",
    '{"json": [1, 2]}',
    "\u0001\u001f control",
    "x" * 65_536,
]


def _missing(uploader: Program) -> dict[str, str]:
    missing: dict[str, str] = httpx.get(f"{uploader.url}/readyz").json()["missing"]
    return missing


def _metrics(uploader: Program) -> str:
    return httpx.get(f"{uploader.url}/metrics").text


def _distinct_texts(count: int) -> list[str]:
    return [f"text {i}\nwith a second line {i % 7}" for i in range(count - len(_HOSTILE))] + _HOSTILE


@pytest.mark.parametrize(
    ("count", "kill"),
    [pytest.param(999, False, id="undisturbed", marks=pytest.mark.soak), pytest.param(700, True, id="killed")],
)
def test_each_text_becomes_one_visible_record(
    count: int,
    kill: bool,
    start_uploader: StartUploader,
    add_texts: AddTexts,
    argilla: ArgillaSpace,
    database_url: str,
) -> None:
    ids = add_texts(*_distinct_texts(count))
    if kill:
        with start_uploader() as first:
            wait_for(lambda: statuses(database_url).get("uploaded", 0) >= 250)
            first.kill()
        assert statuses(database_url)["uploaded"] < count
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": count})
    assert argilla.visible_count() == argilla.stored_count() == count
    assert argilla.record(ids[0])["fields"] == {"text": "text 0\nwith a second line 0"}
    assert [argilla.record(id_)["fields"]["text"] for id_ in ids[-len(_HOSTILE) :]] == _HOSTILE
    assert fetch(database_url, "select distinct attempts, last_error, lease_owner from texts") == [(1, None, None)]


def test_annotators_see_the_claim_and_where_a_text_comes_from(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    metadata = {"source": "theirs", "big": 2**70, "flag": True, "long": "x" * 40_000, "ratio": 0.5}
    columns: dict[str, Any] = {"claimed_label": "toxic", "score": 0.25, "source": "förum", "external_id": "7"}
    [id_] = add_texts("a text", metadata=json.dumps(metadata), **columns)
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 1})
    record = argilla.record(id_)
    shown = record["metadata"]
    assert (shown["source"], shown["external_id"], shown["metadata_source"]) == ("förum", "7", "theirs")
    assert (shown["big"], shown["flag"], len(shown["long"]), shown["ratio"]) == (str(2**70), "true", 8000, 0.5)
    [suggestion] = record["suggestions"]
    assert (suggestion["value"], suggestion["score"], suggestion["agent"]) == ("toxic", 0.25, "f_rum")
    assert record["responses"] == []


def test_a_bad_text_fails_alone(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    with start_uploader():
        path = f"datasets/{argilla.dataset()['id']}/metadata-properties"
        for kind in ("integer", "float"):
            # An admin's own filter: what does not fit it is refused.
            body = {"name": f"a_{kind}", "title": kind, "settings": {"type": kind}, "visible_for_annotators": True}
            argilla.http.post(path, json=body).raise_for_status()
    add_texts(*(f"good {i}" for i in range(100)))
    bad = add_texts("bad 1", "bad 2", metadata='{"a_integer": "many"}')
    add_texts(*(f"also good {i}" for i in range(100)), metadata='{"a_integer": 5, "a_float": 0.5}')
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 200, "failed": 2})
    failed = fetch(database_url, "select id, last_error, attempts from texts where status = 'failed'")
    assert {row[0] for row in failed} == set(bad)
    assert all("a_integer" in row[1] and row[2] == 1 for row in failed)
    assert argilla.visible_count() == 200


def test_a_second_uploader_stands_by_and_takes_over(
    start_uploader: StartUploader, add_texts: AddTexts, database_url: str
) -> None:
    lease = {"UPLOADER_LEADER_LEASE_SECONDS": "2"}
    with start_uploader(**lease) as first, start_uploader(**lease) as second:
        assert httpx.get(f"{second.url}/readyz").json()["status"] == "ok"
        first.kill()
        add_texts("a text")
        wait_for(lambda: statuses(database_url) == {"uploaded": 1}, seconds=10)


def test_the_uploader_stops_cleanly_in_the_middle_of_a_batch(
    start_uploader: StartUploader, add_texts: AddTexts, database_url: str
) -> None:
    add_texts(*(f"text {i}" for i in range(500)))
    with start_uploader(UPLOADER_STOP_SECONDS="0") as uploader:
        wait_for(lambda: "uploading" in statuses(database_url))
        uploader.process.terminate()
        assert uploader.process.wait(60) == 0
    assert "uploading" not in statuses(database_url)


def test_preparing_again_changes_only_what_the_settings_changed(
    start_uploader: StartUploader, argilla: ArgillaSpace, tmp_path: Any
) -> None:
    with start_uploader():
        first = argilla.dataset()
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(
        '[toxicity]\nlabels = ["toxic", "non_toxic"]\nanswers_wanted = 3\nguidelines = "Be brief."\n'
    )
    with start_uploader(DATASETS_FILE=str(datasets)):
        second = argilla.dataset()
    assert (first["id"], first["status"]) == (second["id"], "ready")
    link = f"**[Annotate in the recommended order]({page_path(UUID(second['id']))})**"
    assert (second["guidelines"], second["distribution"]["min_submitted"]) == (f"{link}\n\nBe brief.", 3)


def test_annotators_read_the_datasets_own_question_and_no_suggestion_where_it_is_hidden(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, tmp_path: Any
) -> None:
    [id_] = add_texts("a text", claimed_label="toxic")
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(
        '[toxicity]\nlabels = ["toxic", "non_toxic"]\nguidelines = "x"\nquestion = "Is it rude?"\n'
        'suggestions = "hidden"\n'
    )
    with start_uploader():
        path = f"datasets/{argilla.dataset()['id']}/questions"
        [question] = argilla.http.get(path).json()["items"]
        assert question["title"] == "Is this text toxic?"
        wait_for(lambda: statuses(database_url) == {"uploaded": 1})
        assert argilla.record(id_)["suggestions"] != []
    [id_] = add_texts("another", claimed_label="toxic")
    with start_uploader(DATASETS_FILE=str(datasets)):
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        [question] = argilla.http.get(path).json()["items"]
        assert question["title"] == "Is it rude?"
        assert argilla.record(id_)["suggestions"] == []


def test_a_start_with_another_file_asks_annotators_for_no_less_until_it_is_applied(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str, tmp_path: Any
) -> None:
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(
        '[toxicity]\nlabels = ["toxic", "non_toxic"]\nguidelines = "Mine."\nanswers_wanted = 3\n'
        "max_open_records = 1\n"
    )
    env = {"DATABASE_URL": database_url}
    with start_uploader(DATASETS_FILE=str(datasets)):
        pass
    assert annotate("datasets", "diff", DATASETS_FILE=str(datasets), **env).returncode == 0
    # Without DATASETS_FILE the shipped default is in force, with one answer per text.
    different = annotate("datasets", "diff", **env)
    assert different.returncode == 1
    assert "annotate datasets apply toxicity" in different.stdout
    assert "when the uploader starts" not in different.stdout  # the guidelines wait with the number of answers
    add_texts("one", "two")
    alerts = "select code from alerts where dataset = 'toxicity'"
    with start_uploader():
        wait_for(lambda: fetch(database_url, alerts) == [("settings_lowered",)])
        # The work goes on, with the former limit of open records.
        wait_for(lambda: statuses(database_url) == {"uploaded": 1, "pending": 1})
        dataset = argilla.dataset()
        assert dataset["distribution"]["min_submitted"] == 3
        assert dataset["guidelines"].endswith("Mine.")
        assert fetch(database_url, "select answers_wanted from datasets") == [(3,)]
        assert annotate("datasets", "apply", "toxicity", **env).returncode == 0
        wait_for(lambda: argilla.dataset()["distribution"]["min_submitted"] == 1)
        wait_for(lambda: fetch(database_url, "select answers_wanted from datasets") == [(1,)])
        wait_for(lambda: fetch(database_url, alerts) == [])
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
    assert annotate("datasets", "diff", **env).returncode == 0
    entries = fetch(
        database_url,
        "select actor, details ->> 'answers_wanted_before', details ->> 'answers_wanted' from audit_log"
        " where action = 'argilla.changed' and details -> 'changed' ? 'distribution' order by id",
    )
    assert entries == [("uploader", "3", "1")]
    approved = "select actor_kind, object_ids from audit_log where action = 'settings.approved'"
    assert fetch(database_url, approved) == [("account", ["toxicity"])]
    listed = annotate("audit", "--action", "argilla.changed", **env).stdout
    assert "uploader" in listed
    assert "PATCH" in listed


def test_a_dataset_that_does_not_fit_is_named_by_readyz(
    start_uploader: StartUploader, add_texts: AddTexts, database_url: str, tmp_path: Any
) -> None:
    with start_uploader():
        pass
    datasets = tmp_path / "datasets.toml"
    datasets.write_text(
        '[toxicity]\nlabels = ["bad", "good"]\nguidelines = "x"\n[other]\nlabels = ["a", "b"]\nguidelines = "x"\n'
    )
    add_texts("a text")
    with start_uploader(probe="/healthz", DATASETS_FILE=str(datasets)) as uploader:
        wait_for(lambda: _missing(uploader).keys() == {"dataset toxicity"}, seconds=10)
        assert "does not fit" in _missing(uploader)["dataset toxicity"]
    assert statuses(database_url) == {"pending": 1}


def test_a_dataset_deleted_in_argilla_is_made_again_for_new_texts(
    start_uploader: StartUploader, add_texts: AddTexts, argilla: ArgillaSpace, database_url: str
) -> None:
    add_texts("before")
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 1})
        deleted = argilla.dataset()["id"]
        argilla.http.delete(f"datasets/{deleted}").raise_for_status()
        [id_] = add_texts("after")
        wait_for(lambda: statuses(database_url) == {"uploaded": 2})
        assert argilla.dataset()["id"] != deleted
        assert argilla.record(id_)["fields"] == {"text": "after"}


def test_a_withdrawn_key_stops_the_uploader_without_using_up_attempts(
    start_uploader: StartUploader, add_texts: AddTexts, database_url: str
) -> None:
    add_texts("a text")
    with start_uploader(probe="/healthz", ARGILLA_API_KEY="wrong") as uploader:
        wait_for(lambda: all("401" in reason for reason in _missing(uploader).values()), seconds=10)
        assert _missing(uploader).keys() == {"argilla", "dataset toxicity"}
        alerts = (
            "select distinct code from alerts where dataset = 'toxicity' and reason like '%%Set ARGILLA_API_KEY%%'"
        )
        wait_for(lambda: fetch(database_url, alerts) == [("argilla_key_unknown",)])
        assert 'uploader_argilla_circuit_state{uploader_argilla_circuit_state="closed"} 1.0' in _metrics(uploader)
    with start_uploader():
        wait_for(lambda: statuses(database_url) == {"uploaded": 1})
        wait_for(lambda: fetch(database_url, "select * from alerts") == [])


def test_while_argilla_is_away_the_circuit_is_open(
    start_uploader: StartUploader, add_texts: AddTexts, database_url: str
) -> None:
    add_texts("a text")
    away = f"http://127.0.0.1:{free_port()}"
    with start_uploader(probe="/healthz", ARGILLA_URL=away) as uploader:
        state = 'uploader_argilla_circuit_state{uploader_argilla_circuit_state="open"} 1.0'
        wait_for(lambda: state in _metrics(uploader))
        wait_for(lambda: "Argilla does not answer" in _missing(uploader).get("argilla", ""))
    assert fetch(database_url, "select * from alerts") == []
    assert fetch(database_url, "select status, attempts from texts") == [("pending", 0)]
