"""LIKE and ILIKE at a cost that is linear in the length of a text.

DuckDB's general LIKE backtracks: with `%_%_…` one long text keeps a thread busy for hours, and DuckDB does not
check for interrupts there. Its LIKE is linear for patterns without `_` that are known when the query is planned.
Regular expressions (RE2) are linear too.
"""

import re

from serving_api.texts.repository import Condition

PATTERN_MAX = 1_000
# DuckDB searches the segments between `%` one after the other.
PERCENTS_MAX = 8
# Each `_` may double the states of the expression's automaton, and each `%` multiplies them; with more of both,
# RE2 gives up its automaton, and a text of 64 KiB takes over 0.1 s instead of 0.001 s.
UNDERSCORES_MAX = 8
PERCENTS_WITH_UNDERSCORES_MAX = 2

_RUN = re.compile("[%_]*%[%_]*")


def canonical(pattern: str) -> str:
    """Return the pattern that means the same, with each run of `%` and `_` as underscores and then one `%`.

    Raises:
        ValueError: it is too long, or has too many wildcards; the message names the limit.
    """
    if "\0" in pattern:
        raise ValueError("a pattern may not contain NUL.")  # DuckDB's default escape character
    if len(pattern) > PATTERN_MAX:
        raise ValueError(f"a pattern may have {PATTERN_MAX} characters.")
    short = _RUN.sub(lambda run: "_" * run[0].count("_") + "%", pattern)
    percents, underscores = short.count("%"), short.count("_")
    if percents > PERCENTS_MAX or underscores > UNDERSCORES_MAX:
        raise ValueError(f"a pattern may have {PERCENTS_MAX} % and {UNDERSCORES_MAX} _.")
    if underscores and percents > PERCENTS_WITH_UNDERSCORES_MAX:
        raise ValueError(f"a pattern with _ may have {PERCENTS_WITH_UNDERSCORES_MAX} %.")
    return short


def like(expression: str, pattern: str, any_case: bool) -> Condition:
    """Return the condition that the text of an SQL expression fits a canonical pattern; null stays null."""
    text, given = (f"lower({expression})", "lower(?)") if any_case else (expression, "?")
    if "_" not in pattern:
        return f"{text} like {given}", [pattern]
    # `.` matches one character as `_` does, and with the option `s` also a line feed. Escaping adds no letters, so
    # lower() folds the expression and the pattern alike.
    regular = re.escape(pattern).replace("_", ".").replace("%", ".*")
    return f"regexp_full_match({text}, {given}, 's')", [regular]
