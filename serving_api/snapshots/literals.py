"""Puts what others wrote into Markdown so that it stays in its place, whatever it holds."""

import json
import re


def literal(value: object) -> str:
    """Return a value as JSON in one code span, on one line: no character of it means anything to Markdown.

    What would end the span or a cell of a table, and what cannot be seen, is escaped as JSON does it.
    """
    shown = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return f"`{''.join(c if c.isprintable() and c not in '`|' else _escape(c) for c in shown)}`"


def fenced(markdown: str) -> str:
    """Return a text in a fenced code block; the fence is longer than any row of backticks in it."""
    longest = max((len(ticks) for ticks in re.findall("`+", markdown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}markdown\n{markdown.strip()}\n{fence}"


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
