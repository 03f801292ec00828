"""What the comparison of both versions computes."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from load_testing.compare import report
from load_testing.compare.report import LoadStep, Sent, failure_rows, fate_of, reason_of, step_row
from load_testing.compare.versions import VERSIONS, labelled_texts
from load_testing.reports.summaries import COLUMNS, Request, merge_repeats, read_rows, write_rows
from load_testing.users.checks import WrongAnswer
from load_testing.users.comment_texts import submission

LIVE_ERROR = 'status 500: {"detail":"LiveError: Only one live display may be active at once"}'


def text(number: int, seed: str = "s") -> str:
    return str(submission(seed, number)["text"])


def test_each_fate_of_a_text_is_counted() -> None:
    # 0 is well; 1 lost; 2 failed; 3 stored unnoticed; 4 stored twice; 5 waits in Postgres.
    argilla = [text(0), text(3), text(4), text(4), "of somebody else"]
    fate = fate_of([Sent("s", range(6), [0, 1, 4, 5])], argilla, [text(0), text(5), "another"])
    assert fate._asdict() == {
        "sent": 6,
        "acknowledged": 4,
        "stored": 3,
        "in_postgres": 2,
        "lost": 2,
        "failed": 1,
        "stored_unnoticed": 1,
        "doubled": 1,
    }


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), max_size=12))
def test_the_fates_add_up(texts: list[tuple[bool, int]]) -> None:
    acknowledged = [number for number, (is_acknowledged, _) in enumerate(texts) if is_acknowledged]
    argilla = [text(number) for number, (_, times) in enumerate(texts) for _ in range(times)]
    fate = fate_of([Sent("s", range(len(texts)), acknowledged)], argilla, [])
    assert fate.sent == len(texts)
    assert fate.acknowledged == len(acknowledged)
    assert fate.stored + fate.lost + fate.failed == fate.sent
    assert fate.stored == fate.acknowledged - fate.lost + fate.stored_unnoticed
    assert fate.doubled == sum(times == 2 for _, times in texts)


def test_texts_of_several_runs_are_told_apart() -> None:
    runs = [Sent("a", [0, 1], [0, 1]), Sent("b", [0, 1], [0])]
    fate = fate_of(runs, [text(0, "a"), text(1, "b")], [])
    assert (fate.sent, fate.lost, fate.stored_unnoticed) == (4, 2, 1)


def test_what_was_never_sent_cannot_be_acknowledged() -> None:
    with pytest.raises(ValueError, match="more was acknowledged"):
        fate_of([Sent("s", [0], [1])], [], [])


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (LIVE_ERROR, "500 LiveError: Only one live display may be active at once"),
        ('status 500: {"detail":"A long one, which was cut of', "500 A long one, which was cut of"),
        ("status 502: <html>", "status 502: <html>"),
        ("no answer", "no answer"),
    ],
)
def test_a_reason_names_the_exception(failure: str, reason: str) -> None:
    assert reason_of(Request(0, "POST", "a text", 1, 0, 1, failure)) == reason


def make_step(folder: Path, version: str, users: int, rows: list[tuple[float, float, str]]) -> LoadStep:
    """Write what a run leaves; `rows` are (at_s, latency_ms, failure)."""
    folder.mkdir()
    step = LoadStep(version, "ingestion", users, folder)
    quoted = [failure.replace('"', '""') for *_, failure in rows]
    lines = [f'{at},POST,a text,{ms},0,{users},"{q}"' for (at, ms, _), q in zip(rows, quoted, strict=True)]
    (folder / "requests.csv").write_text("\n".join([",".join(COLUMNS), *lines]) + "\n")
    said = {"seed": "s", "sent": list(range(len(rows))), "acknowledged": [0], "generator": {"cpu_share": 0.1}}
    (folder / "run.json").write_text(json.dumps(said))
    return step


def test_failures_make_no_step_look_faster(tmp_path: Path) -> None:
    step = make_step(tmp_path / "a", "1", 50, [(0, 500, ""), (1, 2, LIVE_ERROR), (1.5, 500, ""), (1.9, 3, "x")])
    row = step_row(step)
    assert (row["requests"], row["answered"], row["failures"]) == (4, 2, 2)
    assert (row["p50_ms"], row["seconds"], row["answered_per_second"]) == (500, 2, 1)
    assert [(r["reason"], r["requests"]) for r in failure_rows([step])] == [
        ("500 LiveError: Only one live display may be active at once", 1),
        ("x", 1),
    ]
    assert step.sent == Sent("s", [0, 1, 2, 3], [0])


def test_a_step_in_which_all_fails_has_no_latency(tmp_path: Path) -> None:
    row = step_row(make_step(tmp_path / "a", "1", 50, [(0, 1, LIVE_ERROR)]))
    assert (row["answered_per_second"], row["p50_ms"]) == (0, None)
    write_rows(tmp_path / "rows.csv", [row])
    assert read_rows(tmp_path / "rows.csv") == [row]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Rows of two steps on both versions; version 1 has no right answer at 50 users."""
    folder = tmp_path_factory.mktemp("steps")
    steps = []
    for version in ("1", "2"):
        for users in (1, 50):
            failure = LIVE_ERROR if (version, users) == ("1", 50) else ""
            steps.append(make_step(folder / f"{version}-{users}", version, users, [(0, 10.04 * users, failure)]))
    made = [step_row(step) for step in steps]
    return [*made, *({**row, "kind": "serving"} for row in made)]


