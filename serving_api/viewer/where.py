"""Parser of `where` and `orderby`: a small part of SQL, read into trees of known columns and values.

    where     = and {OR and}
    and       = not {AND not}
    not       = {NOT} (predicate | "(" where ")")
    predicate = operand (= | == | <> | != | < | <= | > | >=) operand
              | column [NOT] IN "(" value {"," value} ")"
              | column [NOT] BETWEEN value AND value
              | column [NOT] (LIKE | ILIKE) string | column IS [NOT] NULL
    operand   = column | value                        at least one of the two is a column
    column    = name | "name"
    value     = 'string' | [+|-] number | TRUE | FALSE | TIMESTAMP 'string'
    orderby   = column [ASC | DESC] [NULLS (FIRST | LAST)] {"," …}

There are no functions, subqueries or comments. A column is compared with its own kind only. `conditions.py` bounds
each LIKE pattern. Kept by hand: errors name the character, and say which word or column was expected there.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from core.web.problems import FieldError, InvalidFields
from serving_api.columns import Kind
from serving_api.texts.parameters import Moment
from serving_api.viewer.conditions import (
    Among,
    Between,
    Comparison,
    Filter,
    IsNull,
    Joined,
    Like,
    Node,
    Not,
    NotUnderstood,
    Ordering,
    Value,
    canonical,
)
from serving_api.viewer.features import SplitColumn

LENGTH_MAX, DEPTH_MAX = 4_000, 50  # characters, and levels of parentheses
ORDERED_MAX, LIKES_MAX = 8, 10

T = TypeVar("T")

_COMPARISONS = {"=": "=", "==": "=", "<>": "<>", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<number> (?:[0-9]+(?:\.[0-9]*)? | \.[0-9]+) (?:[eE][+-]?[0-9]+)? )
      | (?P<string> '[^']*(?:''[^']*)*' )
      | (?P<quoted> "[^"]*(?:""[^"]*)*" )
      | (?P<word> [^\W\d]\w* )
      | (?P<sign> <= | >= | <> | != | == | [=<>(),+-] )
    )""",
    re.VERBOSE,
)
_MOMENT = TypeAdapter(Moment)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def read_filter(where: str | None, orderby: str | None, columns: Sequence[SplitColumn]) -> Filter:
    """Return the filter for a split with these columns.

    Raises:
        InvalidFields: either cannot be understood; both are named if both are wrong.
    """
    errors: list[FieldError] = []
    node: Node | None = None
    orderings: tuple[Ordering, ...] = ()
    try:
        node = None if where is None else parse_where(where, columns)
    except NotUnderstood as error:
        errors.append(FieldError("invalid_where", str(error), parameter="where"))
    try:
        orderings = () if orderby is None else parse_orderby(orderby, columns)
    except NotUnderstood as error:
        errors.append(FieldError("invalid_orderby", str(error), parameter="orderby"))
    if not errors:
        return Filter(node, orderings)
    raise InvalidFields(errors)


def parse_where(text: str, columns: Sequence[SplitColumn]) -> Node:
    """Return the tree of a condition.

    Raises:
        NotUnderstood: the text is no condition, is too long or too deep, or names an unknown column.
    """
    parser = _Parser(text, columns)
    node = parser.disjunction(0)
    parser.end()
    return node


def parse_orderby(text: str, columns: Sequence[SplitColumn]) -> tuple[Ordering, ...]:
    """Return the columns to sort by.

    Raises:
        NotUnderstood: the text is no list of columns.
    """
    parser = _Parser(text, columns)
    found = parser.list_of(parser.ordering)
    parser.end()
    if len(found) > ORDERED_MAX:
        raise NotUnderstood(0, f"names {len(found)} columns; at most {ORDERED_MAX}.")
    return tuple(found)


