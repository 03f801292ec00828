"""The language of a text."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestion_api.enrichment.enrich import tell_language

SENTENCES = {
    "en": "I have been waiting for the bus for an hour.",
    "de": "Ich warte jetzt seit einer Stunde auf den Bus.",
    "fr": "J'attends le bus depuis une heure.",
    "es": "Llevo una hora esperando el autobús.",
    "pl": "Czekam na autobus już godzinę.",
    "tr": "Bir saattir otobüs bekliyorum.",
    "ru": "Я уже час жду автобус.",
    "ar": "أنتظر الحافلة منذ ساعة.",
    "hi": "मैं एक घंटे से बस का इंतज़ार कर रहा हूँ।",
    "zh": "我已经等了一个小时的公共汽车。",
    "ja": "もう一時間もバスを待っています。",
}


@pytest.mark.parametrize(("code", "text"), SENTENCES.items())
def test_languages_are_told_apart(code: str, text: str) -> None:
    assert tell_language(text).code == code
    assert tell_language(f"{text} a.b@example.org".replace("a.b@example.org", "[email]")).code == code
    assert tell_language(text.replace(" ", "\n")).code == code


@pytest.mark.parametrize(
    "text", ["", "!!!", "12345", "😂😂😂", "http://example.org/the/house", "[email]", "x y", "lol"]
)
def test_what_tells_nothing_is_undetermined(text: str) -> None:
    assert tell_language(text).code == "und"


def test_the_beginning_decides() -> None:
    assert tell_language(SENTENCES["de"] * 20 + SENTENCES["en"] * 1000).code == "de"


def test_threads_agree() -> None:
    texts = list(SENTENCES.values()) * 20
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(tell_language, texts)) == [tell_language(text) for text in texts]


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    code, confidence = tell_language(text)
    assert 2 <= len(code) <= 3
    assert 0 <= confidence <= 1
