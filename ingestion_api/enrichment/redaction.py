"""Redacts personal data and credentials in texts."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import re2
from phonenumbers import Leniency, PhoneNumberMatcher

from core.datasets import Redactable

_SHAPES = (
    r"gh[pousr]_[A-Za-z0-9]{36,255}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,255}",
    r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_\-]{20,}",  # GitLab
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}",  # AWS
    r"xox[abeoprs]-[A-Za-z0-9\-]{10,}",  # Slack
    r"xapp-[0-9]-[A-Za-z0-9\-]{10,}",
    r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    r"AIza[A-Za-z0-9_\-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_\-]{20,}",
    r"GOCSPX-[A-Za-z0-9_\-]{20,}",
    r"(?:sk|rk|pk)_(?:live|test|prod)_[A-Za-z0-9]{10,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{20,}",
    r"sk-(?:(?:ant|proj|svcacct)-[A-Za-z0-9_\-]{20,}|[A-Za-z0-9]{32,})",  # Anthropic, OpenAI
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_\-]{50,}",
    r"SG\.[A-Za-z0-9_\-]{16,}\.[A-Za-z0-9_\-]{16,}",  # SendGrid
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"(?:AC|SK)[a-f0-9]{32}",  # Twilio
    r"[0-9]{8,10}:AA[A-Za-z0-9_\-]{33}",  # Telegram
    r"ap_[A-Za-z0-9_\-]{43}",  # our own API keys
    r"eyJ[A-Za-z0-9_\-]{8,}\.eyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*",  # JSON Web Tokens
)
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----\s*(?:[A-Za-z0-9+/=]{16,}\s*)*[A-Za-z0-9+/=]{0,76}\s*"
    r"(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?"
)

# A token begins at a word boundary: "task-force-…" contains "sk-", but is not one.
_TOKENS = re2.compile(rf"\b(?:{'|'.join(_SHAPES)})|{_PRIVATE_KEY}")

# The password of scheme://user:password@host
_CREDENTIALS = re2.compile(r"://[^\s/:@]*:([^\s/@\[\]]+)@")

# The value of key=value, key: value, "key": "value", Bearer value; the caller checks for digits and letters.
_ASSIGNED = re2.compile(
    r"(?i)(?:\b(?:[a-z0-9]+[_-])*(?:api[_-]?key|access[_-]?key|secret|token|passw(?:or)?d|pwd)[\"']?\s{0,3}[:=]\s{0,3}"
    r"[\"']?|\bbearer\s{1,3})([a-z0-9_\-.+/=~]{16,})"
)


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

# One pass is enough, except for hostile texts: a placeholder may complete a pattern next to it.
_PASSES = 5


class Unstable(Exception):
    """Each pass over a text finds something new."""


def redact(text: str, kinds: Sequence[Redactable], regions: Sequence[str]) -> tuple[str, Counter[str]]:
    """Return the text with `[email]`, `[phone]`, `[card]`, `[token]` in place of each, and counts by kind.

    Redacting the result again changes nothing.

    Raises:
        Unstable: each of five passes found something.
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
    # Tokens first: parts of them may look like other kinds.
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


def _find(pattern: Any, text: str, group: int = 0, hint: str = "") -> Iterator[Span]:
    """Yield where a group of a pattern matches. No text without `hint` matches: to look for that is fast."""
    return (match.span(group) for match in pattern.finditer(text)) if hint in text else iter(())


def _find_cards(text: str) -> Iterator[Span]:
    position = 0
    while match := _CARD.search(text, position):
        if _is_card(_NOT_A_DIGIT.sub("", match[0])):
            yield match.span()
            position = match.end()
        else:
            # The number may begin with the next group: in "2024 4111 1111 1111 1111" the year is not part of it.
            group = _FIRST_GROUP.match(text, match.start())
            position = group.end() if group else match.end()


def _is_card(digits: str) -> bool:
    """Whether an issuer gives out such a number, and its check digit is right (ISO/IEC 7812-1)."""
    if not _ISSUED.fullmatch(digits):
        return False
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


def _find_assigned(text: str) -> Iterator[Span]:
    for match in _ASSIGNED.finditer(text):
        # Plain words are not secrets.
        if any(map(str.isdigit, match[1])) and any(map(str.isalpha, match[1])):
            yield match.span(1)


_FINDERS: dict[str, list[Finder]] = {
    "token": [
        partial(_find, _TOKENS),
        partial(_find, _CREDENTIALS, group=1, hint="://"),
        _find_assigned,
    ],
    "email": [partial(_find, _EMAIL, hint="@")],
    "card": [_find_cards],
}