class _Parser:
    """Reads tokens from left to right; a method for each line of the grammar."""

    def __init__(self, text: str, columns: Sequence[SplitColumn]) -> None:
        self._tokens = _split(text)
        self._next = 0
        self._likes = 0
        self._columns = {column.name: column for column in columns}

    def end(self) -> None:
        if self._token.kind != "end":
            self._refuse("nothing more, AND, or OR")

    def disjunction(self, depth: int) -> Node:
        if depth > DEPTH_MAX:
            raise NotUnderstood(self._token.position, f"nested more than {DEPTH_MAX} deep.")
        return self._joined("or", lambda: self._joined("and", lambda: self._negation(depth)))

    def ordering(self) -> Ordering:
        column, descending = self._column(), self._takes("desc")
        if not descending:
            self._takes("asc")
        if self._takes("nulls"):
            if self._takes("first"):
                return Ordering(column, descending, nulls_first=True)
            self._expect("last")
        return Ordering(column, descending, nulls_first=False)

    def list_of(self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while self._takes(","):
            found.append(one())
        return found

    def _joined(self, word: str, one: Callable[[], Node]) -> Node:
        parts = [one()]
        while self._takes(word):
            parts.append(one())
        return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))

    def _negation(self, depth: int) -> Node:
        negated = False
        while self._takes("not"):
            negated = not negated
        if self._takes("("):
            node = self.disjunction(depth + 1)
            self._expect(")")
        else:
            node = self._predicate()
        return Not(node) if negated else node

    def _predicate(self) -> Node:
        if not self._at_column():
            return self._turned()
        column = self._column()
        operator = self._token.text if self._token.kind == "sign" else ""
        if operator in _COMPARISONS:
            self._advance()
            return Comparison(column, _COMPARISONS[operator], self._operand(column))
        if self._takes("is"):
            negated = self._takes("not")
            self._expect("null")
            return Not(IsNull(column)) if negated else IsNull(column)
        negated = self._takes("not")
        node = self._named(column)
        return Not(node) if negated else node

    def _named(self, column: SplitColumn) -> Node:
        """Read a predicate that begins with a word."""
        if self._takes("in"):
            self._expect("(")
            values = self.list_of(lambda: self._value(column))
            self._expect(")")
            return Among(column, tuple(values))
        if self._takes("between"):
            low = self._value(column)
            self._expect("and")
            return Between(column, low, self._value(column))
        for word in ("like", "ilike"):
            at = self._token.position
            if self._takes(word):
                if not column.is_text:
                    raise NotUnderstood(at, f"{column.name} holds no text: compare it by =, <, > or BETWEEN.")
                return Like(column, self._pattern(), word == "ilike")
        return self._refuse("a comparison, IN, BETWEEN, LIKE, ILIKE or IS")

    def _pattern(self) -> str:
        at = self._token.position
        self._likes += 1
        if self._likes > LIKES_MAX:
            raise NotUnderstood(at, f"a condition may have {LIKES_MAX} LIKE and ILIKE.")
        try:
            return canonical(self._string())
        except ValueError as error:
            raise NotUnderstood(at, str(error)) from error

    def _turned(self) -> Node:
        """Read a comparison whose column is on the right."""
        start = self._next
        self._skip_value()
        operator = self._token.text
        if operator not in _COMPARISONS:
            self._refuse("a comparison")
        self._advance()
        column = self._column()
        after, self._next = self._next, start
        value, self._next = self._value(column), after
        return Comparison(column, _TURNED.get(operator, _COMPARISONS[operator]), value)

    def _skip_value(self) -> None:
        if not self._takes("timestamp"):
            while self._takes("+") or self._takes("-"):
                pass
        if self._token.kind not in {"number", "string"} and not self._at_flag():
            self._refuse("a column or a value")
        self._advance()

    def _operand(self, column: SplitColumn) -> "Value | SplitColumn":
        if not self._at_column():
            return self._value(column)
        at = self._token.position
        other = self._column()
        if other.kind is not column.kind and not (other.is_text and column.is_text):
            raise NotUnderstood(at, f"{other.name} and {column.name} are of different kinds.")
        return other

    def _at_column(self) -> bool:
        if self._token.kind == "word":
            return not self._at("timestamp") and not self._at_flag()
        return self._token.kind == "quoted"

    def _at_flag(self) -> bool:
        return self._at("true") or self._at("false")

    def _column(self) -> SplitColumn:
        token = self._token
        if token.kind not in {"word", "quoted"}:
            self._refuse("a column")
        name = token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text
        # Unquoted, as in SQL, upper and lower case are the same.
        found = self._columns.get(name) or (self._columns.get(name.lower()) if token.kind == "word" else None)
        if found is None:
            known = ", ".join(self._columns)
            raise NotUnderstood(token.position, f"there is no column {_short(name)}; there are: {known}.")
        self._advance()
        return found

    def _value(self, column: SplitColumn) -> Value:
        if column.kind is Kind.NUMBER:
            return self._number(column)
        if column.kind is Kind.MOMENT:
            return self._moment()
        if column.kind is Kind.FLAG:
            if self._at_flag():
                return self._takes("true") or not self._takes("false")
            self._refuse(f"true or false, as {column.name} holds")
        return self._string(column)

    def _number(self, column: SplitColumn) -> int | float:
        sign = -1 if self._takes("-") else 1
        if sign == 1:
            self._takes("+")
        token = self._token
        if token.kind != "number":
            self._refuse(f"a number, as {column.name} holds")
        self._advance()
        # No more digits than a number of 64 bits has: longer ones are as near as a float comes.
        whole = int(token.text) if token.text.isdigit() and len(token.text) < 20 else None
        if whole is not None and whole < 2**63:
            return sign * whole
        return sign * float(token.text)

    def _moment(self) -> datetime:
        self._takes("timestamp")
        token = self._token
        try:
            moment: datetime = _MOMENT.validate_python(self._string())
        except ValidationError as error:
            raise NotUnderstood(
                token.position, "not a time as RFC 3339 has it: '2026-11-24T08:30:00Z'."
            ) from error
        return moment

    def _string(self, column: SplitColumn | None = None) -> str:
        token = self._token
        if token.kind != "string":
            self._refuse("a string in single quotes" + (f", as {column.name} holds" if column else ""))
        self._advance()
        return token.text[1:-1].replace("''", "'")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _advance(self) -> None:
        self._next += 1

    def _at(self, text: str) -> bool:
        return self._token.kind in {"word", "sign"} and self._token.text.lower() == text

    def _takes(self, text: str) -> bool:
        if not self._at(text):
            return False
        self._advance()
        return True

    def _expect(self, text: str) -> None:
        if not self._takes(text):
            self._refuse(text.upper())

    def _refuse(self, expected: str) -> NoReturn:
        found = _short(self._token.text) if self._token.kind != "end" else "the end"
        raise NotUnderstood(self._token.position, f"expected {expected}, found {found}.")


def _split(text: str) -> list[_Token]:
    if len(text) > LENGTH_MAX:
        raise NotUnderstood(LENGTH_MAX, f"longer than {LENGTH_MAX} characters.")
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            position += len(text[position:]) - len(text[position:].lstrip())
            raise NotUnderstood(position, f"{_short(text[position:])} means nothing here.")
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        position = match.end()
    return [*tokens, _Token("end", "", end)]


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "…")
