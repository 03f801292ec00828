"""The series that a PromQL expression reads: only names and matchers, as the tests need."""

import re

_WORDS = frozenset({"and", "or", "unless", "on", "ignoring", "by", "without", "offset", "bool"})
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r'(?<![\w.])([a-zA-Z_:][\w:]*)(\s*\()?(?:\{((?:"[^"]*"|[^}"])*)\})?')
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')


def selectors(expression: str) -> list[tuple[str, dict[str, str]]]:
    """Return the names of the series that it reads, each with the labels that it matches and their values."""
    found = []
    for name, call, matchers in _SELECTOR.findall(re.sub(r"\[[^\]]*\]", "", _GROUPING.sub("", expression))):
        if not call and name not in _WORDS:
            found.append((name, dict(_MATCHER.findall(matchers))))
    return found


def grouped(expression: str) -> set[str]:
    """Return the labels by which it groups or joins."""
    return {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")} - {""}
