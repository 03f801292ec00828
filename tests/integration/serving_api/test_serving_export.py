"""Exports in every format, against the items of GET /texts."""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from starlette.testclient import TestClient

from tests.integration.serving_api.conftest import Serve, World
from tests.integration.serving_api.exporting import READ, Item, read_csv, without_empty_texts
from tests.integration.serving_api.labelling import Labeller

FORMULAS = ["=1+1", "  -2", '"=cmd|calc', "+3", "@SUM(A1)", "\uff1d1", "'=2", "\t9", "\u00a0=3"]
ODD_TEXTS = [
    *FORMULAS,
    "plain",
    'with "quotes", and a comma',
    "two\nlines",
    "two\r\nlines",
    "tab\tand \x01\x1f\x7f control",
    "日本語 العربية ÄRGER naïve 🙂👩‍👩‍👧",
    "\u2028\u2029\ufeff\u00ad",
    "back\\slash / \\u0041 %s {0} {} $1 ''",
    ",",
]


@pytest.fixture(scope="module")
def client(shared: World) -> TestClient:
    return shared.client


@pytest.fixture(scope="module")
def items(shared: World) -> list[Item]:
    """Odd labelled texts, the oldest label first."""
    labeller = shared.labeller
    for number, words in enumerate(ODD_TEXTS):
        optional: dict[str, Any] = {
            "source": words,
            "external_id": "" if number % 4 else words,
            "claimed_label": "toxic",
            "score": number / 19,
            "metadata_": {"a": words, "n": 12345678901234567890123, "x": 1e-9, "b": True},
        }
        columns = optional if number % 3 else {}
        enrichment = {"language": {"code": "en", "confidence": 1 / (number + 1)}} if number % 2 else {}
        id_ = labeller.add_text(words, **columns, enrichment=enrichment)
        votes = {"ada": "toxic", "bob": "non_toxic" if number % 2 else "toxic", "cleo": "toxic"}
        labeller.annotate({id_: dict(list(votes.items())[: 1 + number % 3])})
    labeller.wait_for(shared.replica)
    return listed(shared.client)


def listed(client: TestClient, **filters: Any) -> list[Item]:
    parameters: dict[str, Any] = {"limit": 1000, "order": "oldest"} | filters
    found: list[Item] = client.get("/texts", params=parameters).json()["items"]
    return found


def exported(client: TestClient, name: str, **filters: Any) -> list[Item]:
    answer = client.get(f"/export.{name}", params=filters)
    assert answer.status_code == 200, answer.text
    return READ[name](answer.content)


def test_rows_are_the_items_of_the_list(client: TestClient, items: list[Item]) -> None:
    assert len(items) == len(ODD_TEXTS)
    for name in READ:
        expected = without_empty_texts(items) if name == "csv" else items
        assert exported(client, name) == expected, name
        assert exported(client, name, order="oldest") == expected, name
        assert exported(client, name, order="newest") == expected[::-1], name
    keys = [list(row) for row in exported(client, "ndjson")]
    assert keys == [list(item) for item in items]


def test_null_and_empty_differ_in_csv(client: TestClient, items: list[Item], tmp_path: Path) -> None:
    file = tmp_path / "export.csv"
    file.write_bytes(client.get("/export.csv").content)
    read = duckdb.read_csv(file, all_varchar=True, allow_quoted_nulls=False, quotechar='"', escapechar='"')
    found = {text: (source, external_id) for text, source, external_id in read.project(
        "text, source, external_id"
    ).fetchall()}  # fmt: skip
    assert found == {item["text"]: (item["source"], item["external_id"]) for item in items}
    assert {external_id for _, external_id in found.values()} >= {None, ""}


def test_csv_for_spreadsheets_holds_no_formula(client: TestClient, items: list[Item]) -> None:
    body = client.get("/export.csv?spreadsheet=true").content
    assert body.startswith(b"\xef\xbb\xbfid,")
    escaped = [
        {name: f"'{value}" if value in FORMULAS else value for name, value in item.items()} for item in items
    ]
    assert read_csv(body) == without_empty_texts(escaped)
    plain = client.get("/export.csv").content
    assert not plain.startswith(b"\xef\xbb\xbf")
    assert read_csv(plain) == without_empty_texts(items)


def test_every_filter_is_that_of_the_list(client: TestClient, items: list[Item]) -> None:
    times = st.sampled_from([item["labelled_at"] for item in items])
    filters = st.fixed_dictionaries(
        {},
        optional={
            "dataset": st.just("toxicity"),
            "label": st.lists(st.sampled_from(["toxic", "non_toxic"]), min_size=1, max_size=3),
            "source": st.sampled_from([*ODD_TEXTS, "nowhere"]),
            "language": st.sampled_from(["en", "xx"]),
            "status": st.sampled_from(["labelled", "disputed"]),
            "annotator": st.sampled_from(["ada", "bob", "cleo", "nobody"]),
            "min_agreement": st.sampled_from([0, 0.5, 2 / 3, 1]),
            "min_annotations": st.integers(0, 4),
            "labelled_after": times,
            "labelled_before": times,
            "q": st.sampled_from(["QUOTES", "lines", "1", "日本", "'"]),
            "order": st.sampled_from(["newest", "oldest"]),
        },
    )

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(filters, st.sampled_from(["parquet", "arrow", "arrows", "ndjson"]))
    def check(chosen: dict[str, Any], name: str) -> None:
        found = [item | {"highlights": None} for item in listed(client, **chosen)]
        assert [item | {"highlights": None} for item in exported(client, name, **chosen)] == found

    check()


