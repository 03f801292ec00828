"""Files as people have them, each handed in as a new user would: with one obvious command."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psycopg
import pytest
from datasets import Dataset

from tests.programs import Program, run
from tests.xlsx import write_xlsx


def annotate(*arguments: str, url: str) -> str:
    """Run a command that must succeed."""
    done = run("cli", *arguments, env={"COLUMNS": "200", "INGESTION_URL": url})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _jigsaw(path: Path) -> None:
    path.write_text(
        "id,comment_text,toxic,severe_toxic,obscene,threat,insult,identity_hate\n"
        '0000997932d777bf,"Explanation\nWhy the edits ""were"" reverted?",0,0,0,0,0,0\n'
        "0002bcb3da6cb337,You are an idiot,1,1,1,0,1,0\n"
    )


def _davidson(path: Path) -> None:
    path.write_text(
        ",count,hate_speech,offensive_language,neither,class,tweet\n"
        '0,3,0,0,3,2,"!!! RT @mayasolovely: nice day"\n1,3,0,3,0,1,you fool\n2,3,3,0,0,0,go away all of you\n'
    )


def _civil_comments(path: Path) -> None:
    frame = pd.DataFrame({"text": ["This is so cool.", "You idiots."], "toxicity": [0.0, 0.8936170212765957]})
    frame.to_parquet(path)


def _pandas(path: Path) -> None:
    frame = pd.DataFrame({"text": ["one", "two"], "label": ["toxic", None], "n": [1.0, None]})
    frame = frame[frame["text"] != "none"].set_index(pd.Index([17, 4]))
    frame.to_csv(path) if path.suffix == ".csv" else frame.to_parquet(path)


def _excel_csv(path: Path) -> None:
    path.write_bytes("\ufefftext;label;score\r\nSchöne Grüße;non_toxic;0,25\r\nDu Depp;toxic;1\r\n".encode())


def _excel(path: Path) -> None:
    path.write_bytes(
        write_xlsx([["text", "label", "score"], ["Schöne Grüße", "non_toxic", 0.25], ["Depp", "toxic", 1]])
    )


def _hugging_face(path: Path) -> None:
    rows = {"text": ["fine", "rude"], "label": [0, 1], "idx": [0, 1]}
    Dataset.from_dict(rows).to_json(path)


BINARY = ("--label-map", "0:non_toxic,1:toxic")
FILES: dict[str, tuple[str, Callable[[Path], None], tuple[str, ...], list[tuple[Any, ...]]]] = {
    "Jigsaw": (
        "train.csv",
        _jigsaw,
        ("--text", "comment_text", "--label", "toxic", *BINARY, "--external-id", "id"),
        [
            ('Explanation\nWhy the edits "were" reverted?', "non_toxic", None, "0000997932d777bf"),
            ("You are an idiot", "toxic", None, "0002bcb3da6cb337"),
        ],
    ),
    "Davidson": (
        "labeled_data.csv",
        _davidson,
        ("--text", "tweet", "--label", "class", "--label-map", "0:toxic,1:toxic,2:non_toxic"),
        [
            ("!!! RT @mayasolovely: nice day", "non_toxic", None, None),
            ("you fool", "toxic", None, None),
            ("go away all of you", "toxic", None, None),
        ],
    ),
    "Civil Comments": (
        "train.parquet",
        _civil_comments,
        ("--score", "toxicity", "--label", "toxicity", "--label-map", ">=0.5:toxic,<0.5:non_toxic"),
        [("This is so cool.", "non_toxic", 0.0, None), ("You idiots.", "toxic", 0.8936170212765957, None)],
    ),
    "pandas to_csv": ("a.csv", _pandas, (), [("one", "toxic", None, None), ("two", None, None, None)]),
    "pandas to_parquet": ("a.parquet", _pandas, (), [("one", "toxic", None, None), ("two", None, None, None)]),
    "a CSV of Excel's": (
        "Mappe1.csv",
        _excel_csv,
        (),
        [("Schöne Grüße", "non_toxic", 0.25, None), ("Du Depp", "toxic", 1.0, None)],
    ),
    "Excel": (
        "Mappe1.xlsx",
        _excel,
        (),
        [("Schöne Grüße", "non_toxic", 0.25, None), ("Depp", "toxic", 1.0, None)],
    ),
    "Hugging Face": (
        "train.json",
        _hugging_face,
        (*BINARY, "--metadata", "all"),
        [("fine", "non_toxic", None, None), ("rude", "toxic", None, None)],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_real_file_is_ingested_with_one_command(
    shared_ingestion: Program, connection: psycopg.Connection, tmp_path: Path, case: str
) -> None:
    name, write, options, expected = FILES[case]
    write(tmp_path / name)
    annotate("ingest", str(tmp_path / name), *options, url=shared_ingestion.url)
    query = "select text, claimed_label, score, external_id from texts order by sequence"
    assert connection.execute(query).fetchall() == expected


@pytest.mark.parametrize("case", FILES.keys() - {"Davidson"})
def test_a_dry_run_proposes_that_command_and_stores_nothing(
    shared_ingestion: Program, connection: psycopg.Connection, tmp_path: Path, case: str
) -> None:
    """But where three classes become two labels, which is for the user to say."""
    name, write, _, expected = FILES[case]
    write(tmp_path / name)
    shown = annotate("ingest", "--dry-run", str(tmp_path / name), url=shared_ingestion.url)
    assert connection.execute("select count(*) from texts").fetchone() == (0,)
    command = shown.rstrip().splitlines()[-1]
    assert command.startswith("annotate ingest ")
    annotate(*shlex.split(command)[1:], url=shared_ingestion.url)
    query = "select text, claimed_label from texts order by sequence"
    assert connection.execute(query).fetchall() == [(text, label) for text, label, *_ in expected]


def test_a_dry_run_shows_the_reasons_of_rejects_once(shared_ingestion: Program, tmp_path: Path) -> None:
    _davidson(tmp_path / "a.csv")
    done = run("cli", "ingest", "--dry-run", str(tmp_path / "a.csv"), env={"INGESTION_URL": shared_ingestion.url})
    assert done.returncode == 0, done.stderr
    assert 'label "2" is not one of toxic, non_toxic; map it with label_map=2:toxic' in done.stderr


def test_of_a_parquet_file_that_is_too_long_the_first_rows_are_shown(
    shared_ingestion: Program, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"comment": [os.urandom(500).hex() for _ in range(40_000)]})
    frame.to_parquet(tmp_path / "a.parquet")
    shown = annotate("ingest", "--dry-run", str(tmp_path / "a.parquet"), url=shared_ingestion.url)
    assert "Of the first rows, 1,000, 0 would be rejected." in shown
    assert shown.rstrip().endswith("a.parquet --text comment")


def test_our_own_export_comes_back(client: httpx.Client, connection: psycopg.Connection) -> None:
    row = {
        "id": "d4a7c5f0-7f0e-8c55-9a3e-0f3d6d9f1c2b",
        "dataset": "toxicity",
        "text": "You are all idiots.",
        "label": "toxic",
        "status": "labelled",
        "agreement": 1.0,
        "votes": {"toxic": 3},
        "annotations": 3,
        "source": "forum",
        "external_id": "17",
        "claimed_label": None,
        "score": 0.9,
        "metadata": {"thread": 4},
        "received_at": "2026-11-01T08:30:00Z",
        "labelled_at": "2026-11-02T08:30:00Z",
    }
    answer = client.post(
        "/texts/bulk", content=json.dumps(row), headers={"Content-Type": "application/x-ndjson"}
    ).json()
    assert (answer["accepted"], answer["errors"]) == (1, [])
    query = "select text, claimed_label, source, external_id, score, metadata from texts"
    assert connection.execute(query).fetchall() == [
        ("You are all idiots.", "toxic", "forum", "17", 0.9, {"thread": 4})
    ]
