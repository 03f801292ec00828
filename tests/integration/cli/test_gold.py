"""`annotate gold`, run as users run it."""

import json
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from pyarrow import parquet

from core.text_identity import text_id
from tests.integration.cli.test_commands import annotate
from tests.xlsx import write_xlsx


def _fetch(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def _label(url: str, text: str, values: list[str]) -> None:
    """Store a text with annotators' answers."""
    id_ = text_id("toxicity", text)
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into texts (id, dataset, text, status, page_position)"
            " values (%s, 'toxicity', %s, 'uploaded', 1)",
            [id_, text],
        )
        connection.execute(
            "insert into labels (text_id, dataset, label, status, votes, annotations, labelled_at)"
            " values (%s, 'toxicity', 'toxic', 'labelled', '{}', %s, now())",
            [id_, len(values)],
        )
        for value in values:
            connection.execute(
                "insert into annotations (text_id, response_id, annotator_id, annotator, status, value,"
                " created_at, updated_at, seen_at)"
                " values (%s, gen_random_uuid(), gen_random_uuid(), 'a', 'submitted', %s,"
                " now(), now(), now())",
                [id_, value],
            )


def test_gold_texts_are_added_counted_and_removed(database_url: str, tmp_path: Path) -> None:
    _label(database_url, "known", ["toxic", "toxic", "non_toxic"])
    [(before,)] = _fetch(database_url, "select changed_xid::text::bigint from labels")
    file = tmp_path / "gold.ndjson"
    rows = [
        {"text": "  known ", "label": "toxic"},
        {"text": "new", "label": "non_toxic", "claimed_label": "toxic", "score": 0.7, "source": "forum"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    added = annotate("gold", "add", str(file), DATABASE_URL=database_url)
    assert (added.returncode, added.stdout) == (0, "2 texts are gold.\n"), added.stderr
    columns = "text, status, gold_label, claimed_label, score, source"
    assert _fetch(database_url, f"select {columns} from texts order by text") == [  # noqa: S608
        ("known", "uploaded", "toxic", None, None, None),
        ("new", "pending", "non_toxic", "toxic", 0.7, "forum"),
    ]
    # The replica learns of it.
    [(after,)] = _fetch(database_url, "select changed_xid::text::bigint from labels")
    assert after > before
    listed = annotate("gold", "list", DATABASE_URL=database_url).stdout
    assert [cell.strip() for cell in listed.splitlines()[3].split("│")[1:-1]] == [
        "toxicity",
        "2",
        "1",
        "1",
        "3",
        "66.7%",
    ]
    known, other = text_id("toxicity", "known"), text_id("toxicity", "other")
    assert str(known) in annotate("gold", "list", "--texts", DATABASE_URL=database_url, COLUMNS="200").stdout
    removed = annotate("gold", "remove", str(known), str(other), DATABASE_URL=database_url)
    assert (removed.returncode, removed.stdout) == (1, "1 texts are not gold any more.\n")
    assert str(other) in removed.stderr
    assert _fetch(database_url, "select text from texts where gold_label is not null") == [("new",)]


def test_wrong_rows_are_named_and_the_others_count(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "gold.csv"
    unknown = text_id("toxicity", "never seen")
    file.write_text(
        "text,label,score,id\ngood,toxic,,\nbad label,spam,,\n,toxic,,\nbad score,toxic,7,\n"
        f',toxic,,{unknown}\n"two\nlines",toxic,,\n'
    )
    added = annotate("gold", "add", str(file), DATABASE_URL=database_url)
    assert (added.returncode, added.stdout) == (1, "2 texts are gold.\n")
    assert [line.split(":")[0] for line in added.stderr.splitlines()] == ["row 2", "row 3", "row 4", "row 5"]
    assert _fetch(database_url, "select text from texts order by text") == [("good",), ("two\nlines",)]


def test_a_gold_file_may_be_a_table_of_any_kind(database_url: str, tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a"], "label": ["toxic"], "external_id": [7]}), tmp_path / "a.parquet")
    (tmp_path / "b.xlsx").write_bytes(write_xlsx([["text", "label"], ["b", "non_toxic"]]))
    (tmp_path / "c.csv").write_bytes("\ufefftext;label\r\nGrüße;toxic\r\n".encode())
    for name in ("a.parquet", "b.xlsx", "c.csv"):
        added = annotate("gold", "add", str(tmp_path / name), DATABASE_URL=database_url)
        assert (added.returncode, added.stdout) == (0, "1 texts are gold.\n"), added.stderr
    assert set(_fetch(database_url, "select text, gold_label, external_id from texts")) == {
        ("a", "toxic", "7"),
        ("b", "non_toxic", None),
        ("Grüße", "toxic", None),
    }


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("text,label,label", 'The column "label" is there twice.'),
        ("text,lable", 'The column "lable" is not known'),
        ("text", 'There is no column "label".'),
    ],
)
def test_wrong_columns_are_told_once(database_url: str, tmp_path: Path, header: str, words: str) -> None:
    (tmp_path / "a.csv").write_text(f"{header}\na,toxic,toxic\n")
    added = annotate("gold", "add", str(tmp_path / "a.csv"), DATABASE_URL=database_url)
    assert added.returncode == 1
    assert words in added.stderr
