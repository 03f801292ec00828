"""Takes e-mail addresses, phone numbers, cards and tokens out of texts, and counts them.

The time is linear in the text, whatever the text: patterns run on RE2, or have bounded repetitions only, as those
of Google's library for phone numbers do.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import re2
from phonenumbers import Leniency, PhoneNumberMatcher

from core.datasets import Redactable
from ingestion_api.enrichment.token_patterns import ASSIGNED, CREDENTIALS, TOKENS

Span = tuple[int, int]
Finder = Callable[[str], Iterator[Span]]

_EMAIL = re2.compile(r"[\pL\pM\pN._%+\-]+@[\pL\pM\pN\-]+(?:\.[\pL\pM\pN\-]+)*\.\pL{2,}")

# The groups that are printed on cards, or no groups; not within a longer number. All repetitions are bounded.
_CARD = re.compile(
    r"(?<!\d)(?:\d{4}[ .\xa0-]\d{4}[ .\xa0-]\d{4}[ .\xa0-]\d{4}(?:[ .\xa0-]\d{3})?"
    r"|\d{4}[ .\xa0-]\d{6}[ .\xa0-]\d{4,5}|\d{13,19})(?!\d)",
    re.ASCII,
)
_FIRST_GROUP = re.compile(r"\d+", re.ASCII)
_NOT_A_DIGIT = re.compile(r"\D", re.ASCII)
# Numbers that issuers give out: Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro, Mir.
_ISSUED = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}"
    r"|3(?:0[0-5]|[689]\d)\d{11}|(?:6011|64[4-9]\d|65\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
    r"|(?:50|5[6-8]|6\d)\d{10,17}|220[0-4]\d{12}",
    re.ASCII,
)

_DIGIT = re.compile(r"\d")
_LEAST_PHONE_DIGITS = 7

# One pass is enough but for texts made to need more: what is taken out may make its neighbour readable.
_PASSES = 5


class Unstable(Exception):
    """Each pass over a text finds something new."""


def redact(text: str, kinds: Sequence[Redactable], regions: Sequence[str]) -> tuple[str, Counter[str]]:
    """Return the text with `[email]`, `[phone]`, `[card]`, `[token]` in place of each, and their numbers by kind.

    Redacting the result again changes nothing.

    Raises:
        Unstable: the text was made to have no end of it.
    """
    counts: Counter[str] = Counter()
    for _ in range(_PASSES):
        found, text = _pass(text, kinds, regions)
        if not found:
            return text, counts
        counts += found
    raise Unstable


def _pass(text: str, kinds: Sequence[Redactable], regions: Sequence[str]) -> tuple[Counter[str], str]:
    counts: Counter[str] = Counter()
    # Tokens first: parts of them may look like the rest.
    for kind in ("token", "email", "card", "phone"):
        if kind in kinds:
            for find in _phone_finders(regions) if kind == "phone" else _FINDERS[kind]:
                text, count = _replace(text, find, f"[{kind}]")
                counts[kind] += count
    return +counts, text


def _replace(text: str, find: Finder, placeholder: str) -> tuple[str, int]:
    parts, end, count = [], 0, 0
    for start, next_end in find(text):
        parts += [text[end:start], placeholder]
        end, count = next_end, count + 1
    return "".join([*parts, text[end:]]), count


def _find_emails(text: str) -> Iterator[Span]:
    return (match.span() for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _find_cards(text: str) -> Iterator[Span]:
    position = 0
    while match := _CARD.search(text, position):
        if _is_card(_NOT_A_DIGIT.sub("", match[0])):
            yield match.span()
            position = match.end()
        else:
            # The number may begin with the next group: in "2024 4111 1111 1111 1111" the year is none of it.
            group = _FIRST_GROUP.match(text, match.start())
            position = group.end() if group else match.end()


def _is_card(digits: str) -> bool:
    return _ISSUED.fullmatch(digits) is not None and _luhn(digits)


def _luhn(digits: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1)."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def _phone_finders(regions: Sequence[str]) -> list[Finder]:
    # Without a region the library knows international numbers only.
    return [partial(_find_phones, region=region) for region in regions or (None,)]


def _find_phones(text: str, region: str | None) -> Iterator[Span]:
    if len(_DIGIT.findall(text)) < _LEAST_PHONE_DIGITS:
        return
    for match in PhoneNumberMatcher(text, region, leniency=Leniency.VALID):
        # Digits alone, without + or 0 in front, are an id as often as not.
        if not match.raw_string.isdigit() or match.raw_string.startswith("0"):
            yield match.start, match.end


def _find_tokens(text: str) -> Iterator[Span]:
    return (match.span() for match in TOKENS.finditer(text))


def _find_credentials(text: str) -> Iterator[Span]:
    return (match.span(1) for match in CREDENTIALS.finditer(text)) if "://" in text else iter(())


def _find_assigned(text: str) -> Iterator[Span]:
    for match in ASSIGNED.finditer(text):
        # Words are no secrets.
        if any(map(str.isdigit, match[1])) and any(map(str.isalpha, match[1])):
            yield match.span(1)


_FINDERS: dict[str, list[Finder]] = {
    "token": [_find_tokens, _find_credentials, _find_assigned],
    "email": [_find_emails],
    "card": [_find_cards],
}