def test_no_row_is_a_file_all_the_same(client: TestClient, items: list[Item]) -> None:
    for name, read in READ.items():
        answer = client.get(f"/export.{name}?source=nowhere")
        assert (answer.status_code, read(answer.content)) == (200, [])
    assert client.get("/export.csv?source=nowhere").text.split(",") == [*list(items[0])[:-1], "labelled_at\r\n"]
    schema = parquet.read_schema(io.BytesIO(client.get("/export.parquet?source=nowhere").content))
    assert schema.names == list(items[0])


MEDIA_TYPES = {
    "parquet": "application/vnd.apache.parquet",
    "arrow": "application/vnd.apache.arrow.file",
    "arrows": "application/vnd.apache.arrow.stream",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
}


def test_headers_tell_the_version_and_validate(client: TestClient, items: list[Item]) -> None:
    assert items
    for name, media_type in MEDIA_TYPES.items():
        answer = client.get(f"/export.{name}")
        version = answer.headers["x-replica-version"]
        assert int(version) == client.get("/texts").json()["version"]
        assert float(answer.headers["x-replica-age"]) >= 0
        assert answer.headers["content-type"] == media_type
        assert answer.headers["content-disposition"] == f'attachment; filename="toxicity-{version}.{name}"'
        head = client.head(f"/export.{name}")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(answer.content)
        ages = ("x-replica-age", "x-request-id")
        assert {k: v for k, v in head.headers.items() if k not in ages} == {
            k: v for k, v in answer.headers.items() if k not in ages
        }
        held = client.get(f"/export.{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
        assert client.get(f"/export.{name}", headers={"Accept": "image/png"}).status_code == 406
    etags = [
        client.get(f"/export.{query}").headers["etag"]
        for query in ("csv", "csv?spreadsheet=true", "ndjson", "ndjson?order=oldest", "ndjson?q=a")
    ]
    assert len(set(etags)) == len(etags)


def test_etag_changes_with_the_version(serve: Serve, labeller: Labeller) -> None:
    labeller.add_label("one")
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        first = client.get("/export.ndjson")
        labeller.add_label("two")
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        second = client.get("/export.ndjson", headers={"If-None-Match": first.headers["etag"]})
    assert second.status_code == 200
    assert [json.loads(line)["text"] for line in second.text.splitlines()] == ["one", "two"]


def test_a_default_is_no_request(client: TestClient, items: list[Item]) -> None:
    """Swagger sends all of them."""
    assert items
    for name in READ:
        assert client.get(f"/export.{name}?match=substring").status_code == 200
    assert client.get("/export.csv?match=words").json()["code"] == "needs_q"


WRONG = {
    "x=1": "x",
    "limit=1": "limit",
    "cursor=abc": "cursor",
    "order=random": "order",
    "label=toxic&label=angry": "label",
    "dataset=other": "dataset",
    "source=a&source=b": "source",
    "q=": "q",
    "q=%00": "q",
    "min_agreement=nan": "min_agreement",
    "min_annotations=-1": "min_annotations",
    "labelled_after=yesterday": "labelled_after",
    "spreadsheet=maybe": "spreadsheet",
}


def test_wrong_parameters_are_named(client: TestClient, items: list[Item]) -> None:
    assert items
    for name in READ:
        for query, parameter in WRONG.items():
            answer = client.get(f"/export.{name}?{query}")
            assert answer.status_code == 422, (name, query)
            assert answer.json()["errors"][0]["parameter"] == parameter, (name, query)
    assert client.get("/export.csv?q=%ff").json()["code"] == "malformed_query"
    assert client.get("/export.ndjson?spreadsheet=true").status_code == 422
    assert client.get("/export.xlsx").status_code == 404


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_an_order_holds_over_all_parts(
    serve: Serve, labeller: Labeller, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving_api.exports.repository.SORTED_ROWS", 7)
    for number in range(40):
        labeller.add_label(f"text {number}")
    with labeller.engine.begin() as connection:
        # As many at one moment as bulk labelling makes.
        connection.exec_driver_sql(
            "update labels set changed_xid = pg_current_xact_id(), labelled_at = %s "
            "where text_id in (select id from texts where text like '%%2%%')",
            (datetime(2026, 11, 1, tzinfo=UTC),),
        )
    with serve() as client:
        labeller.wait_for(client.app.state.replica)  # type: ignore[attr-defined]
        assert exported(client, "ndjson", order=order) == listed(client, order=order)
