"""Parser of `where` and `orderby`: translates a small part of SQL into SQL of known columns and bound values.

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

There are no functions, subqueries or comments. A column is compared with its own kind only. `like_patterns.py`
bounds each LIKE pattern.

Written by hand: our checks of columns, kinds and bounds would remain with any parser. sqlglot 30 exceeds Python's
recursion limit at the 50 levels of parentheses that we allow, and adds 37 MiB and 0.6 s to each process. lark 1.3
takes twice as long for the tree alone, and adds 9 MiB and 0.2 s. DuckDB's parser (`json_serialize_sql`) takes ten
times as long, and its tree changes with its versions.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from core.web.problems import FieldError, InvalidFields
from serving_api.columns import Kind
from serving_api.texts.parameters import Moment
from serving_api.texts.repository import Condition
from serving_api.viewer.like_patterns import canonical, like
from serving_api.viewer.split_rows import Filter, SortKey, SplitColumn

LENGTH_MAX, DEPTH_MAX = 4_000, 50  # characters, and levels of parentheses
ORDERED_MAX, LIKES_MAX = 8, 10

T = TypeVar("T")
Value = str | int | float | bool | datetime

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
_FLAGS = "true", "false"
_MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class NotUnderstood(Exception):
    """A condition or an order is wrong at a position, counted from 0."""

    def __init__(self, position: int, detail: str) -> None:
        super().__init__(f"At character {position + 1}: {detail}")


def read_filter(where: str | None, orderby: str | None, columns: Sequence[SplitColumn]) -> Filter:
    """Return the filter for a split with these columns.

    Raises:
        InvalidFields: `where` or `orderby` is wrong; both are named if both are wrong.
    """
    errors: list[FieldError] = []
    filters: list[Filter] = []
    for parameter, text, parse in (("where", where, parse_where), ("orderby", orderby, parse_orderby)):
        try:
            filters.append(Filter() if text is None else parse(text, columns))
        except NotUnderstood as error:
            errors.append(FieldError(f"invalid_{parameter}", str(error), parameter=parameter))
    if errors:
        raise InvalidFields(errors)
    conditions, order = filters
    return Filter(conditions.where, order.orderby)


def parse_where(text: str, columns: Sequence[SplitColumn]) -> Filter:
    """Return the filter of a condition.

    Raises:
        NotUnderstood: the text is no condition, is too long or too deep, or names an unknown column.
    """
    parser = _Parser(text, columns)
    where = parser.disjunction(0)
    parser.end()
    return Filter(where=where)


def parse_orderby(text: str, columns: Sequence[SplitColumn]) -> Filter:
    """Return the filter that sorts by these columns.

    Raises:
        NotUnderstood: the text is no list of columns, or names too many.
    """
    parser = _Parser(text, columns)
    keys = parser.list_of(parser.sort_key)
    parser.end()
    if len(keys) > ORDERED_MAX:
        raise NotUnderstood(0, f"names {len(keys)} columns; at most {ORDERED_MAX}.")
    return Filter(orderby=tuple(keys))


class _Parser:
    """Reads tokens from left to right; it has a method for each line of the grammar."""

    def __init__(self, text: str, columns: Sequence[SplitColumn]) -> None:
        self._tokens = _split(text)
        self._next = 0
        self._likes = 0
        self._columns = {column.name: column for column in columns}

    def end(self) -> None:
        if self._token.kind != "end":
            self._refuse("nothing more, AND, or OR")

    def disjunction(self, depth: int) -> Condition:
        if depth > DEPTH_MAX:
            raise NotUnderstood(self._token.position, f"nested more than {DEPTH_MAX} deep.")
        return self._joined("or", lambda: self._joined("and", lambda: self._negation(depth)))

    def sort_key(self) -> SortKey:
        column = self._column()
        direction = "desc" if self._takes("desc") else "asc"
        if direction == "asc":
            self._takes("asc")
        nulls = "last"
        if self._takes("nulls"):
            nulls = "first" if self._takes("first") else self._expect("last")
        return SortKey((column.sql, []), f"{direction} nulls {nulls}")

    def list_of(self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while self._takes(","):
            found.append(one())
        return found

    def _joined(self, word: str, one: Callable[[], Condition]) -> Condition:
        parts = [one()]
        while self._takes(word):
            parts.append(one())
        if len(parts) == 1:
            return parts[0]
        return f" {word} ".join(f"({sql})" for sql, _ in parts), [value for _, some in parts for value in some]

    def _negation(self, depth: int) -> Condition:
        negated = False
        while self._takes("not"):
            negated = not negated
        if self._takes("("):
            condition = self.disjunction(depth + 1)
            self._expect(")")
        else:
            condition = self._predicate()
        return _negated(condition) if negated else condition

    def _predicate(self) -> Condition:
        if not self._at_column():
            return self._turned()
        column = self._column()
        if operator := self._comparison():
            operand, values = self._operand(column)
            return f"{column.sql} {operator} {operand}", values
        if self._takes("is"):
            negated = self._takes("not")
            self._expect("null")
            condition: Condition = f"{column.sql} is null", []
        else:
            negated = self._takes("not")
            condition = self._named(column)
        return _negated(condition) if negated else condition

    def _named(self, column: SplitColumn) -> Condition:
        """Read a predicate that begins with a word."""
        if self._takes("in"):
            self._expect("(")
            values = self.list_of(lambda: self._value(column))
            self._expect(")")
            return f"{column.sql} in ({', '.join('?' * len(values))})", [*values]
        if self._takes("between"):
            low = self._value(column)
            self._expect("and")
            return f"{column.sql} between ? and ?", [low, self._value(column)]
        for word in ("like", "ilike"):
            at = self._token.position
            if self._takes(word):
                if not column.is_text:
                    raise NotUnderstood(at, f"{column.name} holds no text: compare it by =, <, > or BETWEEN.")
                return like(column.sql, self._pattern(), word == "ilike")
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

    def _turned(self) -> Condition:
        """Read a comparison whose column is on the right."""
        start = self._next
        self._skip_value()
        operator = self._comparison() or self._refuse("a comparison")
        column = self._column()
        after, self._next = self._next, start
        value, self._next = self._value(column), after
        return f"{column.sql} {_TURNED.get(operator, operator)} ?", [value]

    def _comparison(self) -> str | None:
        """Read an operator, and return it as DuckDB writes it; None if there is none."""
        operator = _COMPARISONS.get(self._token.text) if self._token.kind == "sign" else None
        if operator:
            self._advance()
        return operator

    def _skip_value(self) -> None:
        while self._takes("timestamp", "+", "-"):
            pass
        if self._token.kind not in {"number", "string"} and not self._at(*_FLAGS):
            self._refuse("a column or a value")
        self._advance()

    def _operand(self, column: SplitColumn) -> Condition:
        if not self._at_column():
            return "?", [self._value(column)]
        at = self._token.position
        other = self._column()
        if other.kind is not column.kind and not (other.is_text and column.is_text):
            raise NotUnderstood(at, f"{other.name} and {column.name} are of different kinds.")
        return other.sql, []

    def _at_column(self) -> bool:
        return self._token.kind == "quoted" or (self._token.kind == "word" and not self._at("timestamp", *_FLAGS))

    def _column(self) -> SplitColumn:
        token = self._token
        if token.kind not in {"word", "quoted"}:
            self._refuse("a column")
        name = token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text
        # As in SQL, only quoted names are case-sensitive.
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
            is_true = self._takes("true")
            if not is_true and not self._takes("false"):
                self._refuse(f"true or false, as {column.name} holds")
            return is_true
        return self._string(column)

    def _number(self, column: SplitColumn) -> int | float:
        sign = -1 if self._takes("-") else 1
        if sign == 1:
            self._takes("+")
        token = self._token
        if token.kind != "number":
            self._refuse(f"a number, as {column.name} holds")
        self._advance()
        # Longer numbers exceed 64 bits: a float is the nearest that DuckDB compares.
        whole = int(token.text) if token.text.isdigit() and len(token.text) < 20 else None
        return sign * (whole if whole is not None and whole < 2**63 else float(token.text))

    def _moment(self) -> datetime:
        self._takes("timestamp")
        token = self._token
        try:
            return _MOMENT.validate_python(self._string())
        except ValidationError as error:
            detail = "not a time as RFC 3339 has it: '2026-11-24T08:30:00Z'."
            raise NotUnderstood(token.position, detail) from error

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

    def _at(self, *words: str) -> bool:
        return self._token.kind in {"word", "sign"} and self._token.text.lower() in words

    def _takes(self, *words: str) -> bool:
        if not self._at(*words):
            return False
        self._advance()
        return True

    def _expect(self, text: str) -> str:
        if not self._takes(text):
            self._refuse(text.upper())
        return text

    def _refuse(self, expected: str) -> NoReturn:
        found = _short(self._token.text) if self._token.kind != "end" else "the end"
        raise NotUnderstood(self._token.position, f"expected {expected}, found {found}.")


def _negated(condition: Condition) -> Condition:
    return f"not ({condition[0]})", condition[1]


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