@pytest.fixture(scope="module")
def drawn(rows: list[dict[str, Any]]) -> dict[str, str]:
    return report.pictures(rows, think_seconds=0.5)


def test_the_versions_stand_side_by_side(rows: list[dict[str, Any]]) -> None:
    lines = report.steps_table(rows, "ingestion").splitlines()
    assert [line.count("|") for line in lines] == [12] * 4
    assert lines[2].startswith("| 1 | 99.6 | 99.6 | 0 of 1 | 0 of 1 | 10.0 | 10.0 |")
    assert lines[3].startswith("| 50 | 0.0 | 2.0 | 1 of 1 | 0 of 1 | – | 502 |")


def test_a_step_without_a_latency_is_a_gap_in_the_picture(drawn: dict[str, str]) -> None:
    assert {name.partition("_")[2] for name in drawn} == {"answers", "latency", "failures"}
    latency = drawn["ingestion_latency"]
    assert set(re.findall(r'id="line (.*?)"', latency)) == {"v1 p50", "v1 p95", "v2 p50", "v2 p95"}
    assert "Version 1: no p99 of fewer than 100 samples (users 1, 50: n = 0 to 1)" in latency
    assert "version 2" in drawn["ingestion_failures"]


def test_no_picture_shows_two_zeros(rows: list[dict[str, Any]]) -> None:
    right = [row for row in rows if row["users"] == 1 and row["kind"] == "ingestion"]
    assert {name.partition("_")[2] for name in report.pictures(right)} == {"answers", "latency"}


def test_repeats_of_a_step_become_medians_with_a_band(rows: list[dict[str, Any]], drawn: dict[str, str]) -> None:
    once = [row for row in rows if row["kind"] == "ingestion"]
    slower = [row | {"p50_ms": row["p50_ms"] and 3 * row["p50_ms"], "answered_per_second": 0.5} for row in once]
    merged = merge_repeats([*once, *slower], ["version", "kind", "users"])
    first = merged[0]
    assert (first["version"], first["users"], first["requests"], first["answered_least"]) == ("1", 1, 2, 1)
    p50 = [first[f"p50_ms{end}"] for end in ("_least", "", "_most")]
    assert p50 == pytest.approx([10.04, 20.08, 30.12])
    assert report.steps_table(merged, "ingestion").count("\n") == 4
    assert "FillBetween" in report.pictures(merged)["ingestion_answers"]
    assert not any("FillBetween" in picture for picture in drawn.values())


def test_one_page_holds_all_tables_and_pictures(rows: list[dict[str, Any]], drawn: dict[str, str]) -> None:
    table = report.steps_table(rows, "ingestion")
    page = report.html_page(f"## POST <x>\n\n{table}\n## Failures\n\n{report.failures_table([])}", drawn)
    assert page.count("<svg ") == len(drawn) == 6
    assert page.count("<tr>") == 3
    assert "<h2>POST &lt;x&gt;</h2>" in page
    assert "<p>No request failed.</p>" in page
    assert not re.search(r'(src|href)="(?!#)', page.replace("xlink:href", ""))


def test_a_reason_cannot_break_the_table() -> None:
    row = {"version": "1", "kind": "ingestion", "users": 5, "requests": 1, "reason": "a | b\n`c`"}
    assert report.failures_table([row]).splitlines()[2] == "| 1 | 5 | ingestion | 1 | `a / b 'c'` |"
    assert report.failures_table([]) == "No request failed.\n"


def test_there_are_a_hundred_texts_of_each_label() -> None:
    rows = labelled_texts()
    assert Counter(label for _, label in rows) == {"toxic": 100, "non_toxic": 100}
    assert len({text for text, _ in rows}) == 200


def test_both_versions_are_asked_for_the_same() -> None:
    assert VERSIONS["1"].reads.keys() == VERSIONS["2"].reads.keys()
    row = {"text": "t", "label": "toxic"}
    assert VERSIONS["1"].rows_of([row]) == VERSIONS["2"].rows_of({"items": [row]}) == [row]


@pytest.mark.parametrize(
    ("status", "answer"), [(200, {"processed": 1, "failed": 0}), (201, {"processed": 0, "failed": 1})]
)
def test_version_1_must_have_stored_what_it_acknowledges(status: int, answer: dict[str, Any]) -> None:
    VERSIONS["1"].check_stored(201, {"processed": 1, "failed": 0}, "t")
    with pytest.raises(WrongAnswer):
        VERSIONS["1"].check_stored(status, answer, "t")
