"""Comments like real ones: a seed and a number determine text, language, length and claimed label."""

import random
from typing import Any, NamedTuple

import orjson


class _Language(NamedTuple):
    code: str
    weight: int
    space: str
    toxic: tuple[str, ...]
    harmless: tuple[str, ...]


_LANGUAGES = (
    _Language(
        "en",
        50,
        " ",
        (
            "You have no idea what you are talking about, you clown.",
            "Get lost.",
            "Nobody asked for the opinion of a halfwit like you.",
            "This whole team is a bunch of lazy idiots!",
            "Shut up and go back to where you came from…",
            "What a pathetic little liar you are, as everybody here found out long ago.",
        ),
        (
            "Thanks, that solved it.",
            "I tried the new version on two machines and it starts in half of the time.",
            "Could somebody explain the second step again?",
            "The battery lasts a day and a half if the screen is not too bright.",
            "Not what I expected, but I’ll keep it :)",
            "We went there in March, when it was quiet, and the staff took all the time in the world for us.",
        ),
    ),
    _Language(
        "de",
        10,
        " ",
        ("Du bist wirklich zu blöd für alles.", "Halt endlich die Klappe, du Versager!"),
        (
            "Bei mir läuft es seit dem Neustart wieder, danke für den Hinweis.",
            "Größe passt, Farbe wie auf dem Bild.",
            "Weiß jemand, ob das auch mit der älteren Ausführung geht?",
        ),
    ),
    _Language(
        "fr",
        8,
        " ",
        ("T'es vraiment un pauvre type.", "Ferme-la, personne ne t'a sonné, espèce de crétin !"),
        ("Livré en deux jours, très bien emballé.", "Ça marche, mais la notice n'est pas très claire…"),
    ),
    _Language(
        "es",
        8,
        " ",
        ("¡Cállate ya, payaso!", "Eres tan inútil que da vergüenza leerte."),
        ("Llegó a tiempo y funciona sin problemas.", "¿Alguien sabe cómo se cambia el idioma del menú?"),
    ),
    _Language(
        "ru",
        6,
        " ",
        ("Ты просто тупой, иди отсюда.", "Какой же бред ты несёшь, клоун!"),
        ("Спасибо, всё заработало с первого раза.", "Обновление стоит второй день, пока без замечаний."),
    ),
    _Language(
        "zh",
        8,
        "",
        ("你是不是傻子？", "滚开，没人想看你的废话！"),
        ("用了一个星期，感觉很不错。", "请问这个功能在哪里设置？", "物流很快，包装也很仔细。"),
    ),
    _Language(
        "ja",
        5,
        "",
        ("お前は本当に馬鹿だな。", "黙れ、邪魔なんだよ！"),
        ("昨日届きました。とても使いやすいです。", "説明書の三ページ目がよく分かりません。"),
    ),
    _Language(
        "ar",
        5,
        " ",
        ("أنت غبي ولا تفهم شيئا.", "اخرس يا تافه!"),
        ("شكرا جزيلا، المشكلة انحلت الآن.", "هل يوجد لون آخر من هذا المنتج؟"),
    ),
)
_WEIGHTS = [language.weight for language in _LANGUAGES]
_ENDINGS = ("", "", "", "", " 😀", " 👍🏽", " lol", " !!!", "\n\nEdit: typo")
_SOURCES = ("forum", "chat", "reviews", "support")
_TOXIC_SHARE = 0.3
_CLAIMED_SHARE = 0.7
# The last sentence is complete, so half of the comments are under 110 characters, a tenth over 270.
_MEDIAN_CHARACTERS = 65
_SPREAD = 0.95
_LONGEST = 4000


def submission(seed: str, number: int, dataset: str = "") -> dict[str, Any]:
    """Return a body for `POST /texts`; each seed and number makes another text.

    `seed` has no white space and no `/`. Without `dataset` the text has none.
    """
    chance = random.Random(f"{seed}/{number}")  # noqa: S311 - texts, no secrets
    language = chance.choices(_LANGUAGES, _WEIGHTS)[0]
    is_toxic = chance.random() < _TOXIC_SHARE
    sentences = language.toxic if is_toxic else language.harmless
    wanted = min(int(chance.lognormvariate(0, _SPREAD) * _MEDIAN_CHARACTERS), _LONGEST)
    last = text = chance.choice(sentences)
    while len(text) < wanted:
        last = chance.choice([sentence for sentence in sentences if sentence != last])
        text += language.space + last
    made: dict[str, Any] = {
        "text": f"{text}{chance.choice(_ENDINGS)} #{seed}/{number}",
        "source": chance.choice(_SOURCES),
        "external_id": f"post-{seed}-{number}",
        "metadata": {"language": language.code, "replies": chance.randrange(40)},
    }
    if chance.random() < _CLAIMED_SHARE:
        made |= {"label": "toxic" if is_toxic else "non_toxic", "score": round(chance.uniform(0.5, 1), 3)}
    return made | ({"dataset": dataset} if dataset else {})


def bulk_body(seed: str, numbers: list[int], bad_rows: int = 0, dataset: str = "") -> bytes:
    """Return these submissions as NDJSON, followed by `bad_rows` invalid rows."""
    rows = [orjson.dumps(submission(seed, number, dataset)) for number in numbers]
    return b"\n".join([*rows, *[b'{"text": " "}'] * bad_rows]) + b"\n"
