"""Shingles, similarity, bands, and which texts are held."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.datasets import Dataset
from ingestion_api.enrichment.repository import (
    CANDIDATES,
    Known,
    Link,
    NewKnown,
    bands,
    decide,
    shingles,
    similarity,
)

ASK_ONCE = {"d": Dataset(labels=("a", "b"), guidelines="g", near_duplicates="ask_once")}
LINK = {"d": Dataset(labels=("a", "b"), guidelines="g", near_duplicates="link")}
LONG = "the driver of the bus number seven closed the doors right in front of me this morning"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HELLO!!!", "hello"),
        ("Hello,   world", "hello world"),
        ("STRASSE", "straße"),
        ("ｆｕｌｌ width", "full width"),
        ("हिन्दी!", "हिन्दी"),
        ("«非常感谢你。»", "非常感谢你"),
        ("you id\u200bi\u00adot\ufeff", "you idiot"),
        ("y\u034fou\u3164 idi\u2060ot", "you idiot"),
        ("you i\u0336d\u0336i\u0336o\u0336t\u0336", "you idiot"),
        ("you ìd\u0489ïöt", "you idiot"),
        ("you i\u0e47d\u064ei\u0301\u20ddot", "you idiot"),
        ("cafe\u0301", "café"),
    ],
)
def test_case_and_punctuation_make_no_difference(one: str, other: str) -> None:
    assert shingles(one) == shingles(other) != frozenset()


@pytest.mark.parametrize(
    ("one", "other"),
    [("ok", "no"), ("😂😂", "🎉🎉"), ("हिन्दी", "हिन्दा"), ("12345", "12346"), ("かき", "がき"), ("ก่อน", "กอน")],
)
def test_short_texts_that_differ_are_no_twins(one: str, other: str) -> None:
    assert similarity(shingles(one), shingles(other)) < 0.7


@pytest.mark.parametrize("text", ["!!!", "...", "\u200b", "\n"])
def test_punctuation_alone_has_no_twins(text: str) -> None:
    assert shingles(text) == frozenset()
    assert bands("d", shingles(text)) == []


def test_the_same_bands_in_every_process_and_version() -> None:
    # Stored bands are compared with new ones. If this fails, see docs/decisions/0013-enrichment.md.
    assert bands("d", shingles("You are all idiots."))[:3] == [
        6762992330143102289,
        -3492775443885267669,
        -121704502437611443,
    ]


def test_texts_stored_before_the_fold_changed_are_found() -> None:
    # What the first version stored of this text: it kept accents and split words at invisible characters.
    stored = [6029848447726088255, -4049749424876856100, 8023364023614077028]
    new = NewKnown(UUID(int=1), "d", "Tü ës ün ïdiôt fïnî, môn frèrë\u200b!")
    assert set(stored) <= set(new.sought)
    assert not set(stored) & set(new.bands)


@pytest.mark.parametrize("text", ["You are all idiots.", "非常感谢你", "हिन्दी!", "😂 ок"])
def test_what_has_no_marks_is_looked_for_once(text: str) -> None:
    new = NewKnown(UUID(int=1), "d", text)
    assert new.sought == new.bands


def test_datasets_do_not_share_bands() -> None:
    assert not set(bands("d", shingles(LONG))) & set(bands("e", shingles(LONG)))


@given(st.text(), st.text())
def test_similarity_is_a_share(one: str, other: str) -> None:
    a, b = shingles(one), shingles(other)
    if a or b:
        assert 0 <= similarity(a, b) == similarity(b, a) <= 1
    if a:
        assert similarity(a, a) == 1


@given(st.integers(0, len(LONG) - 1), st.characters(categories=["Ll"]))
def test_one_changed_letter_of_a_sentence_is_found(place: int, letter: str) -> None:
    changed = LONG[:place] + letter + LONG[place + 1 :]
    assert similarity(shingles(LONG), shingles(changed)) >= 0.8
    assert set(bands("d", shingles(LONG))) & set(bands("d", shingles(changed)))


def _new(*texts: str) -> list[NewKnown]:
    return [NewKnown(UUID(int=number), "d", text) for number, text in enumerate(texts, 1)]


def _decide(new: list[NewKnown], datasets: dict[str, Dataset], *stored: Known) -> tuple[list[Link], set[UUID]]:
    shared = {text.id: Counter({known.id: 1 for known in stored}) for text in new}
    return decide(new, shared, {known.id: known for known in stored}, datasets)


def test_twins_within_a_group_are_linked_to_the_first() -> None:
    outcome = _decide(_new("hello you", "HELLO you!", "something else"), LINK)
    assert outcome == ([(UUID(int=2), UUID(int=1), 1.0)], set())


def test_only_the_first_of_twins_is_asked() -> None:
    assert _decide(_new("hello you", "HELLO you!", "hello, you"), ASK_ONCE)[1] == {UUID(int=2), UUID(int=3)}


def test_a_text_near_held_ones_only_is_asked() -> None:
    held = Known(UUID(int=9), shingles("hello you"), asked=False)
    outcome = _decide(_new("hello you!"), ASK_ONCE, held)
    assert outcome == ([(UUID(int=1), UUID(int=9), 1.0)], set())


def test_the_twin_that_is_asked_is_linked_among_many() -> None:
    held = [Known(UUID(int=100 + n), shingles(LONG), asked=False) for n in range(CANDIDATES - 1)]
    asked = Known(UUID(int=99), shingles(LONG + " again"), asked=True)
    links, held_back = _decide(_new(LONG), ASK_ONCE, *held, asked)
    assert links[0][1] == asked.id
    assert held_back == {UUID(int=1)}


def test_similar_is_what_the_dataset_says() -> None:
    strict = {"d": LINK["d"].model_copy(update={"near_duplicate_similarity": 1.0})}
    texts = (LONG, LONG + " again")
    assert len(_decide(_new(*texts), LINK)[0]) == 1
    assert _decide(_new(*texts), strict)[0] == []


def test_a_flood_of_the_same_is_compared_with_few() -> None:
    links, _ = _decide(_new(*(f"{LONG}{'!' * n}" for n in range(300))), LINK)
    assert len(links) < 300 * 10
    assert {later for later, _, _ in links} == {UUID(int=n) for n in range(2, 301)}
