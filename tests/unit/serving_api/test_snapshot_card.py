"""A snapshot's card and Croissant description; foreign texts cannot break their structure."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from core.datasets import Dataset, LabelRule
from serving_api.columns import COLUMNS
from serving_api.snapshots.card import list_languages, literal, make_card
from serving_api.snapshots.croissant import make_croissant
from serving_api.snapshots.manifest import AnswerCounts, Facts, Rule, SnapshotManifest, SplitFile
from serving_api.statistics.agreement import Coefficient

HASH = "0" * 64


def split(name: str, rows: int, **more: Any) -> SplitFile:
    labels = {"toxic": rows - 1, "null": 1}
    return SplitFile(path=f"data/{name}.parquet", rows=rows, bytes=rows * 100, sha256=HASH, labels=labels, **more)


def a_manifest(**changes: Any) -> SnapshotManifest:
    manifest = SnapshotManifest(
        name="toxicity-7",
        created_at=datetime(2026, 11, 28, 14, tzinfo=UTC),
        dataset="toxicity",
        version=7,
        content_hash=HASH,
        seed=3,
        shares={"train": 0.8, "test": 0.2},
        stratified=False,
        filters={"source": "forum"},
        splits={"train": split("train", 80, memory_bytes=9000), "test": split("test", 20, memory_bytes=2000)},
    )
    return manifest.model_copy(update=changes)


def some_facts(**changes: Any) -> Facts:
    estimate = Coefficient(0.61234, 90, 0.5, 0.7)
    facts = Facts(
        guidelines="Decide.",
        labels=("toxic", "non_toxic"),
        answers_wanted=3,
        near_duplicates="link",
        license=None,
        texts=100,
        statuses={"labelled": 98, "disputed": 2},
        decided_by={"annotators": 95, "adjudicators": 5},
        rules=(Rule(name="majority", texts=100, first_version=1, last_version=1),),
        answers=AnswerCounts(total=270, fewest=1, most=4, annotators=5, adjudicators=1),
        agreement={
            "krippendorff_alpha": estimate,
            "fleiss_kappa": replace(estimate, value=None, low=None, high=None),
            "observed_agreement": estimate,
        },
        sources={"forum": 100},
        sources_total=1,
        languages={"en": 99, "und": 1},
        near_twins=4,
    )
    return facts.model_copy(update=changes)


def tokens(card: str) -> list[Token]:
    body = card.partition("\n---\n")[2]
    return MarkdownIt().enable("table").parse(body)


def shape(card: str) -> list[tuple[str, list[str]]]:
    """Return the structure of the card, without its texts."""
    return [(token.type, [child.type for child in token.children or []]) for token in tokens(card)]


def spans(card: str) -> list[str]:
    return [
        child.content for token in tokens(card) for child in token.children or [] if child.type == "code_inline"
    ]


HARMLESS = make_card(a_manifest(), some_facts())
HARMLESS_SHAPE = shape(HARMLESS)

MARKS = [
    "`",
    "```",
    "~~~",
    "---",
    "|",
    "#",
    ">",
    "-",
    "<!--",
    "</td>",
    "<script>",
    ":",
    "[x](y)",
    "\\",
    '"',
    "&amp;",
]
BREAKS = ["\n", "\r", "\r\n", "    ", "\u2028", "\u202e", "\x85", "\x00", "license: mit"]
CHARACTERS = st.characters(exclude_categories=["Cs"])
NASTY = st.lists(st.sampled_from(MARKS + BREAKS) | CHARACTERS, max_size=30).map("".join)


@given(NASTY, NASTY, NASTY)
@example("```\n---\nlicense: mit\n---\n```", "`|`\n\n# Title", "\n---\n")
@example("````\r```` x", "a|b", "` `` `")
def test_what_people_write_stays_in_its_place(guidelines: str, filtered: str, source: str) -> None:
    facts = some_facts(guidelines=guidelines, sources={source: 100})
    card = make_card(a_manifest(filters={"source": filtered}), facts)
    assert card.partition("\n---\n")[0] == HARMLESS.partition("\n---\n")[0]
    assert shape(card) == HARMLESS_SHAPE
    (block,) = [token for token in tokens(card) if token.type == "fence" and token.info == "markdown"]
    told = guidelines.strip().replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "\ufffd")
    assert block.content == f"{told}\n"
    assert {filtered, source} <= {json.loads(span) for span in spans(card) if span.startswith('"')}


@given(st.recursive(NASTY | st.integers() | st.booleans(), lambda inner: st.lists(inner, max_size=3)))
def test_a_literal_is_the_value_on_one_line(value: object) -> None:
    shown = literal(value)
    assert json.loads(shown[1:-1]) == value
    assert shown[1:-1].isprintable()
    assert not set("`|") & set(shown[1:-1])


def test_the_hub_reads_what_the_manifest_says() -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard(make_card(a_manifest(), some_facts(guidelines="\n---\nlicense: mit\n---\n")))
    data = card.data.to_dict()  # type: ignore[no-untyped-call]
    assert "license" not in data
    assert data["language"] == ["en"]
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"] == [
        {"split": "train", "path": "data/train.parquet"},
        {"split": "test", "path": "data/test.parquet"},
    ]
    info = data["dataset_info"]
    assert (info["download_size"], info["dataset_size"]) == (10_000, 11_000)
    assert [one["name"] for one in info["features"]] == [*COLUMNS]


def test_the_card_says_what_is_so() -> None:
    card = make_card(a_manifest(stratified=True), some_facts())
    assert "| `toxic` | 79 | 19 | 98 |" in card
    assert "| disputed, without a label | 1 | 1 | 2 |" in card
    assert "| Krippendorff's alpha (nominal) | 0.612 | 0.500 to 0.700 | 90 |" in card
    assert "| Fleiss' kappa | undefined |  | 90 |" in card
    assert "5 annotators gave 270 answers" in card
    assert "the seed 3" in card
    assert "Stratified: the texts of each label" in card
    other_day = datetime(2027, 1, 1, tzinfo=UTC)
    assert make_card(a_manifest(stratified=True, created_at=other_day), some_facts()) == card


def test_the_card_names_no_annotator() -> None:
    card = make_card(a_manifest(filters={"annotator": "ada-lovelace", "min_annotations": 2}), some_facts())
    assert "lovelace" not in card
    assert "- `annotator`: one annotator\n- `min_annotations`: `2`" in card


def test_a_rewritten_snapshot_says_so_and_names_no_source() -> None:
    moment = datetime(2026, 12, 1, tzinfo=UTC)
    splits = {"train": split("train", 79), "test": split("test", 20)}
    card = make_card(a_manifest(splits=splits, rewritten_at=moment), some_facts().without_sources())
    assert "99 texts, labelled by people" in card
    assert "1 text was removed from it" in card
    assert '`"forum"` |' not in card
    assert "removed from it" not in make_card(a_manifest(), some_facts())


@pytest.mark.parametrize("rule", LabelRule)
def test_every_rule_is_explained(rule: LabelRule) -> None:
    rules = (Rule(name=rule, texts=100, first_version=2, last_version=9),)
    assert f"| `{rule}` | " in make_card(a_manifest(), some_facts(rules=rules))


def test_every_way_to_treat_near_duplicates_is_explained() -> None:
    for way in ("off", "link", "ask_once"):
        dataset = Dataset.model_validate({"labels": ["a", "b"], "guidelines": "x", "near_duplicates": way})
        assert (
            "near duplicates"
            in make_card(a_manifest(), some_facts(near_duplicates=dataset.near_duplicates)).lower()
        )


def test_rare_and_unsure_languages_are_not_claimed() -> None:
    languages = {"en": 900, "de": 10, "und": 80, "fr": 9, "zh-Hant": 500}
    assert list_languages(some_facts(texts=1000, languages=languages)) == ["en", "de"]


@pytest.mark.parametrize(("license_", "missing"), [("cc-by-4.0", []), (None, ["license"])])
def test_croissant_lacks_at_most_a_licence(license_: str | None, missing: list[str]) -> None:
    document = make_croissant(a_manifest(), some_facts(license=license_))
    recommended = {"license", "citeAs", "datePublished", "version", "name", "description"}
    assert sorted(recommended - document.keys()) == missing
    assert json.loads(json.dumps(document)) == document
    assert {file["sha256"] for file in document["distribution"]} == {HASH}
    assert [file["contentSize"] for file in document["distribution"]] == ["8000 B", "2000 B"]
    ids = [node["@id"] for kind in ("distribution", "recordSet") for node in document[kind]]
    assert len({*ids}) == len(ids) == 5
