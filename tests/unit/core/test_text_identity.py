"""The id of a text must never change: stored rows and clients rely on it."""

import re
import unicodedata
import uuid

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from core.text_identity import BEFORE_ALL, IGNORABLE, TEXT_BYTES, is_visible, normalise, text_id

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize(
    ("dataset", "text", "expected"),
    [
        ("toxicity", "hello there", "f3d33ea1-c246-8a1e-999f-648bf7fc4de6"),
        ("toxicity", "", "ebba4690-b02b-8a1a-a686-22b474096a0e"),
        ("toxicity", "café 你好 🙂", "31132962-1358-8f76-ae3e-d03f47dbde79"),
        ("spam", "hello there", "8fdb8ea9-36be-83db-bef3-635122b80e7e"),
    ],
)
def test_ids_are_fixed(dataset: str, text: str, expected: str) -> None:
    assert str(text_id(dataset, text)) == expected


@pytest.mark.parametrize("text", ["ﬁne", "①", "H₂O", "ｆｕｌｌ", "½", "a\u00a0b", "Ångström"])
def test_characters_that_only_look_alike_stay_apart(text: str) -> None:
    """Compatibility forms mean something else: NFC keeps them, NFKC would not."""
    assert normalise(text) == text


def test_composed_and_decomposed_characters_are_stored_composed() -> None:
    assert normalise(" e\u0301\u0323\n") == "ẹ́"


@given(TEXTS)
def test_ids_are_uuids_of_version_8(text: str) -> None:
    id_ = text_id("toxicity", text)
    assert (id_.version, id_.variant) == (8, uuid.RFC_4122)


@given(TEXTS)
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(TEXTS, st.text(" \t\r\n\u00a0\u2003\u3000"))
def test_outer_white_space_and_composition_do_not_matter(text: str, space: str) -> None:
    assert normalise(space + text + space) == normalise(text)
    assert normalise(unicodedata.normalize("NFD", text)) == normalise(unicodedata.normalize("NFC", text))


def test_a_text_may_have_64_kib() -> None:
    assert TEXT_BYTES == 65_536


@given(TEXTS)
def test_a_walk_by_id_begins_before_every_text(text: str) -> None:
    assert text_id("toxicity", text) > BEFORE_ALL


@given(TEXTS, TEXTS)
def test_dataset_and_text_cannot_be_shifted_into_each_other(dataset: str, text: str) -> None:
    assert text_id(dataset + "x", text) != text_id(dataset, "x" + text)


def test_ignorable_is_what_unicode_says() -> None:
    """Python's `unicodedata` lacks the property, so the ranges are written out."""
    characters = "".join(map(chr, range(0x110000)))
    listed = re.findall(f"[{IGNORABLE}]", characters)
    assert listed == regex.findall(r"\p{Default_Ignorable_Code_Point}", characters)


INVISIBLE = (
    "", " ", "\u200b", "\ufeff", "\u3164", "\u2800", "\u115f\u1160", "\uffa0", "\xad", "\ufe0f", "\x01\x7f",
    "\u180e", "\u2066\u2069", "\U000e0041", "\u034f", "\U0001d159", "\U00013441", "\u200b \u3000\t",
)  # fmt: skip
VISIBLE = ("a\u200b", "\u200b.", "\u2801", "☺\ufe0f", "\u0301", "\u3131", "\ufffc", "ก", "\u0600")


@pytest.mark.parametrize("text", INVISIBLE)
def test_invisible_characters_make_no_text(text: str) -> None:
    assert not is_visible(text)


@pytest.mark.parametrize("text", VISIBLE)
def test_one_visible_character_makes_a_text(text: str) -> None:
    assert is_visible(text)


@given(TEXTS)
def test_every_letter_and_digit_is_visible_unless_unicode_ignores_it(text: str) -> None:
    letters = [c for c in text if c.isalnum() and not re.fullmatch(f"[{IGNORABLE}]", c)]
    assert not letters or is_visible(text)
